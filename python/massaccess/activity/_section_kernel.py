"""Posterior of sections, compiled for the CPU: soft covariance descent, then Gibbs sweeps. In double precision: near users are 50 dB
above far ones.

A section is silent or in one of Q x K states: which sequence, and which of K profiles its power follows. All arrays are split into real and
imaginary parts (vector code).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ._angular_kernel import _image, _match
from ._angular_kernel import _rank_one as _shift
from ._covariance_kernel import _rank_one, _times

LEAST_SHARE = 1e-3  # of a state in a section's posterior, to count
LEAST_REST = 1e-9  # of a sequence's precision, when its own power is taken out again
STILL = 1e-2  # change of a section's chance to be silent, below which soft sweeps end
FLOOR = 1e-12  # of a sum of posteriors
GROUP, BLOCK = 16, 4  # factors whose product stays within double precision; beams that share a division


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _weigh(evidence, exponent, prior, share, odds):
    """Turns evidence [Q K] into shares of the states in the section's posterior, which counts the likelihood to the power ``exponent``;
    writes the log odds [Q] of each sequence against silence, and returns the share of silence."""
    sequences, profiles = evidence.shape
    top = -prior
    for q in range(sequences):
        for k in range(profiles):
            top = max(top, exponent * evidence[q, k])
    silence = math.exp(-prior - top)
    total = silence
    for q in range(sequences):
        mass = 0.0
        for k in range(profiles):
            share[q, k] = math.exp(exponent * evidence[q, k] - top)
            mass += share[q, k]
        odds[q] = math.log(max(mass, 1e-300)) + top + prior
        total += mass
    for q in range(sequences):
        for k in range(profiles):
            share[q, k] /= total
    return silence / total


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _draw(share, silence, number):
    """One state, share 1 in the place of many, by a uniform ``number``."""
    sequences, profiles = share.shape
    level = silence
    taken = number < level
    for q in range(sequences):
        for k in range(profiles):
            mass = share[q, k]
            share[q, k] = 0.0
            level += mass
            if not taken and number < level:
                share[q, k] = 1.0
                taken = True


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _decide(
    n, evidence, exponent, prior, sampling, number, mean, share, now, odds, hushed, total, silence, counted, strength, mass
):  # fmt: skip
    """Share of each state of section n that is put into the covariance, from its evidence: posterior ones, or in a sampled sweep one state
    drawn by ``number``. Takes down what the sweep has found; returns how much a soft one changed the chance of silence."""
    sequences, profiles = share.shape
    levels = mass.shape[1]
    quiet = _weigh(evidence, exponent, prior, share, now)
    if not sampling or counted[n] == 0:
        mass[n] = 0.0
    for q in range(sequences):
        for k in range(profiles):
            mass[n, k % levels] += share[q, k]
    if not sampling:
        change = abs(quiet - hushed[n])
        hushed[n] = quiet
        odds[n] = now
        return change
    counted[n] += 1
    silence[n] += quiet
    for q in range(sequences):
        for k in range(profiles):
            total[n, q] += share[q, k]
            strength[n] += share[q, k] * mean[k]
    _draw(share, quiet, number)
    return 0.0


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _settle(total, silence, counted, odds):
    """Log odds [N Q] from the sums of shares over the sampled sweeps, of sections that were looked at."""
    for n in range(odds.shape[0]):
        if counted[n]:
            for q in range(odds.shape[1]):
                odds[n, q] = math.log(max(total[n, q], FLOOR)) - math.log(max(silence[n], FLOOR))


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _settled(odds, certain):
    """Whether no section is in doubt: the likeliest of its states is so by more than ``certain`` over any other."""
    for n in range(odds.shape[0]):
        first, second = 0.0, -1e30
        for q in range(odds.shape[1]):
            value = odds[n, q]
            if value > first:
                first, second = value, first
            elif value > second:
                second = value
        if first - second < certain:
            return False
    return True


@njit(cache=True, nogil=True, fastmath=True)
def alike(
    first, last, rx_r, rx_i, looks, book_r, book_i, amplitude, order, power, log_weight, prior, noise_var,
    exponents, everybody, sampled, numbers, ignore, certain, odds, received, mass, silent, used,
):  # fmt: skip
    """Sections of the frames first..last where all ``looks`` antennas are alike: one matrix a frame.

    rx [B L C] whose columns' outer products sum up to that of the antennas; book [N Q L]; amplitude, order [B N]; power [K],
    log_weight [N K]; exponents [S], everybody [S], sampled [S]: of each sweep; numbers [S N] uniform. out: odds [B N Q], received [B N]
    power, mass [B N G] of being active at each of G levels (profile k is at level k mod G), silent [B N], used [B] sweeps.
    """
    users, sequences, size = book_r.shape
    profiles, columns = len(power), rx_r.shape[2]
    ar, ai = np.empty((size, size)), np.empty((size, size))
    sr, si = np.empty((sequences, size)), np.empty((sequences, size))
    pr, pi = np.empty((sequences, size)), np.empty((sequences, size))
    yr, yi = np.empty((columns, size)), np.empty((columns, size))
    evidence, share = np.empty((sequences, profiles)), np.empty((sequences, profiles))
    own, total, hushed = np.empty((users, sequences)), np.empty((users, sequences)), np.empty(users)
    strength, mean = np.empty(users), power
    precision, now, silence, counted = np.empty(sequences), np.empty(sequences), np.empty(users), np.empty(users, np.int64)
    for frame in range(first, last):
        for m in range(columns):
            for i in range(size):
                yr[m, i] = rx_r[frame, i, m]
                yi[m, i] = rx_i[frame, i, m]
        ar[:] = 0.0
        ai[:] = 0.0
        for i in range(size):
            ar[i, i] = 1.0 / noise_var
        own[:] = 0.0
        total[:] = 0.0
        hushed[:] = 1.0
        silence[:] = 0.0
        counted[:] = 0
        strength[:] = 0.0
        moving = True
        for sweep in range(len(exponents)):
            if sampled[sweep]:
                if not sampled[sweep - 1] and _settled(odds[frame], certain):
                    break
            elif not moving:
                continue
            moved = 0.0
            for rank in range(users):
                n = order[frame, rank]
                if not everybody[sweep] and odds[frame, n].max() < ignore:
                    continue
                for q in range(sequences):
                    for i in range(size):
                        pr[q, i] = amplitude[frame, n] * book_r[n, q, i]
                        pi[q, i] = amplitude[frame, n] * book_i[n, q, i]
                    if own[n, q] > 0.0:
                        gain = _times(ar, ai, pr[q], pi[q], sr[q], si[q])
                        _rank_one(ar, ai, sr[q], si[q], -own[n, q] / max(1.0 - own[n, q] * gain, LEAST_REST))
                        own[n, q] = 0.0
                for q in range(sequences):
                    gain = _times(ar, ai, pr[q], pi[q], sr[q], si[q])
                    energy = 0.0
                    for m in range(columns):
                        re, im = 0.0, 0.0
                        for i in range(size):
                            re += sr[q, i] * yr[m, i] + si[q, i] * yi[m, i]
                            im += sr[q, i] * yi[m, i] - si[q, i] * yr[m, i]
                        energy += re * re + im * im
                    precision[q] = gain
                    for k in range(profiles):
                        scale = 1.0 + power[k] * gain
                        evidence[q, k] = log_weight[n, k] + power[k] * energy / scale - looks * math.log(scale)
                change = _decide(
                    n, evidence, exponents[sweep], prior, sampled[sweep], numbers[sweep, rank], mean,
                    share, now, odds[frame], hushed, total, silence, counted, strength, mass[frame],
                )  # fmt: skip
                moved = max(moved, change)
                for q in range(sequences):
                    level = 0.0
                    for k in range(profiles):
                        if share[q, k] > LEAST_SHARE:
                            level += share[q, k] * power[k]
                    if level > 0.0:
                        if q > 0:  # what went in before this one is in the way
                            precision[q] = _times(ar, ai, pr[q], pi[q], sr[q], si[q])
                        own[n, q] = level
                        _rank_one(ar, ai, sr[q], si[q], level / (1.0 + level * precision[q]))
            moving = sampled[sweep] or not (everybody[sweep] and sweep > 0 and exponents[sweep] == exponents[sweep - 1]) or moved > STILL
            used[frame] += 1
        _settle(total, silence, counted, odds[frame])
        for n in range(users):
            level = strength[n] / counted[n] if counted[n] else own[n].sum()
            received[frame, n] = level * amplitude[frame, n] ** 2
            mass[frame, n] /= max(counted[n], 1)
            silent[frame, n] = silence[n] / counted[n] if counted[n] else hushed[n]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _take_logarithm(out, product):
    """out -= log(product), product = 1."""
    for k in range(len(out)):
        out[k] -= math.log(product[k])
        product[k] = 1.0


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _profile_evidence(precision, energy, power, log_weight, out, product):
    """out [K] = log weight + sum over beams of power energy / (1 + power precision) - log(1 + power precision)."""
    lanes, profiles = power.shape
    for k in range(profiles):
        out[k] = log_weight[k]
        product[k] = 1.0
    whole = lanes - lanes % BLOCK
    for m in range(0, whole, BLOCK):  # four beams share a division
        q0, q1, q2, q3 = precision[m], precision[m + 1], precision[m + 2], precision[m + 3]
        e0, e1, e2, e3 = energy[m], energy[m + 1], energy[m + 2], energy[m + 3]
        for k in range(profiles):
            v0, v1, v2, v3 = power[m, k], power[m + 1, k], power[m + 2, k], power[m + 3, k]
            d0, d1, d2, d3 = 1.0 + v0 * q0, 1.0 + v1 * q1, 1.0 + v2 * q2, 1.0 + v3 * q3
            first, second = d0 * d1, d2 * d3
            both = first * second
            out[k] += ((v0 * e0 * d1 + v1 * e1 * d0) * second + (v2 * e2 * d3 + v3 * e3 * d2) * first) / both
            product[k] *= both
        if m % GROUP == GROUP - BLOCK or m == whole - BLOCK:
            _take_logarithm(out, product)
    for m in range(whole, lanes):
        for k in range(profiles):
            scale = 1.0 + power[m, k] * precision[m]
            out[k] += power[m, k] * energy[m] / scale
            product[k] *= scale
        _take_logarithm(out, product)


@njit(cache=True, nogil=True, fastmath=True)
def beams(
    first, last, rx_r, rx_i, kept, kept_count, book_r, book_i, amplitude, order, power, log_weight, prior, noise_var,
    exponents, everybody, sampled, numbers, ignore, certain, odds, received, mass, silent, used,
):  # fmt: skip
    """The same where beams differ: one matrix for each, beams side by side in memory.

    rx [B L M] in beams; kept [B M] beams to work in, the first kept_count [B] of each row count; power [M K]; the rest as for `alike`.
    """
    users, sequences, size = book_r.shape
    antennas, profiles = power.shape
    packed = size * (size + 1) // 2
    evidence, share, product = np.empty((sequences, profiles)), np.empty((sequences, profiles)), np.empty(profiles)
    total, now, hushed = np.empty((users, sequences)), np.empty(sequences), np.empty(users)
    strength, mean = np.empty(users), power.sum(0) / antennas
    silence, counted, pr, pi = np.empty(users), np.empty(users, np.int64), np.empty(size), np.empty(size)
    for frame in range(first, last):
        lanes = kept_count[frame]
        ar, ai = np.zeros((packed, lanes)), np.zeros((packed, lanes))
        sr, si = np.empty((size, lanes)), np.empty((size, lanes))
        yr, yi = np.empty((size, lanes)), np.empty((size, lanes))
        here, own = np.empty((lanes, profiles)), np.zeros((users, sequences, lanes))
        precision, energy, br, bi = np.empty(lanes), np.empty(lanes), np.empty(lanes), np.empty(lanes)
        factor, xr, xi = np.empty(lanes), np.empty(lanes), np.empty(lanes)
        for m in range(lanes):
            beam = kept[frame, m]
            here[m] = power[beam]
            for i in range(size):
                yr[i, m] = rx_r[frame, i, beam]
                yi[i, m] = rx_i[frame, i, beam]
        for i in range(size):
            ar[i * (i + 3) // 2] = 1.0 / noise_var
        total[:] = 0.0
        hushed[:] = 1.0
        silence[:] = 0.0
        counted[:] = 0
        strength[:] = 0.0
        moving = True
        for sweep in range(len(exponents)):
            if sampled[sweep]:
                if not sampled[sweep - 1] and _settled(odds[frame], certain):
                    break
            elif not moving:
                continue
            moved = 0.0
            for rank in range(users):
                n = order[frame, rank]
                if not everybody[sweep] and odds[frame, n].max() < ignore:
                    continue
                for q in range(sequences):
                    if own[n, q, 0] > 0.0:
                        pr[:] = amplitude[frame, n] * book_r[n, q]
                        pi[:] = amplitude[frame, n] * book_i[n, q]
                        _image(ar, ai, pr, pi, sr, si, size, lanes)
                        _match(sr, si, pr, pi, yr, yi, precision, br, bi, size, lanes)
                        for m in range(lanes):
                            factor[m] = -own[n, q, m] / max(1.0 - own[n, q, m] * precision[m], LEAST_REST)
                            own[n, q, m] = 0.0
                        _shift(ar, ai, sr, si, factor, xr, xi, size, lanes)
                for q in range(sequences):
                    pr[:] = amplitude[frame, n] * book_r[n, q]
                    pi[:] = amplitude[frame, n] * book_i[n, q]
                    _image(ar, ai, pr, pi, sr, si, size, lanes)
                    _match(sr, si, pr, pi, yr, yi, precision, br, bi, size, lanes)
                    for m in range(lanes):
                        energy[m] = br[m] * br[m] + bi[m] * bi[m]
                    _profile_evidence(precision, energy, here, log_weight[n], evidence[q], product)
                change = _decide(
                    n, evidence, exponents[sweep], prior, sampled[sweep], numbers[sweep, rank], mean,
                    share, now, odds[frame], hushed, total, silence, counted, strength, mass[frame],
                )  # fmt: skip
                moved = max(moved, change)
                for q in range(sequences):
                    if share[q].max() <= LEAST_SHARE:
                        continue
                    for m in range(lanes):
                        level = 0.0
                        for k in range(profiles):
                            level += share[q, k] * here[m, k]
                        own[n, q, m] = level
                    pr[:] = amplitude[frame, n] * book_r[n, q]
                    pi[:] = amplitude[frame, n] * book_i[n, q]
                    _image(ar, ai, pr, pi, sr, si, size, lanes)
                    _match(sr, si, pr, pi, yr, yi, precision, br, bi, size, lanes)
                    for m in range(lanes):
                        factor[m] = own[n, q, m] / (1.0 + own[n, q, m] * precision[m])
                    _shift(ar, ai, sr, si, factor, xr, xi, size, lanes)
            moving = sampled[sweep] or not (everybody[sweep] and sweep > 0 and exponents[sweep] == exponents[sweep - 1]) or moved > STILL
            used[frame] += 1
        _settle(total, silence, counted, odds[frame])
        for n in range(users):
            level = strength[n] / counted[n] if counted[n] else own[n].sum() / antennas
            received[frame, n] = level * amplitude[frame, n] ** 2
            mass[frame, n] /= max(counted[n], 1)
            silent[frame, n] = silence[n] / counted[n] if counted[n] else hushed[n]
