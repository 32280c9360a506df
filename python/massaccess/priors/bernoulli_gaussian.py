"""The prior of a row of the channel matrix under sporadic activity: zero, or Gaussian.

>>> import torch
>>> prior = BernoulliGaussian(activity=0.1, power=torch.ones(1))
>>> x = torch.full((1, 64), 0.01 + 0j)
>>> mean, var = prior.moments(x, torch.tensor(0.5))
>>> bool(mean.abs().max() < 1e-6)
True
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BernoulliGaussian:
    """Rows [... M] that are zero with probability 1 - activity, otherwise CN(0, power I); power broadcasts to [...]."""

    activity: float
    power: Tensor

    def log_odds(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p(active | x) / p(silent | x), [...], for rows x [... M] = x0 + sigma CN(0, I)."""
        energy = energy_of(x)
        prior = math.log(self.activity / (1 - self.activity)) if self.activity < 1 else math.inf
        return log_evidence(energy, self.power, sigma.square(), x.shape[-1]) + prior

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] [... M] and Var[x0 | x] [...], the mean over the entries of a row."""
        noise = sigma.square()
        shrink = self.power / (self.power + noise)
        awake = torch.sigmoid(self.log_odds(x, sigma))
        mean = (awake * shrink)[..., None] * x
        energy = energy_of(x) / x.shape[-1]
        return mean, awake * shrink * noise + awake * (1 - awake) * shrink.square() * energy


def energy_of(x: Tensor) -> Tensor:
    """Squared norm [...] of rows [... M]."""
    parts = torch.view_as_real(x.resolve_conj()).flatten(-2) if x.is_complex() else x
    return parts.square().sum(-1)


def log_evidence(energy: Tensor, power: Tensor, noise_var: Tensor, antennas: int) -> Tensor:
    """log p(x | active) / p(x | silent) for rows of squared norm ``energy``, of variance power + noise_var or of noise_var alone."""
    total = power + noise_var
    return energy * (1 / noise_var - 1 / total) - antennas * torch.log(total / noise_var)
