"""Who is active, then everything else; and, where that did not come out, once more."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core import Estimate, Observation, Receiver
from ..errors import ConfigError
from .coherent import Coherent
from .jcedd import LearnedEp
from .one_bit import QuantizedEp
from .reexamine import Account, Verdict, believed, better, checkable, cleaned, identities, put, rows, weighed

SURE = 1.0
"""Log odds from which on a user of a burst is active for certain: data are many there, and their evidence is a bound (`doubt.Doubt.heard`),
which gives up weak users that pilots alone make out."""


@dataclass(frozen=True)
class TwoStage:
    """An activity detector, then a coherent receiver for the users it found (the two stages of P1, Fig. 1).

    ``spare``: the coherent receiver also gets up to so many users a frame that the detector found more likely silent, and all with their
    probabilities, so that the whole frame decides, pilots and data; 0: the detector has the last word. Detectors are too sure of
    themselves where there are few pilots: their log odds are divided by ``temper``, and users below the probability ``low`` are left out.
    Needs a coherent receiver that weighs probabilities (`jcedd.LearnedEp`, `one_bit.QuantizedEp`).

    ``reexamine``: frames where the check sum of an active user fails, or whose ``residual`` is too large, are looked at up to so many times
    more. Users whose check holds are taken away, the detector sees what is left of the pilots, and the whole frame is received
    again, with their symbols known. The answer is kept where more users came through, or less is unexplained; a frame without progress
    is left alone, and all are when time is up. Frames too short to carry a check sum, and bursts, are not looked at again.
    """

    detector: Receiver
    coherent: Any
    spare: int = 0
    temper: float = 3.0
    low: float = 0.1
    reexamine: int = 0

    def __post_init__(self) -> None:
        if self.spare < 0 or self.reexamine < 0 or self.temper < 1 or not 0 < self.low <= 0.5:
            raise ConfigError("spare and reexamine count from 0, temper is 1 or more, and low a probability up to 0.5")
        if self.spare and not isinstance(self.coherent, LearnedEp | QuantizedEp):
            raise ConfigError("this coherent receiver takes decisions, not probabilities: pass spare=0, or use learned-ep or onebit-ep")
        if self.reexamine and not isinstance(self.coherent, LearnedEp | Coherent):
            raise ConfigError("this coherent receiver cannot be told symbols: pass reexamine=0, or use learned-ep or iterative-lmmse-ep")

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate of the coherent receiver; activity is the detector's, or with ``spare`` what the whole frame says. info of both; with
        ``reexamine`` reexamined [B]: further looks at a frame, checks [B]: check sums looked at on the way, cut [B], and
        evaluations of all looks."""
        found = self.detector(obs, generator=generator)
        obs = located(obs, found)
        odds = self._odds(found)
        chances = (
            self._candidates(odds, sure=SURE if obs.rows is not None else math.inf) if self.spare and not obs.all_active else found.active
        )
        estimate = self.coherent(obs, active=chances, generator=generator)
        activity = estimate.activity if self.spare else found.activity
        estimate = replace(estimate, activity=activity, info={**found.info, **estimate.info})
        if obs.all_active or not obs.data_len or obs.rows is not None:
            return estimate
        done = torch.zeros_like(found.active)
        if self.reexamine and checkable(obs):
            estimate, done, odds = self._again(obs, estimate, odds, generator)
        return believed(obs, estimate, done, odds) if self.spare and not obs.late else estimate

    def _candidates(self, odds: Tensor, sure: float = math.inf) -> Tensor:
        """Probabilities [B N] of log odds, zero for those left out, 1 from ``sure`` on; without ``spare`` decisions."""
        if not self.spare:
            return odds > 0
        rank = odds.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        chance = torch.sigmoid(odds).masked_fill(odds > sure, 1)
        return torch.where((chance > self.low) & (rank < (odds > 0).sum(1, keepdim=True) + self.spare), chance, 0)

    def _odds(self, found: Estimate) -> Tensor:
        """What to believe of the detector's log odds [B N]."""
        odds = found.info["log_odds"] if "log_odds" in found.info else torch.logit(found.activity, 1e-6)
        odds = odds.to(found.activity.dtype) - getattr(self.detector, "threshold", 0.0)
        return odds / (self.temper if self.spare else 1)

    def _again(
        self, obs: Observation, estimate: Estimate, odds: Tensor, generator: torch.Generator | None
    ) -> tuple[Estimate, Tensor, Tensor]:
        """The answer after further looks, the users [B N] whose check holds, and the detector's latest log odds of all others."""
        verdict, account = Verdict.of(obs, estimate), Account(estimate)
        left = verdict.again.nonzero()[:, 0]
        for _ in range(self.reexamine):
            if not len(left) or account.stopped(left, late=obs.late):
                break
            part, ok, symbols = obs.only(left), verdict.ok[left], verdict.symbols[left]
            before = rows(estimate, left)
            named = identities(part, before, ok)
            found = self.detector(cleaned(part, ok, symbols), generator=generator)
            fresh = self._odds(found)
            chances = self._candidates(weighed(fresh, named, before.active).masked_fill(ok, torch.inf))
            second = self.coherent(part, active=chances, told=symbols, generator=generator)
            new = Verdict.of(part, second)
            account.add(left, second)
            old = Verdict(ok, verdict.again[left], symbols)
            won = better(before, second, old, new)
            estimate = put(estimate, left[won], rows(second, won))
            odds = odds.index_put((left[won],), fresh[won])
            verdict.ok[left[won]], verdict.symbols[left[won]] = new.ok[won], new.symbols[won]
            left = left[won & new.again]
        return replace(estimate, info={**estimate.info, **account.info()}), verdict.ok, odds


def located(obs: Observation, found: Estimate) -> Observation:
    """With what an answer says of the users' delays and carriers (info ``delay``, ``cfo``), where the observation leaves them open."""
    told: dict[str, Any] = {}
    if obs.rows is not None:
        told |= {"user_delay": found.info["delay"]} if "delay" in found.info and obs.timing_range else {}
        told |= {"user_cfo": found.info["cfo"]} if "cfo" in found.info and obs.cfo_range else {}
    return replace(obs, **told)
