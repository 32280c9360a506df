"""Finds the slots in a stream: the one place, half a symbol wide, where samples half a preamble apart are alike at all antennas.

c(x) is the correlation of an antenna with half a preamble that begins at x. conj(c(x)) c(x + half a preamble), summed over antennas, slots
and half a symbol either side, has the same phase in every slot, that of the carrier offset, and grows with the number of slots; noise and
data do not. It is compared with its own mean over the slot, so that neither level nor a steady tone matters.
"""

from __future__ import annotations

import cmath
import math
from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal import upfirdn

from ..burst import Burst
from ..forward.waveform import modulate, preamble
from .grid import Stretch, Stretches

KEPT = 32  # slots of samples that are kept while slots are sought
SUMMED = 16  # slots over which evidence is summed
EVIDENCE = 30.0  # peak over mean power: noise reaches it once in 10^10 slots
TAIL = 4  # symbols of a pulse either side
BESIDE = 2  # symbols around the peak that are left out of the mean


class Found(NamedTuple):
    """``start``: a coordinate at which a slot begins; ``cfo`` [cycles per symbol]; ``begun`` where the search had got to."""

    start: float
    cfo: float
    begun: float


class Acquisition:
    """Seeks from coordinate ``begin`` on, a slot's length ("cell") after another; ``period`` [samples] is that of the slots."""

    def __init__(self, burst: Burst, begin: float, period: float) -> None:
        rate = burst.samples_per_symbol
        self._burst, self._begin, self._period = burst, begin, period
        self._step = rate // 2 if rate % 2 == 0 else 1
        self._bins = burst.slot_samples // self._step
        self._apart = burst.preamble_len // 2 * rate // self._step
        self._template = _template(burst)
        self._cells: deque[np.ndarray] = deque(maxlen=SUMMED)
        self._cell = 0
        self._next = 0  # bin of the cell from which on nothing has been looked at
        self._turns = np.zeros(self._bins, np.complex128)

    @property
    def kept(self) -> float:
        """The coordinate from which on samples are still of use."""
        return self._begin + (self._cell - KEPT + 1) * self._period

    def seek(self, samples: Stretches) -> Found | None:
        """Looks at all that has come and not been looked at; `Found` as soon as there is evidence."""
        for part in list(samples.parts):
            while self._look(part):
                if found := self._close_cell():
                    return found
            if not part.closed:
                break
        return None

    def _coordinate(self, position: int) -> float:
        return self._begin + self._cell * self._period + position * self._step * self._period / self._burst.slot_samples

    def _look(self, part: Stretch) -> bool:
        """Adds what a stretch tells of the cell at hand; whether nothing more will come of that cell."""
        first = part.index(self._coordinate(0)) - TAIL * self._burst.samples_per_symbol  # of the window for bin 0
        low = max(self._next, -(first // self._step))
        if low >= self._bins:
            self._pass_over(low // self._bins - 1)
            return True
        fit = (len(part) - first - len(self._template)) // self._step - self._apart + 1  # bins whose window is here, and that further on
        if fit < self._bins and not part.closed:
            return False
        high = min(fit, self._bins)
        if high > low:
            self._turns[low:high] += self._correlate(part.samples[first + low * self._step :], high - low)
            self._next = high
        return fit >= self._bins

    def _correlate(self, samples: np.ndarray, count: int) -> np.ndarray:
        length = len(self._template)
        cut = samples[: (count + self._apart - 1) * self._step + length]
        seen = upfirdn(self._template, cut, down=self._step, axis=0)[(length - 1) // self._step :][: count + self._apart]
        return np.asarray(np.einsum("tm,tm->t", seen[:count].conj(), seen[self._apart :]))

    def _close_cell(self) -> Found | None:
        """Goes on to the next cell, unless there is evidence by now."""
        if np.isfinite(self._turns).all():
            self._cells.append(self._turns)
        self._cell += 1
        self._next, self._turns = 0, np.zeros(self._bins, np.complex128)
        return self._decide() if self._cells else None

    def _pass_over(self, cells: int) -> None:
        """Leaves out cells of which no sample came, but for the one that is closed next."""
        if cells > 0:
            self._cells.append(self._turns)
            self._cell += cells
            self._next, self._turns = 0, np.zeros(self._bins, np.complex128)

    def _decide(self) -> Found | None:
        total = np.sum(list(self._cells), axis=0)
        total = total + np.roll(total, 1) + np.roll(total, -1)
        power = total.real**2 + total.imag**2
        peak = int(power.argmax())
        beside = BESIDE * self._burst.samples_per_symbol // self._step
        others = np.delete(power, np.arange(peak - beside, peak + beside + 1) % self._bins).mean()
        if not power[peak] > EVIDENCE * others:
            return None
        begun = self._coordinate(0)
        cfo = cmath.phase(total[peak]) / (math.pi * self._burst.preamble_len)
        start = self._coordinate(peak) - self._burst.lead * self._burst.samples_per_symbol
        return Found(start, cfo, begun)


def _template(burst: Burst) -> np.ndarray:
    """Half a preamble with its tails, reversed and conjugated."""
    rate, half = burst.samples_per_symbol, burst.preamble_len // 2
    symbols = torch.zeros(1, burst.symbols, 1, dtype=torch.complex64)
    symbols[0, :half, 0] = preamble(burst)[:half]
    wave = modulate(symbols, burst)[0, :, 0].roll((TAIL - burst.lead) * rate)
    return wave[: (half + 2 * TAIL) * rate + 1].flip(0).conj().resolve_conj().numpy()
