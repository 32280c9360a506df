"""Solvers of the probability flow for few evaluations: deterministic, so the answer is a function of the start.

>>> import torch
>>> from massaccess.samplers.schedules import karras
>>> start = torch.full((1, 2), 3.0 + 0j)
>>> end = dpm_solver(lambda x, sigma: x / (1 + sigma**2), start, karras(0.01, 3.0, 12))  # x0 ~ CN(0, 1): x shrinks to 0.95
>>> round(float(end[0, 0].real), 2)
0.97
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from .langevin import OnStep

Denoised = Callable[[Tensor, float], Tensor]


def heun(denoised: Denoised, x: Tensor, sigmas: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """dx/dsigma = (x - denoised(x)) / sigma by Heun's method (Karras et al. 2022, Alg. 1 without churn): two evaluations a step, one when
    the step ends at 0."""
    levels = sigmas.tolist()
    for i, (high, low) in enumerate(pairwise(levels)):
        slope = (x - denoised(x, high)) / high
        reached = x + (low - high) * slope
        if low > 0:
            slope = (slope + (reached - denoised(reached, low)) / low) / 2
            reached = x + (low - high) * slope
        x = reached
        if on_step is not None and on_step(i, x):
            break
    return x


def dpm_solver(denoised: Denoised, x: Tensor, sigmas: Tensor, *, on_step: OnStep | None = None) -> Tensor:
    """DPM-Solver++(2M) of the variance-exploding flow (Lu et al. 2022, Alg. 2 with alpha = 1): one evaluation a step; the steps to the
    first and the last level are of first order."""
    levels = sigmas.tolist()
    before: Tensor | None = None
    before_gap = 0.0
    for i, (high, low) in enumerate(pairwise(levels)):
        mean = denoised(x, high)
        if low == 0:
            x = mean
        else:
            gap = math.log(high / low)
            lead = mean if before is None else mean + (mean - before) * (gap / (2 * before_gap))
            x = (low / high) * x + (1 - low / high) * lead
            before, before_gap = mean, gap
        if on_step is not None and on_step(i, x):
            break
    return x
