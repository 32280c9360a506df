"""Converters: ideal, b bits or one bit per real part, behind a slow automatic gain control.

The uniform mid-rise quantiser of a Gaussian input: its step minimises the mean squared error (Max, "Quantizing for minimum distortion",
IRE Trans. Inf. Theory 1960). Outputs are scaled so that ``output = input + distortion`` with distortion uncorrelated to the input
(Bussgang), in input units; a linear receiver then adds ``FrontEnd.distortion_var`` to its noise variance and is right to second order.

>>> fe = front_end(bits=1, power=2.0)
>>> round(fe.distortion_var, 3)
1.142
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..core import FrontEnd


def front_end(*, bits: int | None, power: float) -> FrontEnd:
    """The front end of ``bits`` bits per real part (``None``: ideal) whose gain control has settled on E|y|^2 = ``power``."""
    scale = math.sqrt(power / 2)
    if bits is None:
        return FrontEnd(None, scale, 0.0)
    _, loss = optimal_step(bits)
    return FrontEnd(bits, scale, power * loss / (1 - loss))


def quantize(y: Tensor, converter: FrontEnd) -> Tensor:
    """What the converter gives for y (complex, any shape). An ideal one returns y itself."""
    if converter.bits is None:
        return y
    step, loss = optimal_step(converter.bits)
    width = step * converter.scale
    limit = 2 ** (converter.bits - 1) - 0.5
    levels = (torch.floor(torch.view_as_real(y) / width) + 0.5).clamp_(-limit, limit)
    return torch.view_as_complex(levels * (width / (1 - loss)))


@cache
def optimal_step(bits: int) -> tuple[float, float]:
    """(step, loss) for a standard normal input: the best uniform step and the mean squared error it leaves."""
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(lambda step: _distortion(step, bits), bounds=(1e-4, 3.0), method="bounded", options={"xatol": 1e-9})
    return float(best.x), float(best.fun)


def _distortion(step: float, bits: int) -> float:
    """E (x - q(x))^2 for x ~ N(0, 1), in closed form cell by cell."""
    from scipy.stats import norm

    edges = step * np.arange(2 ** (bits - 1) + 1, dtype=float)
    edges[-1] = np.inf
    outputs = step * (np.arange(2 ** (bits - 1)) + 0.5)
    mass = np.diff(norm.cdf(edges))
    first = -np.diff(norm.pdf(edges))
    return float(1 - 4 * np.sum(outputs * first) + 2 * np.sum(outputs**2 * mass))
