"""Activity detection and channel estimation by sampling the whole antenna x user matrix (P0)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core import Estimate, Observation, Prior
from ..errors import ConfigError, unknown
from ..priors.bernoulli_gaussian import BernoulliGaussian
from ..samplers import guidance, langevin, schedules
from ..samplers.guidance import LinearGaussian
from ..weights import choose_matrix
from .sampling import draws

GUIDANCE = ("prior", "flat")
ANSWERS = ("mean", "sample")


@dataclass(frozen=True)
class ScoreJadce:
    """Annealed Langevin dynamics on X [B N M], the channels with zero rows for silent users, from the pilots; then a test of each row.

    P0 Algorithm 1 as it must be meant: the likelihood's gradient climbs (eq. 11 descends); it carries the level's uncertainty through the
    pilots, where eq. 11 ignores P P^H; step sizes in proportion to sigma^2; noise of variance 2 beta times the step, not times sigma^2
    again; a start as wide as the first level. Steps of finite size need beta = 1 - step / 2: then the chain has the variance that the prior
    takes it to have. With beta = 1 it is so little larger that silent rows look active. P0's 0.9 is right for a step of 0.2.

    The decision does not know the truth. With Gaussian rows of the sampled powers for all others, the MMSE filter of a user gives its row
    plus noise of known variance. Its energy over that variance is chi-square with 2 M degrees of freedom when the user is silent:
    ``false_alarm`` sets the threshold as that rate; without it (the default) the log odds against a Gaussian row of the user's power
    decide, with ``threshold`` on them.

    weights: "bernoulli-gaussian" (closed form, which "auto" takes), or trained ones, see `weights.choose_matrix`. levels, steps: noise
    levels from sigma_max to sigma_min, in units of the root of each user's channel power, and Langevin steps at each. step: size of a
    Langevin step over sigma^2. beta: see above, ``None`` for 1 - step / 2. guidance: "prior" counts the prior's variance of each row,
    "flat" takes sigma^2 for all as P0 does (keep step (1 + weight) below 2 there). weight: of the likelihood; more than 1, since a mean
    variance of a row's entries is too timid where activity is open. answer: "mean", the posterior mean given the sampled rows' powers, or
    "sample", P0's, which is up to 3 dB worse.
    """

    weights_kind: ClassVar[str] = "matrix"
    weights: str = "auto"
    levels: int = 60
    steps: int = 8
    sigma_max: float = 3.0
    sigma_min: float = 0.01
    step: float = 0.4
    beta: float | None = None
    guidance: str = "prior"
    weight: float = 4.0
    answer: str = "mean"
    threshold: float = 0.0
    false_alarm: float | None = None

    def __post_init__(self) -> None:
        if self.guidance not in GUIDANCE:
            raise unknown("guidance", self.guidance, GUIDANCE)
        if self.answer not in ANSWERS:
            raise unknown("answer", self.answer, ANSWERS)
        if self.levels < 1 or self.steps < 1 or not 0 < self.step < 2 or (self.beta is not None and self.beta < 0):
            raise ConfigError("levels and steps count from 1, step is between 0 and 2, and beta is 0 or more")
        if self.false_alarm is not None and not 0 < self.false_alarm < 1:
            raise ConfigError(f"false_alarm is {self.false_alarm}: a rate in (0, 1), or none for the log odds")
        schedules.geometric(self.sigma_min, self.sigma_max, self.levels)

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N] and ``channel`` [B N M]; info: log_odds [B N], nfe, steps, cut, effective_noise_var [B N].

        Raises NotFiniteError when the chain diverges.
        """
        generator = draws(generator, obs)
        root = obs.pilot_rx.real.new_ones(obs.frames, obs.users) if obs.user_gain is None else obs.user_gain.sqrt()
        sent = obs.pilots * root[:, None, :]  # rows of power 1 inside, the gains go with the pilots
        x, steps = self._chain(choose_matrix(self.weights, obs), obs, sent, generator)
        known = _Rows.of(obs, sent, x)
        effective, residue = known.without_own()
        log_odds = BernoulliGaussian(obs.activity, torch.ones_like(root)).log_odds(effective, residue.sqrt())
        threshold = self._threshold(residue, obs) if self.false_alarm and not obs.all_active else self.threshold
        activity = torch.sigmoid(log_odds - threshold)
        cut = steps < self.levels * self.steps
        info = {"log_odds": log_odds, "nfe": float(steps + 1), "steps": steps, "cut": cut, "effective_noise_var": residue}
        channel = known.mean() if self.answer == "mean" else x
        return Estimate(activity, channel * (root * (activity > 0.5))[..., None], info=info)

    def _chain(self, prior: Prior, obs: Observation, sent: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
        """The sampled matrix, denoised, and the number of steps made."""
        levels = schedules.geometric(self.sigma_min, self.sigma_max, self.levels)
        start = langevin.noise_like(obs.pilot_rx.new_zeros(obs.frames, obs.users, obs.antennas), generator)
        made = 0

        def moments(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            mean, var = prior.moments(x, x.real.new_tensor(sigma))
            return mean, var.reshape(*var.shape, *[1] * (3 - var.ndim))

        def on_step(i: int, x: Tensor) -> bool:
            nonlocal made
            made = i + 1
            return obs.late

        mean_of = guidance.row_denoiser(moments, obs.pilot_rx, sent, noise_var=obs.linear_noise_var)
        if self.guidance == "flat":
            seen = LinearGaussian.of(obs.pilot_rx, sent, noise_var=obs.linear_noise_var)
            score = guidance.flat(moments, seen, weight=self.weight)
        else:
            score = guidance.score_of(
                guidance.row_denoiser(moments, obs.pilot_rx, sent, noise_var=obs.linear_noise_var, weight=self.weight)
            )
        x = langevin.sample(
            score,
            start * float(levels[0]),
            levels[1:],
            steps=self.steps,
            r=math.sqrt(self.step / 2),
            step_rule="fixed",
            heat=1 - self.step / 2 if self.beta is None else self.beta,
            generator=generator,
            on_step=on_step,
        )
        return mean_of(x, float(levels[made])), made * self.steps

    def _threshold(self, residue: Tensor, obs: Observation) -> Tensor:
        """The log odds [B N] at the energy that a silent user exceeds with rate ``false_alarm``."""
        degrees = 2 * obs.antennas
        tail = math.sqrt(2 / (9 * degrees)) * float(torch.special.ndtri(torch.tensor(1 - (self.false_alarm or 0.5), dtype=torch.float64)))
        energy = (1 - 2 / (9 * degrees) + tail) ** 3  # a chi-square quantile over its degrees of freedom (Wilson, Hilferty 1931)
        at = (energy * residue).sqrt()[..., None].expand(-1, -1, obs.antennas)
        return BernoulliGaussian(obs.activity, torch.ones_like(residue)).log_odds(at, residue.sqrt())


@dataclass(frozen=True)
class _Rows:
    """What the pilots say of Gaussian rows of the sampled powers: x [B N M], power [B N], filter [B L N] = total^-1 P."""

    obs: Observation
    sent: Tensor  # [B L N]
    x: Tensor
    power: Tensor
    filter: Tensor

    @staticmethod
    def of(obs: Observation, sent: Tensor, x: Tensor) -> _Rows:
        power = x.abs().square().mean(2)
        eye = torch.eye(obs.pilot_len, dtype=x.dtype, device=x.device)
        total = obs.linear_noise_var * eye + (sent * power[:, None, :]) @ sent.mH
        return _Rows(obs, sent, x, power, torch.linalg.solve(total, sent))

    def mean(self) -> Tensor:
        """Posterior means [B N M]."""
        return self.power[..., None] * (self.filter.mH @ self.obs.pilot_rx)

    def without_own(self) -> tuple[Tensor, Tensor]:
        """Each user's row as the pilots alone tell it, the others being of their sampled powers: row [B N M] plus noise of variance [B N].

        That is the MMSE filter of the user with its own power taken out of the total.
        """
        heard = (self.sent.conj() * self.filter).real.sum(1).clamp_min(1e-30)
        return (self.filter.mH @ self.obs.pilot_rx) / heard[..., None], (1 / heard - self.power).clamp_min(1e-30)
