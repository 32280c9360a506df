"""Angular profiles: what a receiver expects of the powers that a user shows in the beams of the array.

>>> profiles = AngularProfiles.flat(antennas=4)
>>> profiles.power.shape, profiles.alike
(torch.Size([1, 4]), True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS_DB = 2.5  # between the power levels that stand for an unknown gain
ROUNDS = 20  # of merging, at most


@dataclass(frozen=True, eq=False)
class AngularProfiles:
    """Rows h^T turn into beams with ``basis`` [M M] (``None``: the antennas themselves); there their entries are independent,
    CN(0, power_km) with probability weight_k for all m at once: weight [K], power [K M] above 0."""

    weight: Tensor
    power: Tensor
    basis: Tensor | None = None

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

    def with_flat(self, share: float) -> AngularProfiles:
        """A profile without structure beside the others, for channels that none of them was made for."""
        level = self.mean.mean().expand(1, self.power.shape[1])
        return AngularProfiles(
            torch.cat([(1 - share) * self.weight, self.weight.new_tensor([share])]), torch.cat([self.power, level]), self.basis
        )

    def spread(self, spread_db: float) -> AngularProfiles:
        """The same where users' gains are not known: anything within ``spread_db`` around 0 dB, every level equally likely."""
        if spread_db <= 0:
            return self
        levels = torch.linspace(-spread_db / 2, spread_db / 2, math.ceil(spread_db / LEVELS_DB) + 1)
        scale = 10 ** (levels / 10)
        weight = (self.weight[:, None] / len(scale)).expand(-1, len(scale)).flatten()
        return AngularProfiles(weight, (self.power[:, None] * scale[:, None]).flatten(0, 1), self.basis)

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
        return AngularProfiles(share.sum(1)[kept], centre[kept], self.basis)

    def _nearest(self, centre: Tensor) -> Tensor:
        return (self.power @ (1 / centre).mT + centre.log().sum(1)).argmin(1)
