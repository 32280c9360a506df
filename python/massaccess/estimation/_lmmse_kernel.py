"""LMMSE channel estimation, compiled for the CPU: up to `LANES` beams of a frame side by side."""

from __future__ import annotations

import numpy as np
from numba import njit

from ..lanes import solve

LANES = 32


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _accumulate(weight, first, second, total_r, total_i, factor_r, factor_i):
    """total += weight * factor, lane by lane, for two rows (times) at once: half the loads and stores of the totals."""
    for w in range(total_r.shape[0]):
        total_r[w] += factor_r[first] * weight[first, w] + factor_r[second] * weight[second, w]
        total_i[w] += factor_i[first] * weight[first, w] + factor_i[second] * weight[second, w]


@njit(cache=True, nogil=True, fastmath=True)
def estimate(first, last, rx_r, rx_i, sent_r, sent_i, weight, prec, shift_r, shift_i, count, mean_r, mean_i, error):
    """For the frames first..last and each beam m: (S^H W_m S + diag(prec_m))^-1 (S^H W_m rx_m + shift_m) and the diagonal of that inverse.

    rx [B T M]; sent [B T K]; weight [B T M or 1]; prec and shift [B K M]; count [B] users, the first ones; out [B K M].
    """
    times, antennas = rx_r.shape[1], rx_r.shape[2]
    users = sent_r.shape[2]
    coloured = weight.shape[2] > 1
    even = times + times % 2  # an odd last row gets a partner of weight zero
    ar, ai = np.empty((users, users, LANES)), np.empty((users, users, LANES))
    br, bi = np.empty((users, LANES)), np.empty((users, LANES))
    xr, xi, var = np.empty((users, LANES)), np.empty((users, LANES)), np.empty((users, LANES))
    row, yr, yi = np.zeros((even, LANES)), np.zeros((even, LANES)), np.zeros((even, LANES))
    pr, pi = np.zeros(even), np.zeros(even)
    for frame in range(first, last):
        size = count[frame]
        for start in range(0, antennas, LANES):
            width = min(LANES, antennas - start)
            for t in range(times):
                for w in range(width):
                    row[t, w] = weight[frame, t, start + w if coloured else 0]
                    yr[t, w] = row[t, w] * rx_r[frame, t, start + w]
                    yi[t, w] = row[t, w] * rx_i[frame, t, start + w]
            for i in range(size):
                for w in range(LANES):
                    xr[i, w] = shift_r[frame, i, start + w] if w < width else 0.0
                    xi[i, w] = shift_i[frame, i, start + w] if w < width else 0.0
                for t in range(times):
                    cr, ci = sent_r[frame, t, i], sent_i[frame, t, i]
                    for w in range(LANES):
                        xr[i, w] += cr * yr[t, w] + ci * yi[t, w]
                        xi[i, w] += cr * yi[t, w] - ci * yr[t, w]
                for j in range(i + 1):
                    for t in range(times):
                        pr[t] = sent_r[frame, t, i] * sent_r[frame, t, j] + sent_i[frame, t, i] * sent_i[frame, t, j]
                        pi[t] = sent_r[frame, t, i] * sent_i[frame, t, j] - sent_i[frame, t, i] * sent_r[frame, t, j]
                    ar[i, j] = 0.0
                    ai[i, j] = 0.0
                    for t in range(0, even, 2):
                        _accumulate(row, t, t + 1, ar[i, j], ai[i, j], pr, pi)
                for w in range(LANES):
                    ar[i, i, w] += prec[frame, i, start + w] if w < width else 1.0
            solve(ar, ai, size, xr, xi, var, br, bi)
            for i in range(size):
                for w in range(width):
                    mean_r[frame, i, start + w] = xr[i, w]
                    mean_i[frame, i, start + w] = xi[i, w]
                    error[frame, i, start + w] = var[i, w]
