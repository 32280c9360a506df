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
        noise = sigma.square()
        total = self.power + noise
        energy = x.abs().square().sum(-1)
        prior = math.log(self.activity / (1 - self.activity)) if self.activity < 1 else math.inf
        return energy * (1 / noise - 1 / total) - x.shape[-1] * torch.log(total / noise) + prior

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] [... M] and Var[x0 | x] [...], the mean over the entries of a row."""
        noise = sigma.square()
        shrink = self.power / (self.power + noise)
        awake = torch.sigmoid(self.log_odds(x, sigma))
        mean = (awake * shrink)[..., None] * x
        energy = x.abs().square().mean(-1)
        return mean, awake * shrink * noise + awake * (1 - awake) * shrink.square() * energy
