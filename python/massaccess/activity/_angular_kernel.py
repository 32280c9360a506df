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
GROUP = 8  # factors whose product stays within single precision
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
def _evidence(precision, energy, power, log_weight, looks, out, product, bits, profiles, lanes):
    """out [profiles] = log weight + sum over beams of power energy / (1 + power precision) - looks log(1 + power precision).

    The logarithm of a product of `GROUP` factors, from the bits of its floating-point form and a polynomial (3e-5 off at most).
    """
    for k in range(profiles):
        out[k] = log_weight[k]
        product[k] = ONE
    for m in range(lanes):
        q, e = precision[m], energy[m]
        for k in range(profiles):
            d = ONE + power[m, k] * q
            out[k] += power[m, k] * e / d
            product[k] *= d
        if m % GROUP == GROUP - 1 or m == lanes - 1:
            for k in range(profiles):
                word = bits[k]
                bits[k] = (word & MANTISSA) | EXPONENT_OF_ONE
                x = product[k] - ONE
                series = x * (F(0.99949556) + x * (F(-0.49190896) + x * (F(0.28947478) + x * (F(-0.13606275) + x * F(0.03215845)))))
                out[k] -= looks * (F((word >> 23) - 127) * LN2 + series)
                product[k] = ONE


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
    exponents, coarse, everybody, ignore, tolerance, log_odds, received, used
):  # fmt: skip
    """Soft coordinate descent for the frames first..last.

    rx [B L M] in beams; kept [B M] beams to work in, the first kept_count [B] of each row count; book [N L]; amplitude, order [B N];
    power [M K], log_weight [K]; looks: independent samples in a beam (rx then holds a square root of their sum of outer products,
    its columns in the place of beams, and power is the same in each). In each sweep: exponents [S] of the likelihood; coarse [S]: with
    the first so many profiles, or all but those where it is negative; everybody [S]: whether users that seem silent are visited.
    Out: log_odds [B N], received [B N] mean power, used [B] sweeps.
    """
    size, beams = rx_r.shape[1], rx_r.shape[2]
    users, profiles = book_r.shape[0], power.shape[1]
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
            start, count = (0, coarse[sweep]) if coarse[sweep] > 0 else (-coarse[sweep], profiles + coarse[sweep])
            some, some_weight = here[:, start : start + count], log_weight[start : start + count]
            largest = ZERO
            for rank in range(users):
                user = order[frame, rank]
                if not everybody[sweep] and log_odds[frame, user] < ignore:
                    continue
                for i in range(size):
                    pr[i] = amplitude[frame, user] * book_r[user, i]
                    pi[i] = amplitude[frame, user] * book_i[user, i]
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
                _evidence(alone, energy, some, some_weight, looks, share, product, bits, count, lanes)
                now = _soften(share, exponents[sweep], odds, count)
                log_odds[frame, user] = now
                for m in range(lanes):
                    fresh[m] = ZERO
                if now >= ignore:
                    for k in range(count):
                        if share[k] > LEAST_SHARE:
                            for m in range(lanes):
                                fresh[m] += share[k] * some[m, k]
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
