"""Receivers that know who is active: channel estimation, data detection, and rounds of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import MatchedFilter, Symbols
from ..errors import ConfigError, ShapeError
from ..estimation.estimate import ChannelEstimate
from ..priors.beams import Beams
from ..priors.constellation import ConstellationPrior
from .selection import Selection

SURE = 1e-6  # variance of symbols that are known


class Estimator(Protocol):
    """Channel estimation from symbols that are known, or known softly through a larger noise variance in their row."""

    def __call__(self, rx: Tensor, sent: Tensor, *, noise_var: Tensor, gain: Tensor, present: Tensor, beams: Beams) -> ChannelEstimate: ...


class Detector(Protocol):
    """Data detection from the matched filter."""

    def __call__(self, filtered: MatchedFilter, prior: ConstellationPrior) -> Symbols: ...


@dataclass(frozen=True)
class Coherent:
    """Estimates the channels of the active users from the pilots, detects the data, and repeats both on the whole frame.

    Detection counts the channel error as noise, beam by beam (P1's "Iter LMMSE+OAMP" carries R_Delta the same way); estimation takes the
    posterior means of the symbols as additional pilots, whose rows are noisier in each beam by the symbols' posterior variances times the
    users' powers there. A frame stops after ``rounds`` repetitions, or earlier once its symbols move by less than ``tolerance`` (mean
    square change of the posterior means). ``detector`` works inside the rounds, ``final`` (default: the same) gives the answer: many
    rounds of few detector steps lock fewer wrong symbols in than few rounds of many.
    ``use_cov=False`` leaves the array covariance aside: LMMSE with the identity.
    """

    estimator: Estimator
    detector: Detector
    final: Detector | None = None
    rounds: int = 0
    tolerance: float = 1e-5
    use_cov: bool = True

    def __call__(
        self, obs: Observation, *, active: Tensor | None = None, told: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``). ``told``
        [B D N]: symbols that are known, all of a user's or none, NaN where they are not.

        info: rounds [B], error_var [B N] (mean over antennas, of the channel estimate), cut [B] bool (time was up).
        """
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots = Selection.of(active)
        link = Link.of(obs, slots, Beams.of(obs.channel_cov if self.use_cov else None, antennas=obs.antennas, like=obs.pilot_rx), told=told)
        channel = link.estimate(self.estimator)
        used = torch.zeros(obs.frames, dtype=torch.long, device=active.device)
        cut = used.bool()
        if self.rounds and obs.data_len:
            channel, used, cut = self._iterate(link, channel, obs)
        symbols = link.detect(self.final or self.detector, channel)
        error_var = slots.put(channel.error.mean(-1))
        activity = active.to(obs.pilot_rx.real.dtype)
        rows = link.beams.back(channel.mean)
        return slots.estimate(activity, rows, symbols.symbols, symbols.symbol_var, rounds=used, error_var=error_var, cut=cut)

    def _iterate(self, link: Link, channel: ChannelEstimate, obs: Observation) -> tuple[ChannelEstimate, Tensor, Tensor]:
        """Rounds of detection and estimation, while there is time; frames that have settled leave the batch."""
        done_mean, done_error = channel.mean.clone(), channel.error.clone()
        used = torch.zeros(len(done_mean), dtype=torch.long, device=done_mean.device)
        left = torch.arange(len(done_mean), device=done_mean.device)
        cut = torch.zeros_like(used, dtype=torch.bool)
        before = None
        for _ in range(self.rounds):
            if obs.late:
                cut[left] = True
                break
            symbols = link.detect(self.detector, channel)
            channel = link.estimate(self.estimator, symbols, channel)
            done_mean[left], done_error[left] = channel.mean, channel.error
            used[left] += 1
            if before is not None:
                count = link.present.sum(1).clamp_min(1) * symbols.mean.shape[1]
                moving = (symbols.mean - before).abs().square().sum((1, 2)) / count > self.tolerance
                if not bool(moving.any()):
                    break
                if not bool(moving.all()):
                    left, link, channel, symbols = left[moving], link.take(moving), channel.take(moving), symbols.take(moving)
            before = symbols.mean
        return ChannelEstimate(done_mean, done_error), used, cut


def known_active(obs: Observation) -> Tensor:
    """All of [B N], if that is known."""
    if not obs.all_active:
        raise ConfigError(
            f"this receiver has to know who is active, but activity is {obs.activity}: put a detector before it, "
            "e.g. 'covariance+iterative-lmmse-ep', or make all users active"
        )
    return torch.ones(obs.frames, obs.users, dtype=torch.bool, device=obs.pilot_rx.device)


@dataclass(frozen=True)
class Link:
    """One batch turned into the beams of the array, with the slots of its active users."""

    pilot_rx: Tensor  # [B L M]
    data_rx: Tensor  # [B D M]
    pilots: Tensor  # [B L K]
    gain: Tensor  # [B K]
    present: Tensor  # [B K]
    beams: Beams
    noise_var: float
    prior: ConstellationPrior
    told: Tensor | None = None  # [B D K], the symbols of slots that need no detection, NaN in others

    @staticmethod
    def of(obs: Observation, slots: Selection, beams: Beams | None = None, *, told: Tensor | None = None) -> Link:
        """In ``beams``: without, those of the array covariance that the observation knows. ``told`` [B D N]: symbols that are known
        already, all of a user's or none, NaN where they are not."""
        beams = beams or Beams.of(obs.channel_cov, antennas=obs.antennas, like=obs.pilot_rx)
        prior = ConstellationPrior(obs.modulation)
        rx = beams.into(obs.pilot_rx), beams.into(obs.data_rx)
        known = None if told is None else slots.take(told.mT).mT
        return Link(*rx, slots.pilots(obs), slots.gain(obs), slots.present, beams, obs.linear_noise_var, prior, known)

    def take(self, rows: Tensor) -> Link:
        """The frames that ``rows`` (indices or a mask) picks."""
        cut = {name: getattr(self, name)[rows] for name in ("pilot_rx", "data_rx", "pilots", "gain", "present")}
        return replace(self, told=None if self.told is None else self.told[rows], **cut)

    def estimate(self, estimator: Estimator, soft: Symbols | None = None, previous: ChannelEstimate | None = None) -> ChannelEstimate:
        """From the pilots, or from pilots and soft symbols."""
        rx, sent, noise_var = self.known(soft, previous)
        return estimator(rx, sent, noise_var=noise_var, gain=self.gain, present=self.present, beams=self.beams)

    def known(self, soft: Symbols | None = None, previous: ChannelEstimate | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to estimate channels from: rx [B T M], symbols [B T K], noise variance [B T 1] of pilots alone, or [B T M] with soft
        symbols, whose variance meets the power of the previous estimate."""
        quiet = self.pilots.real.new_full((*self.pilots.shape[:2], 1), self.noise_var)
        if soft is None or previous is None:
            return self.pilot_rx, self.pilots, quiet
        noisy = self.noise_var + soft.var @ (previous.mean.abs().square() + previous.error)
        rx, sent = torch.cat([self.pilot_rx, self.data_rx], 1), torch.cat([self.pilots, soft.mean], 1)
        return rx, sent, torch.cat([quiet.expand(-1, -1, noisy.shape[2]), noisy], 1)

    def detect(self, detector: Detector, channel: ChannelEstimate) -> Symbols:
        """All symbols, the channel error counted as noise. Users whose symbols are known are taken away first."""
        rx, mean = self.data_rx, channel.mean
        if self.told is not None:
            sent = self.told.nan_to_num()
            rx, mean = rx - sent @ mean, mean * self.open[..., None]
        found = detector(MatchedFilter.of(rx, mean, self.noise_var + channel.error.sum(1), self.present), self.prior)
        return found if self.told is None else self._filled(found)

    def tuned(self, channel: ChannelEstimate) -> Link:
        """Itself: users are in step."""
        return self

    def track(self, channel: ChannelEstimate, soft: Symbols | None = None) -> Link:
        """Itself: users are in step."""
        return self

    @property
    def offsets(self) -> dict[str, Tensor]:
        """None: users are in step."""
        return {}

    def put(self, rows: Tensor, other: Link) -> Link:
        """Itself: nothing of it changes from round to round."""
        return self

    def unexplained(self, channel: ChannelEstimate, symbols: Symbols) -> Tensor:
        """Power that an answer leaves of the received samples over what noise and the answer's own errors should leave [B]."""
        power = channel.mean.abs().square() + channel.error
        rx, sent = torch.cat([self.pilot_rx, self.data_rx], 1), torch.cat([self.pilots, symbols.mean], 1)
        doubt = torch.cat([torch.zeros_like(self.pilots.real), symbols.var], 1)
        due = self.noise_var + doubt @ power + sent.abs().square() @ channel.error
        return ((rx - sent @ channel.mean).abs().square() / due).mean((1, 2))

    @property
    def open(self) -> Tensor:
        """Slots whose symbols are to be detected [B K] bool."""
        return torch.ones_like(self.present) if self.told is None else self.told.isnan().any(1)

    def unheard(self) -> Symbols:
        """The symbols before any detection: those that are known, and nothing of all others."""
        nothing = self.data_rx.new_zeros(*self.data_rx.shape[:2], self.present.shape[1])
        here = self.present[:, None, :].expand(nothing.shape).to(nothing.real.dtype)
        return self._filled(Symbols(nothing, here / 0, nothing, here))

    def _filled(self, found: Symbols) -> Symbols:
        if self.told is None:
            return found
        sure, sent = ~self.open[:, None, :], self.told.nan_to_num()
        mean, var = torch.where(sure, sent, found.mean), found.var.masked_fill(sure, 0)
        return Symbols(torch.where(sure, sent, found.symbols), found.symbol_var.masked_fill(sure, SURE), mean, var)
