"""What people want to see of a receiver that runs: users, antennas, counters. One list, for blocks, messages and the terminal.

A publisher with a monitor sends the arrays of `FIELDS` beside the others, one row a frame, the same for all frames of a message; NaN where
nothing is known. Listeners that do not know them leave them alone.

>>> track = UserTrack(2, "qpsk")
>>> symbols = np.sqrt(0.5) * np.exp(1j * np.pi / 4 * np.array([[[1, 0], [3, 0]]]))
>>> track.hear(np.array([[True, False]]), symbols * 1.2)
>>> track.error_db.round(1).tolist(), track.heard.tolist()
([-16.4, nan], [1, 0])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..calibration.health import VERDICTS
from ..errors import unknown

MODULATIONS = ("qpsk", "16qam")
MEMORY = 0.9  # weight of what was heard before, for each frame of a user
TINY = 1e-9
UNHEARD = 255  # verdict of an antenna that nobody has looked at
COUNTERS = {
    "frames": "frames that came off the air, or out of the simulation",
    "missing": "slots that were lost",
    "gaps": "times that samples were lost",
    "locks": "times that the slots were found",
    "dropped": "frames that were dropped because the receiver was busy",
    "codewords": "codewords that were decoded",
    "payloads": "payloads whose CRC held",
    "failed_crc": "payloads whose CRC failed",
    "cfo_hz": "carrier offset of the array that was taken away [Hz]",
    "noise_var": "noise variance of a sample",
}


@dataclass(frozen=True)
class Field:
    """An array of a message: ``axis`` "user", "antenna" or "counter" after the frames."""

    axis: str
    dtype: str
    unit: str
    meaning: str


FIELDS = {
    "user_error_db": Field("user", "float32", "dB", "squared error over power of a user's symbols, of recent frames"),
    "user_drift_deg": Field("user", "float32", "degree", "what a user's phase turns from the first data symbol to the last"),
    "user_fer": Field("user", "float32", "", "share of a user's recent payloads whose CRC failed"),
    "antenna_power_db": Field("antenna", "float32", "dB", "power of an antenna"),
    "antenna_phase_deg": Field("antenna", "float32", "degree", "phase of an antenna against its calibration"),
    "antenna_verdict": Field("antenna", "uint8", "", f"index of {', '.join(VERDICTS)}; {UNHEARD}: not looked at"),
    "counters": Field("counter", "float64", "", f"in this order: {', '.join(COUNTERS)}"),
}


class UserTrack:
    """What is known of each user's signal, from its symbols alone, averaged over its frames with `MEMORY`. NaN until it was heard.

    error_db: squared distance from the nearest points, over their power; drift_deg: how far the phase turns over the data, within a
    quarter turn (QPSK) of none; failed: share of payloads whose CRC failed; heard: frames; all [users].
    """

    def __init__(self, users: int, modulation: str = "qpsk") -> None:
        if modulation not in MODULATIONS:
            raise unknown("modulation", modulation, MODULATIONS)
        self.modulation = modulation
        self.heard = np.zeros(users, np.int64)
        self._error, self._turn, self.failed = np.full(users, np.nan), np.full(users, np.nan, complex), np.full(users, np.nan)

    @property
    def error_db(self) -> np.ndarray:
        return 10 * np.log10(np.maximum(self._error, 1e-6))

    @property
    def drift_deg(self) -> np.ndarray:
        angle: np.ndarray = np.degrees(np.angle(self._turn))
        return np.where(np.isnan(self._turn), np.nan, angle)

    def hear(self, active: np.ndarray, symbols: np.ndarray) -> None:
        """Takes in frames: active [K users] bool, symbols [K data_len users]."""
        for row, users in ((row, np.flatnonzero(found)) for row, found in enumerate(active)):
            if len(users) and symbols.shape[1] >= 2:
                sent = nearest(symbols[row][:, users], self.modulation)
                error = np.abs(symbols[row][:, users] - sent) ** 2
                self._blend(self._error, users, error.mean(0) / np.maximum(np.mean(np.abs(sent) ** 2, 0), TINY))
                self._blend(self._turn, users, turn(symbols[row][:, users] * sent.conj()))
                self.heard[users] += 1

    def check(self, user: int, ok: bool) -> None:
        """Takes in whether the CRC of a payload of ``user`` held."""
        self._blend(self.failed, np.array([user]), np.array([0.0 if ok else 1.0]))

    @staticmethod
    def _blend(kept: np.ndarray, users: np.ndarray, new: np.ndarray) -> None:
        old = kept[users]
        kept[users] = np.where(np.isnan(old), new, MEMORY * old + (1 - MEMORY) * new)


def nearest(symbols: np.ndarray, modulation: str) -> np.ndarray:
    """The points of the constellation next to symbols, any shape."""
    if modulation == "qpsk":
        return (np.sign(symbols.real) + 1j * np.sign(symbols.imag)) / np.sqrt(2)
    parts = [np.clip(2 * np.floor(part * np.sqrt(10) / 2) + 1, -3, 3) for part in (symbols.real, symbols.imag)]
    return (parts[0] + 1j * parts[1]) / np.sqrt(10)


def turn(products: np.ndarray) -> np.ndarray:
    """Unit factors [users]: what the phase of products [data_len users], symbols times conjugate decisions, turns from end to end. It is
    the slope between the halves, so a turn of half a circle and more is taken for one the other way."""
    size = len(products)
    half = size // 2
    slope = np.angle((products[half : 2 * half] * products[:half].conj()).sum(0)) / half
    return np.asarray(np.exp(1j * slope * (size - 1)))


def blank(users: int, antennas: int) -> dict[str, np.ndarray]:
    """The arrays of `FIELDS` [size] while nothing is known."""
    sizes = {"user": users, "antenna": antennas, "counter": len(COUNTERS)}
    return {name: np.full(sizes[row.axis], UNHEARD if row.dtype == "uint8" else np.nan, row.dtype) for name, row in FIELDS.items()}


def array_line(verdicts: np.ndarray) -> str:
    """What verdicts [antennas] say of the array, in words.

    >>> array_line(np.array([0, 0, 2, 255]))
    'antennas: 2 of 3 ok, dead 2'
    """
    seen = np.flatnonzero(verdicts < len(VERDICTS))
    if not len(seen):
        return "antennas: nobody has looked"
    wrong = [
        f"{name} {' '.join(map(str, found))}"
        for index, name in enumerate(VERDICTS)
        if index and len(found := np.flatnonzero(verdicts == index))
    ]
    return ", ".join([f"antennas: {int((verdicts == 0).sum())} of {len(seen)} ok", *wrong])


def counter_line(values: np.ndarray) -> str:
    """Counters in words, in the order of `COUNTERS`; those that nobody said are left out.

    >>> counter_line(np.array([12.0, 0, *[np.nan] * 6, -1500.5, np.nan]))
    'frames 12, missing 0, cfo_hz -1500'
    """
    told = [(name, value) for name, value in zip(COUNTERS, values, strict=False) if np.isfinite(value)]
    return ", ".join(f"{name} {value:.0f}" if value == round(value) else f"{name} {value:.4g}" for name, value in told)
