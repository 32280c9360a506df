"""The variance-exploding predictor-corrector sampler."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from .langevin import OnStep, Score, check_rule, look, masked, noise_like, step


def sample(
    score: Score,
    x: Tensor,
    sigmas: Tensor,
    *,
    corrections: int = 3,
    r: float = 0.3,
    step_rule: str = "song",
    mask: Tensor | None = None,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> Tensor:
    """P1 Algorithm 1: from x at level ``sigmas[0]`` to a sample at ``sigmas[-1]``; T levels make T - 1 predictions.

    Each step predicts (eq. 22) and then makes ``corrections`` (the paper's Q) Langevin steps at the new level (eq. 24), so that it costs
    1 + Q scores. ``r``, ``step_rule`` and ``mask`` as in `langevin.sample`; the paper prints the step size of "printed".

    Raises NotFiniteError when the chain leaves the numbers, ConfigError for an unknown rule.
    """
    check_rule(step_rule, r)
    levels = sigmas.tolist()
    for i, (high, low) in enumerate(pairwise(levels)):
        x = predict(score, x, high, low, mask=mask, generator=generator)
        for _ in range(corrections):
            x = step(score, x, low, r=r, step_rule=step_rule, mask=mask, generator=generator)
        look(x, i, low, step_rule)
        if on_step is not None and on_step(i, x):
            break
    look(x, None, levels[-1], step_rule)
    return x


def predict(score: Score, x: Tensor, high: float, low: float, *, mask: Tensor | None = None, generator: torch.Generator) -> Tensor:
    """One step of the reverse diffusion from level ``high`` to ``low``, P1 eq. (22)."""
    gap = high**2 - low**2
    moved = torch.add(x, masked(score(x, high), mask), alpha=gap)
    return moved.add_(masked(noise_like(x, generator), mask), alpha=math.sqrt(gap))
