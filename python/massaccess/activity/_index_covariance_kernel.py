"""Greedy moves of whole sections on the covariance posterior, compiled for the CPU. Arrays are split into real and imaginary parts."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ._covariance_kernel import _times


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _inner(xr, xi, yr, yi):
    """x^H y."""
    real, imag = 0.0, 0.0
    for i in range(xr.shape[0]):
        real += xr[i] * yr[i] + xi[i] * yi[i]
        imag += xr[i] * yi[i] - xi[i] * yr[i]
    return real, imag


@njit(cache=True, nogil=True, fastmath=True)
def _turn(cov_r, cov_i, pilot_r, pilot_i, column, step, image_r, image_i, precision, match, work):
    """Adds ``step`` to the power of a column: all images, precisions and matches follow. work [4 L]: scratch."""
    size = pilot_r.shape[1]
    yr, yi, ur, ui = work[0], work[1], work[2], work[3]
    yr[:] = image_r[column]
    yi[:] = image_i[column]
    own = _times(cov_r, cov_i, yr, yi, ur, ui)
    factor = step / (1.0 + step * precision[column])
    for other in range(pilot_r.shape[0]):
        wr, wi = _inner(yr, yi, pilot_r[other], pilot_i[other])
        vr, vi = _inner(image_r[other], image_i[other], ur, ui)
        power = factor * (wr * wr + wi * wi)
        precision[other] -= power
        match[other] += factor * (power * own - 2.0 * (wr * vr - wi * vi))
        wr, wi = factor * wr, factor * wi
        for i in range(size):
            image_r[other, i] -= wr * yr[i] - wi * yi[i]
            image_i[other, i] -= wr * yi[i] + wi * yr[i]


@njit(cache=True, nogil=True, fastmath=True)
def _section(cov_r, cov_i, pilot_r, pilot_i, level, first, count, mine, looks, prior, image_r, image_i, precision, match, work, odds):
    """Log odds [Q] of each sequence of one section against its silence, given all other sections; ``mine``: its sequence now, or -1."""
    if mine < 0:
        for q in range(count):
            scale = 1.0 + level[first + q] * precision[first + q]
            odds[q] = looks * (level[first + q] * match[first + q] / scale - math.log(scale)) + prior
        return
    own = first + mine
    _times(cov_r, cov_i, image_r[own], image_i[own], work[0], work[1])
    rest = max(1.0 - level[own] * precision[own], 1e-12)
    factor = level[own] / rest
    for q in range(count):
        other = first + q
        if q == mine:
            taken, found = precision[own] / rest, match[own] / (rest * rest)
        else:
            wr, wi = _inner(image_r[own], image_i[own], pilot_r[other], pilot_i[other])
            vr, vi = _inner(work[0], work[1], image_r[other], image_i[other])
            power = factor * (wr * wr + wi * wi)
            taken = precision[other] + power
            found = match[other] + factor * (2.0 * (wr * vr + wi * vi) + power * match[own])
        scale = 1.0 + level[other] * taken
        odds[q] = looks * (level[other] * found / scale - math.log(scale)) + prior


@njit(cache=True, nogil=True, fastmath=True)
def move(first, last, cov_r, cov_i, pilot_r, pilot_i, level, noise_var, looks, prior, rounds, chosen, odds):
    """Greedy moves on the posterior of sections that are silent or have one column of power ``level``, for the frames first..last.

    cov [B L L]; pilot [NQ L]; level [B NQ]; prior: log p(sequence) / p(silent). chosen [B N], the sequence or -1, is refined in place;
    odds [B N Q]: log odds of each sequence against silence, given all other sections.
    """
    columns, size = pilot_r.shape
    sections, count = odds.shape[1:]
    image_r, image_i = np.empty((columns, size)), np.empty((columns, size))
    precision, match, work = np.empty(columns), np.empty(columns), np.empty((4, size))
    for frame in range(first, last):
        image_r[:], image_i[:] = pilot_r / noise_var, pilot_i / noise_var
        match[:] = 0.0
        for column in range(columns):
            precision[column] = _inner(pilot_r[column], pilot_i[column], image_r[column], image_i[column])[0]
        for section in range(sections):
            if chosen[frame, section] >= 0:
                column = section * count + chosen[frame, section]
                step = level[frame, column]
                _turn(cov_r[frame], cov_i[frame], pilot_r, pilot_i, column, step, image_r, image_i, precision, match, work)
        for column in range(columns):
            match[column] = _times(cov_r[frame], cov_i[frame], image_r[column], image_i[column], work[0], work[1])
        for turn in range(rounds + 1):
            best, winner, choice = 1e-6, -1, -1
            for section in range(sections):
                mine = chosen[frame, section]
                here = odds[frame, section]
                start = section * count
                fixed = (cov_r[frame], cov_i[frame], pilot_r, pilot_i, level[frame], start, count, mine, looks, prior)
                _section(*fixed, image_r, image_i, precision, match, work, here)
                now = here[mine] if mine >= 0 else 0.0
                if -now > best:
                    best, winner, choice = -now, section, -1
                for q in range(count):
                    if here[q] - now > best:
                        best, winner, choice = here[q] - now, section, q
            if winner < 0 or turn == rounds:
                break
            for q, sign in ((chosen[frame, winner], -1.0), (choice, 1.0)):
                if q >= 0:
                    column = winner * count + q
                    step = sign * level[frame, column]
                    _turn(cov_r[frame], cov_i[frame], pilot_r, pilot_i, column, step, image_r, image_i, precision, match, work)
            chosen[frame, winner] = choice
