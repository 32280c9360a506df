"""P4's receiver: mean-field variational inference from signs; with known users, or with activity and channels found together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import Symbols, finish
from ..errors import ConfigError, ShapeError, unknown
from ..likelihoods.normal import LOGISTIC
from ..likelihoods.real_form import joined, stacked
from ..priors.constellation import ConstellationPrior
from ..samplers import advi, advi_access
from .selection import Selection
from .signs import Signs, decided, to_power, turned, unbiased

LIKELIHOODS = ("probit", "logistic", "logistic-unit")
"""Gaussian noise · a sigmoid of the slope that comes nearest to it · the paper's sigmoid of slope 1, whatever the noise."""


@dataclass(frozen=True)
class Advi:
    """Channels from pilots, symbols from channels, each by maximising the ELBO of an independent Gaussian for every unknown (P4 section
    1.4), then ``rounds`` of both with the detected symbols as more pilots.

    When users may be silent, activity and channels are found together first (section 2.2, Algorithm 4, `samplers.advi_access`); the users
    found are detected (Algorithm 5), with ``access_rounds`` of refinement. A user counts as active when the mean power of alpha_i h_i
    over the antennas is at least ``threshold`` of that of the users that the activity prior expects (the strongest ones), and large beside
    the posterior's variance (`advi_access.score`): alpha and h have no scale of their own.

    Departures from the paper, beyond its misprints: the likelihood follows the noise (``likelihood="logistic-unit"`` is the printed one);
    real parts have prior variance 1/2 times the user's power; expectations are exact and the ascent is Newton's (``samples`` above 0: Monte
    Carlo and Adam as in Algorithm 1, at most ``steps`` of size ``step_size``); the error of the channels counts as noise of the data
    (``count_error``); pseudo-pilots are posterior means, their variance counted as noise (``soft``). With ``count_error=False, soft=False``
    channels are taken for exact and hard decisions for pilots, as printed; wrong ones then lock in. Of converters with more than one
    bit, the signs alone are used.

    ``tolerance``: of the ELBO, in nats a column for Newton's ascent, relative for Monte Carlo (P4 Algorithm 1: 0.01).
    """

    likelihood: str = "probit"
    rounds: int = 3
    access_rounds: int = 0
    soft: bool = True
    count_error: bool = True
    threshold: float = 0.05
    tolerance: float = 0.01
    samples: int = 0
    step_size: float = 0.1
    steps: int = 300
    access_samples: int = 1
    access_steps: int = 500
    access_step_size: float = 0.05

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it they are found, unless all are known to be active.

        info: error_var [B N], of the channel estimate, rounds [B], cut [B] bool (time was up).
        """
        if self.likelihood not in LIKELIHOODS:
            raise unknown("likelihood", self.likelihood, LIKELIHOODS)
        if min(self.rounds, self.access_rounds, self.samples) < 0 or min(self.steps, self.access_samples, self.access_steps) < 1:
            raise ConfigError("rounds and samples are 0 or more, steps, access_samples and access_steps 1 or more: one of advi's is not")
        if active is None and not obs.all_active:
            return self._access(obs, generator)
        active = torch.ones(obs.frames, obs.users, dtype=torch.bool, device=obs.pilot_rx.device) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots = Selection.of(active)
        job = _Job(self, obs, Signs.of(obs, slots), generator)
        return job.receive(job.channel_from_pilots(), slots, active.to(obs.pilot_rx.real.dtype), self.rounds)

    def _access(self, obs: Observation, generator: torch.Generator | None) -> Estimate:
        everyone = Selection.of(torch.ones(obs.frames, obs.users, dtype=torch.bool, device=obs.pilot_rx.device))
        job = _Job(self, obs, Signs.of(obs, everyone), generator)
        joint = advi_access.ascend(
            job.pilot_problem(),
            samples=self.access_samples,
            step=self.access_step_size,
            steps=self.access_steps,
            late=lambda: obs.late,
            generator=generator,
        )
        channel, error = joined(joint.channel), _total(joint.var)
        score = advi_access.score(
            channel.abs().square().mean(2) / job.signs.gain,
            error.mean(2) / job.signs.gain,
            activity=obs.activity,
            noise_var=obs.noise_var,
            threshold=self.threshold,
        )
        score = score * ~_quiet(obs)[:, None]
        active = score > 0.5
        slots = Selection.of(active)
        job = _Job(self, obs, Signs.of(obs, slots), generator)
        found = _normalised(slots.take(channel), slots.take(error), slots.gain(obs))
        return job.receive(found, slots, score, self.access_rounds)


def _quiet(obs: Observation) -> Tensor:
    """Frames [B] whose pilots have no more power than noise alone, where the converter tells: signs do not."""
    if obs.front_end.bits == 1:
        return torch.zeros(obs.frames, dtype=torch.bool, device=obs.pilot_rx.device)
    return obs.pilot_rx.abs().square().mean((1, 2)) < obs.linear_noise_var


def _normalised(channel: Tensor, error: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Channels and their variances [B K M] with every antenna at its mean power."""
    factor = to_power(channel, gain)
    return channel * factor, error * factor.square()


def _total(var: Tensor) -> Tensor:
    """Variances of complex entries from those of their parts, [B 2K M] to [B K M]."""
    real, imag = var.chunk(2, 1)
    return real + imag


@dataclass(frozen=True)
class _Job:
    """One batch of frames and the options that it is received with."""

    options: Advi
    obs: Observation
    signs: Signs
    generator: torch.Generator | None

    def receive(self, start: tuple[Tensor, Tensor], slots: Selection, activity: Tensor, rounds: int) -> Estimate:
        (channel, error), used, late = start, 0, False
        symbols = self.detect(channel, error)
        for _ in range(rounds if self.obs.data_len else 0):
            late = self.obs.late
            if late:
                break
            channel, error = self.refine(symbols, channel, error)
            symbols = self.detect(channel, error)
            used += 1
        count = torch.full((self.obs.frames,), used, device=channel.device)
        info = {"rounds": count, "error_var": slots.put(error.mean(2)), "cut": torch.full_like(count, late, dtype=torch.bool)}
        return slots.estimate(activity, channel, symbols.symbols, symbols.symbol_var, **info)

    def scale(self, noise_var: Tensor | float) -> Tensor | float:
        """What the inputs of the likelihood are multiplied with; noise_var: total variance."""
        if self.options.likelihood == "logistic-unit":
            return 1.0
        deviation = math.sqrt(noise_var / 2) if isinstance(noise_var, float | int) else (noise_var / 2).sqrt()
        return (LOGISTIC if self.options.likelihood == "logistic" else 1.0) / deviation

    def pilot_problem(self) -> advi.SignProblem:
        quiet = self.signs.sent.real.new_full((*self.signs.sent.shape[:2], 1), self.obs.noise_var)
        return self._problem(self.signs.pilots, stacked(self.signs.sent), self._prior, self.signs.pilot_shift, quiet)

    def channel_from_pilots(self) -> tuple[Tensor, Tensor]:
        return self._channel(self.pilot_problem())

    def refine(self, symbols: Symbols, channel: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Channels from pilots and detected symbols."""
        quiet = self.signs.sent.real.new_full((*self.signs.sent.shape[:2], 1), self.obs.noise_var)
        if self.options.soft:
            power = (channel.abs().square() + error).mean(2)
            sent, noisy = symbols.mean, self.obs.noise_var + symbols.var @ power[..., None]
        else:
            sent, noisy = decided(symbols.symbols, self.signs.present, self.obs), quiet[:, :1].expand(-1, self.obs.data_len, -1)
        design = stacked(torch.cat([self.signs.sent, sent], 1))
        noise = torch.cat([quiet, noisy], 1)
        return self._channel(self._problem(self.signs.both, design, self._prior, self.signs.both_shifts, noise))

    def detect(self, channel: Tensor, error: Tensor) -> Symbols:
        """Symbols of all users, times by times."""
        noise = self.obs.noise_var + (error.sum(1) if self.options.count_error else torch.zeros_like(error[:, 0]))
        shift = None if self.signs.data_shift is None else turned(self.signs.data_shift)
        half = self.signs.gain.new_full((self.obs.frames, 2 * channel.shape[1], 1), 0.5)
        problem = self._problem(turned(self.signs.data), stacked(channel.mT), half, shift, noise[..., None])
        found = self._solve(problem)
        soft = joined(found.mean).mT * self.signs.present[:, None, :]
        prior = ConstellationPrior(self.obs.modulation)
        return finish(*unbiased(soft, prior), self.signs.present, prior) if self.obs.data_len else Symbols(soft, soft.real, soft, soft.real)

    @property
    def _prior(self) -> Tensor:
        """Variance of the channels' real parts [B 2K 1]; any in empty slots, nothing is sent there."""
        half = torch.where(self.signs.present, self.signs.gain, 1) / 2
        return torch.cat([half, half], 1)[..., None]

    def _problem(self, signs: Tensor, design: Tensor, prior_var: Tensor, shift: Tensor | None, noise_var: Tensor) -> advi.SignProblem:
        """noise_var [B T 1]: of the complex samples behind the rows."""
        scale = self.scale(torch.cat([noise_var, noise_var], 1))
        moved = None if shift is None else shift * scale
        return advi.SignProblem(signs, design * scale, prior_var, moved, self.options.likelihood != "probit")

    def _channel(self, problem: advi.SignProblem) -> tuple[Tensor, Tensor]:
        found = self._solve(problem)
        present = self.signs.present[..., None]
        channel, error = joined(found.mean) * present, _total(found.var) * present
        return (channel, error) if problem.shift is not None else _normalised(channel, error, self.signs.gain)

    def _solve(self, problem: advi.SignProblem) -> advi.Factors:
        o = self.options
        if not o.samples:
            return advi.newton(problem, tolerance=o.tolerance)[0]
        found, _ = advi.monte_carlo(
            problem, samples=o.samples, step=o.step_size, steps=o.steps, tolerance=o.tolerance, generator=self.generator
        )
        return found
