"""Which antennas work: a verdict for each, from what a stretch of samples shows, and a mask of those to use.

With traffic alone an antenna is judged by its power, its clipped samples and by whether it hears what the others hear. With a calibration
signal and a stored calibration its phase, level and noise count as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ShapeError
from .response import Response, compare
from .swaps import find_swaps

FLOOR = 1e-9  # of the median power, added to the covariance: antennas that are silent leave it singular
FLOOR_DB = 200.0  # of powers: a silent antenna is not infinitely quiet
VERDICTS = ("ok", "saturated", "dead", "noisy", "swapped", "drifting")  # the first that applies is said


@dataclass(frozen=True)
class Limits:
    """Where verdicts begin. ``dead_db``: so far below the median power; ``clip_share``: of samples at ``full_scale``; ``noisy_db``: noise
    so far above the median; ``phase_deg`` and ``level_db``: moved so far from the stored calibration; ``swap_deg``: so close to another's
    stored phase; ``sigmas``: a moved phase must also exceed so many standard deviations of its measurement; ``unlikely``: natural log of
    the odds against an antenna that hears nothing passing for one that does, in one look."""

    dead_db: float = 15.0
    clip_share: float = 1e-3
    full_scale: float = 0.99
    noisy_db: float = 6.0
    phase_deg: float = 15.0
    level_db: float = 3.0
    swap_deg: float = 6.0
    sigmas: float = 5.0
    unlikely: float = 14.0


@dataclass(frozen=True)
class Health:
    """verdicts [M], each one of `VERDICTS`; measures [M] by name: power_db, clip_share, coherence (1: what hears nothing shows),
    own_db (power that the others do not explain), and with a calibration signal noise_db, phase_deg, level_db; swaps: ``{antenna: whose
    signal it carries}``; sure: whether the array heard enough to tell an antenna that is deaf."""

    verdicts: tuple[str, ...]
    measures: Mapping[str, np.ndarray]
    swaps: Mapping[int, int]
    sure: bool

    @property
    def mask(self) -> np.ndarray:
        """[M] bool, true for antennas to use: only those that are ok."""
        return np.array([verdict == "ok" for verdict in self.verdicts])

    def of(self, verdict: str) -> list[int]:
        """The antennas with a verdict."""
        return [antenna for antenna, found in enumerate(self.verdicts) if found == verdict]

    def __str__(self) -> str:
        parts = [f"{name} {', '.join(map(str, self.of(name)))}" for name in VERDICTS[1:] if self.of(name)]
        count = f"{len(self.of('ok'))} of {len(self.verdicts)} antennas ok"
        return f"{count}; {'; '.join(parts)}" if parts else count


def examine(samples: Tensor, *, response: Response | None = None, stored: np.ndarray | None = None, limits: Limits | None = None) -> Health:
    """Verdicts on the antennas from samples [T M] complex, where full scale is 1; ``response`` is what a calibration signal in them shows
    (of one capture), ``stored`` [M] complex the response that the calibration holds.

    In this order: saturated (clips), dead (silent, or hears nothing of what most others hear), noisy (more noise than the others; without
    a calibration signal: more power that the others do not explain), swapped (carries what another should), drifting (moved otherwise).
    Raises ShapeError for samples that do not fit.
    """
    limits = limits or Limits()
    if samples.ndim != 2 or not samples.is_complex() or len(samples) < 2:
        raise ShapeError(f"samples are {samples.dtype} {list(samples.shape)}: pass complex [time, antenna]")
    measures = {"power_db": _db(samples.abs().square().mean(0)), "clip_share": clip_share(samples, limits.full_scale)}
    measures["coherence"] = coherence(samples)
    measures["own_db"] = _db(own_power(samples))
    flags = _by_traffic(measures, limits)
    sure = bool(np.median(measures["coherence"]) > 4 * limits.unlikely)
    swaps: dict[int, int] = {}
    if response is not None:
        sure = True
        swaps = _by_signal(flags, measures, response, stored, limits, len(samples))
    verdicts = tuple(next((name for name in VERDICTS[1:] if flags[name][antenna]), "ok") for antenna in range(samples.shape[1]))
    return Health(verdicts, measures, swaps, sure)


def coherence(samples: Tensor) -> np.ndarray:
    """How much of what the others hear an antenna hears, [M]: T times the mean squared correlation with them. It is 1 on average for an
    antenna with noise of its own only, and at most x but with probability exp(-x), whatever the others hear."""
    scaled = samples - samples.mean(0)
    scaled = scaled / scaled.abs().square().sum(0).sqrt().clamp_min(1e-20)
    likeness = (scaled.conj().T @ scaled).abs().square()
    likeness.fill_diagonal_(0)
    return np.asarray((len(samples) * likeness.sum(1) / max(1, samples.shape[1] - 1)).double())


def own_power(samples: Tensor) -> Tensor:
    """Power of what the others do not explain [M]: the error of predicting an antenna from all others, 1 / (R^-1)_mm. Its noise, where
    users are fewer than antennas."""
    power = samples.abs().square().mean(0)
    covariance = (samples.mH @ samples).to(torch.complex128) / len(samples)
    floor = FLOOR * power.double().median().clamp_min(FLOOR)
    covariance.diagonal().add_(floor)
    return 1 / torch.linalg.inv(covariance).diagonal().real


def clip_share(samples: Tensor, full_scale: float) -> np.ndarray:
    """Share of samples of which a part is at full scale, [M]."""
    parts = torch.view_as_real(samples.resolve_conj()).abs().amax(-1)
    return np.asarray((parts >= full_scale).double().mean(0))


def _by_traffic(measures: Mapping[str, np.ndarray], limits: Limits) -> dict[str, np.ndarray]:
    power, heard = measures["power_db"], measures["coherence"]
    level = np.median(power)
    deaf = (heard < limits.unlikely) & (np.median(heard) > 4 * limits.unlikely)
    own = measures["own_db"]
    alone = own - power  # share that nobody else hears
    loud = (own > np.median(own) + limits.noisy_db) & (alone > np.median(alone) + limits.noisy_db / 2)
    loud |= (power > level + limits.noisy_db) & (heard < np.median(heard) / 4)
    saturated = measures["clip_share"] > limits.clip_share
    return {
        "saturated": saturated,
        "dead": (power < level - limits.dead_db) | (deaf & (power <= level + limits.noisy_db)),
        "noisy": loud,
        "swapped": np.zeros_like(saturated),
        "drifting": np.zeros_like(saturated),
    }


def _by_signal(
    flags: dict[str, np.ndarray],
    measures: dict[str, np.ndarray],
    response: Response,
    stored: np.ndarray | None,
    limits: Limits,
    length: int,
) -> dict[int, int]:
    """Adds what the calibration signal shows; returns who carries whose signal."""
    if response.gain.shape != (1, len(measures["power_db"])):
        raise ShapeError(f"response is of {list(response.gain.shape)} captures and antennas: pass that of one capture of these samples")
    gain, noise = response.gain[0].abs().square(), response.noise_var[0]
    measures["noise_db"] = _db(noise)
    level = _db(gain)
    found = np.asarray(gain.double()) * length > limits.unlikely * np.asarray(
        noise.double()
    )  # more than noise alone shows at its frequency
    flags["dead"] = ~found | (level < np.median(level) - limits.dead_db)
    flags["noisy"] = measures["noise_db"] > np.median(measures["noise_db"]) + limits.noisy_db
    flags["dead"] &= ~(flags["noisy"] & (measures["power_db"] > np.median(measures["power_db"]) - limits.dead_db))
    if stored is None:
        return {}
    expected = torch.from_numpy(np.asarray(stored, np.complex128))[None]
    phase, moved = (np.asarray(part[0]) for part in compare(response.gain.to(torch.complex128), expected))
    measures["phase_deg"], measures["level_db"] = phase, moved
    doubt = np.degrees(np.asarray(response.phase_std[0].double())) * limits.sigmas
    silent = flags["dead"] | (np.asarray(expected[0].abs()) == 0)
    astray = ~silent & ((np.abs(phase) > np.maximum(limits.phase_deg, doubt)) | (np.abs(moved) > limits.level_db))
    stored_deg = np.degrees(np.angle(stored))
    tolerance = max(limits.swap_deg, float(np.median(doubt)))
    swaps = find_swaps(stored_deg + phase, stored_deg, np.nonzero(astray)[0].tolist(), tolerance)
    flags["swapped"] = np.array([antenna in swaps for antenna in range(len(phase))])
    flags["drifting"] = astray & ~flags["swapped"]
    return swaps


def _db(power: Tensor) -> np.ndarray:
    return np.asarray(10 * power.double().clamp_min(10 ** -(FLOOR_DB / 10)).log10())
