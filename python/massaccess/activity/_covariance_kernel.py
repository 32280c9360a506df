"""Covariance coordinate descent and MAP flips, compiled for the CPU. All arrays are split into real and imaginary parts (vector code)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _times(ar, ai, xr, xi, yr, yi):
    """y = A x for Hermitian A [L L]; returns x^H A x."""
    size = xr.shape[0]
    yr[:] = 0.0
    yi[:] = 0.0
    for j in range(size):
        cr, ci = xr[j], xi[j]
        for i in range(size):  # column j of A is the conjugate of row j: contiguous
            yr[i] += ar[j, i] * cr + ai[j, i] * ci
            yi[i] += ar[j, i] * ci - ai[j, i] * cr
    total = 0.0
    for i in range(size):
        total += xr[i] * yr[i] + xi[i] * yi[i]
    return total


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _rank_one(ar, ai, xr, xi, factor):
    """A -= factor x x^H."""
    size = xr.shape[0]
    for j in range(size):
        cr, ci = factor * xr[j], factor * xi[j]
        for i in range(size):
            ar[j, i] -= cr * xr[i] + ci * xi[i]
            ai[j, i] -= ci * xr[i] - cr * xi[i]


@njit(cache=True, nogil=True, fastmath=True)
def descend(first, last, cov_r, cov_i, pilot_r, pilot_i, order, noise_var, limit, sweeps, tolerance, inv_r, inv_i, power, used):
    """Coordinate descent on log|S| + tr(S^-1 C), S = sum_n power_n p_n p_n^H + noise_var I, for the frames first..last.

    cov [B L L]; pilot [N L]; order [B N]; out: inv [B L L] = S^-1, power [B N] within [0, limit [B N]], used [B] sweeps.
    """
    users, size = pilot_r.shape
    sr, si, tr, ti = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    for frame in range(first, last):
        ar, ai = inv_r[frame], inv_i[frame]
        ar[:] = 0.0
        ai[:] = 0.0
        for i in range(size):
            ar[i, i] = 1.0 / noise_var
        for sweep in range(sweeps):
            largest = 0.0
            for rank in range(users):
                user = order[frame, rank]
                if sweep % 4 and power[frame, user] == 0.0:
                    continue  # three sweeps over the support for each sweep over everybody
                gain = _times(ar, ai, pilot_r[user], pilot_i[user], sr, si)
                match = _times(cov_r[frame], cov_i[frame], sr, si, tr, ti)
                step = (match - gain) / (gain * gain)
                step = min(max(step, -power[frame, user]), limit[frame, user] - power[frame, user])
                if abs(step) * gain < 1e-9:
                    continue
                _rank_one(ar, ai, sr, si, step / (1.0 + step * gain))
                power[frame, user] += step
                largest = max(largest, abs(step) * gain)
            used[frame] = sweep + 1
            if largest < tolerance and sweep % 4 == 0:
                break


@njit(cache=True, nogil=True, fastmath=True)
def flip(first, last, cov_r, cov_i, pilot_r, pilot_i, level, noise_var, looks, log_odds, rounds, active, inv_r, inv_i, cost):
    """Greedy bit flips on the posterior of a binary activity: power is 0 or ``level`` [B N]; ``looks`` independent antennas.

    active [B N] is refined in place; cost [B N]: by how much flipping this user raises the negative log posterior.
    """
    users, size = pilot_r.shape
    sr, si, tr, ti = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    for frame in range(first, last):
        ar, ai = inv_r[frame], inv_i[frame]
        ar[:] = 0.0
        ai[:] = 0.0
        for i in range(size):
            ar[i, i] = 1.0 / noise_var
        for user in range(users):
            if active[frame, user]:
                gain = _times(ar, ai, pilot_r[user], pilot_i[user], sr, si)
                _rank_one(ar, ai, sr, si, level[frame, user] / (1.0 + level[frame, user] * gain))
        for _ in range(rounds):
            best, winner = -1e-6, -1
            for user in range(users):
                gain = _times(ar, ai, pilot_r[user], pilot_i[user], sr, si)
                match = _times(cov_r[frame], cov_i[frame], sr, si, tr, ti)
                sign = -1.0 if active[frame, user] else 1.0
                step = sign * level[frame, user]
                scale = max(1.0 + step * gain, 1e-12)
                change = looks * (math.log(scale) - step * match / scale) + sign * log_odds
                cost[frame, user] = change
                if change < best:
                    best, winner = change, user
            if winner < 0:
                break
            gain = _times(ar, ai, pilot_r[winner], pilot_i[winner], sr, si)
            step = -level[frame, winner] if active[frame, winner] else level[frame, winner]
            _rank_one(ar, ai, sr, si, step / (1.0 + step * gain))
            active[frame, winner] = not active[frame, winner]
