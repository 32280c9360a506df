"""The posterior mean by message passing: vector approximate message passing (VAMP) with any denoiser and known symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .guidance import LinearGaussian

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x [B K C], noise_var [B 1 C] or [B 1 1]) -> E[x0 | x] and its variance, broadcasting to [B K C], for x = x0 + CN(0, noise_var)."""

SHARPEST = 1e-6  # least ratio of an extrinsic to an incoming precision: a denoiser that adds less adds nothing


@dataclass(frozen=True)
class Means:
    """mean [B K C] and var, its claimed variance; rounds [B]: evaluations each frame took part in; diverged [B] bool: the guard stopped it
    and the answer is that of the round before."""

    mean: Tensor
    var: Tensor
    rounds: Tensor
    diverged: Tensor


def solve(
    denoiser: Denoiser,
    seen: LinearGaussian,
    *,
    rounds: int = 3,
    damping: float = 0.8,
    start_var: float = 4.0,
    pooled: bool = True,
    tolerance: float = 1e-6,
    patience: float = 2.0,
    on_step: Callable[[int, Tensor], bool | None] | None = None,
) -> Means:
    """VAMP (Rangan, Schniter, Fletcher 2019, Alg. 1) on y = a x + w: a linear stage and a denoiser in turns, each told only what the other
    found out for itself (extrinsic messages; their division of precisions is the Onsager correction).

    ``rounds`` evaluations of the denoiser; ``damping``: share of the new message; ``start_var``: variance of the first message, larger than
    the unknown's power where rows abound, so that the first linear stage is nearly least squares, and the power itself where rows are
    fewer than unknowns; ``pooled``: one variance a frame, else one a column.
    A frame stops when it moves less than ``tolerance`` (relative energy), and is taken back one round when it moves ``patience`` times
    further than before: then it diverges, as it may with fewer rows than unknowns.

    Raises ConfigError for options out of range.
    """
    _check(rounds, damping, start_var)
    frames, columns = seen.matched.shape[0], seen.matched.shape[2]
    message = seen.matched.new_zeros(frames, seen.basis.shape[1], columns)
    var = message.real.new_full((frames, 1, 1 if pooled else columns), start_var)
    mean, error = message, var.expand(message.shape)
    going, diverged = torch.ones(2, frames, 1, 1, dtype=torch.bool, device=message.device)
    diverged = ~diverged
    used = torch.zeros(frames, dtype=torch.long, device=message.device)
    reach = torch.full_like(mean.real[:, :1, :1], torch.inf)
    for step in range(rounds):
        told, told_var = _linear(seen, message, var)
        fresh, fresh_error = denoiser(told, told_var)
        move = _energy(fresh - mean)
        lost = going & ((move > patience * reach) | ~torch.isfinite(move))
        diverged, going = diverged | lost, going & ~lost
        mean, error = torch.where(going, fresh, mean), torch.where(going, fresh_error.expand(error.shape), error)
        used += going[:, 0, 0]
        reach = torch.where(going, move, reach) if step else reach
        going = going & (move > tolerance * _energy(fresh))
        if not bool(going.any()) or (on_step is not None and on_step(step, mean)):
            break
        new, new_var = _extrinsic(fresh, _pool(fresh_error.expand(error.shape), pooled), told, told_var)
        share = damping if step else 1.0
        message, var = (
            torch.where(going, torch.lerp(message, new, share), message),
            torch.where(going, torch.lerp(var, new_var, share), var),
        )
    return Means(mean, error, used, diverged[:, 0, 0])


def _linear(seen: LinearGaussian, message: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """The linear stage: posterior under x ~ CN(message, var), and its extrinsic message."""
    gain = seen.energy / (seen.noise_var + var * seen.energy)
    share = (gain.sum(1, keepdim=True) / seen.basis.shape[1] * var).clamp_min(SHARPEST)  # 1 - posterior var / var
    return message + var * seen.pull(message, var) / share, var * ((1 - share) / share).clamp_min(SHARPEST)


def _extrinsic(mean: Tensor, var: Tensor, told: Tensor, told_var: Tensor) -> tuple[Tensor, Tensor]:
    """What (mean, var) says beyond the message (told, told_var)."""
    ratio = (var / told_var).clamp(1e-9, 1 - SHARPEST)
    return (mean - ratio * told) / (1 - ratio), told_var * ratio / (1 - ratio)


def _energy(x: Tensor) -> Tensor:
    return x.abs().square().sum((1, 2), keepdim=True)


def _pool(var: Tensor, pooled: bool) -> Tensor:
    return var.mean((1, 2) if pooled else 1, keepdim=True)


def _check(rounds: int, damping: float, start_var: float) -> None:
    if rounds < 1 or not 0 < damping <= 1 or not start_var > 0:
        raise ConfigError(f"rounds {rounds}, damping {damping}, start_var {start_var}: pass rounds >= 1, 0 < damping <= 1, start_var > 0")
