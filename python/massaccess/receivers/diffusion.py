"""Joint channel estimation and data detection by sampling: the receivers of P1 and P2."""

from __future__ import annotations

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
from ..samplers.guidance import LinearGaussian
from .sampling import GUIDANCE, Sampling, Scene, complex_of, data_score, draws

FEEDBACK = ("soft", "hard", "raw")
STARTS = ("lmmse", "noise")
DECIDED = 1e-3  # a noise level at which posterior means are decisions


@dataclass(frozen=True)
class Jcedd(Sampling):
    """P1 Algorithm 2; with ``method="ald"`` P2 Algorithm 1: channel steps, and every ``n_update`` of them a whole data sampler.

    Starts from LMMSE on the pilots and zero forcing, at the level that matches the LMMSE error: sigma_i^2 nearest to its mean variance (the
    papers print sigma_i there, eq. 31). Departures: Song's step size unless ``step_rule="printed"``, its norms per frame; that start is
    re-noised where the LMMSE error is below sigma_i^2 (``renoise``), so that its error is as white as the sampler takes it to be; the first
    data are posterior means whose variances count as noise (``feedback`` "soft"; "hard": decisions; "raw": zero forcing as it is); the last
    symbols are cleaned of the sample's own noise (``clean``), see `sampling.Scene.estimate`. Frames start where their own LMMSE error says;
    ``start`` "noise" sends all of them through all n_h steps from sigma_max (P1 Tables II and III, "w/o LMMSE init"). Only the first data
    come from LMMSE then, and data samplers get the channel's posterior mean, an evaluation more: on the state as it is, noise for most
    of the steps, they end 8 dB worse.

    When time is up, frames that joined are answered with the posterior mean at the level reached, the others with their LMMSE estimate.
    """

    start: str = "lmmse"
    n_update: int = 50
    renoise: bool = True
    feedback: str = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback not in FEEDBACK:
            raise unknown("feedback", self.feedback, FEEDBACK)
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
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
        known = torch.where(scene.mask, first.mean / scene.root_gain.clamp_min(1e-15)[..., None], 0)
        if self.start == "noise":
            start = torch.full((obs.frames,), self.n_h, device=known.device)
            x = scene.noise(self.sigma_max, generator)
        else:
            start = self._start(scene, first)
            x = self._noised(scene, known, first.error, start, generator)
        return _Chain(self, scene, known, x, symbols, start, generator).run()

    def _start(self, scene: Scene, first: ChannelEstimate) -> Tensor:
        """i* of P1 eq. (31), corrected, [B]: the level whose variance is nearest to that of the LMMSE error of channels of power 1."""
        here = scene.mask
        error = torch.where(here, first.error / scene.root_gain.square().clamp_min(1e-30)[..., None], 0).mean(2).sum(1)
        error = error / here.sum((1, 2)).clamp_min(1)
        levels = self.sigmas.square().to(error)
        return self.n_h - (levels - error[:, None]).abs().argmin(1)

    def _noised(self, scene: Scene, known: Tensor, error: Tensor, start: Tensor, generator: torch.Generator) -> Tensor:
        """The LMMSE estimate ``known``, of channels of power 1, as a state at its level: noise where its error is below the level's."""
        level = self.sigmas.square().to(error)[self.n_h - start][:, None, None]
        missing = (level - error / scene.root_gain.clamp_min(1e-15).square()[..., None]).clamp_min(0)
        if not self.renoise:
            return known
        return known + missing.sqrt() * langevin.masked(langevin.noise_like(known, generator), scene.mask)

    def fed_back(self, symbols: Symbols, scene: Scene) -> tuple[Tensor, Tensor | None]:
        """The first symbols as rows of the known matrix, and their variances if they count."""
        if self.feedback == "soft":
            return symbols.mean, symbols.var
        if self.feedback == "raw":
            return symbols.symbols, None
        return _decided(symbols.symbols, scene), None


class _Chain:
    """One call: the state of all frames, and the segments of the schedule between two events (a data update, a frame that joins)."""

    def __init__(
        self,
        options: Jcedd,
        scene: Scene,
        known: Tensor,
        x: Tensor,
        first: Symbols | None,
        start: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.options, self.scene, self.start, self.generator = options, scene, start, generator
        self.known, self.x = known, x  # the answer for frames that never join, and the state
        self.data: Tensor | None = None
        self.var: Tensor | None = None
        if first is not None:
            self.data, self.var = options.fed_back(first, scene)
        self.steps = torch.zeros_like(start)
        self.updates, self.cut = 0, False

    def run(self) -> Estimate:
        for high, low in pairwise(self._events()):
            rows = (self.start >= high).nonzero()[:, 0]
            reached = self._channel(rows, high, low)
            if self.data is not None and not self.cut and not (low + 1) % self.options.n_update:
                self._update(rows, low)
            if self.cut:
                self._halt(rows, reached)
                break
        symbols = self.scene.link.data_rx.new_zeros(*self.scene.link.data_rx.shape[:2], self.x.shape[1]) if self.data is None else self.data
        nfe = float(self.steps.double().mean()) * self.options.cost + (self.updates if self.options.start == "noise" else 0)
        info = {"nfe": nfe, "start": self.start, "steps": self.steps, "updates": self.updates, "cut": self.cut}
        return self.scene.estimate(self.x, symbols, clean=self.options.clean, **info)

    def _events(self) -> list[int]:
        """Level indices, falling, where something happens."""
        starts = set(self.start.tolist())
        return sorted({0, *starts, *range(self.options.n_update - 1, max(starts), self.options.n_update)}, reverse=True)

    def _seen(self, scene: Scene, rows: Tensor) -> LinearGaussian:
        """What pilots and the data at hand say of the channels."""
        return scene.known(None if self.data is None else self.data[rows], None if self.var is None else self.var[rows])

    def _channel(self, rows: Tensor, high: int, low: int) -> int:
        """The channel sampler of frames ``rows`` from level ``high`` to ``low``, or to the level, returned, at which time is up."""
        options, scene = self.options, self.scene.take(rows)
        levels = options.sigmas[options.n_h - high : options.n_h - low + 1]
        made = 0

        def on_step(i: int, x: Tensor) -> bool:
            nonlocal made
            made = i + 1
            self.cut = scene.obs.late
            return self.cut

        score = options.channel_score(scene, self._seen(scene, rows))
        self.x[rows] = options.run(score, self.x[rows], levels, mask=scene.mask, generator=self.generator, on_step=on_step)
        self.steps[rows] += made
        return high - made

    def _halt(self, rows: Tensor, reached: int) -> None:
        """Time is up: posterior means for frames ``rows`` at their level, the start of those that have not joined."""
        answer = self.known.clone()
        answer[rows] = self._mean(self.scene.take(rows), rows, reached)
        self.x = answer

    def _mean(self, scene: Scene, rows: Tensor, low: int) -> Tensor:
        """The posterior mean of frames ``rows``, which are at level ``low``."""
        mean_of = guidance.denoiser(scene.moments, self._seen(scene, rows), weight=1.0)
        return langevin.masked(mean_of(self.x[rows], float(self.options.sigmas[self.options.n_h - low])), scene.mask)

    def _update(self, rows: Tensor, low: int) -> None:
        """New data for the channel at hand, unless time is up meanwhile."""
        scene = self.scene.take(rows)
        assert self.data is not None

        def on_step(i: int, x: Tensor) -> bool:
            self.cut = scene.obs.late
            return self.cut

        x = self._mean(scene, rows, low) if self.options.start == "noise" else self.x[rows]
        fresh = self.options.sample_data(scene, scene.channel(x), self.generator, on_step)
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

    ``feedback`` says what one knows of the other: "raw", the other's state as it is, noise and all, as the paper seems to; "soft", its
    posterior mean at the level reached, the symbols' variances counting as noise, so that the data do not lock on a channel that is noise
    still; "hard", the same with decisions for the symbols.
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
        link, times = scene.link, obs.data_len
        x, data = scene.noise(self.sigma_max, generator), scene.data_noise(self.tau_max, generator)
        shared = {"r": self.r, "step_rule": self.step_rule, "generator": generator}
        taus = schedules.geometric(self.tau_min, self.tau_max, self.n_h).tolist()
        for steps, (sigma, tau) in enumerate(zip(self.sigmas[:-1].tolist(), taus, strict=False), 1):
            score, clean = self._channel(scene, x, complex_of(data), sigma, tau)
            x = langevin.step(score, x, sigma, mask=scene.mask, **shared)  # type: ignore[arg-type]
            if times:
                channel = scene.channel(x if self.feedback == "raw" else clean)
                heard = data_score(link, channel, self.data_weight, squared=True)
                data = langevin.step(heard, data, tau, mask=scene.data_mask, **shared)  # type: ignore[arg-type]
            langevin.look(x, steps - 1, sigma, self.step_rule)
            if obs.late:
                break
        langevin.look(x, None, sigma, self.step_rule)
        cut = steps < self.n_h
        return scene.estimate(
            clean if cut else x, complex_of(data), clean=self.clean, nfe=float(steps), start=self.n_h, steps=steps, cut=cut
        )

    def _channel(self, scene: Scene, x: Tensor, data: Tensor, sigma: float, tau: float) -> tuple[langevin.Score, Tensor]:
        """The channel's posterior score, P2 eq. (4), with the data at hand, and its posterior mean; one evaluation of the prior."""
        mean, var = scene.moments(x, sigma)
        sent, sent_var = data, None
        if self.feedback == "hard":
            sent = _decided(data, scene)
        elif self.feedback == "soft":
            here = scene.link.present[:, None, :]
            sent, sent_var = (part * here for part in scene.link.prior.moments(data, data.real.new_tensor(tau)))
        seen = scene.known(sent, sent_var, squared=True)

        def once(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            return mean, var

        score = GUIDANCE[self.guidance](once, seen, weight=self.channel_weight)
        return score, langevin.masked(guidance.denoiser(once, seen)(x, sigma), scene.mask)


def _decided(symbols: Tensor, scene: Scene) -> Tensor:
    """The nearest points of the constellation."""
    return scene.link.prior.moments(symbols, symbols.real.new_tensor(DECIDED))[0] * scene.link.present[:, None, :]
