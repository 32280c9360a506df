"""Hears what a publisher sends, without GNU Radio, and trusts nothing of it.

A listener counts what is lost (gaps in the sequence numbers) and what is bad (anything that is not a message), and says so when nothing
good has come for ``timeout_s``. Its memory is bounded by ``high_water_mark`` messages of at most ``max_bytes``.
One thing libzmq does not bound: a message of endlessly many parts. No publisher sends one, but a malicious peer could: connect to
publishers on machines that you trust.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..errors import ConfigError, FormatError, MassaccessError, unknown
from .publisher import GRACE_SECONDS, HEARTBEAT_MS, MODES, terminate
from .wire import HEAD, MAX_HEADER, Message, decode

POLL_MS = 100
MAX_STREAMS = 16
PATTERNS = {"pub": zmq.SUB, "push": zmq.PULL}
EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class SilentPeerError(MassaccessError, TimeoutError):
    """Nothing good came for too long; the message says what did come instead."""


class Listener:
    """Iterates over the messages of a publisher; ends when that ends.

    ``mode`` is the publisher's; ``timeout_s`` bounds the wait for each message (``None``: for ever, in steps that Ctrl-C interrupts).
    ``heard``, ``lost`` and ``bad`` count messages, ``last_error`` is the reason of the last bad one. Iterating raises SilentPeerError.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        mode: str = "pub",
        timeout_s: float | None = 10.0,
        high_water_mark: int = 32,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        self.endpoint, self.mode, self.timeout_s = endpoint, mode, timeout_s
        self.heard = self.lost = self.bad = 0
        self.last_error: FormatError | None = None
        self._connected = self._greeted = self._dropped = 0
        self._expected: OrderedDict[int, int] = OrderedDict()
        self._ended = False
        self._context = zmq.Context()
        self._socket = self._context.socket(PATTERNS[mode])
        self._socket.setsockopt(zmq.RCVHWM, high_water_mark)
        self._socket.setsockopt(zmq.MAXMSGSIZE, HEAD.size + MAX_HEADER + max_bytes)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._monitor = self._socket.get_monitor_socket(EVENTS)
        if mode == "pub":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to {endpoint} ({error}): pass an address such as tcp://127.0.0.1:5555") from None

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while not self._ended:
            message = self.poll(POLL_MS / 1000)
            if message is not None:
                return message
            if deadline is not None and time.monotonic() > deadline:
                raise SilentPeerError(self.diagnosis())
        raise StopIteration

    def poll(self, timeout_s: float) -> Message | None:
        """The next good message within ``timeout_s``, or ``None``: nothing, something bad, or the end came."""
        self._read_events()
        if self._ended or not self._socket.poll(1000 * timeout_s):
            return None
        parts = self._socket.recv_multipart()
        try:
            if len(parts) != 1:
                raise FormatError(f"a message of {len(parts)} parts: publishers send one")
            message = decode(parts[0])
        except FormatError as error:
            self.bad += 1
            self.last_error = error
            return None
        self._follow(message)
        return None if message.end else message

    @property
    def ended(self) -> bool:
        """Whether the publisher has said that it ends."""
        return self._ended

    def close(self) -> None:
        """Closes the connection; safe to call twice."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            terminate(self._context, GRACE_SECONDS)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if "_context" in self.__dict__:
            self.close()

    def _follow(self, message: Message) -> None:
        expected = self._expected.pop(message.stream, message.sequence)
        self.lost += max(message.sequence - expected, 0)
        self._ended = message.end
        self.heard += not message.end
        self._expected[message.stream] = message.sequence + 1
        if len(self._expected) > MAX_STREAMS:
            self._expected.popitem(last=False)

    def _read_events(self) -> None:
        for _ in range(100):
            if not self._monitor.poll(0):
                return
            event = recv_monitor_message(self._monitor)["event"]
            self._connected += event == zmq.EVENT_CONNECTED
            self._greeted += event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._dropped += event == zmq.EVENT_DISCONNECTED

    def diagnosis(self) -> str:
        """What came instead of a good message, in words, for a listener with a timeout."""
        start = f"nothing from {self.endpoint} for {self.timeout_s:g} s"
        if self.bad:
            return f"{start} but {self.bad} bad messages, the last because {self.last_error}"
        if not self._connected:
            return f"{start}: nobody accepts connections there, start the publisher or correct the address"
        if not self._greeted:
            return f"{start}: it closed {self._dropped} connections, so it speaks no ZMQ, or its mode is not {self.mode!r}"
        if self._dropped >= self._greeted:
            return f"{start}: the publisher went away, or sent more than max_bytes at once"
        return f"{start}: the publisher is there and silent, is its flowgraph running?"
