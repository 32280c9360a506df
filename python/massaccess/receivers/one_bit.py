"""The toolkit's receiver for converters of one or a few bits: expectation propagation between cells, channels and symbols."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..core import ChannelPrior, Estimate, FrontEnd, Observation
from ..detection.linear import Symbols
from ..errors import ShapeError, unknown
from ..forward.noise import ESTIMATED, NOISE
from ..likelihoods.linearised import Linearised
from ..priors.gaussian import Gaussian
from ..weights import choose
from .coherent import Detector, Link, known_active
from .doubt import Doubt
from .jcedd import Exchange, Settled
from .one_bit_state import State
from .selection import Selection

SUSPECT = 1.08
"""Mismatch after the pilots (`jcedd.misfit`) from which other priors have a try at the frame: a standard deviation and a half above 1."""

LEAST_NOISE = 1.0
"""Noise variance that one bit needs, over a lone user's power; two users need a quarter of it, three a ninth."""

ADVANTAGE = 0.5
"""Mean log probability of a pilot sample by which the first choice of prior has to be ahead of others, for each unit of mismatch above
`SUSPECT`: what predicts pilots slightly better can be worse once symbols are unknown."""


@dataclass(frozen=True)
class QuantizedEp:
    """Expectation propagation between what each quantised sample says, a prior of channels and a constellation.

    Every noiseless sample gets a Gaussian that stands in for its likelihood (`Linearised`). Given these, channels and symbols are received
    linearly, and what they say of the samples makes better Gaussians. First the pilots alone, ``pilot_evaluations`` of the channel prior;
    then ``rounds`` on pilots and data: ``turns`` of ``detector`` and new Gaussians, then of channel estimation from pilots and soft symbols
    and new Gaussians, and one evaluation of the prior. ``final`` gives the symbols. ``share`` of each new Gaussian is taken.
    Soft decision feedback counts the symbols' variance as in expectation maximisation (`BLAME`).

    ``weights`` names the channel prior (`weights.choose`): "auto", "gaussian", a shipped network or mixture, or a file. One bit hardly
    tells amplitudes, and they drift: in the end all channels of a frame get the amplitude that the samples and the power which the prior
    expects make most likely together. ``link`` is the law of the noise
    (`likelihoods.quantized.LINKS`). Frames whose pilots do not look like the prior's channels are tried with two Gaussian priors as
    well, that of the array covariance and that of independent antennas; the one that predicts the pilots best, each sample from all
    others, goes on.
    ``noise="estimated"`` takes the noise variance for a first guess, and finds it frame by frame, in units of the channel power that the
    prior expects: with one bit an unknown gain is the same thing. "auto" does so where ``obs.meta`` says that it is an estimate.
    A frame leaves once its symbols move by less than ``tolerance``.
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
    noise: str = "auto"

    def __post_init__(self) -> None:
        if self.noise not in ("auto", *NOISE):
            raise unknown("noise", self.noise, ("auto", *NOISE))

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``). Real:
        probabilities; then the whole frame decides which of those above zero are active (`Doubt`), and the estimate says how likely.

        info: nfe (mean over frames), evaluations [B], error_var [B N] (mean over antennas), sample_noise [B] (mean variance of the
        Gaussians that stand in for samples), mismatch [B] (as in `jcedd.LearnedEp`), noise_var [B], fallback [B] bool (another prior took
        over), cut (time was up).
        """
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans or probabilities")
        slots = Selection.of(active > 0)
        groups = self._groups(obs, slots, active)
        parts = [(frames, self._finish(obs.only(frames), state)) for frames, state in groups]
        order = torch.cat([frames for frames, _ in parts]).argsort()
        whole = {name: torch.cat([getattr(answer, name) for _, answer in parts])[order] for name in LINES}
        fallback = torch.ones(obs.frames, dtype=torch.bool, device=active.device)
        fallback[parts[0][0]] = False
        return slots.where(whole["chance"] > 0.5).estimate(
            slots.put(whole["chance"]),
            whole["rows"],
            whole["symbols"],
            whole["symbol_var"],
            nfe=float(whole["evaluations"].float().mean()),
            evaluations=whole["evaluations"],
            error_var=slots.put(whole["error"]),
            sample_noise=whole["sample_noise"],
            noise_var=whole["noise_var"],
            mismatch=whole["mismatch"],
            fallback=fallback,
            cut=any(answer.cut for _, answer in parts),
        )

    def _groups(self, obs: Observation, slots: Selection, active: Tensor) -> list[tuple[Tensor, State]]:
        """Frames (indices) that share a prior and their state after the pilots; the first group has the prior that ``weights`` names."""
        everything = torch.arange(obs.frames, device=active.device)
        first = self._listen(obs, slots, active, choose(self.weights, obs))
        if first.exchange.closed or self.link != "probit":
            return [(everything, first)]
        suspect = everything[~(first.exchange.mismatch < SUSPECT)]
        if not len(suspect) or obs.late:
            return [(everything, first)]
        part, places = obs.only(suspect), slots.rows(suspect)
        others = [choose("gaussian", part), Gaussian.of(None, antennas=obs.antennas, like=obs.pilot_rx)]
        states = [self._listen(part, places, active[suspect], prior) for prior in others]
        handicap = ADVANTAGE * (first.exchange.mismatch[suspect] - SUSPECT)
        scores = [first.take(suspect).evidence() - handicap, *(state.evidence() for state in states)]
        best = torch.stack(scores).nan_to_num(-torch.inf).argmax(0)
        chosen = torch.zeros_like(everything).scatter(0, suspect, best)
        groups = [(everything[chosen == 0], first.take(chosen == 0))]
        return groups + [(suspect[best == n], state.take(best == n)) for n, state in enumerate(states, 1) if bool((best == n).any())]

    def _listen(self, obs: Observation, slots: Selection, active: Tensor, prior: ChannelPrior) -> State:
        """The state after the pilots."""
        doubt = None if active.dtype == torch.bool else Doubt.of(obs, slots, active).cautious()
        exchange = Exchange.of(Link.of(obs, slots, prior.beams), prior, doubt)
        guessed = self.noise == ESTIMATED or (self.noise == "auto" and obs.meta.get("noise_var") == ESTIMATED)
        samples = Linearised.of(obs, link=self.link).at_least(_least_noise(exchange, obs.front_end))
        state = State(exchange, samples, guessed and obs.front_end.bits is not None).started(slice(0, obs.pilot_len))
        for step in range(self.pilot_evaluations):
            if step > 0 and obs.late:
                break
            state = self._pilots(state)
        return state

    def _finish(self, obs: Observation, state: State) -> Answer:
        """All rounds, on pilots and data, or on the pilots alone where there are no data."""
        settled, last, cut = Settled(state.exchange), state.samples, False
        state = state.started(slice(obs.pilot_len, None)) if obs.data_len else state
        left, before = torch.arange(obs.frames, device=obs.pilot_rx.device), None
        for _ in range(self.rounds):
            if not len(left) or (cut := obs.late):
                break
            state, soft = self._round(state) if obs.data_len else (self._pilots(state), None)
            if before is not None and soft is not None:
                moving = self._moving(state, soft.mean - before)
                last = last.put(left[~moving], state.samples.take(~moving))
                settled.keep(state.exchange.take(~moving), ~moving)
                left, state, soft = left[moving], state.take(moving), soft.take(moving)
            before = None if soft is None else soft.mean
        settled.keep(state.exchange)
        state = replace(state, exchange=settled.exchange, samples=last.put(left, state.samples))
        return self._answer(state, settled, cut)

    def _answer(self, state: State, settled: Settled, cut: bool) -> Answer:
        state = replace(state, exchange=replace(state.exchange, channel=settled.decided()))
        state = state.anchored(state.known(state.detect(self.detector)) if state.has_data else state.pilots())
        found, channel = state.detect(self.final), state.channel
        return Answer(
            state.exchange.link.beams.back(channel.mean),
            channel.error.mean(-1),
            found.symbols,
            found.symbol_var,
            settled.chance,
            settled.mismatch,
            settled.evaluations,
            state.samples.noise.mean((1, 2)),
            state.samples.likelihood.noise_var[:, 0, 0],
            cut,
        )

    def _pilots(self, state: State) -> State:
        """Channels and Gaussians from the pilots alone, then one evaluation of the prior."""
        rows = slice(0, state.exchange.link.pilots.shape[1])
        for _ in range(self._turns(state)):
            state = state.explained(state.pilots(), self.share, rows)
        state = state.evaluate(state.pilots())
        return state.quieter(state.pilots()) if state.guessed else state

    def _round(self, state: State) -> tuple[State, Symbols]:
        data = slice(state.exchange.link.pilots.shape[1], None)
        for _ in range(self.turns):
            soft = state.detect(self.detector)
            state = state.predicted(soft, self.share, data)
        soft = state.detect(self.detector)
        for _ in range(self._turns(state)):
            state = state.explained(state.known(soft), self.share)
        state = state.evaluate(state.known(soft), soft)
        return (state.quieter(state.known(soft)) if state.guessed else state), soft

    def _turns(self, state: State) -> int:
        """Turns of channel estimation and new Gaussians: three times as many where no network has a say between them."""
        return self.turns * (3 if state.exchange.closed else 1)

    def _moving(self, state: State, step: Tensor) -> Tensor:
        """Frames [B] whose symbols moved by ``step`` [B D K], more than ``tolerance``."""
        weight = state.exchange.chance
        return (step.abs().square().sum(1) * weight).sum(1) > self.tolerance * weight.sum(1).clamp_min(1) * step.shape[1]


def _least_noise(exchange: Exchange, converter: FrontEnd) -> Tensor:
    """Noise variance [B] below which quantised samples are not believed: a lone user without noise moves all samples of an antenna
    together, which Gaussians for single samples cannot follow. Other users are noise enough, and so is dither."""
    power = exchange.chance * exchange.link.gain
    total = power.sum(1).clamp_min(1e-9)
    alike = total.square() / power.square().sum(1).clamp_min(1e-9)  # how many users there would be if all were equal
    dither = 0.0 if converter.offset is None else float((converter.offset - converter.offset.mean()).abs().square().mean())
    return LEAST_NOISE * (total - 4 * dither).clamp_min(0) / alike**3


@dataclass(frozen=True)
class Answer:
    """rows [B K M] in antennas, error [B K] their mean error variance, symbols and symbol_var [B D K], chance [B K], and one number a frame
    of all others."""

    rows: Tensor
    error: Tensor
    symbols: Tensor
    symbol_var: Tensor
    chance: Tensor
    mismatch: Tensor
    evaluations: Tensor
    sample_noise: Tensor
    noise_var: Tensor
    cut: bool


LINES = tuple(item.name for item in fields(Answer) if item.name != "cut")
