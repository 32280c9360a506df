"""The symbol prior: equally likely points of a constellation.

>>> import torch
>>> mean, var = ConstellationPrior("qpsk").moments(torch.tensor([3 + 3j]), torch.tensor([0.1]))
>>> [round(mean.real.item(), 3), round(var.item(), 3)]
[0.707, 0.0]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..forward.modulation import constellation


@dataclass(frozen=True)
class ConstellationPrior:
    """Points of ``modulation``, unit mean power. Square constellations separate into two real amplitude alphabets."""

    modulation: str

    @cached_property
    def amplitudes(self) -> Tensor:
        """Levels of one real part [A] float64, rising."""
        return torch.unique(constellation(self.modulation).points.real.double())

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] (complex) and Var[x0 | x] (real, both parts together) for x = x0 + sigma CN(0, 1), any shape; sigma broadcasts.

        With QPSK this is tanh(sqrt(2) Re x / sigma^2) / sqrt(2) per real part; P1 eq. (28) is its score.
        """
        mean, spread = self.parts(torch.view_as_real(x), sigma.square()[..., None])
        return torch.view_as_complex(mean), spread.sum(-1)

    def parts(self, parts: Tensor, var: Tensor | float) -> tuple[Tensor, Tensor]:
        """The same for real parts of any shape: mean and variance of each; ``var`` is still that of the complex noise."""
        levels = self.amplitudes.to(parts)
        if len(levels) == 2:
            peak = math.sqrt(0.5)
            mean = peak * torch.tanh(2 * peak * parts / var)
            return mean, peak**2 - mean.square()
        nearness = (parts[..., None] - levels).square()
        weight = torch.softmax(-nearness / (var[..., None] if isinstance(var, Tensor) else var), -1)
        mean = (weight * levels).sum(-1)
        return mean, (weight * (levels - mean[..., None]).square()).sum(-1)
