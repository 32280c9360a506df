"""Langevin dynamics: one step, and the annealed chain."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ConfigError, NotFiniteError, unknown

Score = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor], "bool | None"]

STEP_RULES = ("song", "printed", "fixed")
LOOK_EVERY = 32  # levels between two looks for numbers that are none: each look waits for the device


def sample(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    *,
    steps: int = 1,
    r: float = 0.3,
    step_rule: str = "song",
    heat: float = 1.0,
    mask: Tensor | None = None,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """Annealed Langevin dynamics (P2 eq. 3): ``steps`` Langevin steps at each level of ``sigmas`` [T]; the state after the last.

    ``r`` and ``step_rule`` set the step size, see `step_size`; ``heat`` scales the variance of the injected noise (P0's beta; 1 samples the
    posterior, less sharpens it); ``mask``, broadcast to x, marks the entries that exist: the others stay as they are and count in no norm.

    Raises NotFiniteError when the chain leaves the numbers, ConfigError for an unknown rule.
    """
    check_rule(step_rule, r)
    sigma = math.nan
    for i, sigma in enumerate(sigmas.tolist()):
        for _ in range(steps):
            x = step(score, x, sigma, r=r, step_rule=step_rule, heat=heat, mask=mask, generator=generator)
        look(x, i, sigma, step_rule)
        if on_step is not None and on_step(i, x):
            break
    look(x, None, sigma, step_rule)
    return x


def step(
    score: Score,
    x: Tensor,
    sigma: float,
    *,
    r: float,
    step_rule: str,
    heat: float = 1.0,
    mask: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """x + eta * score + sqrt(2 * heat * eta) * CN(0, I), eta of `step_size`; P1 eq. (24)."""
    slope, noise = masked(score(x, sigma), mask), masked(noise_like(x, generator), mask)
    eta = step_size(slope, noise, sigma, r=r, step_rule=step_rule)
    return torch.addcmul(torch.addcmul(x, slope, eta), noise, (2 * heat * eta).sqrt_())


def step_size(slope: Tensor, noise: Tensor, sigma: float, *, r: float, step_rule: str) -> Tensor:
    """eta = 2 (r |noise| / |slope|)^2 for each frame [B 1 ...], norms over everything else: about 2 r^2 sigma^2 (Song et al. 2021, Alg. 4).
    It is meant for frames of many entries; with few, |slope| may be near 0, and eta is kept below sigma^2, where the step would overshoot.

    "printed" multiplies it by sigma per real part, without that bound, as P1 (24) and P2 (3) print it: with channels of unit power it
    overshoots far above sigma = 5 and hardly moves below 0.1. The papers take norms of all real parts, which gives the same eta.
    "fixed" is 2 r^2 sigma^2 whatever the score (P0: steps in proportion to sigma^2).
    """
    if step_rule == "fixed":
        return noise.real.new_full((1,) * noise.ndim, 2 * r**2 * sigma**2)
    ratio = _norm(noise) / _norm(slope).clamp_min(1e-30)  # |slope| is 0 where a frame's mask leaves nothing
    eta = 2 * r**2 * ratio.square()
    return eta * (sigma * math.sqrt(0.5)) if step_rule == "printed" else eta.clamp_max(sigma**2)


def _norm(x: Tensor) -> Tensor:
    """Norm of each frame, [B 1 ...]."""
    parts = torch.view_as_real(x).flatten(-2) if x.is_complex() else x
    return torch.linalg.vector_norm(parts.flatten(1), dim=1).view(-1, *[1] * (x.ndim - 1))


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """CN(0, I) of the shape of x, or its real parts when x is real."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return drawn if x.is_complex() else drawn.mul_(math.sqrt(0.5))


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x where ``mask`` is true, 0 elsewhere."""
    return x if mask is None else x * mask


def check_rule(step_rule: str, r: float) -> None:
    """ConfigError or UnknownNameError for step sizes that make no sense."""
    if step_rule not in STEP_RULES:
        raise unknown("step rule", step_rule, STEP_RULES)
    if not r > 0:
        raise ConfigError(f"r is {r}: the ratio of noise to drift of a step, pass a number above 0 (the papers: 0.3)")


def look(x: Tensor, i: int | None, sigma: float, step_rule: str) -> None:
    """NotFiniteError if x holds NaN or infinity; with a step number only every `LOOK_EVERY` steps."""
    if i is not None and i % LOOK_EVERY:
        return
    if not math.isfinite(float(x.abs().sum())):
        cure = "pass step_rule='song' or start at a lower sigma" if step_rule == "printed" else "pass a smaller r, or check the prior"
        raise NotFiniteError(f"the sampler diverged at sigma = {sigma:.3g}: {cure}")
