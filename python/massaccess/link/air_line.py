"""The broker's line to one user of a virtual air: asks for samples, keeps them in step with the slots, and knows whether somebody is there.

Samples are numbered by the broker. A user that understands numbers gives those that are asked for; another one gives its samples one after
another, and is taken to begin a slot when it connects. A user that comes late, or back, enters at the beginning of a slot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from ..errors import ConfigError, FormatError
from .air_protocol import SAMPLE, parse_reply, request

EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
LONGEST_REPLY = 1 << 18  # samples
RECONNECT_MS = 50
RECONNECT_MOST_MS = 500


@dataclass
class LineCounts:
    """What came over a line: samples used; slots that were silent because nothing came in time; replies that were malformed; connections;
    samples dropped to get in step with the slots."""

    samples: int = 0
    silent_slots: int = 0
    malformed: int = 0
    connections: int = 0
    dropped: int = 0


class Line:
    """A connection to the REP socket of a user at ``endpoint``. Raises ConfigError for an address that is none."""

    def __init__(self, context: zmq.Context, user: int, endpoint: str, slot_samples: int) -> None:
        self.user, self.endpoint = user, endpoint
        self.counts = LineCounts()
        self.silent = False  # given up on, until it answers
        self.last_error = ""
        self._slot_samples = slot_samples
        self._parts: deque[np.ndarray] = deque()
        self._held = 0
        self._next = 0  # number of the sample behind those that are held
        self._asked = 0  # samples of a request on its way
        self._stream = 0  # samples that this connection has given, for users that count on their own
        self._entering = True
        self._connected = False
        self.socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),  # nothing is sent to nobody
            (zmq.MAXMSGSIZE, LONGEST_REPLY * SAMPLE.itemsize * 2),
            (zmq.RCVHWM, 4),
            (zmq.SNDHWM, 4),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MOST_MS),
        ):
            self.socket.setsockopt(option, value)
        self._monitor = self.socket.get_monitor_socket(EVENTS)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to user {user} at {endpoint} ({error}): pass one such as tcp://127.0.0.1:2001") from None

    @property
    def connected(self) -> bool:
        """Whether somebody was there when `follow` was called."""
        return self._connected

    def held(self) -> int:
        """Samples that are at hand."""
        return self._held

    def follow(self) -> None:
        """Takes note of connections that came and went."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.counts.connections += self._connected
            self._asked = 0
            self._stream = 0
            self._entering = True

    def ask(self, wanted: int, position: int) -> None:
        """Sees to it that ``wanted`` samples from number ``position`` on are at hand or on their way."""
        if not self._held:
            self._enter(position)
        if self._asked or self._held >= wanted:
            return
        self.follow()
        if not self._connected:
            return
        count = wanted - self._held
        try:
            self.socket.send_multipart([b"", request(count, self._next)], zmq.DONTWAIT)
        except zmq.Again:
            return
        self._asked = count

    def receive(self) -> None:
        """Takes an answer that is there."""
        parts = self.socket.recv_multipart()
        count, self._asked = self._asked, 0
        index: int | None = None
        try:
            if parts[:1] != [b""] or len(parts) < 2:
                raise FormatError("an answer without the empty part in front: answer with a REP socket")
            index, samples = parse_reply(parts[1:], most=LONGEST_REPLY)
            if not len(samples):
                raise FormatError("an answer without samples: send one or more")
            if index is not None and index + len(samples) > self._next + LONGEST_REPLY:
                raise FormatError(f"samples from number {index} on, and those from {self._next} on were asked for")
        except FormatError as error:
            self.counts.malformed += 1
            self.last_error = str(error)
            index, samples = None, np.zeros(count or self._slot_samples, np.complex64)
        self._append(samples, index)

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` samples [count]; silence for those that are not there."""
        out, done = np.zeros(count, np.complex64), 0
        whole = count if self._held >= count else self._held - self._held % self._slot_samples
        while done < whole:
            part = self._parts.popleft()
            used = part[: whole - done]
            out[done : done + len(used)] = used
            done += len(used)
            if len(used) < len(part):
                self._parts.appendleft(part[len(used) :])
        self._held -= done
        self.counts.samples += done
        if done < count:
            self.counts.silent_slots += -(-(count - done) // self._slot_samples)
            self.counts.dropped += self._held
            self.forget()
        return out

    def forget(self) -> None:
        """Drops the samples that are at hand."""
        self._parts.clear()
        self._held, self._entering = 0, True

    def close(self) -> None:
        """Closes the connection; safe to call twice."""
        if not self.socket.closed:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
            self.socket.close(linger=0)

    def _enter(self, position: int) -> None:
        if self._next != position:
            self._next = position
            self._entering = True

    def _append(self, samples: np.ndarray, index: int | None) -> None:
        late = self._late(index, len(samples))
        if index is None:
            self._stream += len(samples)
        elif late < 0:  # the user begins later than it was asked to: silence until then
            samples, late = np.concatenate([np.zeros(-late, np.complex64), samples]), 0
        late = min(late, len(samples))
        self.counts.dropped += late
        if late < len(samples):
            self._entering = False
            self._parts.append(samples[late:])
            self._held += len(samples) - late
            self._next += len(samples) - late

    def _late(self, index: int | None, count: int) -> int:
        """How many samples at the front of an answer cannot be used."""
        if index is not None:
            return self._next - index
        return -self._stream % self._slot_samples if self._entering else 0
