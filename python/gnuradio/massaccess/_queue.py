"""A bounded queue of frames between two threads, and what waits in it."""

import threading
import time
from collections import deque
from typing import NamedTuple

import numpy as np

OVERFLOW = ("block", "drop_oldest")
WAIT_SECONDS = 0.1  # how long a call into a block may sleep: GNU Radio cannot interrupt it
ESTIMATE = -1  # a noise variance that nobody knows: the frames of a batch tell
STALL_SECONDS = 0.5  # an incomplete batch waits this long for its other frames


class Side(NamedTuple):
    """What else a receiver may know about a frame; frames of a batch share it. ``noise_var`` may be `ESTIMATE`."""

    noise_var: float
    adc_bits: int
    adc_scale: float
    adc_offset: float = 0.0
    adc_dither: float = 0.0


class Entry(NamedTuple):
    """A frame that waits: number, side information, samples [T * M] complex64, the other tags that came with it, (key, value), and the
    mean powers of its users [N] float32, where they are known."""

    frame: int
    side: Side
    samples: np.ndarray
    tags: tuple = ()
    gain: np.ndarray | None = None


class FrameQueue:
    """A bounded queue of frames that hands out batches.

    With ``block``, batches are the frames that share ``frame // max_batch``: answers do not depend on who was scheduled when. The writer
    waits for room. With ``drop_oldest`` a batch is whatever is at hand, and when there is no room the oldest frames go.
    """

    def __init__(self, capacity, max_batch, overflow):
        self.capacity = max(capacity, 2 * max_batch) if overflow == "block" else capacity
        self._max_batch, self._overflow = max_batch, overflow
        self._entries = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.stopped = False  # nobody waits for the answers
        self._touched = time.monotonic()
        self.dropped = 0
        self.stalls = 0

    @property
    def blocking(self):
        """Whether nothing may be lost."""
        return self._overflow == "block"

    def room(self):
        """How many frames can be put now; waits a moment for one."""
        if self._overflow != "block":
            return self.capacity
        with self._changed:
            if len(self._entries) >= self.capacity:
                self._changed.wait(WAIT_SECONDS)
            return self.capacity - len(self._entries)

    def put(self, entries):
        with self._changed:
            self._entries.extend(entries)
            surplus = len(self._entries) - self.capacity
            for _ in range(max(surplus, 0)):
                self._forget(self._entries.popleft())
            self._touched = time.monotonic()
            self._changed.notify_all()

    def _forget(self, entry):
        """Counts a dropped frame; what its tags said goes on with the frame after it."""
        self.dropped += 1
        if entry.tags:
            self._entries[0] = self._entries[0]._replace(tags=entry.tags + self._entries[0].tags)

    def take(self):
        """The next batch, an empty one after a moment's wait, or ``None`` when the writer has closed and all is taken."""
        with self._changed:
            length = self._ready()
            if not length:
                self._changed.wait(WAIT_SECONDS)
                length = self._ready()
            if not length:
                return None if self._closed and not self._entries else []
            batch = [self._entries.popleft() for _ in range(length)]
            self._changed.notify_all()
            return batch

    def put_back(self, entries):
        """Frames that were taken and not answered go to the head again."""
        with self._changed:
            self._entries.extendleft(reversed(entries))

    def close(self, *, stopped=False):
        """No more frames will come. ``stopped``: nor does anybody want the answers to those that did, until `open`."""
        with self._changed:
            self._closed = True
            self.stopped = self.stopped or stopped
            self._changed.notify_all()

    def open(self):
        """A flowgraph that is reconfigured while it runs stops its blocks and starts them again."""
        with self._changed:
            self._closed = self.stopped = False

    @property
    def closed(self):
        return self._closed

    def __len__(self):
        return len(self._entries)

    def _ready(self):
        """Length of the batch at the head if it may go now, else 0."""
        if not self._entries:
            return 0
        key, length = self._key(self._entries[0]), 0
        for entry in self._entries:
            if length == self._max_batch or self._key(entry) != key:
                return length
            length += 1
        last = self._entries[length - 1].frame
        if self._overflow != "block" or self._closed or length == self._max_batch or (last + 1) % self._max_batch == 0:
            return length
        if time.monotonic() - self._touched < STALL_SECONDS:
            return 0
        self.stalls += 1
        return length

    def _key(self, entry):
        return (entry.frame // self._max_batch if self._overflow == "block" else 0, entry.side, entry.gain is None)
