"""The broker of a virtual air: takes samples of every user through `forward.air`, and gives those of the array to a base station.

Both sides are request and reply: the base station asks the broker, and only then does the broker ask users for more, so nothing runs away
and nothing is lost. A user that says nothing for ``patience_s`` is silent in the air until it answers again, and nobody waits for it
meanwhile. A base station that does not ask holds everything. A broker that is started again goes on behind the slot that the base station
has got to. Clocks on the wall matter only where a peer is silent.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
import zmq

from ..core import SystemConfig
from ..errors import ConfigError
from ..forward.air import Air
from ..forward.impairments import Impairments
from .air_line import Line
from .air_protocol import LARGEST_REQUEST, Request, parse_request, reply
from .air_report import Event, SlotReport, sent
from .metadata import Metadata
from .publisher import GRACE_SECONDS, LOOPBACK, Publisher, require_local, terminate

POLL_MS = 50
MOST_WAITING = 16  # requests of base stations
MOST_EVENTS = 256
QUIET_SECONDS = 5.0  # after which a base station is reported silent
IDLE_SECONDS = 1.0  # between reports of an air that stands still
TOLD_SECONDS = 2.0  # that a broker at its end waits for the base station to ask once more


class Broker:
    """Serves the air of ``config`` and ``seed``: ``users`` are the REP sockets of users, by number; users without are silent.

    ``endpoint`` is bound for the base station (afterwards the address that was bound); ``slots`` ends the air, 0: never; ``chunk`` slots
    are worked on at a time; ``join_s`` is how long users are waited for at the start; ``monitor``: where reports are published, "" nowhere.
    ``on_event`` hears of every `Event`. Use it as a context manager, or call `close`.

    Raises ConfigError for a user that is none of the system, and for addresses that cannot be used.
    """

    def __init__(
        self,
        config: SystemConfig,
        users: Mapping[int, str],
        endpoint: str = LOOPBACK,
        *,
        seed: int = 0,
        impairments: Impairments | None = None,
        slots: int = 0,
        chunk: int = 4,
        patience_s: float = 0.5,
        join_s: float = 30.0,
        monitor: str = "",
        allow_remote: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        for user in users:
            if not 0 <= user < config.users:
                raise ConfigError(f"user {user} is none of the system: pass 0 to {config.users - 1}")
        if not allow_remote:
            require_local(endpoint)
        if chunk < 1:
            raise ConfigError(f"chunk is {chunk}: pass the slots that are worked on at a time, 1 or more")
        self.config, self.slots, self._chunk, self._patience_s = config, slots, chunk, patience_s
        self.air = Air(config, seed, impairments)
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.published = 0
        self._hear = on_event or (lambda event: None)
        self._size = self.air.slot_samples
        self._position = 0  # samples of users that have gone into the air
        self._out: deque[np.ndarray] = deque()
        self._given = 0  # number of the first sample that waits in _out
        self._fresh, self._flushed, self._told, self._quiet = True, False, False, False
        self._waiting: dict[bytes, Request] = {}
        self._needed: float | None = None
        self._asked = self._reported = time.monotonic()
        self._join_s: float | None = join_s
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self.lines: list[Line] = []
        self._monitor: Publisher | None = None
        try:
            self._front = self._bind(endpoint)
            self.endpoint = self._front.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\x00").decode()
            for user, where in sorted(users.items()):
                self.lines.append(Line(self._context, user, where, self._size))
                self._poller.register(self.lines[-1].socket, zmq.POLLIN)
            if monitor:
                self._monitor = Publisher(monitor, high_water_mark=256, linger_s=0.5, allow_remote=allow_remote)
        except BaseException:
            self.close()
            raise
        self._by_socket = {line.socket: line for line in self.lines}
        self._inputs = np.zeros((chunk * self._size, config.users), np.complex64)

    @property
    def monitor(self) -> str:
        """Where reports are published; "" for nowhere."""
        return self._monitor.endpoint if self._monitor else ""

    @property
    def slot(self) -> int:
        """The slot that the air is at."""
        return self._position // self._size

    @property
    def finished(self) -> bool:
        """Whether ``slots`` slots went through, and the base station has all of them and knows that it was the end."""
        return self._flushed and not self._out and self._told

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Works until the end, or until ``stop()``, which is asked at least every 0.1 s."""
        while not self.finished and not stop():
            self.step()

    def step(self, seconds: float = POLL_MS / 1000) -> None:
        """Does what there is to do, and waits up to ``seconds`` for it."""
        busy = self._serve()
        if not busy and self._wants():
            busy = self._fill()
        found = self._poller.poll(0 if busy else 1000 * seconds)
        for socket, _ in found:
            if socket is self._front:
                self._hear_base()
            else:
                self._hear_user(self._by_socket[socket])
        if not found and not busy:
            self._watch()

    def counters(self) -> dict[str, Any]:
        """All counts so far: of the air, and of each user."""
        users = {str(line.user): {**dataclasses.asdict(line.counts), "silent": line.silent} for line in self.lines}
        totals = {name: sum(user[name] for user in users.values()) for name in ("silent_slots", "malformed", "dropped")}
        here = sum(not line.silent for line in self.lines)
        return {
            "slot": self.slot,
            "given": self._given,
            "users_here": here,
            "users_silent": len(self.lines) - here,
            **totals,
            "base_silent": self._quiet,
            "events": self.published,
            "users": users,
        }

    def close(self) -> None:
        """Closes all sockets; users and base station may wait for another broker."""
        if self._monitor is not None:
            self._monitor.close()
        if not self._context.closed:
            for line in self.lines:
                line.close()
            for socket in (getattr(self, "_front", None),):
                if socket is not None:
                    socket.close(linger=int(1000 * GRACE_SECONDS))
            terminate(self._context, 2 * GRACE_SECONDS)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _bind(self, endpoint: str) -> zmq.Socket:
        socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.MAXMSGSIZE, LARGEST_REQUEST), (zmq.RCVHWM, MOST_WAITING), (zmq.SNDHWM, 4)):
            socket.setsockopt(option, value)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise ConfigError(f"cannot bind {endpoint} ({error}): pass another address, such as {LOOPBACK}") from None
        self._poller.register(socket, zmq.POLLIN)
        return socket

    # --- the base station ---

    def _hear_base(self) -> None:
        parts = self._front.recv_multipart()
        if len(parts) != 3 or parts[1]:
            return
        if self._quiet:
            self._quiet = False
            self._tell("base station", "is back")
        self._asked = time.monotonic()
        self._waiting.pop(parts[0], None)
        self._waiting[parts[0]] = wanted = parse_request(parts[2], self._size)
        while len(self._waiting) > MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        if self._fresh and wanted.index:
            self._go_on(-(-wanted.index // self._size))

    def _go_on(self, slot: int) -> None:
        """This is a new broker: another one before it has brought the base station so far."""
        slot = min(slot, self.slots) if self.slots else slot
        self._position = self._given = slot * self._size
        self._out.clear()
        for line in self.lines:
            line.forget()
        self.air.restart(slot)
        self._fresh = False
        self._tell("broker", "goes on after another one")

    def _serve(self) -> bool:
        """Whether a request was answered."""
        end = self._flushed and not self._out
        for peer, wanted in self._waiting.items():
            if self._out or (end and wanted.index is not None):
                del self._waiting[peer]
                self._give(peer, wanted, end)
                return True
        if end and not self._told and time.monotonic() - self._asked > TOLD_SECONDS:
            self._told = True  # it has gone, or does not number its requests
        return False

    def _give(self, peer: bytes, wanted: Request, end: bool) -> None:
        part = np.empty((0, self.config.antennas), np.complex64) if end else self._out.popleft()
        now = part[: wanted.count]
        try:
            self._front.send_multipart([peer, b"", *reply(now, None if wanted.index is None else self._given)], zmq.DONTWAIT)
        except zmq.ZMQError:  # it has gone since
            if not end:
                self._out.appendleft(part)
            return
        self._told = self._told or end
        self._given += len(now)
        if len(now) < len(part):
            self._out.appendleft(part[len(now) :])
        self._fresh = False
        self._asked = time.monotonic()

    def _wants(self) -> bool:
        return bool(self._waiting) and not self._flushed

    # --- the users ---

    @property
    def _due(self) -> int:
        """Samples of the chunk that comes next."""
        slots = min(self._chunk, self.slots - self.slot) if self.slots else self._chunk
        return slots * self._size

    def _hear_user(self, line: Line) -> None:
        malformed = line.counts.malformed
        line.receive()
        if line.counts.malformed != malformed:
            self._tell(f"user {line.user}", f"sent something malformed: {line.last_error}")
        elif line.silent:
            line.silent = False
            self._tell(f"user {line.user}", "is back")
        line.ask(self._due, self._position)

    def _fill(self) -> bool:
        """Whether a chunk went into the air: all users have it, or are given up on."""
        due = self._due
        if not due:
            self._put(self.air.flush())
            self._flushed = True
            return True
        for line in self.lines:
            if line.silent:
                line.follow()
            line.ask(due, self._position)
        late = [line for line in self.lines if line.held() < due and not line.silent]
        if late and not self._give_up(late):
            return False
        self._needed = self._join_s = None
        inputs = self._inputs[:due]
        inputs[:] = 0
        for line in self.lines:
            inputs[:, line.user] = line.take(due)
        first, self._position = self._position, self._position + due
        for line in self.lines:
            line.ask(self._due, self._position)  # users work on the next chunk while the air works on this one
        with torch.inference_mode():
            samples = torch.from_numpy(inputs)
            self._put(self.air.push(samples))
            self._report(first // self._size, samples)
        return True

    def _give_up(self, late: list[Line]) -> bool:
        """Whether lines that are late have had all the time that they get; they are silent then."""
        now = time.monotonic()
        if self._needed is None:
            self._needed = now
        if now - self._needed < (self._patience_s if self._join_s is None else self._join_s):
            return False
        for line in late:
            line.silent = True
            self._tell(f"user {line.user}", "is silent" if line.connected else "is not there")
        return True

    def _put(self, samples: torch.Tensor) -> None:
        if len(samples):
            self._out.append(samples.numpy())

    def _watch(self) -> None:
        """What to look after when nothing comes."""
        for line in self.lines:
            line.follow()
        if not self._waiting and not self._quiet and time.monotonic() - self._asked > QUIET_SECONDS:
            self._quiet = True
            self._tell("base station", "asks for nothing")
        if self._monitor is not None and time.monotonic() - self._reported > IDLE_SECONDS:
            self._report(self.slot, torch.zeros(0, self.config.users, dtype=torch.complex64))

    # --- reports ---

    def _tell(self, who: str, what: str) -> None:
        event = Event(self.slot, who, what)
        self.events.append(event)
        self.published += 1
        self._hear(event)

    def _report(self, slot: int, samples: torch.Tensor) -> None:
        if self._monitor is None or not self._monitor.listening:
            return
        self._reported = time.monotonic()
        active, bits = sent(self.config, samples.unflatten(0, (-1, self._size)))
        frames = np.arange(slot, slot + len(active), dtype=np.uint64)
        report = SlotReport(frames, active.numpy(), bits.numpy(), self.counters())
        self._monitor.send(report.arrays(), Metadata(frame=slot))
