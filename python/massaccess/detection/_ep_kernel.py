"""Expectation propagation, compiled for the CPU: up to `MOST_LANES` symbol times of a frame side by side."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..lanes import solve

MOST_LANES = 48  # more do not fit the first-level cache


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _real_moments(x, var, levels):
    """Mean and variance of a real part drawn from ``levels``, given x = it + N(0, var / 2)."""
    if levels.shape[0] == 2:
        peak = levels[1]
        mean = peak * math.tanh(2.0 * peak * x / var)
        return mean, peak * peak - mean * mean
    nearest = 1e300
    for level in levels:
        nearest = min(nearest, (x - level) * (x - level))
    total, first, second = 0.0, 0.0, 0.0
    for level in levels:
        weight = math.exp((nearest - (x - level) * (x - level)) / var)
        total += weight
        first += weight * level
        second += weight * level * level
    mean = first / total
    return mean, max(second / total - mean * mean, 0.0)


@njit(cache=True, nogil=True, fastmath=True)
def propagate(
    first, last, gram_r, gram_i, match_r, match_i, start_r, start_i, start_var, count, levels, rounds, damping, floor, out_r, out_i, out_var
):
    """EP for the frames first..last. gram [B K K]; match [B D K]; start [B D K] and start_var [B K]: mean and variance before there are
    sites, when all times share one system; count [B] users, the first ones; levels of a real part.

    out, out_var [B D K]: unbiased symbols and their variance.
    """
    times, users = match_r.shape[1], match_r.shape[2]
    groups = max(-(-times // MOST_LANES), 1)
    lanes = max(-(-times // groups), 1)  # as few, evenly filled groups as it takes
    ar, ai = np.empty((users, users, lanes)), np.empty((users, users, lanes))
    br, bi = np.empty((users, lanes)), np.empty((users, lanes))
    pr, pi, var = np.empty((users, lanes)), np.empty((users, lanes)), np.empty((users, lanes))
    mr, mi = np.zeros((users, lanes)), np.zeros((users, lanes))
    prec, sr, si = np.empty((users, lanes)), np.empty((users, lanes)), np.empty((users, lanes))
    for frame in range(first, last):
        size = count[frame]
        for start in range(0, times, lanes):
            width = min(lanes, times - start)
            for k in range(size):
                for w in range(lanes):
                    prec[k, w] = 1.0
                    sr[k, w] = 0.0
                    si[k, w] = 0.0
                    mr[k, w] = match_r[frame, start + w, k] if w < width else 0.0
                    mi[k, w] = match_i[frame, start + w, k] if w < width else 0.0
                    pr[k, w] = start_r[frame, start + w, k] if w < width else 0.0
                    pi[k, w] = start_i[frame, start + w, k] if w < width else 0.0
                    var[k, w] = start_var[frame, k]
            for step in range(rounds):
                for i in range(size if step else 0):
                    for j in range(i + 1):
                        for w in range(lanes):
                            ar[i, j, w] = gram_r[frame, i, j]
                            ai[i, j, w] = gram_i[frame, i, j]
                    for w in range(lanes):
                        ar[i, i, w] += prec[i, w]
                        pr[i, w] = mr[i, w] + sr[i, w]
                        pi[i, w] = mi[i, w] + si[i, w]
                if step:
                    solve(ar, ai, size, pr, pi, var, br, bi)
                for k in range(size):
                    for w in range(width):
                        spread = 1.0 / max(1.0 / var[k, w] - prec[k, w], 1e-9)  # the cavity, always proper
                        x = spread * (pr[k, w] / var[k, w] - sr[k, w])
                        y = spread * (pi[k, w] / var[k, w] - si[k, w])
                        if step == rounds - 1:
                            out_r[frame, start + w, k] = x
                            out_i[frame, start + w, k] = y
                            out_var[frame, start + w, k] = spread
                            continue
                        ex, vx = _real_moments(x, spread, levels)
                        ey, vy = _real_moments(y, spread, levels)
                        tight = max(vx + vy, floor)
                        site = 1.0 / tight - 1.0 / spread
                        if site > 0.0:
                            prec[k, w] += damping * (site - prec[k, w])
                            sr[k, w] += damping * (ex / tight - x / spread - sr[k, w])
                            si[k, w] += damping * (ey / tight - y / spread - si[k, w])
