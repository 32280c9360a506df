"""What all slots so far tell: a second-order loop for the slots' grid, averages of the carrier offset and of the powers.

Users are spread around the grid and in frequency, and other users are awake in each slot, so that one slot tells both with an error of a
tenth of a symbol, or a tenth of a per mille: gains are 1/n for the n-th active slot, then `GAIN`. A slot in which nobody is awake moves
nothing."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

from .preamble_meter import PreambleMeter, SlotMeasure

GAIN = 1 / 64
DRIFT_GAIN = GAIN**2 / 4  # critically damped
NOISE_GAIN = 1 / 64
MOST_DRIFT = 1e-4  # of the sample clocks against each other
LEAST_NOISE = 1e-30
RETOLD = 1.05  # ratio: a noise variance that moved less is not told anew


@dataclass
class Grid:
    """Where slots begin: coordinate ``start`` of slot ``index``, one every ``period * (1 + drift)`` samples."""

    start: float
    index: int
    period: float
    drift: float = 0.0

    @property
    def step(self) -> float:
        return self.period * (1 + self.drift)

    def advance(self, slots: int = 1) -> None:
        self.start += slots * self.step
        self.index += slots


class Carrier:
    """The common carrier offset, by the turn over ``span`` symbols between halves of preambles."""

    def __init__(self, span: float, cfo: float = 0.0) -> None:
        self._span, self._first = span, cfo
        self._mean, self._slots = 0j, 0

    @property
    def cfo(self) -> float:
        """[cycles per symbol]"""
        return cmath.phase(self._mean) / (2 * math.pi * self._span) if self._mean else self._first

    def update(self, turn: complex, taken: float) -> None:
        """With the turn of a slot from which ``taken`` [cycles per symbol] had been taken away."""
        self._slots += 1
        gain = max(1 / self._slots, GAIN)
        self._mean += gain * (turn * cmath.exp(2j * math.pi * self._span * taken) - self._mean)


class Timing:
    """Moves a grid towards its users."""

    def __init__(self, slots: int = 0) -> None:
        self._slots = slots

    def update(self, grid: Grid, late: float, samples_per_symbol: int) -> None:
        self._slots += 1
        gain = max(1 / self._slots, GAIN)
        error = late * samples_per_symbol
        grid.start += gain * error
        if gain == GAIN:
            grid.drift = min(max(grid.drift + DRIFT_GAIN * error / grid.period, -MOST_DRIFT), MOST_DRIFT)


class Powers:
    """Noise and signal power, from those of guard and slot; ``noise_var`` fixed where it is given."""

    def __init__(self, meter: PreambleMeter, given: float | None = None) -> None:
        self._leak, self.given = meter.leak, given
        self._guard = self._whole = 0.0
        self._slots = 0
        self._told = 0.0

    def update(self, seen: SlotMeasure) -> None:
        self._slots += 1
        gain = max(1 / self._slots, NOISE_GAIN)
        self._guard += gain * (seen.guard - self._guard)
        self._whole += gain * (seen.whole - self._whole)

    @property
    def noise_var(self) -> float:
        """The guard has noise and the tails of bursts, the slot noise and bursts: two equations."""
        if self.given is not None:
            return self.given
        guard, whole = self._leak
        return max((whole * self._guard - guard * self._whole) / (whole - guard), LEAST_NOISE)

    @property
    def snr(self) -> float:
        """Power of all users together, as a matched filter's output has it, over that of the noise."""
        whole = self._leak[1]
        noise = self.noise_var
        return max(2 * (self._whole - noise) / whole, 0.0) / noise

    @property
    def told(self) -> float:
        """The noise variance as frames are told it: in steps, so that receivers may batch them."""
        now = self.noise_var
        if not 1 / RETOLD <= now / (self._told or LEAST_NOISE) <= RETOLD:
            self._told = now
        return self._told
