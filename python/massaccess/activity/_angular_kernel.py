"""Soft covariance descent with a matrix for each beam, compiled for the CPU. Beams, or profiles, lie side by side in memory (vector code).

Single precision; an inverse is kept as its lower triangle, packed row by row, real and imaginary parts apart.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

F = np.float32
ONE, ZERO = F(1), F(0)
LEAST_REST = F(1e-4)  # of a user's precision, when its own power is taken out again
LEAST_SHARE = F(1e-3)  # of a profile in a user's posterior, to count
GROUP, BLOCK = 8, 4  # factors whose product stays within single precision; beams that share a division
LN2 = F(0.6931471805599453)
MANTISSA, EXPONENT_OF_ONE = np.int32(0x7FFFFF), np.int32(0x3F800000)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _image(ar, ai, pr, pi, sr, si, size, lanes):
    """s = A p, A [size size lanes] Hermitian."""
    for i in range(size):
        for m in range(lanes):
            sr[i, m] = ZERO
            si[i, m] = ZERO
    at = 0
    for i in range(size):
        cr, ci = pr[i], pi[i]
        for j in range(i):
            dr, di = pr[j], pi[j]
            for m in range(lanes):
                xr, xi = ar[at, m], ai[at, m]
                sr[i, m] += xr * dr - xi * di
                si[i, m] += xr * di + xi * dr
                sr[j, m] += xr * cr + xi * ci
                si[j, m] += xr * ci - xi * cr
            at += 1
        for m in range(lanes):
            sr[i, m] += ar[at, m] * cr
            si[i, m] += ar[at, m] * ci
        at += 1


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _rank_one(ar, ai, sr, si, factor, xr, xi, size, lanes):
    """A -= factor s s^H."""
    at = 0
    for i in range(size):
        for m in range(lanes):
            xr[m] = factor[m] * sr[i, m]
            xi[m] = factor[m] * si[i, m]
        for j in range(i + 1):
            for m in range(lanes):
                ar[at, m] -= xr[m] * sr[j, m] + xi[m] * si[j, m]
                ai[at, m] -= xi[m] * sr[j, m] - xr[m] * si[j, m]
            at += 1


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _match(sr, si, pr, pi, yr, yi, precision, br, bi, size, lanes):
    """precision = p^H s and b = s^H y in every beam."""
    for m in range(lanes):
        precision[m] = ZERO
        br[m] = ZERO
        bi[m] = ZERO
    for i in range(size):
        cr, ci = pr[i], pi[i]
        for m in range(lanes):
            precision[m] += cr * sr[i, m] + ci * si[i, m]
            br[m] += sr[i, m] * yr[i, m] + si[i, m] * yi[i, m]
            bi[m] += sr[i, m] * yi[i, m] - si[i, m] * yr[i, m]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _take_logarithm(out, product, bits, looks, profiles):
    """out -= looks log(product), product = 1: from the bits of its floating-point form and a polynomial (3e-5 off at most)."""
    for k in range(profiles):
        word = bits[k]
        bits[k] = (word & MANTISSA) | EXPONENT_OF_ONE
        x = product[k] - ONE
        series = x * (F(0.99949556) + x * (F(-0.49190896) + x * (F(0.28947478) + x * (F(-0.13606275) + x * F(0.03215845)))))
        out[k] -= looks * (F((word >> 23) - 127) * LN2 + series)
        product[k] = ONE


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _evidence(precision, energy, power, log_weight, looks, out, product, bits, profiles, lanes):
    """out [profiles] = log weight + sum over beams of power energy / (1 + power precision) - looks log(1 + power precision)."""
    for k in range(profiles):
        out[k] = log_weight[k]
        product[k] = ONE
    whole = lanes - lanes % BLOCK
    for m in range(0, whole, BLOCK):  # four beams share a division
        q0, q1, q2, q3 = precision[m], precision[m + 1], precision[m + 2], precision[m + 3]
        e0, e1, e2, e3 = energy[m], energy[m + 1], energy[m + 2], energy[m + 3]
        for k in range(profiles):
            v0, v1, v2, v3 = power[m, k], power[m + 1, k], power[m + 2, k], power[m + 3, k]
            d0, d1, d2, d3 = ONE + v0 * q0, ONE + v1 * q1, ONE + v2 * q2, ONE + v3 * q3
            first, second = d0 * d1, d2 * d3
            both = first * second
            out[k] += ((v0 * e0 * d1 + v1 * e1 * d0) * second + (v2 * e2 * d3 + v3 * e3 * d2) * first) / both
            product[k] *= both
        if m % GROUP == GROUP - BLOCK or m == whole - BLOCK:
            _take_logarithm(out, product, bits, looks, profiles)
    for m in range(whole, lanes):
        for k in range(profiles):
            d = ONE + power[m, k] * precision[m]
            out[k] += power[m, k] * energy[m] / d
            product[k] *= d
        _take_logarithm(out, product, bits, looks, profiles)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _soften(out, exponent, odds, profiles):
    """Turns evidence [profiles] into posterior shares of the profiles; returns the log odds of being active.

    The likelihood counts to the power ``exponent``, the prior odds ``odds`` (log) in full.
    """
    top = F(-1e30)
    for k in range(profiles):
        out[k] *= exponent
        top = max(top, out[k])
    total = ZERO
    for k in range(profiles):
        out[k] = F(math.exp(out[k] - top))
        total += out[k]
    log_odds = top + F(math.log(total)) + odds
    chance = ONE / (ONE + F(math.exp(-max(log_odds, F(-80.0)))))
    for k in range(profiles):
        out[k] *= chance / total
    return log_odds


@njit(cache=True, nogil=True, fastmath=True)
def descend(
    first, last, rx_r, rx_i, kept, kept_count, book_r, book_i, amplitude, order, power, log_weight, looks, odds, noise_var,
    exponents, everybody, ignore, tolerance, log_odds, received, used
):  # fmt: skip
    """Soft coordinate descent for the frames first..last.

    rx [B L M] in beams; kept [B M] beams to work in, the first kept_count [B] of each row count; book [B N L], or [1 N L] where frames
    share it; amplitude, order [B N];
    power [M K], log_weight [K]; looks: independent samples in a beam (rx then holds a square root of their sum of outer products,
    its columns in the place of beams, and power is the same in each). exponents [S] of the likelihood in each sweep; everybody [S]:
    whether users that seem silent are visited. Out: log_odds [B N], received [B N] mean power, used [B] sweeps.
    """
    size, beams = rx_r.shape[1], rx_r.shape[2]
    books, users, profiles = book_r.shape[0], book_r.shape[1], power.shape[1]
    most = beams if looks == ONE else 1
    packed = size * (size + 1) // 2
    ar, ai = np.empty((packed, most), F), np.empty((packed, most), F)
    sr, si = np.empty((size, most), F), np.empty((size, most), F)
    yr, yi = np.empty((size, beams), F), np.empty((size, beams), F)
    here = np.empty((most, profiles), F)
    precision, br, bi = np.empty(most, F), np.empty(most, F), np.empty(most, F)
    alone, energy, factor = np.empty(most, F), np.empty(most, F), np.empty(most, F)
    xr, xi, fresh = np.empty(most, F), np.empty(most, F), np.empty(most, F)
    share, product = np.empty(profiles, F), np.empty(profiles, F)
    bits = product.view(np.int32)
    pr, pi = np.empty(size, F), np.empty(size, F)
    own = np.empty((users, most), F)
    for frame in range(first, last):
        lanes = kept_count[frame]
        for m in range(beams if looks > ONE else lanes):
            beam = m if looks > ONE else kept[frame, m]
            for i in range(size):
                yr[i, m] = rx_r[frame, i, beam]
                yi[i, m] = rx_i[frame, i, beam]
        for m in range(lanes):
            for k in range(profiles):
                here[m, k] = power[kept[frame, m], k]
        ar[:] = ZERO
        ai[:] = ZERO
        own[:] = ZERO
        for i in range(size):
            for m in range(lanes):
                ar[i * (i + 3) // 2, m] = ONE / noise_var
        for sweep in range(len(exponents)):
            largest = ZERO
            for rank in range(users):
                user = order[frame, rank]
                if not everybody[sweep] and log_odds[frame, user] < ignore:
                    continue
                for i in range(size):
                    pr[i] = amplitude[frame, user] * book_r[frame % books, user, i]
                    pi[i] = amplitude[frame, user] * book_i[frame % books, user, i]
                _image(ar, ai, pr, pi, sr, si, size, lanes)
                if looks > ONE:
                    precision[0] = ZERO
                    energy[0] = ZERO
                    for i in range(size):
                        precision[0] += pr[i] * sr[i, 0] + pi[i] * si[i, 0]
                    for m in range(beams):
                        re, im = ZERO, ZERO
                        for i in range(size):
                            re += sr[i, 0] * yr[i, m] + si[i, 0] * yi[i, m]
                            im += sr[i, 0] * yi[i, m] - si[i, 0] * yr[i, m]
                        energy[0] += re * re + im * im
                else:
                    _match(sr, si, pr, pi, yr, yi, precision, br, bi, size, lanes)
                    for m in range(lanes):
                        energy[m] = br[m] * br[m] + bi[m] * bi[m]
                for m in range(lanes):
                    rest = ONE / max(ONE - own[user, m] * precision[m], LEAST_REST)
                    alone[m] = precision[m] * rest
                    energy[m] *= rest * rest
                _evidence(alone, energy, here, log_weight, looks, share, product, bits, profiles, lanes)
                now = _soften(share, exponents[sweep], odds, profiles)
                log_odds[frame, user] = now
                for m in range(lanes):
                    fresh[m] = ZERO
                if now >= ignore:
                    for k in range(profiles):
                        if share[k] > LEAST_SHARE:
                            for m in range(lanes):
                                fresh[m] += share[k] * here[m, k]
                moved = ZERO
                for m in range(lanes):
                    step = fresh[m] - own[user, m]
                    factor[m] = step / (ONE + step * precision[m])
                    moved = max(moved, abs(step) * precision[m])
                if moved > tolerance:
                    _rank_one(ar, ai, sr, si, factor, xr, xi, size, lanes)
                    for m in range(lanes):
                        own[user, m] = fresh[m]
                    largest = max(largest, moved)
            used[frame] += 1
            ended = exponents[sweep] == exponents[len(exponents) - 1]
            if ended and everybody[sweep] and sweep > 0 and largest < F(10.0) * tolerance:
                break
        for user in range(users):
            total = ZERO
            for m in range(lanes):
                total += own[user, m]
            spread = ONE if looks > ONE else ONE / F(beams)
            received[frame, user] = total * spread * amplitude[frame, user] * amplitude[frame, user]
