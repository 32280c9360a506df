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

PEAK = math.sqrt(0.5)  # of a real part of a QPSK symbol


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
        mean, spread = self._parts(torch.view_as_real(x), sigma.square()[..., None])
        return torch.view_as_complex(mean), spread.sum(-1)

    def mean_of_parts(self, parts: Tensor, var: float) -> Tensor:
        """E[x0 | x] for real parts of any shape; ``var`` is still the variance of the complex noise. For long chains of small steps."""
        if len(self.amplitudes) == 2:
            return (parts * (2 * PEAK / var)).tanh_().mul_(PEAK)
        return self._parts(parts, parts.new_tensor(var))[0]

    def _parts(self, parts: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.amplitudes.to(parts)
        if len(levels) == 2:
            mean = PEAK * torch.tanh(2 * PEAK * parts / var)
            return mean, PEAK**2 - mean.square()
        weight = torch.softmax(-(parts[..., None] - levels).square() / var[..., None], -1)
        mean = (weight * levels).sum(-1)
        return mean, (weight * (levels - mean[..., None]).square()).sum(-1)
