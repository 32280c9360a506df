"""Converters: ideal, b bits or one bit per real part, behind a slow automatic gain control.

The uniform mid-rise quantiser of a Gaussian input: its step minimises the mean squared error (Max, "Quantizing for minimum distortion",
IRE Trans. Inf. Theory 1960). Outputs are scaled so that ``output = input + distortion`` with distortion uncorrelated to the input
(Bussgang), in input units; a linear receiver then adds ``FrontEnd.distortion_var`` to its noise variance and is right to second order.

A converter may add something known to its input and take it away again behind it: output = Q(input + offset) - offset. Dither is a Gaussian
sequence, one number for each symbol of a frame and antenna, that receiver and converter make alike from the configuration; with it the
Bussgang relation stays exact. A threshold (minus the offset) is one number for all comparators; the relation then holds up to a mean of
threshold**3 / 3, for thresholds as a fraction of the scale.

>>> fe = front_end(bits=1, power=2.0)
>>> round(fe.distortion_var, 3)
1.142
>>> round(front_end(bits=1, power=2.0, dither=0.5, frame=(28, 64)).distortion_var, 3)
1.427
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..core import FrontEnd
from ..errors import ConfigError
from ..rng import complex_normal, generator

DITHER_SEED = 0  # converter and receiver must agree on the sequence


def front_end(
    *, bits: int | None, power: float, threshold: float = 0.0, dither: float = 0.0, frame: tuple[int, int] | None = None
) -> FrontEnd:
    """The front end of ``bits`` bits per real part (``None``: ideal) whose gain control has settled on E|y|^2 = ``power``.

    ``threshold`` of all comparators and root mean square of the ``dither`` are fractions of the root mean square per real part that
    belongs to ``power``; they need the shape of a ``frame``, (symbols, antennas). An ideal converter has neither.
    Raises ConfigError without that shape.
    """
    if bits is None:
        return FrontEnd(None, math.sqrt(power / 2), 0.0)
    offset = _offset(math.sqrt(power / 2), threshold, dither, frame)
    total = power * (1 + threshold**2 + dither**2)
    _, loss = optimal_step(bits)
    return FrontEnd(bits, math.sqrt(total / 2), total * loss / (1 - loss), offset)


def _offset(scale: float, threshold: float, dither: float, frame: tuple[int, int] | None) -> Tensor | None:
    """What is added before the converter decides [symbols, antennas] complex64, or ``None`` for nothing."""
    if not threshold and not dither:
        return None
    if frame is None:
        raise ConfigError(f"a threshold of {threshold} and a dither of {dither} need the frames' shape: pass frame=(symbols, antennas)")
    sequence = complex_normal(*frame, generator=generator(DITHER_SEED, "dither")) * (math.sqrt(2) * dither)
    return scale * (sequence - complex(threshold, threshold))


def quantize(y: Tensor, converter: FrontEnd) -> Tensor:
    """What the converter gives for y (complex, any shape; [... L+D M] where it has an offset): Q(y + offset) - offset.

    An ideal one returns y itself.
    """
    if converter.bits is None:
        return y
    return samples_of(_cells(y if converter.offset is None else y + converter.offset.to(y), converter), converter)


def levels_of(samples: Tensor, converter: FrontEnd) -> Tensor:
    """Which levels [... 2] (real and imaginary part) samples (complex, what `quantize` gave) are: -1/2 and 1/2 with one bit, and so on.

    Raises ConfigError for an ideal converter, which has none.
    """
    level = samples if converter.offset is None else samples + converter.offset.to(samples)
    return _clipped(torch.view_as_real(level.resolve_conj()) / _unit(converter), converter)


def samples_of(levels: Tensor, converter: FrontEnd) -> Tensor:
    """The inverse of `levels_of`, to the last bit."""
    level = torch.view_as_complex(levels * _unit(converter))
    return level if converter.offset is None else level - converter.offset.to(level)


def _bits(converter: FrontEnd) -> int:
    if converter.bits is None:
        raise ConfigError("an ideal converter has no levels: say how many bits it has, adc_bits")
    return converter.bits


def _unit(converter: FrontEnd) -> float:
    """The distance of two levels."""
    step, loss = optimal_step(_bits(converter))
    return step * converter.scale / (1 - loss)


def _cells(y: Tensor, converter: FrontEnd) -> Tensor:
    """The levels [... 2] that a converter puts out for y."""
    step, _ = optimal_step(_bits(converter))
    return _clipped(torch.view_as_real(y) / (step * converter.scale), converter)


def _clipped(parts: Tensor, converter: FrontEnd) -> Tensor:
    limit = 2 ** (_bits(converter) - 1) - 0.5
    return parts.floor_().add_(0.5).clamp_(-limit, limit)


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
