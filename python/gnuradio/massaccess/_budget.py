"""How long a receiver may take."""

import time


class Budget:
    """Says whether time is up: `hurry` of an observation. Polled between the steps of a receiver, in its own thread.

    Time is up when ``stopped()``, or when another step like the last one would end after ``seconds`` (0: no limit). What comes before the
    first poll is no step: it may be a whole activity detector.
    """

    def __init__(self, seconds, stopped, clock=time.monotonic):
        self._seconds, self._stopped, self._clock = seconds, stopped, clock
        self._began, self._last = clock(), None

    def __call__(self):
        if self._stopped():
            return True
        if not self._seconds:
            return False
        now = self._clock()
        step = 0.0 if self._last is None else now - self._last
        self._last = now
        return now + step - self._began > self._seconds
