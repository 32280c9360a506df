"""A trained network as a prior of whole channel matrices, users x antennas, most rows of which are zero."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

TINY = 1e-30  # keeps the quotient of two vanishing powers finite


@dataclass(frozen=True, eq=False)
class LearnedMatrix:
    """``network(x [B N M], noise_var [B]) -> (mean [B N M], None)``, fully convolutional: any number of users and antennas."""

    network: nn.Module = field(repr=False)

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[X | x] [B N M] and the mean variance of the entries of each row [B N] for x = X + sigma CN(0, I), sigma a number or [B].

        The network tells no variance. That of a row follows from the power p of its mean, as if the row were Gaussian of unknown power g:
        p = g^2 / (g + sigma^2) gives g, and p sigma^2 / g is the variance; a row that the network silenced has none.
        """
        noise_var = sigma.square().expand(len(x))
        mean, _ = self.network(x, noise_var)
        power, level = mean.abs().square().mean(-1), noise_var[:, None]
        full = (power + torch.sqrt(power.square() + 4 * power * level)) / 2
        return mean, power * level / (full + TINY)
