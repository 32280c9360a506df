"""Samples in time: stretches without a gap, each with the coordinate of its first sample.

A coordinate counts samples since the first one that ever came, by rx_time and the sample rate: a gap moves it on.

>>> stretches = Stretches(antennas=2)
>>> stretches.open(0.0)
>>> stretches.append(np.zeros((5, 2), np.complex64))
>>> stretches.open(9.0)
>>> [(part.start, part.end, part.closed) for part in stretches.parts]
[(0.0, 5.0, True), (9.0, 9.0, False)]
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from .frames import Time

SPARE = 4  # a buffer grows by so many times what it has to hold: samples are moved rarely


class Stretch:
    """Samples [n antennas] without a gap; ``start`` is the coordinate of the first that is kept. ``closed``: no more will come.
    ``changed``: the centre frequency ``freq`` is not that of the stretch before."""

    def __init__(self, start: float, antennas: int, freq: float | None, changed: bool) -> None:
        self.origin, self.freq, self.changed, self.closed = start, freq, changed, False
        self._dropped = self._first = self._last = 0
        self._buffer = np.empty((0, antennas), np.complex64)

    @property
    def start(self) -> float:
        return self.origin + self._dropped

    @property
    def end(self) -> float:
        return self.origin + self._dropped + len(self)

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def samples(self) -> np.ndarray:
        """All that is kept [n antennas], a view."""
        return self._buffer[self._first : self._last]

    def append(self, chunk: np.ndarray) -> None:
        if self._last + len(chunk) > len(self._buffer):
            self._make_room(len(chunk))
        self._buffer[self._last : self._last + len(chunk)] = chunk
        self._last += len(chunk)

    def _make_room(self, count: int) -> None:
        """Moves what is kept to the front, of another buffer where this one is too small, or so large that it would not stay in the
        cache."""
        kept, need = self.samples, len(self) + count
        fits = 2 * need <= len(self._buffer) <= 2 * SPARE * need
        buffer = self._buffer if fits else np.empty((SPARE * need, self._buffer.shape[1]), np.complex64)
        buffer[: len(kept)] = kept
        self._buffer, self._first, self._last = buffer, 0, len(kept)

    def trim(self, coordinate: float) -> None:
        """Forgets samples before a coordinate."""
        count = min(max(math.floor(coordinate - self.start), 0), len(self))
        self._dropped += count
        self._first += count

    def index(self, coordinate: float) -> int:
        """The sample nearest to a coordinate, from the first that is kept; may lie outside."""
        return round(coordinate - self.origin) - self._dropped

    def fraction(self, coordinate: float) -> float:
        """By how many samples a coordinate lies after the sample nearest to it: the same, whatever has been forgotten."""
        return coordinate - self.origin - round(coordinate - self.origin)

    def window(self, first: int, count: int) -> np.ndarray:
        """Samples [count antennas] from index ``first``; zeros where there are none."""
        if first >= 0 and first + count <= len(self):
            return self.samples[first : first + count]
        cut = np.zeros((count, self._buffer.shape[1]), np.complex64)
        low, high = max(first, 0), min(first + count, len(self))
        cut[low - first : high - first] = self.samples[low:high]
        return cut


class Stretches:
    """All stretches that are kept, oldest first; the last may still grow."""

    def __init__(self, antennas: int) -> None:
        self.antennas = antennas
        self.parts: deque[Stretch] = deque()

    def open(self, start: float, freq: float | None = None, changed: bool = False) -> None:
        """A new stretch begins: after a gap, or at another frequency."""
        self.close()
        self.parts.append(Stretch(start, self.antennas, freq, changed))

    def close(self) -> None:
        if self.parts:
            self.parts[-1].closed = True

    def append(self, chunk: np.ndarray) -> None:
        self.parts[-1].append(chunk)

    def trim(self, coordinate: float) -> None:
        """Forgets samples before a coordinate, and closed stretches without any."""
        while self.parts:
            self.parts[0].trim(coordinate)
            if len(self.parts[0]) or not self.parts[0].closed:
                return
            self.parts.popleft()

    @property
    def end(self) -> float:
        """The coordinate after the last sample."""
        return self.parts[-1].end if self.parts else 0.0


@dataclass(frozen=True)
class Clock:
    """Coordinates of times: samples at ``rate`` [Hz] since ``origin`` (whole seconds, fraction)."""

    origin: Time
    rate: float

    def coordinate(self, time: Time) -> float:
        return ((time[0] - self.origin[0]) + (time[1] - self.origin[1])) * self.rate

    def time(self, coordinate: float) -> Time:
        whole, rest = divmod(coordinate, self.rate) if coordinate >= 0 else (math.floor(coordinate / self.rate), coordinate % self.rate)
        fraction = self.origin[1] + rest / self.rate
        carry = math.floor(fraction)
        return self.origin[0] + int(whole) + carry, fraction - carry
