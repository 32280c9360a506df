"""The LMMSE step of detection in frequency, compiled for the CPU: up to `MOST_LANES` bins of a frame side by side."""

from __future__ import annotations

import numpy as np
from numba import njit

from ..lanes import solve

MOST_LANES = 32


@njit(cache=True, nogil=True, fastmath=True)
def posterior(first, last, gram_r, gram_i, match_r, match_i, prec, count, mean_r, mean_i, var):
    """(gram + diag(prec))^-1 match in every bin, and the mean over the bins of the inverse's diagonal, for the frames first..last.

    gram [B K K W], of which the lower triangle is looked at; match, mean [B K W]; prec, var [B K]; count [B] users, the first ones.
    """
    users, bins = match_r.shape[1], match_r.shape[2]
    groups = max(-(-bins // MOST_LANES), 1)
    lanes = max(-(-bins // groups), 1)  # as few, evenly filled groups as it takes
    ar, ai = np.empty((users, users, lanes)), np.empty((users, users, lanes))
    br, bi = np.empty((users, lanes)), np.empty((users, lanes))
    xr, xi, each = np.empty((users, lanes)), np.empty((users, lanes)), np.empty((users, lanes))
    for frame in range(first, last):
        size = count[frame]
        for start in range(0, bins, lanes):
            width = min(lanes, bins - start)
            for i in range(size):
                for j in range(i + 1):
                    for w in range(width):
                        ar[i, j, w] = gram_r[frame, i, j, start + w]
                        ai[i, j, w] = gram_i[frame, i, j, start + w]
                    for w in range(width, lanes):
                        ar[i, j, w] = 0.0
                        ai[i, j, w] = 0.0
                for w in range(lanes):
                    ar[i, i, w] += prec[frame, i]
                    xr[i, w] = match_r[frame, i, start + w] if w < width else 0.0
                    xi[i, w] = match_i[frame, i, start + w] if w < width else 0.0
            solve(ar, ai, size, xr, xi, each, br, bi)
            for i in range(size):
                for w in range(width):
                    mean_r[frame, i, start + w] = xr[i, w]
                    mean_i[frame, i, start + w] = xi[i, w]
                    var[frame, i] += each[i, w] / bins
