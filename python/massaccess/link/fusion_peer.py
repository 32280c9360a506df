"""An access point in a process of its own: holds its samples, answers the fusion centre with factors."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch
import zmq

from ..errors import ConfigError, FormatError
from ..forward.simulate import observe
from ..receivers.access_point import AccessPoint, Settings
from ..receivers.coherent import known_active
from ..receivers.factor import Factor
from ..receivers.selection import Selection
from ..rng import complex_normal, generator
from .fusion_source import Source
from .fusion_wire import FACTOR, POSTERIOR, Kind, Note, arrays_of, pack, reason_of, unpack
from .listener import SilentPeerError
from .metadata import Metadata
from .publisher import GRACE_SECONDS, terminate
from .wire import HEAD, MAX_BYTES, MAX_HEADER

HEARTBEAT_MS = 500
FASTEST_MS, SLOWEST_MS = 20, 10_000  # heartbeats that a centre may ask for
CHANNEL_COVARIANCES = ("shared", "diagonal")  # in the order of their numbers on the wire
SEND_QUEUE = 16


class Work:
    """Answers work: keeps the channel estimates of the frames that it was asked about last."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._frames: tuple[int, int, int, Settings] | None = None
        self._point: AccessPoint | None = None
        self._stage = 0

    def warm_up(self) -> None:
        """A frame of noise: the first one costs much more than the others, and might be late."""
        air, antennas = self.source.air, self.source.antennas
        draw = generator(0, "warm up")
        rx = complex_normal(1, air.pilot_len + air.data_len, antennas, generator=draw)
        pilots = complex_normal(air.pilot_len, air.users, generator=draw)
        obs = observe(rx, pilots, noise_var=1.0, activity=1.0, modulation=air.modulation)
        point = AccessPoint(obs, Selection.of(known_active(obs)))
        point.estimate()
        point.update(Factor.prior(1, air.data_len, air.users, covariance="shared", like=rx.real))

    def answer(self, note: Note, settings: Settings) -> dict[str, object]:
        """The arrays of the answer; none when the frames are not at hand, or the estimate that the work is about was never made."""
        numbers = note.numbers
        frames = note.session, numbers["start"], numbers["count"], settings
        if frames != self._frames:
            self._begin(*frames)
        if self._point is None or not self._reach(numbers["stage"], note):
            return {}
        rest = note.factor(FACTOR)
        assert rest is not None
        return dict(arrays_of(self._point.update(rest)))

    def _begin(self, session: int, start: int, count: int, settings: Settings) -> None:
        obs = self.source.frames(start, count)
        self._frames, self._point, self._stage = None, None, 0
        if obs is not None:
            self._point = AccessPoint(obs, Selection.of(known_active(obs)), settings)
            self._point.estimate()
            self._frames = session, start, count, settings

    def _reach(self, stage: int, note: Note) -> bool:
        posterior = note.factor(POSTERIOR)
        if stage != self._stage and posterior is not None and self._point is not None:
            self._point.estimate(posterior)
            self._stage = stage
        return stage == self._stage


class Peer:
    """The network side of an access point: says hello every heartbeat, works when asked. The work runs in a thread of its own, so that
    heartbeats go on; one piece at a time, and the centre asks for no more.

    A centre that goes away is waited for: the socket reconnects by itself. ``answered``, ``bad`` and ``reconnected`` count.
    Raises ConfigError for an address that is none.
    """

    def __init__(self, source: Source, endpoint: str, *, index: int, of: int, heartbeat_ms: int = HEARTBEAT_MS) -> None:
        self.source, self.endpoint, self.index, self.of, self.heartbeat_ms = source, endpoint, index, of, heartbeat_ms
        self.session = secrets.randbits(64)
        self.answered = self.bad = 0
        self._next = b""
        self._job = self._centre = 0  # of the work that came last, and who sent it
        self.refused = ""
        self.welcome: Settings | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.SNDHWM, SEND_QUEUE),
            (zmq.RCVHWM, SEND_QUEUE),
            (zmq.MAXMSGSIZE, HEAD.size + MAX_HEADER + MAX_BYTES),
            (zmq.RECONNECT_IVL, 50),
            (zmq.RECONNECT_IVL_MAX, 1000),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        self._inside = self._context.socket(zmq.PAIR)
        self._inside.bind(f"inproc://work-{id(self)}")
        self._failure: BaseException | None = None
        self._busy = False
        self._thread: threading.Thread | None = None
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to {endpoint} ({error}): pass an address such as tcp://127.0.0.1:5560") from None

    def run(self, *, stop: Callable[[], bool] = lambda: False, patience_s: float | None = 30.0) -> str:
        """Works until the centre says bye ("bye") or ``stop`` says so ("stopped"). Raises SilentPeerError when the centre says nothing for
        ``patience_s`` (None: waits for ever), and whatever the source raises."""
        work = Work(self.source)
        with torch.inference_mode():
            work.warm_up()
        self._thread = threading.Thread(target=self._labour, args=(work,), name="access point", daemon=True)
        self._thread.start()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._inside, zmq.POLLIN)
        greeted, heard = -1e9, time.monotonic()
        while not stop():
            now = time.monotonic()
            if now - greeted >= self.heartbeat_ms / 1000:
                self._send(self._hello())
                greeted = now
            events = dict(poller.poll(min(50, self.heartbeat_ms)))
            if self._inside in events:
                self._done(self._inside.recv())
            if self._socket in events:
                note = self._receive()
                heard = now if note is None else time.monotonic()
                if note is not None and self._follow(note):
                    return "bye"
            if patience_s is not None and time.monotonic() - heard > patience_s:
                raise SilentPeerError(self._diagnosis(patience_s))
        return "stopped"

    def close(self) -> None:
        """Says bye and closes; safe to call twice."""
        if self._socket.closed:
            return
        if self.welcome is not None:
            self._send(Note(Kind.BYE, session=self.session))
        if self._thread is not None:
            self._offer(b"")
            self._thread.join(10.0)
        self._inside.close(linger=0)
        self._socket.close(linger=200)
        terminate(self._context, GRACE_SECONDS)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _hello(self) -> Note:
        oldest, newest = self.source.span()
        facts = {
            "index": self.index,
            "of": self.of,
            "antennas": self.source.antennas,
            "oldest": oldest,
            "newest": newest,
            "ended": int(self.source.ended),
            "job": self._job,
        }
        return Note(Kind.HELLO, {**facts, **self.source.air.numbers}, {}, self.session, Metadata(pilot_book=self.source.air.pilot_book))

    def _send(self, note: Note) -> None:
        with contextlib.suppress(zmq.Again):  # the centre is away and the queue is full: the next hello says it all again
            self._socket.send(pack(note), zmq.DONTWAIT)

    def _receive(self) -> Note | None:
        parts = self._socket.recv_multipart()
        try:
            return unpack(b"".join(parts))
        except FormatError:
            self.bad += 1
            return None

    def _follow(self, note: Note) -> bool:
        """Does what the centre says; whether it says bye."""
        if note.kind == Kind.WELCOME:
            self.welcome, self.refused = _settings(note), ""
            self.heartbeat_ms = min(max(note.numbers["heartbeat_ms"], FASTEST_MS), SLOWEST_MS)
            self._job = self._job if note.session == self._centre else 0
        elif note.kind == Kind.REFUSED:
            self.refused = reason_of(note)
        elif note.kind == Kind.WORK and self.welcome is not None:
            self._job, self._centre = note.numbers["job"], note.session
            self._next = pack(note)  # of work that waits, only the latest matters
            self._begin()
        return note.kind == Kind.BYE

    def _begin(self) -> None:
        if self._next and not self._busy:
            self._busy, work, self._next = True, self._next, b""
            self._offer(work)

    def _offer(self, message: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            self._inside.send(message, zmq.DONTWAIT)

    def _done(self, message: bytes) -> None:
        self._busy = False
        if self._failure is not None:
            raise self._failure
        self.answered += 1
        with contextlib.suppress(zmq.Again):  # the centre is away: it will ask again
            self._socket.send(message, zmq.DONTWAIT)
        self._begin()

    def _labour(self, work: Work) -> None:
        inside = self._context.socket(zmq.PAIR)
        inside.connect(f"inproc://work-{id(self)}")
        try:
            while message := inside.recv():
                inside.send(self._answer(work, unpack(message)))
        except zmq.ContextTerminated:
            return
        finally:
            inside.close(linger=0)

    def _answer(self, work: Work, note: Note) -> bytes:
        numbers = {"index": self.index, "job": note.numbers["job"]}
        arrays: dict[str, object] = {}
        try:
            assert self.welcome is not None
            with torch.inference_mode():
                arrays = work.answer(note, self.welcome)
        except Exception as error:
            self._failure = error
        return pack(Note(Kind.ANSWER, numbers, arrays, self.session))  # type: ignore[arg-type]

    def _diagnosis(self, patience_s: float) -> str:
        start = f"nothing from a fusion centre at {self.endpoint} for {patience_s:g} s"
        if self.refused:
            return f"{start} but this: {self.refused}"
        return f"{start}: start `massaccess fuse` there, or correct the address" if self.welcome is None else f"{start}: it went away"


def _settings(note: Note) -> Settings:
    n = note.numbers
    covariance = CHANNEL_COVARIANCES[min(n["covariance"], len(CHANNEL_COVARIANCES) - 1)]
    return Settings(n["first"], n["again"], n["steps"], covariance, bool(n["normalise"]))
