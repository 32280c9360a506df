"""Approximate message passing for many antennas."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core import Estimate, Observation
from ..priors.bernoulli_gaussian import BernoulliGaussian
from .message_passing import amp


@dataclass(frozen=True)
class MmvAmp:
    """MMV-AMP with the Bernoulli-Gaussian MMSE denoiser (Liu, Yu, IEEE Trans. Signal Process. 2018, eq. 10-14; "AMP" of P1), damped.

    The Onsager term and the effective noise variance are those of `message_passing.amp`. Without damping it diverges for few pilots or
    correlated channels.

    Options: iterations; damping: share of the new message; tolerance: a frame stops when its estimate moves less (relative energy);
    threshold: on the log odds, calibrate it on frames of its own (``evaluate --calibrate``), because the state evolution that makes 0 the
    MAP decision does not hold for books this small.
    """

    iterations: int = 100
    damping: float = 0.5
    tolerance: float = 1e-6
    threshold: float = 0.0

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N] and ``channel`` [B N M]; info: log_odds [B N], iterations [B], effective_noise_var [B]."""
        norm = torch.linalg.vector_norm(obs.pilots, dim=0)
        power = (norm.square() if obs.user_gain is None else norm.square() * obs.user_gain).expand(obs.frames, -1)
        found = amp(
            obs,
            obs.pilots / norm,
            lambda frames, pseudo, sigma: BernoulliGaussian(obs.activity, power[frames]).moments(pseudo, sigma),
            iterations=self.iterations,
            damping=self.damping,
            tolerance=self.tolerance,
        )
        prior = BernoulliGaussian(obs.activity, power)
        log_odds = prior.log_odds(found.pseudo, found.sigma)
        activity = torch.sigmoid(log_odds - self.threshold)
        channel = prior.moments(found.pseudo, found.sigma)[0] / norm[:, None] * (activity > 0.5)[..., None]
        info = {"log_odds": log_odds, "iterations": found.steps, "effective_noise_var": found.sigma[:, 0].square()}
        return Estimate(activity, channel, info=info)
