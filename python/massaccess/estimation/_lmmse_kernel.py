"""LMMSE channel estimation, compiled for the CPU: `LANES` beams of a frame side by side."""

from __future__ import annotations

import numpy as np
from numba import njit

from ..lanes import LANES, solve


@njit(cache=True, nogil=True, fastmath=True)
def estimate(first, last, rx_r, rx_i, sent_r, sent_i, weight, prior, count, mean_r, mean_i, error):
    """For the frames first..last and each beam m: (S^H W_m S + prior_m I)^-1 S^H W_m rx_m and the diagonal of that inverse.

    rx [B T M]; sent [B T K]; weight [B T M or 1]; prior [M], reciprocal powers; count [B] users, the first ones; out [B K M].
    """
    times, antennas = rx_r.shape[1], rx_r.shape[2]
    users = sent_r.shape[2]
    coloured = weight.shape[2] > 1
    ar, ai = np.empty((users, users, LANES)), np.empty((users, users, LANES))
    br, bi = np.empty((users, LANES)), np.empty((users, LANES))
    xr, xi, var = np.empty((users, LANES)), np.empty((users, LANES)), np.empty((users, LANES))
    row, yr, yi = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    for frame in range(first, last):
        size = count[frame]
        for start in range(0, antennas, LANES):
            width = min(LANES, antennas - start)
            for i in range(size):
                for w in range(LANES):
                    xr[i, w] = 0.0
                    xi[i, w] = 0.0
                for j in range(i + 1):
                    for w in range(LANES):
                        ar[i, j, w] = 0.0
                        ai[i, j, w] = 0.0
                for w in range(LANES):
                    ar[i, i, w] = prior[start + w] if w < width else 1.0
            for t in range(times):
                for w in range(LANES):
                    m = start + w if w < width else start
                    row[w] = weight[frame, t, m if coloured else 0]
                    yr[w] = row[w] * rx_r[frame, t, m]
                    yi[w] = row[w] * rx_i[frame, t, m]
                for i in range(size):
                    cr, ci = sent_r[frame, t, i], sent_i[frame, t, i]
                    for w in range(LANES):
                        xr[i, w] += cr * yr[w] + ci * yi[w]
                        xi[i, w] += cr * yi[w] - ci * yr[w]
                    for j in range(i + 1):
                        pr = cr * sent_r[frame, t, j] + ci * sent_i[frame, t, j]
                        pi = cr * sent_i[frame, t, j] - ci * sent_r[frame, t, j]
                        for w in range(LANES):
                            ar[i, j, w] += pr * row[w]
                            ai[i, j, w] += pi * row[w]
            solve(ar, ai, size, xr, xi, var, br, bi)
            for i in range(size):
                for w in range(width):
                    mean_r[frame, i, start + w] = xr[i, w]
                    mean_i[frame, i, start + w] = xi[i, w]
                    error[frame, i, start + w] = var[i, w]
