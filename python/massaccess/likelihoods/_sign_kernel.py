"""Linearised one-bit samples, compiled for the CPU: cavities, moments and new Gaussians in one pass, one symbol time after the other."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BEND = 0.28
EXCESS = (  # of the inverse Mills ratio at -a over a, divided by u = 1 / (1 + BEND a): a polynomial in u, within 1.2e-10 for all a >= 0
    (0.2799999999696, 0.2800000190928, 0.2360940227448, 0.1483685776886),
    (0.03206819830461, -0.05090000650051, -0.3162853228868, 0.9684561773261),
    (-4.46228475253, 13.36568285886, -28.66436968458, 45.26561470285),
    (-49.97690371095, 36.83149209264, -17.22459008075, 4.632933529016),
)
HIGHEST = -0.547492059471  # its last coefficient
TAYLOR = ((1.0, 1.0, 1 / 2, 1 / 6), (1 / 24, 1 / 120, 1 / 720, 1 / 5040))  # of the exponential function
HALVINGS = 13  # of the exponent, before the series
LARGEST = 700.0  # exponent; beyond it, doubles lose digits
DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
SOUND = {"contract", "reassoc", "nsz", "arcp"}  # edges may be infinite


@njit(cache=True, nogil=True, fastmath=SOUND, error_model="numpy", inline="always")
def _cubic(x, terms):
    return terms[0] + x * (terms[1] + x * (terms[2] + x * terms[3]))


@njit(cache=True, nogil=True, fastmath=SOUND, error_model="numpy", inline="always")
def _density(x):
    """Of a standard normal, without a call of a library: the compiler takes several at once."""
    part = min(0.5 * x * x, LARGEST) * (-(0.5**HALVINGS))
    fourth = part * part * part * part
    value = _cubic(part, TAYLOR[0]) + fourth * _cubic(part, TAYLOR[1])
    for _ in range(HALVINGS):
        value *= value
    return DENSITY * value


@njit(cache=True, nogil=True, fastmath=SOUND, error_model="numpy", inline="always")
def _slopes(x):
    """The derivative of log Phi, and minus its second one."""
    size = abs(x)
    u = 1.0 / (1.0 + BEND * size)
    fourth = u * u * u * u
    high = _cubic(u, EXCESS[2]) + fourth * (_cubic(u, EXCESS[3]) + fourth * HIGHEST)
    ratio = size + u * (_cubic(u, EXCESS[0]) + fourth * (_cubic(u, EXCESS[1]) + fourth * high))
    density = _density(x)
    first = ratio if x < 0.0 else density * ratio / (ratio - density)
    rest = ratio - size if x < 0.0 else first + size
    return first, first * rest


@njit(cache=True, nogil=True, fastmath=SOUND, error_model="numpy")
def slopes(x, first, second):
    """`_slopes` of each x [N]."""
    for i in range(x.shape[0]):
        first[i], second[i] = _slopes(x[i])


@njit(cache=True, nogil=True, fastmath=SOUND, error_model="numpy")
def again(
    first, last, lower, upper, noise_var, mean, var, rx, noise, start, share, silence, least_cavity, least_news, farthest, out_rx, out_noise
):
    """`Linearised.again` for the frames first..last and the symbol times of mean [B t 2M], the first of which is ``start``.

    lower, upper and rx [B T 2M]: real and imaginary parts side by side; noise_var [B]; var [B t], noise [B T]; out like rx and noise.
    """
    times, parts = mean.shape[1], mean.shape[2]
    fresh, tilted = np.empty(parts), np.empty(parts)
    for frame in range(first, last):
        noise_half = 0.5 * noise_var[frame]
        for row in range(times):
            t = start + row
            prec, site = 1.0 / var[frame, row], 1.0 / noise[frame, t]
            own = min(site, (1.0 - least_cavity) * prec)
            spread = 1.0 / (prec - own)
            half = 0.5 * spread
            total = half + noise_half
            scale = 1.0 / math.sqrt(total)
            step = half * scale
            rest, gain = half * noise_half / total, half * half / total
            tight = 0.0
            for i in range(parts):
                low, high = lower[frame, t, i], upper[frame, t, i]
                above = high == np.inf  # the cell reaches to plus infinity
                sign, edge = (1.0, low) if above else (-1.0, high)
                place = spread * (mean[frame, row, i] * prec - rx[frame, t, i] * own)
                slope, bend = _slopes(sign * (place - edge) * scale)
                fresh[i] = place
                tilted[i] = place + sign * step * slope
                tight += rest + gain * max(1.0 - bend, 0.0)
            tight = 2.0 * tight / parts
            part = 1.0 if noise[frame, t] >= silence else share
            news = max(1.0 / tight - 1.0 / spread, least_news / spread)
            boost, reach = 1.0 + 1.0 / (news * spread), farthest * math.sqrt(0.5 * (spread + 1.0 / news))
            old = (1.0 - part) * site
            fused = 1.0 / (part * news + old)
            for i in range(parts):
                step = min(max((tilted[i] - fresh[i]) * boost, -reach), reach)
                out_rx[frame, t, i] = fused * (part * news * (fresh[i] + step) + old * rx[frame, t, i])
            out_noise[frame, t] = fused
