"""From captures of a calibration signal to the entries of a calibration, with what is left after correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from scipy.stats import chi2

from ..errors import ConfigError, ShapeError, unknown
from .record import METHODS, Calibration, Entry, Key
from .response import Response, compare, rms_deg

LEAST_CAPTURES = 2
HEARD = 14.0  # of the noise that falls on the signal: noise alone is as large once in a million


@dataclass(frozen=True)
class Measurement:
    """A calibration and how good it is: residual_deg, root mean square over the chains of what is left of the phases when one half of the
    captures corrects the other, with the limits of its 95 % confidence interval; uncalibrated_deg: the same without correction; snr_db:
    of the median chain, per sample; deaf: chains that do not hear the signal."""

    calibration: Calibration
    residual_deg: float
    residual_ci95: tuple[float, float]
    uncalibrated_deg: float
    snr_db: float
    deaf: tuple[int, ...]


def measure(response: Response, keys: Sequence[Key], *, method: str = "tone", date: datetime | None = None) -> Measurement:
    """What the captures of ``response`` [B M] say of the channels ``keys``. Raises ShapeError when they do not fit, ConfigError for fewer
    than two captures, or when no chain hears the signal."""
    captures, chains = response.gain.shape
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if len(keys) != chains:
        raise ShapeError(f"{len(keys)} channels are named and {chains} measured: name one for each antenna")
    if captures < LEAST_CAPTURES:
        raise ConfigError(f"{captures} capture: pass {LEAST_CAPTURES} or more, one half checks the other")
    half = captures // 2
    whole, first, second = response.mean(), response.take(slice(0, half)).mean(), response.take(slice(half, None)).mean()
    heard = np.asarray(whole.gain[0].abs().square().double()) * whole.samples > HEARD * np.asarray(whole.noise_var[0].double())
    if heard.sum() < 2:
        raise ConfigError("fewer than two channels hear the calibration signal: raise its level, and check the splitter's cables")
    left, _ = compare(second.gain[:, heard], first.gain[:, heard])
    raw, _ = compare(whole.gain[:, heard], whole.gain[:, heard].abs().to(whole.gain.dtype))
    residual, low, high = rms_deg(left), *_interval(rms_deg(left), int(heard.sum()) - 1)
    snr = 10 * np.log10(np.maximum(np.asarray(whole.snr[0].double()), 1e-20))
    now = (date or datetime.now(UTC)).isoformat(timespec="seconds")
    gain, delay = np.asarray(whole.gain[0].to(torch.complex128)), np.asarray(whole.delay[0].double())
    doubt = np.degrees(np.asarray(whole.phase_std[0].double()))
    entries = [
        Entry(
            serial=key.serial,
            channel=key.channel,
            freq_hz=float(key.freq_hz),
            rate_hz=float(key.rate_hz),
            gain_db=float(key.gain_db),
            amplitude=_round(abs(gain[chain])) if heard[chain] else 0.0,
            phase_deg=_round(math.degrees(np.angle(gain[chain]))),
            delay_samples=_round(delay[chain]) if heard[chain] else 0.0,
            date=now,
            method=method,
            snr_db=_round(snr[chain]),
            phase_std_deg=_round(doubt[chain]),
            residual_deg=_round(residual),
        )
        for chain, key in enumerate(keys)
    ]
    deaf = tuple(np.nonzero(~heard)[0].tolist())
    return Measurement(Calibration(tuple(entries)), residual, (low, high), rms_deg(raw), float(np.median(snr[heard])), deaf)


def _interval(rms: float, freedom: int) -> tuple[float, float]:
    """95 % confidence interval of the root mean square of Gaussian phases, one of which went into the common phase."""
    low, high = (float(rms * math.sqrt(freedom / chi2.ppf(share, freedom))) for share in (0.975, 0.025))
    return low, high


def _round(value: float) -> float:
    """Seven digits: more than any measurement has, and readable in a file."""
    return float(f"{value:.7g}")
