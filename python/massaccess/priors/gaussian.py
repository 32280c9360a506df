"""Gaussian channels: the closed-form prior, where the denoiser is the Wiener filter.

>>> import torch
>>> prior = Gaussian.of(None, antennas=4, like=torch.zeros(1, dtype=torch.complex64))
>>> mean, var = prior.moments(torch.ones(1, 4) + 0j, torch.ones(1))
>>> mean[0, 0].real.item(), var.item()
(0.5, 0.5)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .beams import Beams


@dataclass(frozen=True)
class Gaussian:
    """Rows h^T with h ~ CN(0, R), R the covariance behind ``beams``; P1 eq. (17) is its score."""

    beams: Beams

    @staticmethod
    def of(covariance: Tensor | None, *, antennas: int, like: Tensor) -> Gaussian:
        """From a covariance [M M], or the identity when it is ``None``; device and dtype of ``like``."""
        return Gaussian(Beams.of(covariance, antennas=antennas, like=like))

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """As `core.ChannelPrior` says."""
        shrink = self.beams.power / (self.beams.power + noise_var)
        return shrink * x, (shrink * noise_var).expand(x.shape)

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[h | x] [... M] and the mean variance of its entries [...] for rows x [... M] = h + sigma [...] CN(0, I)."""
        mean, error = self.in_beams(self.beams.into(x), sigma.square()[..., None])
        return self.beams.back(mean), error.mean(-1)
