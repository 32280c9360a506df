"""Stretches of an array stream without gaps, collected for what looks at many samples at once."""

import numpy as np


class Captures:
    """Collects ``length`` vectors [M] at a time; `take` says how far it got. A gap, or a new setting, starts the stretch anew."""

    def __init__(self, length, antennas):
        self._buffer = np.empty((length, antennas), np.complex64)
        self._filled = 0

    def clear(self):
        self._filled = 0

    def take(self, samples):
        """Takes vectors [n M]; returns how many, and the capture when it is full (a copy)."""
        count = min(len(samples), len(self._buffer) - self._filled)
        self._buffer[self._filled : self._filled + count] = samples[:count]
        self._filled += count
        if self._filled < len(self._buffer):
            return count, None
        self._filled = 0
        return count, self._buffer.copy()
