"""The base station's side of a virtual air: asks the broker for samples of all antennas, and knows which ones it got."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

import numpy as np
import zmq

from ..errors import ConfigError, FormatError
from .air_protocol import SAMPLE, parse_reply, request
from .publisher import GRACE_SECONDS, terminate

MOST_SAMPLES = 1 << 16  # of an answer
RECONNECT_MOST_MS = 500


class ArrayLine:
    """A connection to a broker at ``endpoint`` whose array has ``antennas``.

    ``most`` samples are asked for at a time; a request without an answer is said again after ``again_s``, since the broker may be another
    process by now. ``received`` counts samples, ``gaps`` jumps of their numbers, ``asked_again`` requests, ``malformed`` answers.
    """

    def __init__(self, endpoint: str, antennas: int, *, most: int = 8192, again_s: float = 1.0) -> None:
        self.endpoint, self.antennas = endpoint, antennas
        self._most, self._again_s = min(most, MOST_SAMPLES), again_s
        self.received = self.gaps = self.asked_again = self.malformed = 0
        self.ended = False
        self.heard = time.monotonic()
        self._next = 0
        self._asked: float | None = None
        self._repeated = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, MOST_SAMPLES * antennas * SAMPLE.itemsize),
            (zmq.RCVHWM, 2),
            (zmq.SNDHWM, 2),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MOST_MS),
        ):
            self._socket.setsockopt(option, value)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to {endpoint} ({error}): pass that of a broker, such as tcp://127.0.0.1:2000") from None

    def poll(self, seconds: float) -> tuple[int, np.ndarray] | None:
        """(number of the first, samples [n antennas]) of the next samples, if they come within ``seconds``. None otherwise."""
        self._ask()
        if self.ended or not self._socket.poll(1000 * seconds):
            return None
        parts = self._socket.recv_multipart()
        self.heard = time.monotonic()
        self._asked = None
        try:
            index, samples = parse_reply(parts[1:], self.antennas)
            if index is None:
                raise FormatError("an answer without a number")
        except FormatError:
            self.malformed += 1
            return None
        if not len(samples):
            self.ended = index >= self._next
            return None
        found = self._new(index, samples)
        self._ask()  # the broker works while these are used
        return found

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.close(linger=0)
            terminate(self._context, GRACE_SECONDS)

    def __enter__(self) -> ArrayLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if "_socket" in self.__dict__:
            self.close()

    def _new(self, index: int, samples: np.ndarray) -> tuple[int, np.ndarray] | None:
        known = min(max(self._next - index, 0), len(samples)) if self._repeated else 0  # an answer to a request that was said twice
        self._repeated = False
        index, samples = index + known, samples[known:]
        if not len(samples):
            return None
        self.gaps += index != self._next
        self._next = index + len(samples)
        self.received += len(samples)
        return index, samples

    def _ask(self) -> None:
        now = time.monotonic()
        if self.ended or (self._asked is not None and now - self._asked < self._again_s):
            return
        if self._asked is not None:
            self.asked_again += 1
            self._repeated = True
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart([b"", request(self._most, self._next)], zmq.DONTWAIT)
        self._asked = now
