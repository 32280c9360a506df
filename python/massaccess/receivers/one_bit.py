"""The toolkit's receiver for converters of one or a few bits: expectation propagation between cells, channels and symbols."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import MatchedFilter, Symbols
from ..errors import ShapeError
from ..estimation.estimate import ChannelEstimate
from ..likelihoods.linearised import Linearised
from ..weights import choose
from .coherent import Detector, Link, known_active
from .doubt import Doubt
from .jcedd import Exchange, Settled
from .selection import Selection

BLAME = 0.75
"""Share of the symbols' posterior variance that weakens their own channel estimate. 1 is expectation maximisation, which makes channels too
small where symbols are uncertain; 0 takes soft symbols for pilots, and channels grow from round to round."""


SPREAD = 0.5
"""Of a user's mean channel power over the antennas: its standard deviation, in units of its expectation."""


@dataclass(frozen=True)
class QuantizedEp:
    """Expectation propagation between what each quantised sample says, a prior of channels and a constellation.

    Every noiseless sample gets a Gaussian that stands in for its likelihood (`Linearised`). Given these, channels and symbols are received
    linearly, and what they say of the samples makes better Gaussians. First the pilots alone, ``pilot_evaluations`` of the channel prior;
    then ``rounds`` on pilots and data: ``turns`` of ``detector`` and new Gaussians, then of channel estimation from pilots and soft symbols
    and new Gaussians, and one evaluation of the prior. ``final`` gives the symbols. ``share`` of each new Gaussian is taken.
    Soft decision feedback counts the symbols' variance as in expectation maximisation (`BLAME`).

    ``weights`` names the channel prior (`weights.choose`): "auto", "gaussian", a shipped network or mixture, or a file. One bit hardly
    tells amplitudes, and with any but a Gaussian prior they drift: in the end the power of all channels of a frame is drawn to what the
    prior expects, as far as the samples know less of it (`Linearised.amplitude`). ``link`` is the law of the noise
    (`likelihoods.quantized.LINKS`). A frame leaves once its symbols move by less than ``tolerance``.
    """

    detector: Detector
    final: Detector
    weights: str = "auto"
    pilot_evaluations: int = 2
    rounds: int = 6
    turns: int = 2
    share: float = 0.6
    tolerance: float = 1e-5
    link: str = "probit"

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``). Real:
        probabilities; then the whole frame decides which of those above zero are active (`Doubt`), and the estimate says how likely.

        info: nfe (mean over frames), evaluations [B], error_var [B N] (mean over antennas), sample_noise [B] (mean variance of the
        Gaussians that stand in for data samples), mismatch [B] (as in `jcedd.LearnedEp`), cut (time was up).
        """
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans or probabilities")
        slots = Selection.of(active > 0)
        prior = choose(self.weights, obs)
        link = Link.of(obs, slots, prior.beams)
        doubt = None if active.dtype == torch.bool else Doubt.of(obs, slots, active).cautious()
        state = State(Exchange.of(link, prior, doubt), Linearised.of(obs, link=self.link))
        state, settled, cut = self._receive(obs, state)
        state = replace(state, exchange=replace(state.exchange, channel=settled.decided()))
        state = state if state.exchange.closed else state.anchored()
        symbols = state.detect(self.final)
        kept = slots.where(settled.chance > 0.5)
        return kept.estimate(
            slots.put(settled.chance),
            link.beams.back(state.channel.mean),
            symbols.symbols,
            symbols.symbol_var,
            nfe=float(settled.evaluations.float().mean()),
            evaluations=settled.evaluations,
            error_var=slots.put(state.channel.error.mean(-1)),
            sample_noise=state.samples.noise.mean((1, 2)),
            mismatch=settled.mismatch,
            cut=cut,
        )

    def _receive(self, obs: Observation, state: State) -> tuple[State, Settled, bool]:
        """All rounds; the state of all frames with their last samples, their channels, and whether time was up."""
        state = state.started(slice(0, obs.pilot_len))
        settled, cut, last = Settled(state.exchange), False, state.samples
        alone = self.pilot_evaluations + (0 if obs.data_len else self.rounds)
        for step in range(alone):
            if cut := step > 0 and obs.late:
                break
            state = self._pilots(state)
        if obs.data_len:
            state = state.started(slice(obs.pilot_len, None))
        left, before = torch.arange(obs.frames, device=obs.pilot_rx.device), None
        for _ in range(self.rounds if obs.data_len else 0):
            if cut := cut or obs.late:
                break
            state, soft = self._round(state)
            if before is not None:
                moving = self._moving(state, soft.mean - before)
                last = last.put(left[~moving], state.samples.take(~moving))
                settled.keep(state.exchange.take(~moving), ~moving)
                left, state, soft = left[moving], state.take(moving), soft.take(moving)
                if not len(left):
                    break
            before = soft.mean
        settled.keep(state.exchange)
        return State(settled.exchange, last.put(left, state.samples)), settled, cut

    def _pilots(self, state: State) -> State:
        """Channels and Gaussians from the pilots alone, then one evaluation of the prior."""
        rows = slice(0, state.exchange.link.pilots.shape[1])
        for _ in range(self.turns * (3 if state.exchange.closed else 1)):
            state = state.explained(state.pilots(), self.share, rows)
        return state.evaluate(state.pilots())

    def _round(self, state: State) -> tuple[State, Symbols]:
        data = slice(state.exchange.link.pilots.shape[1], None)
        for _ in range(self.turns):
            soft = state.detect(self.detector)
            state = state.predicted(soft, self.share, data)
        soft = state.detect(self.detector)
        for _ in range(self.turns):
            state = state.explained(state.known(soft), self.share)
        return state.evaluate(state.known(soft), soft), soft

    def _moving(self, state: State, step: Tensor) -> Tensor:
        """Frames [B] whose symbols moved by ``step`` [B D K], more than ``tolerance``."""
        weight = state.exchange.chance
        return (step.abs().square().sum(1) * weight).sum(1) > self.tolerance * weight.sum(1).clamp_min(1) * step.shape[1]


@dataclass(frozen=True)
class Rows:
    """What channels are estimated from: symbols [B T K] that were sent, the first T of them with samples; the rest are rows of zeros that
    stand for the uncertainty of soft symbols."""

    sent: Tensor
    blame: Tensor | None = None  # [B K], precision that each user's channel gets without news
    spread: Tensor | None = None  # [B T K], variance of the symbols


@dataclass(frozen=True)
class State:
    """Where the messages of a batch stand."""

    exchange: Exchange
    samples: Linearised

    @property
    def channel(self) -> ChannelEstimate:
        """The channels' posterior [B K M], in beams."""
        return self.exchange.channel

    def take(self, frames: Tensor) -> State:
        """The frames that ``frames`` (indices or a mask) picks."""
        return State(self.exchange.take(frames), self.samples.take(frames))

    def started(self, times: slice) -> State:
        """The first Gaussians for the symbol times ``times``: all symbols unknown, of unit power."""
        link, channel = self.exchange.link, self.channel
        power = (channel.mean.abs().square() + channel.error) * link.present[..., None]
        total = power.sum(1, keepdim=True).mean(-1, keepdim=True)
        rx = self.samples.rx[:, times]
        return replace(self, samples=self.samples.again(torch.zeros_like(rx), total.expand(-1, rx.shape[1], -1), 1.0, times))

    def pilots(self) -> Rows:
        return Rows(self.exchange.link.pilots)

    def known(self, soft: Symbols) -> Rows:
        """Pilots and soft symbols."""
        pilots = self.exchange.link.pilots
        weight = 1 / self.samples.noise[:, pilots.shape[1] :]
        spread = torch.cat([torch.zeros_like(pilots.real), soft.var], 1)
        return Rows(torch.cat([pilots, soft.mean], 1), BLAME * (soft.var * weight).sum(1), spread)

    def detect(self, detector: Detector) -> Symbols:
        """All symbols, the channel error counted as noise."""
        link, channel = self.exchange.link, self.channel
        first = link.pilots.shape[1]
        noise = self.samples.noise[:, first:].mean(1) + channel.error.sum(1)
        rx = link.beams.into(self.samples.rx[:, first:])
        return detector(MatchedFilter.of(rx, channel.mean, noise, link.present), link.prior)

    def predicted(self, soft: Symbols, share: float, times: slice) -> State:
        """New Gaussians for the data, from what channels and symbols say of them."""
        link, channel = self.exchange.link, self.channel
        mean = link.beams.back(soft.mean @ channel.mean)
        power = channel.mean.abs().square() + channel.error
        var = soft.mean.abs().square() @ _mean(channel.error) + soft.var @ _mean(power)
        return replace(self, samples=self.samples.again(mean, var.clamp_min(1e-9), share, times))

    def explained(self, rows: Rows, share: float, times: slice = slice(None)) -> State:
        """New Gaussians from the channels that ``rows`` say."""
        link = self.exchange.link
        posterior, noise = self._linear(rows), self._noise(rows)
        mean = link.beams.back(rows.sent @ posterior.mean)
        own = rows.sent.abs().square() @ _mean(posterior.error)
        var = own * self._share(rows, posterior, own, noise)
        if rows.spread is not None:
            var = var + rows.spread @ _mean(posterior.mean.abs().square() + posterior.error)
        exchange = replace(self.exchange, channel=posterior)
        return State(exchange, self.samples.again(mean, var.clamp_min(1e-9), share, times))

    def evaluate(self, rows: Rows, soft: Symbols | None = None) -> State:
        """Channels from ``rows``, then one evaluation of the prior."""
        exchange = self.exchange.evaluate(self._linear(rows), soft=soft)
        return replace(self, exchange=exchange)

    def anchored(self) -> State:
        """Channels scaled towards the power that the prior expects of all users together, as far as the samples know less of it."""
        exchange, channel = self.exchange, self.channel
        power = channel.mean.abs().square() + channel.error
        expected = (exchange.chance * exchange.link.gain).sum(1) * exchange.link.beams.power.sum()
        total, error = power.sum(1).mean(-1), channel.error.sum(1).mean(-1)
        known = exchange.chance.sum(1).clamp_min(1) / (SPREAD / 2) ** 2
        trust = known / (known + self.samples.amplitude((total - error).clamp_min(0), error))
        scale = (expected / power.sum((1, 2)).clamp_min(1e-9)).clamp(0.25, 4.0).pow(trust / 2)[:, None, None]
        return replace(self, exchange=replace(exchange, channel=ChannelEstimate(channel.mean * scale, channel.error)))

    def _noise(self, rows: Rows) -> Tensor:
        return self.samples.noise[:, : rows.sent.shape[1]]

    def _linear(self, rows: Rows) -> ChannelEstimate:
        link, noise = self.exchange.link, self._noise(rows)
        rx, sent = link.beams.into(self.samples.rx[:, : rows.sent.shape[1]]), rows.sent
        if rows.blame is not None:
            extra = torch.diag_embed(rows.blame.sqrt()).to(sent.dtype)
            rx = torch.cat([rx, rx.new_zeros(len(rx), extra.shape[1], rx.shape[2])], 1)
            sent, noise = torch.cat([sent, extra], 1), torch.cat([noise, noise.new_ones(len(noise), extra.shape[1], 1)], 1)
        return self.exchange.linear((rx, sent, noise))

    def _share(self, rows: Rows, posterior: ChannelEstimate, own: Tensor, noise: Tensor) -> Tensor:
        """How much smaller the variances of the samples' means are than with independent errors ``own`` [B T 1]; [B 1 1].

        Errors of users that were told apart by the same pilots are correlated. The sum over all samples of variance over noise is what the
        samples took off the channels' uncertainty, in units of the prior's: sum of 1 - error / message error.
        """
        here = self.exchange.link.present[..., None]
        taken = torch.where(here, 1 - posterior.error / self.exchange.message.error, 0).sum((1, 2))
        counted = (own / noise).sum((1, 2))
        if rows.blame is not None:
            counted = counted + (rows.blame[..., None] * _mean(posterior.error)).sum((1, 2))
        return (taken / (counted * posterior.mean.shape[2]).clamp_min(1e-9)).clamp(0.05, 2.0)[:, None, None]


def _mean(values: Tensor) -> Tensor:
    """Over the antennas (beams) [... 1]."""
    return values.mean(-1, keepdim=True)
