"""The prior of a section of the channel matrix under index modulation: at most one of its rows is not zero.

>>> import torch
>>> prior = OneOfRows(activity=0.1, power=torch.ones(1))
>>> x = torch.tensor([[2.0 + 0j, 2.0], [0.1, 0.0]])
>>> prior.log_odds(x, torch.tensor(0.3)).argmax().item()
0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bernoulli_gaussian import energy_of, log_evidence

SILENCE = 1e-30  # least probability of a silent section: the odds of devices that are always active stay finite
DECADE_DB = 36.7  # path loss of a decade of distance
GRID = 16  # equally likely gains that stand for one that is not known


@dataclass(frozen=True)
class OneOfRows:
    """Sections [... Q M]: all zero with probability 1 - activity; otherwise one row, each with probability activity / Q, is CN(0, g I).

    ``power`` broadcasts to [... Q K]: the K values that g may have, equally likely; K = 1 where it is known. With Q = K = 1 this is
    `bernoulli_gaussian.BernoulliGaussian`. Independent rows of a device with Q sequences are sections of one row and activity / Q.
    """

    activity: float
    power: Tensor

    def log_odds(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log p(row q | x) / p(silent | x), [... Q], for sections x [... Q M] = x0 + sigma CN(0, I); sigma broadcasts to [... Q]."""
        return self._odds(self._evidence(energy_of(x), sigma, x.shape[-1]))

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] [... Q M] and Var[x0 | x] [... Q], the mean over the entries of a row. By Tweedie's formula Var / sigma^2 is the mean
        slope d E[x0] / dx of a row's entries, softmax over the rows of its section included."""
        energy, antennas = energy_of(x), x.shape[-1]
        evidence = self._evidence(energy, sigma, antennas)
        odds = self._odds(evidence)
        rest = torch.logsumexp(torch.cat([torch.zeros_like(odds[..., :1]), odds], -1), -1, keepdim=True)
        chosen = torch.exp(odds - rest)
        noise = sigma.square()
        shrinks = self.power / (self.power + noise[..., None])
        weight = torch.softmax(evidence, -1)
        shrink = (weight * shrinks).sum(-1)
        spread = (weight * (shrinks - shrink[..., None]).square()).sum(-1) + (1 - chosen) * shrink.square()
        return (chosen * shrink)[..., None] * x, chosen * (shrink * noise + spread * energy / antennas)

    def _evidence(self, energy: Tensor, sigma: Tensor, antennas: int) -> Tensor:
        """Of each row and power [... Q K]."""
        return log_evidence(energy[..., None], self.power, sigma.square()[..., None], antennas)

    def log_prior(self, rows: int) -> float:
        """log p(row q) / p(silent) of sections of so many rows."""
        return math.log(self.activity / rows / max(1 - self.activity, SILENCE))

    def _odds(self, evidence: Tensor) -> Tensor:
        rows, powers = evidence.shape[-2:]
        return torch.logsumexp(evidence, -1) - math.log(powers) + self.log_prior(rows)


def gain_grid(low_db: float, high_db: float) -> Tensor:
    """Gains [K], equally likely, of devices spread evenly over the distances of a cell: from ``low_db`` at its edge to ``high_db`` for the
    nearest, falling by 36.7 dB a decade of distance. One gain where the two are one.

    >>> gain_grid(0.0, 0.0).tolist(), len(gain_grid(0.0, 48.0))
    ([1.0], 16)
    """
    count = GRID if high_db > low_db else 1
    nearest = 10 ** ((low_db - high_db) / DECADE_DB)
    distance = nearest + (1 - nearest) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return 10 ** (low_db / 10) * distance.pow(-DECADE_DB / 10)
