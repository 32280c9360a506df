"""Joint channel estimation and data detection by sampling: the receivers of P1 and P2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import Symbols, ZeroForcing
from ..errors import ConfigError, unknown
from ..estimation.estimate import ChannelEstimate
from ..estimation.lmmse import Lmmse
from ..samplers import guidance, langevin, schedules
from .sampling import Sampling, Scene, draws

FEEDBACK = ("soft", "hard", "raw")
DECIDED = 1e-3  # a noise level at which posterior means are decisions


@dataclass(frozen=True)
class Jcedd(Sampling):
    """P1 Algorithm 2; with ``method="ald"`` P2 Algorithm 1: channel steps, and every ``n_update`` of them a whole data sampler.

    Starts from LMMSE on the pilots and zero forcing, at the level that matches the LMMSE error: sigma_i^2 nearest to its mean variance (the
    papers print sigma_i there, eq. 31). Departures: Song's step size unless ``step_rule="printed"``, its norms per frame; that start is
    re-noised where the LMMSE error is below sigma_i^2 (``renoise``), so that its error is as white as the sampler takes it to be; the first
    data are posterior means whose variances count as noise (``feedback`` "soft"; "hard": decisions; "raw": zero forcing as it is); the last
    symbols are cleaned of the sample's own noise, see `sampling.Scene.estimate`. Frames start where their own LMMSE error says.
    """

    n_update: int = 50
    renoise: bool = True
    feedback: str = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback not in FEEDBACK:
            raise unknown("feedback", self.feedback, FEEDBACK)
        if self.n_update < 1:
            raise ConfigError(f"n_update is {self.n_update}: channel steps per data update, pass 1 or more")

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active.

        info: nfe (mean over frames), start [B] (level index, of n_h), steps [B] (channel steps made), updates (data samplers run), cut,
        error_var [B N].

        Raises NotFiniteError when the sampler diverges, ConfigError when it must know who is active and does not.
        """
        generator = draws(generator, obs)
        scene = Scene.of(obs, active, self.weights)
        first = scene.link.estimate(Lmmse())
        symbols = scene.link.detect(ZeroForcing(), first) if obs.data_len else None
        start = self._start(scene, first)
        x = self._noised(scene, first, start, generator)
        return _Chain(self, scene, x, symbols, start, generator).run()

    def _start(self, scene: Scene, first: ChannelEstimate) -> Tensor:
        """i* of P1 eq. (31), corrected, [B]: the level whose variance is nearest to that of the LMMSE error of channels of power 1."""
        here = scene.mask
        error = torch.where(here, first.error / scene.root_gain.square().clamp_min(1e-30)[..., None], 0).mean(2).sum(1)
        error = error / here.sum((1, 2)).clamp_min(1)
        levels = self.sigmas.square().to(error)
        return self.n_h - (levels - error[:, None]).abs().argmin(1)

    def _noised(self, scene: Scene, first: ChannelEstimate, start: Tensor, generator: torch.Generator) -> Tensor:
        """The LMMSE estimate as a state at its level: noise where its error is smaller than the level's."""
        root = scene.root_gain.clamp_min(1e-15)[..., None]
        x = torch.where(scene.mask, first.mean / root, 0)
        level = self.sigmas.square().to(x.real)[self.n_h - start.to("cpu")].to(x.device)[:, None, None]
        missing = (level - first.error / root.square()).clamp_min(0) if self.renoise else torch.zeros_like(level)
        return x + missing.sqrt() * langevin.masked(langevin.noise_like(x, generator), scene.mask)

    def fed_back(self, symbols: Symbols, scene: Scene) -> tuple[Tensor, Tensor | None]:
        """The first symbols as rows of the known matrix, and their variances if they count."""
        if self.feedback == "soft":
            return symbols.mean, symbols.var
        if self.feedback == "raw":
            return symbols.symbols, None
        return _decided(symbols.symbols, scene), None


class _Chain:
    """One call: the state of all frames, and the segments of the schedule between two events (a data update, a frame that joins)."""

    def __init__(self, options: Jcedd, scene: Scene, x: Tensor, first: Symbols | None, start: Tensor, generator: torch.Generator) -> None:
        self.options, self.scene, self.x, self.start, self.generator = options, scene, x, start, generator
        self.data: Tensor | None = None
        self.var: Tensor | None = None
        if first is not None:
            self.data, self.var = options.fed_back(first, scene)
        self.steps = torch.zeros_like(start)
        self.updates, self.cut = 0, False

    def run(self) -> Estimate:
        for high, low in pairwise(self._events()):
            rows = (self.start >= high).nonzero()[:, 0]
            self._channel(rows, high, low)
            if self.data is not None and not self.cut and not (low + 1) % self.options.n_update:
                self._update(rows)
            if self.cut:
                break
        symbols = self.scene.link.data_rx.new_zeros(*self.scene.link.data_rx.shape[:2], self.x.shape[1]) if self.data is None else self.data
        nfe = float(self.steps.double().mean()) * self.options.cost
        info = {"nfe": nfe, "start": self.start, "steps": self.steps, "updates": self.updates, "cut": self.cut}
        return self.scene.estimate(self.x, symbols, **info)

    def _events(self) -> list[int]:
        """Level indices, falling, where something happens."""
        starts = set(self.start.tolist())
        return sorted({0, *starts, *range(self.options.n_update - 1, max(starts), self.options.n_update)}, reverse=True)

    def _channel(self, rows: Tensor, high: int, low: int) -> None:
        """The channel sampler of frames ``rows`` from level ``high`` to ``low``; late, it ends with the mean at the level reached."""
        options, scene = self.options, self.scene.take(rows)
        seen = scene.known(None if self.data is None else self.data[rows], None if self.var is None else self.var[rows])
        levels = options.sigmas[options.n_h - high : options.n_h - low + 1]
        made = 0

        def on_step(i: int, x: Tensor) -> bool:
            nonlocal made
            made = i + 1
            self.cut = scene.obs.late
            return self.cut

        x = options.run(
            options.channel_score(scene, seen), self.x[rows], levels, mask=scene.mask, generator=self.generator, on_step=on_step
        )
        if self.cut:
            mean_of = guidance.denoiser(scene.moments, seen, weight=1.0)
            x = langevin.masked(mean_of(x, float(levels[made])), scene.mask)
        self.x[rows] = x
        self.steps[rows] += made

    def _update(self, rows: Tensor) -> None:
        """New data for the channel at hand, unless time is up meanwhile."""
        scene = self.scene.take(rows)
        assert self.data is not None

        def on_step(i: int, x: Tensor) -> bool:
            self.cut = scene.obs.late
            return self.cut

        fresh = self.options.sample_data(scene.link, scene.channel(self.x[rows]), self.generator, on_step)
        if self.cut:
            return
        self.data[rows] = fresh
        if self.var is not None:
            self.var[rows] = 0
        self.updates += 1


@dataclass(frozen=True)
class Synchronous(Sampling):
    """The synchronous predecessor of P2 ("Syn Iter Langevin CE & DD"): from noise, each Langevin step of the channel is followed by one of
    the data, at levels that fall together over n_h steps (n_x, method and corrections have no say).

    ``feedback`` says what the channel step takes for the symbols: "soft", their posterior means at the level reached, whose variances count
    as noise; "hard", decisions; "raw", the state itself, as the paper seems to.
    """

    method: str = "ald"
    feedback: str = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback not in FEEDBACK:
            raise unknown("feedback", self.feedback, FEEDBACK)

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active. info: nfe, start, steps, cut,
        error_var [B N].

        Raises NotFiniteError when the sampler diverges, ConfigError when it must know who is active and does not.
        """
        generator = draws(generator, obs)
        scene = Scene.of(obs, active, self.weights)
        frames, times, antennas = scene.link.data_rx.shape
        slots = scene.root_gain.shape[1]
        x = _wide(scene, (frames, slots, antennas), self.sigma_max, generator)
        data = _wide(scene, (frames, slots, times), self.tau_max, generator)
        steps = 0
        shared = {"r": self.r, "step_rule": self.step_rule, "mask": scene.mask, "generator": generator}
        for sigma, tau in zip(self.sigmas[:-1].tolist(), schedules.geometric(self.tau_min, self.tau_max, self.n_h).tolist(), strict=False):
            x = langevin.step(self._channel_score(scene, data, tau), x, sigma, **shared)  # type: ignore[arg-type]
            if times:
                data = langevin.step(self._data_score(scene, x), data, tau, **shared)  # type: ignore[arg-type]
            langevin.look(x, steps, sigma, self.step_rule)
            steps += 1
            if obs.late:
                break
        langevin.look(x, None, sigma, self.step_rule)
        if steps < self.n_h:
            x = scene.moments(x, sigma)[0]
        return scene.estimate(x, data.mT.contiguous(), nfe=float(steps), start=self.n_h, steps=steps, cut=steps < self.n_h)

    def _channel_score(self, scene: Scene, data: Tensor, tau: float) -> langevin.Score:
        """P2 eq. (4), (8) with the data [B K D] as they are at level ``tau``."""
        link, root = scene.link, scene.root_gain[..., None]
        sent, var = data, data.real.new_zeros(data.shape)
        if self.feedback != "raw":
            level = data.real.new_tensor(tau if self.feedback == "soft" else DECIDED)
            sent, var = link.prior.moments(data, level)
        sent = torch.cat([link.pilots, (sent * scene.mask).mT], 1) * root.mT
        loud = (var * root.square() * scene.mask).sum(1)
        weight = (link.noise_var / (link.noise_var + torch.cat([loud.new_zeros(link.pilots.shape[:2]), loud], 1))).sqrt()[..., None]
        rx = torch.cat([link.pilot_rx, link.data_rx], 1)

        def score(x: Tensor, sigma: float) -> Tensor:
            pull = guidance.pull_once(rx * weight, sent * weight, x, noise_var=link.noise_var, var=sigma**2)
            return (scene.moments(x, sigma)[0] - x) / sigma**2 + self.channel_weight * pull

        return score

    def _data_score(self, scene: Scene, x: Tensor) -> langevin.Score:
        """P2 eq. (13), (14) for the channel at hand."""
        link, channel = scene.link, scene.channel(x).mT

        def score(data: Tensor, tau: float) -> Tensor:
            pull = guidance.pull_once(link.data_rx.mT, channel, data, noise_var=link.noise_var, var=tau**2)
            return (link.prior.moments(data, data.real.new_tensor(tau))[0] - data) / tau**2 + self.data_weight * pull

        return score


def _wide(scene: Scene, shape: tuple[int, int, int], sigma: float, generator: torch.Generator) -> Tensor:
    """A start from noise at level ``sigma``, for unknowns of power 1 in the slots that are taken."""
    return langevin.masked(langevin.noise_like(scene.link.pilots.new_zeros(shape), generator), scene.mask) * math.sqrt(sigma**2 + 1)


def _decided(symbols: Tensor, scene: Scene) -> Tensor:
    """The nearest points of the constellation."""
    return scene.link.prior.moments(symbols, symbols.real.new_tensor(DECIDED))[0] * scene.link.present[:, None, :]
