"""Local search over decisions, compiled for the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _real_gram(gram_r, gram_i, frame, size, out):
    for i in range(size):
        for j in range(size):
            out[i, j] = gram_r[frame, i, j]
            out[i, size + j] = -gram_i[frame, i, j]
            out[size + i, j] = gram_i[frame, i, j]
            out[size + i, size + j] = gram_r[frame, i, j]


@njit(cache=True, nogil=True, fastmath=True)
def descend(first, last, gram_r, gram_i, match_r, match_i, count, levels, most, found_r, found_i, margin_r, margin_i):
    """For the frames first..last: moves of one or two real parts to neighbouring levels, the best first, while they raise the likelihood.

    gram [B K K]; match [B D K]; count [B] users, the first ones; levels of a real part, rising and evenly spaced.
    found [B D K]: index of the level of each real part, in and out; margin [B D K]: what the best move of that part would cost at the end.
    """
    times, users = match_r.shape[1], match_r.shape[2]
    gram = np.empty((2 * users, 2 * users))
    slope, filtered = np.empty(2 * users), np.empty(2 * users)
    state = np.empty(2 * users, np.int64)
    cost = np.empty((2 * users, 2))  # of one move down, up
    least = np.empty(2 * users)
    top, space = len(levels) - 1, levels[1] - levels[0]
    for frame in range(first, last):
        size = count[frame]
        _real_gram(gram_r, gram_i, frame, size, gram)
        for time in range(times):
            for k in range(size):
                filtered[k], filtered[size + k] = match_r[frame, time, k], match_i[frame, time, k]
                state[k], state[size + k] = found_r[frame, time, k], found_i[frame, time, k]
            for i in range(2 * size):
                total = -filtered[i]
                for j in range(2 * size):
                    total += gram[i, j] * levels[state[j]]
                slope[i] = total
            for turn in range(most + 1):
                best, bi, bu, bj, bv = 0.0, -1, 0, -1, 0
                for i in range(2 * size):
                    for u in range(2):
                        step = space if u else -space
                        open_way = state[i] < top if u else state[i] > 0
                        cost[i, u] = step * (step * gram[i, i] + 2.0 * slope[i]) if open_way else np.inf
                        if cost[i, u] < best:
                            best, bi, bu, bj = cost[i, u], i, u, -1
                    least[i] = min(cost[i, 0], cost[i, 1])
                for i in range(2 * size):
                    for j in range(i):
                        cross = 2.0 * space * space * gram[i, j]
                        for u in range(2):
                            for v in range(2):
                                both = cost[i, u] + cost[j, v] + (cross if u == v else -cross)
                                least[i] = min(least[i], both)
                                least[j] = min(least[j], both)
                                if both < best:
                                    best, bi, bu, bj, bv = both, i, u, j, v
                if bi < 0 or best > -1e-9 or turn == most:
                    break
                step = space if bu else -space
                state[bi] += 1 if bu else -1
                for k in range(2 * size):
                    slope[k] += step * gram[k, bi]
                if bj >= 0:
                    step = space if bv else -space
                    state[bj] += 1 if bv else -1
                    for k in range(2 * size):
                        slope[k] += step * gram[k, bj]
            for k in range(size):
                found_r[frame, time, k], found_i[frame, time, k] = state[k], state[size + k]
                margin_r[frame, time, k], margin_i[frame, time, k] = max(least[k], 0.0), max(least[size + k], 0.0)
