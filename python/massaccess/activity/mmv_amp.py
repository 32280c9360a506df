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
        power = (norm.square() if obs.user_gain is None else norm.square() * obs.user_gain).expand(obs.frames, -1)
        pseudo, sigma = obs.pilot_rx.new_zeros(obs.frames, obs.users, obs.antennas), power.new_zeros(obs.frames, 1)
        used = torch.zeros(obs.frames, dtype=torch.long, device=power.device)
        left = torch.arange(obs.frames, device=power.device)
        rx, x, residual = obs.pilot_rx, torch.zeros_like(pseudo), obs.pilot_rx
        for step in range(self.iterations + 1):
            pseudo[left], sigma[left] = x + _times(book.mH, residual), _level(residual, obs.linear_noise_var)
            if step == self.iterations:
                break
            mean, var = BernoulliGaussian(obs.activity, power[left]).moments(pseudo[left], sigma[left])
            slope = obs.users / obs.pilot_len * (var / sigma[left].square()).mean(1)[:, None, None]
            fresh = rx - _times(book, mean) + slope * residual
            change = (mean - x).abs().square().sum((1, 2)) / mean.abs().square().sum((1, 2)).clamp_min(1e-30)
            residual = torch.lerp(residual, fresh, self.damping)
            x = torch.lerp(x, mean, self.damping)
            used[left] += 1
            moving = change > self.tolerance
            if not bool(moving.all()):  # frames that have settled leave the batch, with their last pseudo-observation
                settled = left[~moving]
                pseudo[settled] = x[~moving] + _times(book.mH, residual[~moving])
                sigma[settled] = _level(residual[~moving], obs.linear_noise_var)
                left, rx, x, residual = left[moving], rx[moving], x[moving], residual[moving]
            if not len(left):
                break
        prior = BernoulliGaussian(obs.activity, power)
        log_odds = prior.log_odds(pseudo, sigma)
        activity = torch.sigmoid(log_odds - self.threshold)
        channel = prior.moments(pseudo, sigma)[0] / norm[:, None] * (activity > 0.5)[..., None]
        return Estimate(activity, channel, info={"log_odds": log_odds, "iterations": used, "effective_noise_var": sigma[:, 0].square()})


def _times(matrix: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """matrix [I J] times every frame of batch [B J M], as one large product."""
    return torch.einsum("ij,bjm->bim", matrix, batch)


def _level(residual: torch.Tensor, floor: float) -> torch.Tensor:
    """Standard deviation [B 1] of the effective noise: the residual's, never below the thermal noise."""
    return residual.abs().square().mean((1, 2)).clamp_min(floor).sqrt()[:, None]
