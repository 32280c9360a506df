"""Angular profiles: what a receiver expects of the powers that a user shows in the beams of the array.

>>> profiles = AngularProfiles.flat(antennas=4)
>>> profiles.power.shape, profiles.alike
(torch.Size([1, 4]), True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LEVELS_DB = 2.5  # between the power levels that stand for an unknown gain, at most
NEAREST, DECADE_DB = 0.04, 36.7  # of the largest distance, between two levels; loss of a decade of distance
ROUNDS = 20  # of merging, at most
FLAT = 0.27  # of the foreign channels' weight, that has no structure
WIDTH, BESIDE = 0.8, 0.02  # of the others: deviation in columns' beams, and power beside


def gain_levels(low_db: float, high_db: float) -> tuple[Tensor, Tensor]:
    """Levels [G] dB that stand for an unknown gain between two limits, and their probabilities [G]: those of users evenly spread over the
    distance (loss of 36.7 dB per decade, 3GPP TR 38.901 and P3). They lie closest at the low end, where most users are and errors happen:
    in the middle of steps of `NEAREST` of the largest distance, or of `LEVELS_DB` where that is less.

    >>> [round(level, 2) for level in gain_levels(0.0, 1.9)[0].tolist()]
    [0.3, 0.92, 1.57]
    """
    edges = [0.0]
    while edges[-1] < high_db - low_db:
        edges.append(edges[-1] + min(NEAREST * DECADE_DB / math.log(10) * 10 ** (edges[-1] / DECADE_DB), LEVELS_DB))
    inside = torch.tensor(edges, dtype=torch.float64) * ((high_db - low_db) / edges[-1] if edges[-1] else 1.0)
    if len(edges) == 1:
        return torch.tensor([low_db]), torch.ones(1)
    share = -(10 ** (-inside / DECADE_DB)).diff()
    return (low_db + (inside[1:] + inside[:-1]) / 2).float(), (share / share.sum()).float()


@dataclass(frozen=True, eq=False)
class AngularProfiles:
    """Rows h^T turn into beams with ``basis`` [M M] (``None``: the antennas themselves); there their entries are independent,
    CN(0, power_km) with probability weight_k for all m at once: weight [K], power [K M] above 0. columns: of a planar array whose basis is
    separable, beams of one row after another, by rising direction; 0 for any other basis."""

    weight: Tensor
    power: Tensor
    basis: Tensor | None = None
    columns: int = 0

    @staticmethod
    def flat(*, antennas: int) -> AngularProfiles:
        """Independent Rayleigh fading of power 1."""
        return AngularProfiles(torch.ones(1), torch.ones(1, antennas))

    @property
    def alike(self) -> bool:
        """Whether no profile tells the beams apart: then the sample covariance of the antennas says it all."""
        return bool((self.power == self.power[:, :1]).all())

    @property
    def mean(self) -> Tensor:
        """Expected power in each beam [M]."""
        return self.weight @ self.power

    def into(self, rows: Tensor) -> Tensor:
        """Antenna rows [... M] to beams."""
        return rows if self.basis is None else rows @ self.basis.to(rows)

    def with_foreign(self, share: float) -> AngularProfiles:
        """Beside the others, profiles for channels that none of them was made for, a ``share`` of all: one without structure, and where the
        columns of the array are known, one for each of their directions whatever the elevation."""
        level, antennas = self.mean.mean(), self.power.shape[1]
        power, weight = self.power.new_ones(1, antennas), self.weight.new_tensor([FLAT])
        if self.columns:
            around = torch.arange(self.columns, dtype=torch.float64)
            apart = (around[:, None] - around).abs()
            apart = torch.minimum(apart, self.columns - apart)
            bump = torch.exp(-0.5 * (apart / WIDTH).square()) + BESIDE
            bump = (bump / bump.mean(1, keepdim=True)).repeat(1, antennas // self.columns)
            power = torch.cat([power, bump.to(power)])
            weight = torch.cat([weight, weight.new_full((self.columns,), (1 - FLAT) / self.columns)])
        weight = torch.cat([(1 - share) * self.weight, share * weight / weight.sum()])
        return replace(self, weight=weight, power=torch.cat([self.power, level * power]))

    def spread(self, spread_db: float) -> AngularProfiles:
        """The same where users' gains are not known: anything within ``spread_db`` around 0 dB, every level equally likely."""
        if spread_db <= 0:
            return self
        levels = torch.linspace(-spread_db / 2, spread_db / 2, math.ceil(spread_db / LEVELS_DB) + 1)
        scale = 10 ** (levels / 10)
        weight = (self.weight[:, None] / len(scale)).expand(-1, len(scale)).flatten()
        return replace(self, weight=weight, power=(self.power[:, None] * scale[:, None]).flatten(0, 1))

    def leveled(self, low_db: float, high_db: float) -> AngularProfiles:
        """The same where users' gains are not known but lie between two limits [dB]: each profile at every one of the `gain_levels`."""
        levels, share = gain_levels(low_db, high_db)
        weight = (self.weight[:, None] * share).flatten()
        return replace(self, weight=weight, power=(self.power[:, None] * (10 ** (levels / 10))[:, None]).flatten(0, 1))

    def merged(self, components: int) -> AngularProfiles:
        """At most ``components`` profiles: each joins its nearest of a few, in what is lost of a channel's likelihood (Itakura-Saito)."""
        if components >= len(self.weight):
            return self
        centre = self.power[self.weight.argsort(descending=True, stable=True)[:components]]
        label = self._nearest(centre)
        for _ in range(ROUNDS):
            share = torch.nn.functional.one_hot(label, components).T * self.weight
            mass = share.sum(1, keepdim=True)
            centre = torch.where(mass > 0, share @ self.power / mass.clamp_min(1e-30), centre)
            before, label = label, self._nearest(centre)
            if bool((label == before).all()):
                break
        share = torch.nn.functional.one_hot(label, components).T * self.weight
        kept = share.sum(1) > 0
        return replace(self, weight=share.sum(1)[kept], power=centre[kept])

    def _nearest(self, centre: Tensor) -> Tensor:
        return (self.power @ (1 / centre).mT + centre.log().sum(1)).argmin(1)
