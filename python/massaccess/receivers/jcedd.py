"""The toolkit's joint channel estimation and data detection: posterior means of channels and symbols, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core import ChannelPrior, Estimate, Observation
from ..detection.linear import Symbols
from ..detection.waves import WaveEp
from ..errors import ShapeError
from ..estimation.estimate import ChannelEstimate
from ..estimation.lmmse import combine
from ..estimation.messages import cavity, damped, first_message, next_message
from ..priors.gaussian import Gaussian
from ..weights import choose
from .coherent import Detector, Link, known_active
from .doubt import Doubt
from .selection import Selection
from .waves import WaveLink

LARGEST_RESIDUAL = 1.5
"""Of what was received over what the answer leaves unexplained; above it, the Gaussian prior has a try at the frame."""

TRUSTED_MISFIT = 1.5
"""Of a user's channel, up to which the prior is believed: four standard deviations above 1 with 64 antennas."""

STEP, LAST = WaveEp(8, 0.4), WaveEp(5, 0.5)
"""Detectors of bursts, whose users are out of step: between channel estimates, and of the answer."""


@dataclass(frozen=True)
class LearnedEp:
    """Expectation propagation between received samples, a learned prior of channels and a constellation.

    The pilots and the prior first settle among themselves (``pilot_evaluations`` of the network, one evaluation being all users of a frame
    at once). Then come ``rounds``: ``turns`` of ``detector`` and linear estimation on pilots and soft symbols under the prior's last
    message, and one evaluation of the network on what the samples alone say of the channels (the cavity). Messages are Gaussian with a
    variance for every user and beam; channel messages are kept from round to round, the detector always starts afresh, or wrong symbols
    would lock in. A frame leaves, after one more linear estimate and evaluation, once its symbols move by less than ``tolerance`` (mean
    square change of the posterior means) at the beginning of a round.
    ``damping`` is the share of the new message. ``final`` gives the symbols. Without data all evaluations go into the pilots.

    ``weights`` names the prior (`weights.choose`): "auto", "gaussian", a shipped network or a file. With a Gaussian prior this is
    iterative LMMSE estimation with EP detection. Frames whose answer leaves more than `LARGEST_RESIDUAL` times the power that it
    should, or is not finite, are received again with the Gaussian prior, and the answer that explains more is kept; not when time is up.
    """

    detector: Detector | WaveEp
    final: Detector | WaveEp
    weights: str = "auto"
    pilot_evaluations: int = 2
    rounds: int = 5
    turns: int = 2
    damping: float = 1.0
    tolerance: float = 1e-5

    def __call__(
        self, obs: Observation, *, active: Tensor | None = None, told: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``). Real:
        probabilities; then the whole frame decides which of those above zero are active (`Doubt`), and the estimate says how likely.
        ``told`` [B D N]: symbols that are known, all of a user's or none, NaN where they are not.

        info: nfe (mean over frames), evaluations [B], error_var [B N] (mean over antennas), mismatch [B] (`misfit` of all users: about 1
        where the prior fits), residual [B], fallback [B] bool, cut (time was up).
        """
        if obs.rows is not None and self.detector is not STEP:
            return replace(self, detector=STEP, final=LAST)(obs, active=active, told=told, generator=generator)
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans or probabilities")
        slots = Selection.of(active > 0)
        doubt = None if active.dtype == torch.bool else Doubt.of(obs, slots, active)
        answer = self._receive(obs, slots, choose(self.weights, obs), doubt, told)
        fallback = ~(answer.residual < LARGEST_RESIDUAL) & (not answer.closed and not answer.cut)
        if bool(fallback.any()):
            answer, fallback = self._second_try(obs, slots, answer, fallback, doubt, told)
        activity, slots = slots.put(answer.chance), slots.where(answer.chance > 0.5)
        return slots.estimate(
            activity,
            answer.rows,
            answer.symbols.symbols,
            answer.symbols.symbol_var,
            nfe=float(answer.evaluations.float().mean()),
            evaluations=answer.evaluations,
            error_var=slots.put(answer.error),
            mismatch=answer.mismatch,
            residual=answer.residual,
            fallback=fallback,
            cut=answer.cut,
            **{name: slots.put(value) for name, value in answer.offsets.items()},
        )

    def _second_try(
        self, obs: Observation, slots: Selection, first: Answer, failed: Tensor, doubt: Doubt | None, told: Tensor | None
    ) -> tuple[Answer, Tensor]:
        """The Gaussian prior on the frames that ``failed`` marks; which of them it won."""
        part = obs.only(failed)
        cut = doubt and doubt.take(failed), None if told is None else told[failed]
        second = self._receive(part, slots.rows(failed), choose("gaussian", obs), *cut)
        better = ~(first.residual[failed] <= second.residual)
        won = failed.clone()
        won[failed] = better
        return replace(first.put(won, second.take(better)), evaluations=first.evaluations), won  # the Gaussian prior evaluates nothing

    def _receive(self, obs: Observation, slots: Selection, prior: ChannelPrior, doubt: Doubt | None, told: Tensor | None) -> Answer:
        link: Any = (Link.of if obs.rows is None else WaveLink.of)(obs, slots, prior.beams, told=told)
        exchange = Exchange.of(link, prior, doubt)
        alone = 1 if isinstance(prior, Gaussian) else self.pilot_evaluations + (0 if obs.data_len else self.rounds)
        settled, cut = Settled(exchange), False
        for step in range(alone):
            if cut := step > 0 and obs.late:
                break
            link = exchange.link
            exchange = exchange.step(link.known(link.unheard() if told is not None else None, exchange.channel), self.damping).tracked()
        exchange, before = exchange.tuned(), None
        for _ in range(self.rounds if obs.data_len else 0):
            if cut := cut or obs.late:
                break
            soft = exchange.link.detect(self.detector, exchange.channel)
            if before is not None:
                moving = self._moving(exchange, soft.mean - before)
                if not bool(moving.all()):
                    settled.keep(self._round(exchange.take(~moving), soft.take(~moving), turns=1)[0], ~moving)
                    exchange, soft = exchange.take(moving), soft.take(moving)
                if not bool(moving.any()):
                    break
            exchange, before = self._round(exchange, soft, turns=self.turns)
        settled.keep(exchange)
        return self._answer(settled, cut)

    def _moving(self, exchange: Exchange, step: Tensor) -> Tensor:
        """Frames [B] whose symbols moved by ``step`` [B D K], more than ``tolerance``; those of doubtful users count by their chance."""
        weight = exchange.chance
        return (step.abs().square().sum(1) * weight).sum(1) > self.tolerance * weight.sum(1).clamp_min(1) * step.shape[1]

    def _round(self, exchange: Exchange, soft: Symbols, *, turns: int) -> tuple[Exchange, Tensor]:
        """``turns`` of linear estimation, the first with symbols ``soft``, and of detection between them; then the network. Returns the
        posterior means of the last symbols as well."""
        channel = exchange.linear(exchange.link.known(soft, exchange.channel))
        for _ in range(turns - 1):
            exchange = exchange.tracked(channel, soft)
            soft = exchange.link.detect(self.detector, channel)
            channel = exchange.linear(exchange.link.known(soft, channel))
        return exchange.evaluate(channel, self.damping, soft).tracked(channel, soft), soft.mean

    def _answer(self, settled: Settled, cut: bool) -> Answer:
        channel, link = settled.decided(), settled.link
        symbols = link.detect(self.final, channel)
        rows = link.beams.back(channel.mean)
        residual = link.unexplained(channel, symbols).masked_fill(settled.mismatch.isnan(), torch.inf)
        return Answer(
            rows,
            channel.error.mean(-1),
            symbols,
            residual,
            settled.mismatch,
            settled.evaluations,
            settled.chance,
            settled.exchange.closed,
            cut,
            link.offsets,
        )


@dataclass(frozen=True)
class Exchange:
    """Where the messages between samples and prior stand: ``message`` is the prior's last, ``channel`` the posterior, both [B K M]."""

    link: Any  # Link, or WaveLink of bursts
    prior: ChannelPrior
    message: ChannelEstimate
    channel: ChannelEstimate
    mismatch: Tensor  # [B]
    doubt: Doubt | None = None
    evaluations: int = 0

    @staticmethod
    def of(link: Any, prior: ChannelPrior, doubt: Doubt | None = None) -> Exchange:
        """Before anything was received: the powers that the prior expects, times the users' gains."""
        power = torch.where(link.present, link.gain, 1)[..., None] * link.beams.power
        empty = torch.view_as_complex(power.new_zeros(*power.shape, 2))
        start = first_message(power, empty)
        start = either(link.present[..., None], doubt.message(start), start) if doubt else start
        return Exchange(link, prior, start, start, power.new_ones(len(empty)), doubt)

    @property
    def chance(self) -> Tensor:
        """Probability that a user is active [B K], zero in empty slots."""
        here = self.link.present.to(self.link.gain.dtype)
        return here * self.doubt.chance if self.doubt else here

    @property
    def closed(self) -> bool:
        """Whether the prior is Gaussian: its message never changes, and nothing is evaluated."""
        return isinstance(self.prior, Gaussian)

    def step(self, rows: tuple[Tensor, Tensor, Tensor], damping: float = 1.0) -> Exchange:
        """Linear estimation from ``rows`` (`Link.known`), then one evaluation of the prior."""
        return self.evaluate(self.linear(rows), damping)

    def linear(self, rows: tuple[Tensor, Tensor, Tensor]) -> ChannelEstimate:
        """The posterior of the channels under the prior's last message."""
        rx, sent, noise_var = rows
        return combine(rx, sent, noise_var=noise_var, known=self.message, present=self.link.present)

    def seen(self, posterior: ChannelEstimate) -> ChannelEstimate:
        """The cavity of ``posterior``; an empty slot is sure of its zero."""
        here = self.link.present[..., None]
        return cavity(ChannelEstimate(posterior.mean, torch.where(here, posterior.error, self.message.error)), self.message)

    def evaluate(self, posterior: ChannelEstimate, damping: float = 1.0, soft: Symbols | None = None) -> Exchange:
        """One evaluation of the prior on the cavity of ``posterior``; users' gains are divided out before and put back after it. Users of
        whom the prior says nothing finite keep what was received, and their frame's mismatch is NaN. With the symbols ``soft`` the cavity
        also says who is active."""
        if self.closed and self.doubt is None:
            return replace(self, channel=posterior)
        here = self.link.present[..., None]
        seen, gain = self.seen(posterior), torch.where(here, self.link.gain[..., None], 1)
        doubt = self.doubt
        if doubt and soft:
            doubt = doubt.heard(seen, gain * self.link.beams.power, soft, len(self.link.prior.amplitudes) ** 2)
        mean, error = self.prior.in_beams(seen.mean / gain.sqrt(), seen.error / gain)
        found = ChannelEstimate(mean * gain.sqrt(), error * gain)
        taken, due = misfit(found, seen)
        lost = here & ~(taken.isfinite()[..., None] & (found.error > 0).all(-1, keepdim=True))
        weight = replace(self, doubt=doubt).chance
        taken, due = (torch.where(here[..., 0], value, 0) for value in (taken, due))
        mismatch = ((weight * taken).sum(1) / (weight * due).sum(1).clamp_min(1e-6)).masked_fill(lost.any((1, 2)), torch.nan)
        found = either(lost | ~here, seen, distrusted(found, seen, taken / due.clamp_min(1e-6)))
        message = next_message(found, seen)
        if doubt:
            message, found = doubt.message(message), doubt.average(found)
        message = message if self.evaluations == 0 else damped(message, self.message, damping)
        message, found = either(here, message, self.message), ChannelEstimate(found.mean * here, found.error * here)
        return replace(
            self, message=message, channel=found, mismatch=mismatch, doubt=doubt, evaluations=self.evaluations + (not self.closed)
        )

    def tuned(self) -> Exchange:
        """With the carriers that the link finds before anything is decided."""
        return replace(self, link=self.link.tuned(self.channel))

    def tracked(self, channel: ChannelEstimate | None = None, soft: Symbols | None = None) -> Exchange:
        """With the users' delays and carriers after one more look at what is left of the samples."""
        return replace(self, link=self.link.track(self.channel if channel is None else channel, soft))

    def take(self, rows: Tensor) -> Exchange:
        """The frames that ``rows`` (indices or a mask) picks."""
        parts = {"message": self.message.take(rows), "channel": self.channel.take(rows), "mismatch": self.mismatch[rows]}
        parts |= {"doubt": self.doubt and self.doubt.take(rows)}
        return replace(self, link=self.link.take(rows), **parts)  # type: ignore[arg-type]


def either(mask: Tensor, first: ChannelEstimate, second: ChannelEstimate) -> ChannelEstimate:
    """``first`` where ``mask`` (broadcasts) is true, otherwise ``second``."""
    return ChannelEstimate(torch.where(mask, first.mean, second.mean), torch.where(mask, first.error, second.error))


def misfit(found: ChannelEstimate, seen: ChannelEstimate) -> tuple[Tensor, Tensor]:
    """What the prior took for noise, and what it should have found [B K], in units of the noise. Their ratio is 1 where channels are what
    the prior was made for, more where they are not: for a calibrated denoiser E|x - D(x)|^2 = noise - error, by Stein's identity."""
    taken = ((seen.mean - found.mean).abs().square() / seen.error).mean(-1)
    return taken, (1 - found.error / seen.error).clamp_min(0.01).mean(-1)


def distrusted(found: ChannelEstimate, seen: ChannelEstimate, ratio: Tensor) -> ChannelEstimate:
    """The prior's answer, drawn towards what was received for users of whose channels it took away far more than noise: ``ratio`` [B K] as
    `misfit` measures it. Channels of a kind that no prior was made for then fall back to least squares, user by user."""
    excess = (ratio - TRUSTED_MISFIT).clamp_min(0)[..., None]
    share = excess / (1 + excess)
    return ChannelEstimate(found.mean + share * (seen.mean - found.mean), found.error + share * seen.error)


class Settled:
    """The channels of frames that are done, gathered as they leave the batch."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange, self.link = exchange, exchange.link
        self.channel = ChannelEstimate(exchange.channel.mean.clone(), exchange.channel.error.clone())
        self.mismatch, self.chance = exchange.mismatch.clone(), exchange.chance.clone()
        self.evaluations = torch.zeros(len(self.mismatch), dtype=torch.long, device=self.mismatch.device)
        self._left = torch.arange(len(self.mismatch), device=self.mismatch.device)

    def keep(self, part: Exchange, done: Tensor | None = None) -> None:
        """Stores ``part``: the frames still in the batch that are ``done`` (all of them by default), which leave it."""
        done = torch.ones_like(self._left, dtype=torch.bool) if done is None else done
        rows = self._left[done]
        self.link = self.link.put(rows, part.link)
        self.channel.mean[rows], self.channel.error[rows] = part.channel.mean, part.channel.error
        self.mismatch[rows], self.evaluations[rows], self.chance[rows] = part.mismatch, part.evaluations, part.chance
        self._left = self._left[~done]

    def decided(self) -> ChannelEstimate:
        """Channels of those users that are active after all, zero for others."""
        share = torch.where(self.chance > 0.5, 1 / self.chance.clamp_min(0.5), 0)[..., None]
        return ChannelEstimate(share.sqrt() * self.channel.mean, share * self.channel.error)


@dataclass(frozen=True)
class Answer:
    """rows [B K M] in antennas, error [B K] their mean error variance; one line a frame in everything else."""

    rows: Tensor
    error: Tensor
    symbols: Symbols
    residual: Tensor
    mismatch: Tensor
    evaluations: Tensor
    chance: Tensor  # [B K]
    closed: bool
    cut: bool
    offsets: Mapping[str, Tensor]  # [B K] each: delay and cfo of bursts

    def take(self, rows: Tensor) -> Answer:
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in _LINES}
        offsets = {name: value[rows] for name, value in self.offsets.items()}
        return replace(self, symbols=self.symbols.take(rows), offsets=offsets, **parts)

    def put(self, rows: Tensor, other: Answer) -> Answer:
        """A copy with the frames of ``other`` in the places that ``rows`` marks."""
        parts: dict[str, Any] = {name: _put(getattr(self, name), rows, getattr(other, name)) for name in _LINES}
        names = ("symbols", "symbol_var", "mean", "var")
        symbols = Symbols(*(_put(getattr(self.symbols, name), rows, getattr(other.symbols, name)) for name in names))
        offsets = {name: _put(value, rows, other.offsets[name]) for name, value in self.offsets.items()}
        return replace(self, symbols=symbols, offsets=offsets, **parts)


_LINES = ("rows", "error", "residual", "mismatch", "evaluations", "chance")


def _put(values: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    values = values.clone()
    values[rows] = others
    return values
