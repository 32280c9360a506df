"""The loop of approximate message passing for many antennas; what it assumes of the rows is the denoiser's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Observation
from ..priors.bernoulli_gaussian import energy_of

Denoiser = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(frames [b], pseudo-observations [b R M], sigma [b 1]) -> posterior mean [b R M] and variance [b R], of the frames of those numbers."""


@dataclass(frozen=True)
class Messages:
    """Where it ended: pseudo [B R M] = rows + sigma CN(0, I), sigma [B 1], steps [B]; levels [T B]: sigma^2 before each step, with
    ``traced``."""

    pseudo: Tensor
    sigma: Tensor
    steps: Tensor
    levels: Tensor | None = None


def amp(
    obs: Observation, book: Tensor, denoise: Denoiser, *, iterations: int, damping: float, tolerance: float, traced: bool = False
) -> Messages:
    """AMP for pilot_rx = book X + noise with a book [L R] of unit columns.

    The Onsager term uses the mean divergence per antenna, which by Tweedie's formula is the posterior variance over the noise variance; the
    effective noise variance is measured on the residual of each frame, and never below the thermal noise. ``damping``: share of the new
    message. A frame stops when its estimate moves less than ``tolerance`` (relative energy).
    """
    rows = book.shape[1]
    pseudo = obs.pilot_rx.new_zeros(obs.frames, rows, obs.antennas)
    sigma = obs.pilot_rx.real.new_zeros(obs.frames, 1)
    used = torch.zeros(obs.frames, dtype=torch.long, device=sigma.device)
    left = torch.arange(obs.frames, device=sigma.device)
    rx, x, residual, levels = obs.pilot_rx, torch.zeros_like(pseudo), obs.pilot_rx, []
    for step in range(iterations + 1):
        pseudo[left], sigma[left] = x + _times(book.mH, residual), _level(residual, obs.linear_noise_var)
        if traced:
            levels.append(sigma[:, 0].square())
        if step == iterations:
            break
        mean, var = denoise(left, pseudo[left], sigma[left])
        slope = rows / obs.pilot_len * (var / sigma[left].square()).mean(1)[:, None, None]
        fresh = rx - _times(book, mean) + slope * residual
        change = energy_of(mean - x).sum(1) / energy_of(mean).sum(1).clamp_min(1e-30)
        residual = torch.lerp(residual, fresh, damping)
        x = torch.lerp(x, mean, damping)
        used[left] += 1
        moving = change > tolerance
        if not bool(moving.all()):  # frames that have settled leave the batch, with their last pseudo-observation
            settled = left[~moving]
            pseudo[settled] = x[~moving] + _times(book.mH, residual[~moving])
            sigma[settled] = _level(residual[~moving], obs.linear_noise_var)
            left, rx, x, residual = left[moving], rx[moving], x[moving], residual[moving]
        if not len(left):
            break
    return Messages(pseudo, sigma, used, torch.stack(levels) if traced else None)


def _times(matrix: Tensor, batch: Tensor) -> Tensor:
    """matrix [I J] times every frame of batch [B J M], as one large product."""
    return torch.einsum("ij,bjm->bim", matrix, batch)


def _level(residual: Tensor, floor: float) -> Tensor:
    """Standard deviation [B 1] of the effective noise: the residual's, never below the thermal noise."""
    return (energy_of(residual).mean(1) / residual.shape[-1]).clamp_min(floor).sqrt()[:, None]
