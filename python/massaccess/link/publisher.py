"""Sends messages to whoever listens. Memory is bounded by the high water mark, and nothing here waits for ever.

``mode="pub"`` is for watching: it never waits, and a listener that cannot keep up, or comes late, misses messages and counts them by their
sequence numbers. ``mode="push"`` is for recording: it waits while nobody takes the messages, so that none is left out.

>>> with Publisher() as publisher:
...     publisher.send({"frame": np.arange(3, dtype=np.uint64)}, Metadata())
...     publisher.sent, publisher.dropped
False
(0, 1)
"""

from __future__ import annotations

import ipaddress
import math
import secrets
import threading
import time
from collections.abc import Mapping
from types import TracebackType

import numpy as np
import zmq

from ..errors import ConfigError, unknown
from . import wire
from .metadata import Metadata

MODES = ("pub", "push")
LOOPBACK = "tcp://127.0.0.1:*"
POLL_MS = 50
HEARTBEAT_MS = 2000
LARGEST_SUBSCRIPTION = 1024
GRACE_SECONDS = 0.5


class Publisher:
    """A bound socket that sends arrays with metadata and numbers them.

    ``endpoint`` is the address to bind, afterwards the one that was bound; ``high_water_mark`` counts the messages that may wait for one
    listener; ``linger_s`` is how long `close` waits for the last of them to leave. ``sent`` and ``dropped`` count messages; dropped are
    those that were sent in mode "pub" while nobody listened (what a slow listener loses, only it can count).

    Raises ConfigError for an address that other machines can reach, unless ``allow_remote``, and for one that cannot be bound.
    """

    def __init__(
        self, endpoint: str = LOOPBACK, *, mode: str = "pub", high_water_mark: int = 32, linger_s: float = 2.0, allow_remote: bool = False
    ) -> None:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if high_water_mark < 1:
            raise ConfigError(f"high_water_mark is {high_water_mark}: pass 1 or more, 0 would mean no bound")
        if not allow_remote:
            require_local(endpoint)
        self.mode, self.linger_s = mode, linger_s
        self.sent = self.dropped = 0
        self.stream = secrets.randbits(64)
        self._listening = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB if mode == "pub" else zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_SUBSCRIPTION)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self.endpoint = self._bind(endpoint)

    def send(self, arrays: Mapping[str, np.ndarray], metadata: Metadata, *, timeout_s: float | None = None) -> bool:
        """Sends one message; whether somebody gets it. In mode "push" it waits for room, up to ``timeout_s``: after False, send it again.

        Raises ShapeError for arrays that do not fit a message, if somebody listens.
        """
        if self.mode == "pub" and not self.listening:
            self.dropped += 1
            return False
        taken = self._offer(wire.encode(arrays, metadata, sequence=self._sequence, stream=self.stream), timeout_s)
        self.sent += taken
        return taken

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Whether somebody listens within ``timeout_s``; what is sent before that, in mode "pub", nobody hears."""
        if self.mode == "push":
            return self._wait_for_room(time.monotonic() + timeout_s)
        deadline = time.monotonic() + timeout_s
        while not (found := self.listening) and (left := deadline - time.monotonic()) > 0:
            self._socket.poll(min(POLL_MS, 1000 * left), zmq.POLLIN)
        return found

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed)

    @property
    def listening(self) -> bool:
        """Whether a message sent now would go to somebody."""
        if self.mode == "push":
            return bool(self._socket.poll(0, zmq.POLLOUT))
        for _ in range(100):  # a bound: a hostile peer can subscribe faster than this reads
            if not self._socket.poll(0, zmq.POLLIN):
                break
            change = self._socket.recv_multipart()[0]
            self._listening = change[:1] == b"\x01" if change in (b"\x00", b"\x01") else self._listening
        return self._listening

    def close(self) -> None:
        """Tells the listeners that this is the end, waits up to ``linger_s`` for the last messages to leave, and closes."""
        if self._socket.closed:
            return
        deadline = time.monotonic() + self.linger_s
        self._offer(wire.encode({}, Metadata(), sequence=self._sequence, stream=self.stream, end=True), self.linger_s)
        left = max(0.0, deadline - time.monotonic())
        self._socket.close(linger=int(1000 * left))
        terminate(self._context, left + GRACE_SECONDS)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if "_context" in self.__dict__ and not self._socket.closed:
            self._socket.close(linger=0)
            terminate(self._context, GRACE_SECONDS)

    @property
    def _sequence(self) -> int:
        return self.sent + self.dropped

    def _offer(self, message: bytes, timeout_s: float | None) -> bool:
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while self.mode == "pub" or self._wait_for_room(deadline):
            try:
                self._socket.send(message, zmq.DONTWAIT)
            except zmq.Again:  # the listener that had room has left since
                continue
            return True
        return False

    def _wait_for_room(self, deadline: float) -> bool:
        while not self._socket.poll(max(0, min(POLL_MS, 1000 * (deadline - time.monotonic()))), zmq.POLLOUT):
            if time.monotonic() >= deadline:
                return False
        return True

    def _bind(self, endpoint: str) -> str:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            terminate(self._context, GRACE_SECONDS)
            raise ConfigError(f"cannot bind {endpoint} ({error}): pass another address, such as {LOOPBACK}") from None
        return self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\x00").decode()


def terminate(context: zmq.Context, timeout_s: float) -> None:
    """Ends a context whose sockets are closed, within ``timeout_s`` or else in the background.

    About once in 500 times libzmq 4.3.4 does not come back from it when a peer leaves at that very moment, whatever the linger.
    """
    thread = threading.Thread(target=context.term, daemon=True)
    thread.start()
    thread.join(timeout_s)


def require_local(endpoint: str) -> None:
    """Raises ConfigError unless only this machine can reach ``endpoint``.

    >>> require_local("tcp://0.0.0.0:5555")
    Traceback (most recent call last):
    massaccess.errors.ConfigError: tcp://0.0.0.0:5555 can be reached from other machines, ...
    """
    scheme, _, address = endpoint.partition("://")
    host = address.rpartition(":")[0].strip("[]")
    if scheme in ("ipc", "inproc") or host == "localhost" or (scheme == "tcp" and _is_loopback(host)):
        return
    raise ConfigError(
        f"{endpoint} can be reached from other machines, and whoever connects reads everything: pass allow_remote=True if that is wanted"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
