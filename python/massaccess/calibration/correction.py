"""What undoes the responses of the chains: one complex factor each, and short filters where delays differ by more than the band allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError

TAPS = 16  # of a fractional delay; within 80 % of the band its error is below -50 dB
DEAF = 0.03  # of the median level: a chain below it would be raised by 30 dB, noise and all


@dataclass(frozen=True)
class Correction:
    """factor [M] complex64, to multiply with, and delays [M] in samples, to take away by filters (``None``: too small to matter); mask [M]
    bool, true for channels to use: chains that are as good as deaf have factor 0."""

    factor: np.ndarray
    mask: np.ndarray
    delay: np.ndarray | None = None

    @property
    def channels(self) -> int:
        return len(self.factor)


def correction_of(gain: np.ndarray, delay: np.ndarray | None = None, *, amplitude: bool = True, least_delay: float = 0.1) -> Correction:
    """The correction of chains with responses ``gain`` [M] complex and delays ``delay`` [M] in samples.

    Phases are undone, and levels with ``amplitude``, such that the median level stays as it is. Delays are filtered away only where some
    chain is more than ``least_delay`` samples from the median: below it, a delay is a phase that the gain has already, and what is left at
    the edge of the band is small (a tenth of a sample at a quarter of the sample rate is 9 degrees). Raises ConfigError for chains none of
    which hears anything.

    >>> correction_of(np.array([1.0, 1j, 2.0, 1e-6])).factor
    array([1. +0.j, 0. -1.j, 0.5+0.j, 0. +0.j], dtype=complex64)
    """
    level = np.abs(gain)
    usable = level > DEAF * np.median(level[level > 0]) if (level > 0).any() else level > 0
    if not usable.any():
        raise ConfigError("no channel of the calibration hears anything: calibrate anew, and check the splitter's cables")
    typical = np.median(level[usable])
    safe = np.where(usable, gain, 1.0)
    factor = np.where(usable, typical / safe if amplitude else np.exp(-1j * np.angle(safe)), 0)
    spread = None
    if delay is not None:
        away = np.where(usable, delay - np.median(delay[usable]), 0.0)
        spread = away if np.abs(away).max() > least_delay else None
    return Correction(factor.astype(np.complex64), usable, spread)


def delay_taps(delay: np.ndarray) -> np.ndarray:
    """Filters [taps M] float32 that take ``delay`` [M] samples away, and delay all channels alike by `group_delay` whole samples: a sinc
    under a Kaiser window, one tap sequence a channel."""
    half = TAPS // 2 + math.ceil(float(np.abs(delay).max()))
    time = np.arange(2 * half + 1)[:, None] - half + delay
    window = np.i0(8.0 * np.sqrt(np.clip(1 - (time / (half + 1)) ** 2, 0, None))) / np.i0(8.0)
    taps = np.sinc(time) * window
    return (taps / taps.sum(0)).astype(np.float32)


def group_delay(taps: np.ndarray) -> int:
    """Whole samples that `delay_taps` delays everything by."""
    return len(taps) // 2
