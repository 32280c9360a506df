"""Puts chunks of samples where they belong in time, by what tags say of them: the first sample after a gap has a new rx_time."""

from __future__ import annotations

from .frames import Time
from .grid import Clock, Stretches

RATE_TOLERANCE = 1e-4  # relative: a rate that is still the system's
SAME_TIME = 0.5  # samples: rx_time that is told again, not a gap


class Placing:
    """Knows where the samples that come next belong. ``counters`` are those of `frames`."""

    def __init__(self, nominal_rate: float, counters: dict[str, int]) -> None:
        self._nominal, self._counters = nominal_rate, counters
        self.rate = nominal_rate
        self.freq: float | None = None
        self.foreign = False
        self.clock: Clock | None = None
        self._end = 0.0

    def take_rate(self, rate: float | None) -> None:
        """What rx_rate says; samples at another rate than the system's are foreign until it is told again."""
        if rate is not None:
            self.foreign = not abs(rate / self._nominal - 1) <= RATE_TOLERANCE
            if not self.foreign and self.clock is None:
                self.rate = rate

    def steps_back(self, time: Time | None) -> bool:
        """Whether time goes back: nothing known of the slots holds any more."""
        return self.clock is not None and time is not None and self.clock.coordinate(time) < self._end - SAME_TIME

    def restart(self) -> None:
        """Forgets the times so far."""
        self._counters["restarts"] += 1
        self.clock, self._end = None, 0.0

    def place(self, stretches: Stretches, count: int, time: Time | None, freq: float | None) -> None:
        """Opens a stretch for the next ``count`` samples, unless they simply go on."""
        start, gone_on = self._start(time), bool(stretches.parts) and not stretches.parts[-1].closed
        retuned = freq is not None and self.freq is not None and freq != self.freq
        self.freq = freq if freq is not None else self.freq
        if start > self._end + SAME_TIME:
            self._counters["gaps"] += 1
            self._counters["lost_samples"] += round(start - self._end)
        else:
            start = self._end
            if gone_on and not retuned:
                self._end += count
                return
        self._counters["retunes"] += retuned
        stretches.open(start, self.freq, retuned)
        self._end = start + count

    def _start(self, time: Time | None) -> float:
        if self.clock is None:
            self.clock = Clock(time or (0, 0.0), self.rate)
        return self._end if time is None else self.clock.coordinate(time)
