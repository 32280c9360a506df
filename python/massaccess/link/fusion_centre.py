"""The fusion centre over the network: asks access points for factors, frame by frame, and waits for none of them for ever."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import torch
import zmq

from ..errors import ConfigError, FormatError
from ..priors.constellation import ConstellationPrior
from ..receivers.factor import Factor
from ..receivers.fusion import Fusion
from ..receivers.pvi import Pvi
from .fusion_peer import CHANNEL_COVARIANCES, HEARTBEAT_MS
from .fusion_report import Event, Fused, fused
from .fusion_source import FOREVER, Air
from .fusion_wire import POSTERIOR, Kind, Note, arrays_of, check, pack, refusal, unpack
from .listener import SilentPeerError
from .metadata import Metadata
from .publisher import GRACE_SECONDS, LOOPBACK, require_local, terminate
from .wire import HEAD, MAX_HEADER

QUEUE = 64  # messages that may wait in either direction for one access point
EVENTS = 1000  # that are remembered
SILENT_BEATS = 3  # heartbeats without a word after which another process may take an access point's place


@dataclass
class _Member:
    """An access point that is there."""

    identity: bytes
    session: int
    antennas: int
    heard: float
    oldest: int = 0
    newest: int = 0
    ended: bool = False
    stage: int = 0  # of the frames at hand, whose posterior it has been sent
    job: int | None = None
    deadline: float = 0.0
    late: bool = False


@dataclass
class _Task:
    """The frames at hand."""

    start: int
    count: int
    fusion: Fusion
    stage: int = 0
    posterior: Factor | None = None
    first_job: int = 0
    contributed: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)  # do not have these frames


class Centre:
    """Waits for ``clients`` access points, then fuses frames with those that are there (P4 section 1.3 over ZMQ).

    ``pvi`` says how, and the access points do as it says. An answer that takes longer than ``deadline_s`` is late: the access point's last
    factor stays and it gets no more work until it has answered. One that says nothing for ``lost_s`` is lost: its factor is dropped. One
    that says hello again takes part again. Every wait has an end: SilentPeerError when no access point is there for ``patience_s``.

    Anything that is no message of the protocol, or a factor that cannot be, is counted (``bad``) and answered with nothing; access points
    of another system, or of an index that is taken, are refused (``refused``). ``events`` remembers the last `EVENTS`; ``on_event`` hears
    each. Raises ConfigError for an address that cannot be bound or, without ``allow_remote``, that other machines can reach.
    """

    def __init__(
        self,
        air: Air,
        clients: int,
        pvi: Pvi,
        *,
        endpoint: str = LOOPBACK,
        allow_remote: bool = False,
        deadline_s: float = 5.0,
        lost_s: float = 3.0,
        patience_s: float = 30.0,
        heartbeat_ms: int = HEARTBEAT_MS,
        batch: int = 8,
        on_event: Callable[[Event], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if clients < 1 or min(deadline_s, lost_s, patience_s) <= 0:
            raise ConfigError(f"clients {clients}, deadline_s {deadline_s}, lost_s {lost_s}, patience_s {patience_s}: pass more than 0")
        if lost_s < 2 * heartbeat_ms / 1000:
            raise ConfigError(f"lost_s is {lost_s}: access points are heard every {heartbeat_ms} ms, pass at least twice that")
        if not allow_remote:
            require_local(endpoint)
        self.air, self.clients, self.pvi, self.heartbeat_ms = air, clients, pvi, heartbeat_ms
        self.deadline_s, self.lost_s, self.patience_s, self.on_event, self.stop = deadline_s, lost_s, patience_s, on_event, stop
        self.bad = self.refused = self.octets = 0
        self.last_error: FormatError | None = None
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.session = secrets.randbits(64)
        self._prior = ConstellationPrior(air.modulation)
        self._members: dict[int, _Member] = {}
        self._known: set[int] = set()
        self._jobs = 0
        self._task: _Task | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.SNDHWM, QUEUE),
            (zmq.RCVHWM, QUEUE),
            (zmq.MAXMSGSIZE, HEAD.size + MAX_HEADER + 2 * self._factor_bytes(batch) + 1024),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot bind {endpoint} ({error}): pass another address, such as {LOOPBACK}") from None
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\x00").decode()

    @property
    def present(self) -> tuple[int, ...]:
        """Access points that are there, late ones among them."""
        return tuple(sorted(self._members))

    def wait(self, count: int | None = None, *, timeout_s: float | None = None) -> int:
        """Waits for ``count`` (default: all) access points, at most ``timeout_s`` (default: the patience); how many are there."""
        wanted, end = count or self.clients, time.monotonic() + (timeout_s or self.patience_s)
        while len(self._members) < wanted and time.monotonic() < end and not self.stop():
            self._turn(end)
        return len(self._members)

    def frames(self, start: int, count: int | None = None, *, batch: int = 8) -> Iterator[Fused]:
        """Fuses ``count`` frames from ``start`` on (None: until the streams of all access points end), up to ``batch`` at a time: as many
        as all access points that are there have. Frames that nobody has any more are left out."""
        end = FOREVER if count is None else start + count
        while start < end and not self.stop():
            ready = self._await_frames(start, min(batch, end - start))
            if not ready:
                return
            oldest = min(member.oldest for member in self._members.values())
            if oldest > start:  # nobody has these frames any more
                end, start = (end if count is None else end + oldest - start), oldest
                continue
            found = self.fuse(start, ready)
            if self.stop():  # what was cut short is no answer
                return
            yield found
            start += ready

    def fuse(self, start: int, count: int) -> Fused:
        """Frames ``start`` to ``start + count``, with every access point that has them."""
        began, octets = time.monotonic(), self.octets
        self._await_anybody()
        like = torch.zeros(())
        prior = Factor.prior(count, self.air.data_len, self.air.users, covariance=self.pvi.covariance, like=like)
        fusion = self.pvi.fusion(prior, self.clients)
        task = self._task = _Task(start, count, fusion, first_job=self._jobs)
        for index in range(self.clients):
            if not self._usable(index):
                fusion.pause(index)
        for member in self._members.values():
            member.stage = 0
        asked = tuple(index for index, here in enumerate(fusion.present) if here)
        try:
            for stage in range(self.pvi.refinements + 1):
                task.stage, task.posterior = stage, fusion.posterior if stage else None
                self._run(fusion)
        finally:
            self._task = None
        found = fusion.posterior.symbols(self._prior)
        took = time.monotonic() - began
        return fused(self.air, start, found, sorted(task.contributed), asked, seconds=took, octets=self.octets - octets)

    def close(self) -> None:
        """Says bye to the access points and closes; safe to call twice."""
        if self._socket.closed:
            return
        for member in self._members.values():
            self._send(member.identity, Note(Kind.BYE, session=self.session))
        self._socket.close(linger=200)
        terminate(self._context, GRACE_SECONDS)

    def __enter__(self) -> Centre:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # one stage

    def _run(self, fusion: Fusion) -> None:
        """One stage: until every access point that is there has had its turns, or is late, or lost. While all that were asked are late,
        and nobody has said anything yet, it waits for the first of them, within its patience: a frame needs one."""
        fusion.begin()
        end = time.monotonic() + self.patience_s
        while not self.stop():
            for index in fusion.ready():
                self._ask(index)
            if fusion.done and not (self._hopeful() and time.monotonic() < end):
                return
            deadlines = (member.deadline for member in self._members.values() if member.job is not None and not member.late)
            self._turn(min(deadlines, default=end))

    def _hopeful(self) -> bool:
        """Whether nothing is known of the frames at hand, and somebody is at work on them."""
        task = self._task
        assert task is not None
        at_work = (member.job is not None and member.job > task.first_job for member in self._members.values())
        return not task.contributed and any(at_work)

    def _ask(self, index: int) -> None:
        task, member = self._task, self._members[index]
        assert task is not None
        arrays = arrays_of(task.fusion.rest(index))
        if task.posterior is not None and member.stage != task.stage:
            arrays |= arrays_of(task.posterior, POSTERIOR)
        self._jobs += 1
        member.job, member.deadline = self._jobs, time.monotonic() + self.deadline_s
        numbers = {"job": self._jobs, "start": task.start, "count": task.count, "stage": task.stage}
        self._send(member.identity, Note(Kind.WORK, numbers, arrays, self.session))

    def _usable(self, index: int) -> bool:
        """Whether access point ``index`` can be asked about the frames at hand."""
        member, task = self._members.get(index), self._task
        if member is None or task is None or member.late or index in task.missed:
            return False
        return member.oldest <= task.start and task.start + task.count <= member.newest

    # messages

    def _turn(self, until: float) -> None:
        """Waits for a message, at most until ``until`` and a heartbeat, handles what came, and looks after those that are silent."""
        wait = min(max(until - time.monotonic(), 0.0), self.heartbeat_ms / 2000)
        if self._socket.poll(1000 * wait):
            for _ in range(QUEUE):
                if not self._receive():
                    break
        self._look_after(time.monotonic())

    def _receive(self) -> bool:
        try:
            parts = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return False
        try:
            if len(parts) != 2:
                raise FormatError(f"a message of {len(parts)} parts: access points send one")
            self._handle(parts[0], unpack(parts[1]), len(parts[1]))
        except FormatError as error:
            self.bad, self.last_error = self.bad + 1, error
        return True

    def _handle(self, identity: bytes, note: Note, octets: int) -> None:
        if note.kind == Kind.HELLO:
            return self._greet(identity, note)
        index, member = next(((i, m) for i, m in self._members.items() if m.session == note.session), (-1, None))
        if member is None or member.identity != identity:
            raise FormatError(f"a {note.kind.name.lower()} of nobody that said hello")
        member.heard = time.monotonic()
        if note.kind == Kind.BYE:
            self._leave(index, "left", "it said bye; its factor is dropped")
        elif note.kind == Kind.ANSWER:
            self.octets += octets
            self._answered(index, member, note)
        else:
            raise FormatError(f"a {note.kind.name.lower()} from an access point")

    def _greet(self, identity: bytes, note: Note) -> None:
        numbers, now = note.numbers, time.monotonic()
        index, old = numbers["index"], self._members.get(numbers["index"])
        if reason := self._objection(note, old, now):
            self.refused += 1
            self._send(identity, refusal(reason, self.session))
            return
        if old is None or old.session != note.session:
            if old is not None:
                self._leave(index, "lost", "another process took its place")
            old = self._members[index] = _Member(identity, note.session, numbers["antennas"], now)
            self._say(index, "back" if index in self._known else "joined", f"{numbers['antennas']} antennas")
            self._known.add(index)
        old.identity, old.heard, old.oldest, old.newest = identity, now, numbers["oldest"], numbers["newest"]
        old.ended = bool(numbers["ended"])
        if old.late and old.job is not None and numbers["job"] < old.job:
            old.late, old.job = False, None
            self._say(index, "back", "its work was lost on the way")
        self._send(identity, self._welcome())
        task = self._task
        if task is not None and self._usable(index) and not task.fusion.present[index]:
            task.fusion.resume(index)

    def _objection(self, note: Note, old: _Member | None, now: float) -> str:
        """Why an access point cannot take part; empty when it can."""
        numbers = note.numbers
        if numbers["of"] != self.clients or numbers["index"] >= self.clients:
            return f"this centre has {self.clients} access points, counted from 0: pass --of {self.clients}"
        for name, value in self.air.numbers.items():
            if numbers[name] != value:
                return f"{name} is {numbers[name]} there and {value} here: describe the same system on both sides"
        if note.metadata.pilot_book != self.air.pilot_book:
            return f"its pilots are book {note.metadata.pilot_book}, here {self.air.pilot_book}: pass the same pilot seed and kind"
        if old is not None and old.session != note.session and now - old.heard < SILENT_BEATS * self.heartbeat_ms / 1000:
            return f"access point {numbers['index']} is there already: pass another index, or wait until it is gone"
        return ""

    def _welcome(self) -> Note:
        s = self.pvi.settings
        covariance = CHANNEL_COVARIANCES.index(s.covariance)
        numbers = {"first": s.first, "again": s.again, "steps": s.steps, "covariance": covariance, "normalise": int(s.normalise)}
        return Note(Kind.WELCOME, {**numbers, "heartbeat_ms": self.heartbeat_ms}, {}, self.session, Metadata())

    def _answered(self, index: int, member: _Member, note: Note) -> None:
        if note.numbers["job"] > self._jobs:
            raise FormatError(f"an answer to job {note.numbers['job']} that nobody was given")
        if note.numbers["job"] != member.job:  # from before it was lost
            return
        task, factor = self._task, note.factor()
        current = task is not None and member.job > task.first_job
        if task is not None and current and factor is not None:
            self._check(task, index, member, factor)
        was_late, member.job, member.late = member.late, None, False
        if was_late:
            self._say(index, "back", "its late answer came")
        if task is None:
            return
        if factor is None and current:
            self._leave_out(task, index)
            self._say(index, "late", "it does not have these frames")
        elif factor is not None and current:
            member.stage = task.stage if not was_late else member.stage
            task.contributed.add(index)
            if was_late:
                task.fusion.resume(index, factor)
            else:
                task.fusion.take(index, factor)
        elif self._usable(index):
            task.fusion.resume(index)

    def _check(self, task: _Task, index: int, member: _Member, factor: Factor) -> None:
        """FormatError for a factor that cannot be; its sender is left out of these frames."""
        try:
            check(factor, task.fusion.prior)
        except FormatError as error:
            member.job, member.late = None, False
            self._leave_out(task, index)
            self._say(index, "bad", str(error))
            raise

    def _leave_out(self, task: _Task, index: int) -> None:
        task.missed.add(index)
        task.contributed.discard(index)
        task.fusion.drop(index)

    # those that are silent

    def _look_after(self, now: float) -> None:
        for index, member in tuple(self._members.items()):
            if now - member.heard > self.lost_s:
                self._leave(index, "lost", f"nothing from it for {self.lost_s:g} s; its factor is dropped")
            elif member.job is not None and not member.late and now > member.deadline:
                member.late = True
                if self._task is not None:
                    self._task.fusion.pause(index)
                self._say(index, "late", f"no answer within {self.deadline_s:g} s; its last factor stays")

    def _leave(self, index: int, what: str, why: str) -> None:
        del self._members[index]
        if self._task is not None:
            self._task.fusion.drop(index)
            self._task.contributed.discard(index)
        self._say(index, what, why)

    def _await_anybody(self) -> None:
        end = time.monotonic() + self.patience_s
        while not any(not member.late for member in self._members.values()) and not self.stop():
            if time.monotonic() > end:
                why = f"; {self.refused} hellos were refused, {self.bad} messages bad" if self.refused or self.bad else ""
                raise SilentPeerError(f"no access point at {self.endpoint} for {self.patience_s:g} s{why}: start `massaccess ap` for each")
            self._turn(end)

    def _await_frames(self, start: int, most: int) -> int:
        """How many frames from ``start`` on all access points that keep up have; after the deadline, those that some have. None, when the
        streams of all have ended."""
        end = 0.0
        while not self.stop():
            self._await_anybody()
            end = end or time.monotonic() + self.deadline_s
            members = [member for member in self._members.values() if not member.late]
            ahead = [member.newest - start for member in members if member.newest > start or not member.ended]
            if not ahead and members:
                return 0
            if ahead and (min(ahead) > 0 or time.monotonic() > end):
                if some := [count for count in ahead if count > 0]:
                    return min(most, *some)
                end = 0.0
            self._turn(end or time.monotonic() + self.deadline_s)
        return 0

    def _say(self, index: int, what: str, why: str) -> None:
        event = Event(self._task.start if self._task else 0, index, what, why)
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def _send(self, identity: bytes, note: Note) -> None:
        message = pack(note)
        with contextlib.suppress(zmq.ZMQError):  # its queue is full, or it has just gone: the deadline finds out
            self._socket.send_multipart([identity, message], zmq.DONTWAIT)
            self.octets += len(message) if note.kind == Kind.WORK else 0

    def _factor_bytes(self, frames: int) -> int:
        width = 2 * self.air.users
        shared = {"diagonal": self.air.data_len * width, "shared": width**2, "full": self.air.data_len * width**2}
        return 4 * frames * (self.air.data_len * width + shared[self.pvi.covariance]) + 64
