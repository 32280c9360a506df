"""Approximate message passing for many antennas."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core import Estimate, Observation
from ..priors.bernoulli_gaussian import BernoulliGaussian


@dataclass(frozen=True)
class MmvAmp:
    """MMV-AMP with the Bernoulli-Gaussian MMSE denoiser (Liu, Yu, IEEE Trans. Signal Process. 2018, eq. 10-14; "AMP" of P1), damped.

    The Onsager term uses the mean divergence per antenna, which by Tweedie's formula is the posterior variance over the noise variance; the
    effective noise variance is measured on the residual of each frame. Without damping it diverges for few pilots or correlated channels.

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
        book = obs.pilots / norm
        power = norm.square() if obs.user_gain is None else norm.square() * obs.user_gain
        prior = BernoulliGaussian(obs.activity, power.expand(obs.frames, -1))
        rx, load = obs.pilot_rx, obs.users / obs.pilot_len
        x = rx.new_zeros(obs.frames, obs.users, obs.antennas)
        residual = rx
        used = torch.zeros(obs.frames, dtype=torch.long, device=rx.device)
        moving = torch.ones(obs.frames, dtype=torch.bool, device=rx.device)
        floor = obs.linear_noise_var
        for _ in range(self.iterations):
            sigma = _level(residual, floor)
            mean, var = prior.moments(x + book.mH @ residual, sigma)
            slope = (var / sigma.square()).mean(1)[:, None, None]
            fresh = rx - book @ mean + load * slope * residual
            change = (mean - x).abs().square().sum((1, 2)) / mean.abs().square().sum((1, 2)).clamp_min(1e-30)
            keep = moving[:, None, None]
            residual = torch.where(keep, self.damping * fresh + (1 - self.damping) * residual, residual)
            x = torch.where(keep, self.damping * mean + (1 - self.damping) * x, x)
            used += moving
            moving = moving & (change > self.tolerance)
            if not bool(moving.any()):
                break
        sigma = _level(residual, floor)
        pseudo = x + book.mH @ residual
        log_odds = prior.log_odds(pseudo, sigma)
        activity = torch.sigmoid(log_odds - self.threshold)
        mean, _ = prior.moments(pseudo, sigma)
        channel = mean / norm[:, None] * (activity > 0.5)[..., None]
        return Estimate(activity, channel, info={"log_odds": log_odds, "iterations": used, "effective_noise_var": sigma[:, 0].square()})


def _level(residual: torch.Tensor, floor: float) -> torch.Tensor:
    """Standard deviation [B 1] of the effective noise: the residual's, never below the thermal noise."""
    return residual.abs().square().mean((1, 2)).clamp_min(floor).sqrt()[:, None]
