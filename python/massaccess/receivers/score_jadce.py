"""Activity detection and channel estimation by sampling the whole antenna x user matrix (P0)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, MatrixPrior, Observation
from ..errors import ConfigError, unknown
from ..priors.bernoulli_gaussian import BernoulliGaussian
from ..samplers import guidance, langevin, schedules
from ..samplers.guidance import LinearGaussian
from ..weights import choose_matrix
from .sampling import GUIDANCE, draws


@dataclass(frozen=True)
class ScoreJadce:
    """Annealed Langevin dynamics on X [B N M], the channels with zero rows for silent users, from the pilots; then a test of each row.

    P0 Algorithm 1 as it must be meant: the likelihood's gradient climbs (eq. 11 descends), through the singular value decomposition with the
    level's noise passed through the pilots (eq. 11 ignores P P^H); step sizes in proportion to sigma^2; noise of variance 2 beta times the
    step; the start as wide as the first level. The prior enters twice, as the score of the chain and as the test's silent hypothesis.

    The decision does not know the truth. Given the sampled rows of all others, a user's matched filter is its row plus noise of known
    variance: the thermal noise, and what the prior's posterior variance leaves of the others. Its energy over that variance is chi-square
    with 2 M degrees of freedom when the user is silent; ``false_alarm`` sets the threshold as that rate, and without it (the default) the
    log odds of the Bernoulli-Gaussian model decide, with ``threshold`` on them.

    weights: "bernoulli-gaussian" (closed form, which "auto" takes), or trained ones, see `weights.choose_matrix`. levels, steps: noise levels
    from sigma_max to sigma_min, relative to the root of the mean channel power, and Langevin steps at each. step: of a Langevin step, in
    units of sigma^2. beta: P0's 0.9 samples; towards 0 it climbs to a mode. guidance: "prior" counts the prior's variance, "flat" is P0's.
    repeats: rounds of cancellation and denoising after the chain.
    """

    weights: str = "auto"
    levels: int = 60
    steps: int = 3
    sigma_max: float = 3.0
    sigma_min: float = 0.01
    step: float = 0.18
    beta: float = 0.9
    guidance: str = "prior"
    weight: float = 1.0
    threshold: float = 0.0
    false_alarm: float | None = None

    def __post_init__(self) -> None:
        if self.guidance not in GUIDANCE:
            raise unknown("guidance", self.guidance, GUIDANCE)
        if self.levels < 1 or self.steps < 1 or not self.step > 0 or self.beta < 0:
            raise ConfigError("levels and steps count from 1, step is above 0 and beta is 0 or more")
        if self.false_alarm is not None and not 0 < self.false_alarm < 1:
            raise ConfigError(f"false_alarm is {self.false_alarm}: a rate in (0, 1), or none for the log odds")
        schedules.geometric(self.sigma_min, self.sigma_max, self.levels)

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N] and ``channel`` [B N M]; info: log_odds [B N], nfe, steps, cut, effective_noise_var [B N].

        Raises NotFiniteError when the chain diverges.
        """
        generator = draws(generator, obs)
        gain = obs.pilot_rx.real.new_ones(obs.frames, obs.users) if obs.user_gain is None else obs.user_gain
        prior, scale = choose_matrix(self.weights, obs), float(gain.mean().sqrt())
        sent = obs.pilots.expand(obs.frames, -1, -1)
        seen = LinearGaussian.of(obs.pilot_rx, sent, noise_var=obs.linear_noise_var)
        x, sigma, steps = self._chain(prior, seen, obs, scale, generator)
        mean, var = guidance.denoiser(_moments(prior), seen)(x, sigma), _moments(prior)(x, sigma)[1]
        return self._decide(obs, gain, mean, var, nfe=float(steps + 2), steps=steps, cut=steps < self.levels * self.steps)
