"""Users who may be active or not, and what the whole frame says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Observation
from ..detection.linear import Symbols
from ..estimation.estimate import ChannelEstimate
from .selection import Selection

LEAST = 1e-3
"""Chance that a user keeps while there is more to come: one that was given up for wrong symbols can come back."""
LEAST_ERROR = 1e-7
"""Variance of the message of a user that is given up: without a floor it shrinks from round to round, beyond what numbers hold."""


@dataclass(frozen=True)
class Doubt:
    """chance [B K]: probability that the user in a slot is active; prior_odds: log odds of a user that nothing is known of; sure [B K]
    bool: users whose activity is no question.

    given [B K]: log odds that a detector has seen in the pilots, if they are to count as far as the symbols of the frame stay uncertain:
    the evidence below is made for symbols that are nearly known.

    A user's channel is zero with probability 1 - chance. While that is open, detection sees it with the power that it has on average,
    and estimation with the mean and variance that it has on average.
    """

    chance: Tensor
    prior_odds: float
    sure: Tensor
    given: Tensor | None = None

    @staticmethod
    def of(obs: Observation, slots: Selection, chance: Tensor) -> Doubt:
        """From probabilities [B N]."""
        here = slots.take(chance[..., None])[..., 0]
        odds = math.inf if obs.all_active else math.log(obs.activity / (1 - obs.activity))
        return Doubt(here.clamp(LEAST, 1), odds, here == 1)

    def cautious(self) -> Doubt:
        """With the chances of now as ``given``."""
        return replace(self, given=torch.logit(self.chance, LEAST))

    def take(self, rows: Tensor) -> Doubt:
        """The frames that ``rows`` (indices or a mask) picks."""
        return Doubt(self.chance[rows], self.prior_odds, self.sure[rows], None if self.given is None else self.given[rows])

    def heard(self, seen: ChannelEstimate, power: Tensor, soft: Symbols, points: int) -> Doubt:
        """After the whole frame: ``seen`` [B K M], what the samples alone say of the channels, of mean power ``power`` [B K M] if active.

        Log odds of a Gaussian channel against none, less the information in nats that the decisions took, log(``points``) for one that is
        sure: symbols are averaged over, not given, and those that fit noise best explain some of it.
        """
        chosen = math.log(points) * (1 - soft.var).clamp(0, 1).sum(1)
        odds = self.prior_odds + _evidence(seen, power) - chosen
        if self.given is not None:
            unsure = (self.chance * soft.var.mean(1)).sum(1) / self.chance.sum(1)
            odds = torch.lerp(odds, self.given, (2 * unsure).square().clamp(0, 1)[:, None])
        chance = torch.sigmoid(odds).clamp(LEAST, 1)
        return replace(self, chance=torch.where(self.sure, 1, chance))

    def message(self, known: ChannelEstimate) -> ChannelEstimate:
        """Mean and variance of channels that are ``known`` [B K M] where the user is active, and zero where it is not."""
        chance = self.chance[..., None]
        error = chance * (known.error + (1 - chance) * known.mean.abs().square())
        return ChannelEstimate(chance * known.mean, error.clamp_min(LEAST_ERROR))

    def average(self, found: ChannelEstimate) -> ChannelEstimate:
        """Channels with their mean power, active or not: what detection has to reckon with."""
        chance = self.chance[..., None]
        return ChannelEstimate(chance.sqrt() * found.mean, chance * found.error)


def _evidence(seen: ChannelEstimate, power: Tensor) -> Tensor:
    """Log odds [B K] of a Gaussian channel of mean power ``power`` against none."""
    share = power / (power + seen.error)
    return (share * seen.mean.abs().square() / seen.error + torch.log1p(-share)).sum(-1)
