"""A bounded queue of chunks of samples between two threads."""

import threading
from collections import deque
from typing import NamedTuple

import numpy as np

from ._queue import WAIT_SECONDS


class Chunk(NamedTuple):
    """Samples [n antennas] that follow one another, and what is told of the first: when it was taken, where that is known, and what tags
    say: rx_rate, rx_freq, and others (key, value) to hand on."""

    samples: np.ndarray
    time: tuple | None
    rate: float | None = None
    freq: float | None = None
    tags: tuple = ()


class SampleQueue:
    """Holds ``capacity`` samples of an array, and one chunk at least. With overflow "block" the writer waits for room; with "drop_oldest"
    the oldest chunks go, counted by ``dropped`` in samples, and what was told with them is told with the next."""

    def __init__(self, capacity, overflow):
        self._capacity, self._overflow = capacity, overflow
        self._chunks, self._held = deque(), 0
        self._changed = threading.Condition()
        self._closed = False
        self.stopped = False
        self.dropped = 0

    def room(self):
        """How many samples can be put now; waits a moment for a quarter of the queue, 0 if that does not come: chunks should not be
        small."""
        if self._overflow != "block":
            return self._capacity
        with self._changed:
            if 4 * self._held > 3 * self._capacity:
                self._changed.wait_for(lambda: 4 * self._held <= 3 * self._capacity or self._closed, WAIT_SECONDS)
            return self._capacity - self._held if 4 * self._held <= 3 * self._capacity else 0

    def put(self, chunk):
        with self._changed:
            self._chunks.append(chunk)
            self._held += len(chunk.samples)
            while self._held > self._capacity and len(self._chunks) > 1:
                self._forget(self._chunks.popleft())
            self._changed.notify_all()

    def _forget(self, chunk):
        self.dropped += len(chunk.samples)
        self._held -= len(chunk.samples)
        after = self._chunks[0]
        known = {"rate": after.rate or chunk.rate, "freq": chunk.freq if after.freq is None else after.freq}
        self._chunks[0] = after._replace(**known, tags=chunk.tags + after.tags)

    def take(self):
        """The oldest chunk; an empty list after a moment's wait; ``None`` when the writer has closed and all is taken."""
        with self._changed:
            if not self._chunks:
                self._changed.wait(WAIT_SECONDS)
            if not self._chunks:
                return None if self._closed else []
            chunk = self._chunks.popleft()
            self._held -= len(chunk.samples)
            self._changed.notify_all()
            return chunk

    def close(self, *, stopped=False):
        """No more samples will come. ``stopped``: nor does anybody want those that did."""
        with self._changed:
            self._closed = True
            self.stopped = self.stopped or stopped
            self._changed.notify_all()

    def open(self):
        """A flowgraph that is reconfigured while it runs stops its blocks and starts them again: what it held before is lost."""
        with self._changed:
            self._chunks.clear()
            self._held = 0
            self._closed = self.stopped = False

    @property
    def closed(self):
        return self._closed

    def __len__(self):
        return self._held
