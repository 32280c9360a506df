"""The response of the chains to a tone that a splitter feeds to all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from .response import Response

LEAST_SAMPLES = 64
CHAINS_AT_ONCE = 8  # zero-padded spectra of 64 chains would not fit a cache
REFINEMENTS = 12  # halvings of the step around the peak, which begins at a quarter of a bin
LEAST_STEP = 1e-9  # cycles per sample
UNLIKELY = 14.0  # of a million captures without a tone, about one passes for a tone


def tone_response(samples: Tensor, *, frequency: float = 0.1, search: float = 0.05, remove_dc: bool = True) -> Response:
    """Complex gains of the chains from samples [B T M] complex of a tone near ``frequency`` [cycles per sample], at most ``search`` away.

    The frequency is the maximum of the periodograms' sum over the chains, each weighted by its power (maximum likelihood for one tone in
    white noise; Rife and Boorstyn 1974), and the gains are the correlations with it, which for known frequency are maximum likelihood too.
    With ``remove_dc`` a constant of each chain is taken away first; the tone must then be more than a bin from 0.

    Raises ShapeError and ConfigError when there is nothing to search, or no tone is there.
    """
    if samples.ndim != 3 or not samples.is_complex() or samples.shape[1] < LEAST_SAMPLES:
        raise ShapeError(
            f"samples are {samples.dtype} {list(samples.shape)}: pass complex [capture, time, antenna], {LEAST_SAMPLES} or more"
        )
    if not (-0.5 <= frequency <= 0.5 and 0 < search <= 0.5):
        raise ConfigError(f"frequency is {frequency} and search {search}: pass cycles per sample, -0.5 to 0.5, and above 0 to 0.5")
    length = samples.shape[1]
    if remove_dc:
        samples = samples - samples.mean(1, keepdim=True)
    power = samples.abs().square().mean(1)
    weight = 1 / power.clamp_min(1e-30) * (power > 0)
    found = _refined(samples, weight, _coarse(samples, weight, frequency, search), 0.25 / length)
    gain = _at(samples, found)
    rest = power - gain.abs().square()
    return Response(gain, torch.zeros_like(power), (rest * length / (length - 1 - remove_dc)).clamp_min(0), found, length)


def _coarse(samples: Tensor, weight: Tensor, frequency: float, search: float) -> Tensor:
    """The largest of the zero-padded periodogram's bins within the search, [B]; ConfigError where noise could be as large."""
    length, bins = samples.shape[1], 4 * 2 ** math.ceil(math.log2(samples.shape[1]))
    total = samples.real.new_zeros(len(samples), bins)
    for first in range(0, samples.shape[2], CHAINS_AT_ONCE):
        part = slice(first, first + CHAINS_AT_ONCE)
        spectrum = torch.fft.fft(samples[..., part], bins, dim=1)
        total += torch.einsum("bfm,bm->bf", spectrum.abs().square(), weight[:, part])
    grid = torch.fft.fftfreq(bins, device=samples.device, dtype=total.dtype)
    away = (grid - frequency + 0.5).remainder(1) - 0.5
    best = total.masked_fill(away.abs() > search, -1).max(1)
    heard = (weight > 0).sum(1).to(total.dtype)
    chance = math.log(bins) + UNLIKELY
    if not bool((best.values / length > heard + (2 * heard * chance).sqrt() + chance).all()):
        raise ConfigError(
            f"no tone within {search:g} of {frequency:g} cycles per sample: check that the generator is on, its frequency and level, and "
            "that the splitter feeds the antenna ports"
        )
    return grid[best.indices]


def _refined(samples: Tensor, weight: Tensor, start: Tensor, step: float) -> Tensor:
    """The nearest maximum of the periodograms' sum, [B]: towards the better side, with a step that halves."""
    here, best = start.double(), _power(samples, weight, start.double())
    for _ in range(REFINEMENTS):
        for side in (-step, step):
            there = here + side
            power = _power(samples, weight, there)
            here, best = torch.where(power > best, there, here), torch.maximum(power, best)
        step /= 2
        if step < LEAST_STEP:
            break
    return here


def _power(samples: Tensor, weight: Tensor, frequency: Tensor) -> Tensor:
    return (_at(samples, frequency).abs().square() * weight).sum(1)


def _at(samples: Tensor, frequency: Tensor) -> Tensor:
    """Correlation of every chain with a tone of ``frequency`` [B] and unit power, [B M]."""
    time = torch.arange(samples.shape[1], device=samples.device, dtype=torch.float64)
    turns = torch.exp(-2j * math.pi * (frequency.double()[:, None] * time).remainder(1)).to(samples.dtype)
    return torch.einsum("bt,btm->bm", turns, samples) / samples.shape[1]
