"""Distributed access points: the same numbers as in one process, and nobody who is late, lost or hostile holds the others up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import zmq

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, FormatError
from massaccess.forward.simulate import Simulation
from massaccess.link import fusion_wire
from massaccess.link.fusion_centre import Centre
from massaccess.link.fusion_peer import Peer
from massaccess.link.fusion_report import summary
from massaccess.link.fusion_source import FrameBuffer, RecordedShare, SimulatedShare
from massaccess.link.fusion_wire import Kind, Note
from massaccess.link.listener import SilentPeerError
from massaccess.link.metadata import Metadata
from massaccess.link.publisher import terminate
from massaccess.link.recorder import Recorder
from massaccess.link.recording import open_recording
from massaccess.receivers.access_point import AccessPoint
from massaccess.receivers.factor import Factor
from massaccess.receivers.pvi import Pvi, shares
from massaccess.receivers.selection import Selection
from massaccess.registry import create

CONFIG = SystemConfig(
    users=4,
    active_users=4,
    rows=4,
    columns=4,
    pilot_len=16,
    data_len=20,
    snr_db=10,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
SEED, POINTS = 3, 4
EASY = {"deadline_s": 20.0, "lost_s": 20.0, "patience_s": 20.0, "heartbeat_ms": 100}  # a busy machine is not late


class Slow(SimulatedShare):
    """An access point that takes its time over some frames."""

    released = threading.Event()

    def frames(self, start: int, count: int):
        if start == 2:
            assert self.released.wait(20)
        return super().frames(start, count)


class Runner:
    """An access point in a thread; `vanish` is what the network sees when its process is killed."""

    def __init__(self, source: SimulatedShare, endpoint: str) -> None:
        self.peer = Peer(source, endpoint, index=source.index, of=source.of, heartbeat_ms=100)
        self.halt = threading.Event()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.peer.run(stop=self.halt.is_set, patience_s=20.0)
        except Exception as error:
            self.error = error
            self.peer.close()  # as the end of the program would

    def stop(self) -> None:
        self.halt.set()
        self.thread.join()
        self.peer.close()

    def vanish(self) -> None:
        self.peer.welcome = None  # so that it does not say bye
        self.stop()


@contextmanager
def running(centre: Centre, sources: list[SimulatedShare]) -> Iterator[list[Runner]]:
    runners = [Runner(source, centre.endpoint) for source in sources]
    try:
        assert centre.wait(timeout_s=20) == len(sources)
        yield runners
    finally:
        for runner in runners:
            runner.stop()


def sources(kind: type[SimulatedShare] = SimulatedShare) -> list[SimulatedShare]:
    return [SimulatedShare(CONFIG, SEED, index, POINTS) for index in range(POINTS - 1)] + [kind(CONFIG, SEED, POINTS - 1, POINTS)]


def centre_of(pvi: Pvi, **options: object) -> Centre:
    return Centre(sources()[0].air, POINTS, pvi, **{**EASY, **options})


def in_one_process(pvi: Pvi, start: int, count: int, without: tuple[int, ...] = ()) -> torch.Tensor:
    """Symbols of the same frames from the antennas of some access points, without a network."""
    _, obs = Simulation(CONFIG, SEED).frames(start, count)
    slots = Selection.of(torch.ones(count, CONFIG.users, dtype=torch.bool))
    points = [AccessPoint(part, slots, pvi.settings) for index, part in enumerate(shares(obs, POINTS)) if index not in without]
    prior = Factor.prior(count, CONFIG.data_len, CONFIG.users, covariance=pvi.covariance, like=torch.zeros(()))
    return pvi.agree(points, prior)[0].symbols(points[0].prior).symbols


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("covariance", ["shared", "diagonal", "full"])
@pytest.mark.parametrize("mode", ["sequential", "synchronous"])
def test_the_network_changes_nothing(mode: str, covariance: str) -> None:
    pvi = create(f"pvi-{mode}", covariance=covariance, refinements=1)
    with centre_of(pvi) as centre, running(centre, sources()):
        found = list(centre.frames(0, 5, batch=3))
    estimate = pvi(Simulation(CONFIG, SEED).frames(0, 3)[1])
    assert [len(part) for part in found] == [3, 2]
    assert_close(found[0].symbols, estimate.symbols)
    torch.testing.assert_close(found[0].symbol_var, estimate.symbol_var, rtol=1e-3, atol=1e-6)
    assert_close(found[1].symbols, in_one_process(pvi, 3, 2))
    assert all(part.contributed == part.asked == (0, 1, 2, 3) for part in found)
    assert (centre.bad, centre.refused, summary(centre.events)) == (0, 0, {"joined": 4})


def test_asynchronous_access_points_agree_on_the_same_symbols() -> None:
    pvi = create("pvi-asynchronous", sweeps=12)
    with centre_of(pvi) as centre, running(centre, sources()):
        found = centre.fuse(0, 3)
    expected = in_one_process(create("pvi-sequential", sweeps=12), 0, 3)
    assert float((found.symbols - expected).abs().square().mean() / expected.abs().square().mean()) < 1e-2


def test_an_access_point_that_is_killed_costs_only_what_it_knew() -> None:
    pvi = create("pvi-sequential")
    with centre_of(pvi, lost_s=1.0) as centre, running(centre, sources()) as runners:
        whole = centre.fuse(0, 2)
        runners[2].vanish()
        without = centre.fuse(2, 2)
        after = centre.fuse(4, 1)
    assert_close(whole.symbols, in_one_process(pvi, 0, 2))
    assert_close(without.symbols, in_one_process(pvi, 2, 2, without=(2,)))
    assert_close(after.symbols, in_one_process(pvi, 4, 1, without=(2,)))
    assert (whole.contributed, without.contributed, after.contributed) == ((0, 1, 2, 3), (0, 1, 3), (0, 1, 3))
    assert [(event.access_point, event.what) for event in centre.events if event.what != "joined"] == [(2, "lost")]


def test_a_factor_is_dropped_when_its_access_point_is_lost_in_the_middle() -> None:
    pvi = create("pvi-sequential", sweeps=12)
    with centre_of(pvi, lost_s=1.0) as centre, running(centre, sources()) as runners:
        asked: list[int] = []
        ask = centre._ask

        def counting(index: int) -> None:
            asked.append(index)
            if len(asked) == 20:
                runners[1].vanish()
            ask(index)

        centre._ask = counting  # type: ignore[method-assign]
        found = centre.fuse(0, 2)
    assert found.contributed == (0, 2, 3)
    assert found.asked == (0, 1, 2, 3)
    expected = in_one_process(pvi, 0, 2, without=(1,))
    assert float((found.symbols - expected).abs().square().mean() / expected.abs().square().mean()) < 1e-2


def test_an_access_point_that_starts_again_takes_part_again() -> None:
    pvi = create("pvi-synchronous")
    with centre_of(pvi) as centre, running(centre, sources()) as runners:
        centre.fuse(0, 1)
        runners[1].vanish()
        runners.append(Runner(sources()[1], centre.endpoint))
        while summary(centre.events).get("back", 0) == 0:
            centre._turn(time.monotonic() + 0.1)
        found = centre.fuse(1, 2)
    assert_close(found.symbols, in_one_process(pvi, 1, 2))
    assert found.contributed == (0, 1, 2, 3)


def test_one_that_starts_again_in_the_middle_begins_with_nothing() -> None:
    pvi = create("pvi-sequential", sweeps=12)
    with centre_of(pvi, lost_s=1.0) as centre, running(centre, sources()) as runners:
        ask, count = centre._ask, 0

        def restarting(index: int) -> None:
            nonlocal count
            count += 1
            if count == 60:  # in the second stage: the newcomer has to be told the posterior of the first
                runners[1].vanish()
                runners.append(Runner(sources()[1], centre.endpoint))
            ask(index)

        centre._ask = restarting  # type: ignore[method-assign]
        found = centre.fuse(0, 2)
    assert summary(centre.events)["back"] == 1
    assert found.contributed == (0, 1, 2, 3)
    expected = in_one_process(pvi, 0, 2)
    assert float((found.symbols - expected).abs().square().mean() / expected.abs().square().mean()) < 1e-2


@pytest.mark.parametrize("mode", ["sequential", "synchronous", "asynchronous"])
def test_a_slow_access_point_is_not_waited_for(mode: str) -> None:
    pvi = create(f"pvi-{mode}")
    Slow.released.clear()
    with centre_of(pvi, deadline_s=0.7) as centre, running(centre, sources(Slow)):
        found = centre.fuse(2, 1)
        Slow.released.set()
        while summary(centre.events).get("back", 0) == 0:
            centre._turn(time.monotonic() + 0.1)
        after = centre.fuse(3, 1)
    assert [event.what for event in centre.events if event.what != "joined"] == ["late", "back"]
    assert set(found.contributed) >= {0, 1, 2}
    if mode != "asynchronous":
        assert_close(found.symbols, in_one_process(pvi, 2, 1, without=(3,)))
        assert_close(after.symbols, in_one_process(pvi, 3, 1))
    assert after.contributed == (0, 1, 2, 3)


def test_when_all_are_late_the_frame_waits_for_the_first() -> None:
    pvi = create("pvi-sequential")
    slow = [Slow(CONFIG, SEED, index, POINTS) for index in range(POINTS)]
    Slow.released.clear()
    release = threading.Timer(0.6, Slow.released.set)
    with centre_of(pvi, deadline_s=0.1) as centre, running(centre, slow):  # type: ignore[arg-type]
        release.start()
        found = centre.fuse(2, 1)
    assert found.contributed
    assert found.symbol_var.max() < 1e3


def test_work_that_is_lost_on_the_way_keeps_nobody_away_for_long() -> None:
    pvi = create("pvi-sequential")
    with centre_of(pvi, deadline_s=0.7) as centre, running(centre, sources()):
        send, swallowed = centre._send, []

        def forgetful(identity: bytes, note: Note) -> None:
            if note.kind == Kind.WORK and note.numbers["job"] == 3 and not swallowed:
                swallowed.append(note)
            else:
                send(identity, note)

        centre._send = forgetful  # type: ignore[method-assign]
        centre.fuse(0, 1)
        while summary(centre.events).get("back", 0) == 0:
            centre._turn(time.monotonic() + 0.1)
        found = centre.fuse(1, 1)
    assert [event.what for event in centre.events if event.what != "joined"] == ["late", "back"]
    assert_close(found.symbols, in_one_process(pvi, 1, 1))


@contextmanager
def stranger(endpoint: str) -> Iterator[zmq.Socket]:
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.connect(endpoint)
    try:
        yield raw
    finally:
        raw.close(linger=0)
        terminate(context, 5)


HELLO = {"index": 0, "of": POINTS, "antennas": 4, **sources()[0].air.numbers, "oldest": 0, "newest": 9, "ended": 0, "job": 0}


def test_garbage_is_counted_and_answered_with_nothing() -> None:
    pvi = create("pvi-sequential")
    answer = {"shift": np.zeros((1, 20, 8), np.float32), "precision": np.zeros((1, 1, 8, 8), np.float32)}
    rubbish = [
        b"",
        b"MASSACC\n",
        np.random.default_rng(0).bytes(5000),
        fusion_wire.pack(Note(Kind.ANSWER, {"index": 0, "job": 1}, answer, 77)),
        fusion_wire.pack(Note(Kind.WORK, {"job": 1, "start": 0, "count": 1, "stage": 0}, answer)),
        fusion_wire.pack(Note(Kind.HELLO, HELLO))[:-8],
    ]
    with centre_of(pvi) as centre, running(centre, sources()), stranger(centre.endpoint) as raw:
        for message in rubbish:
            raw.send(message)
        raw.send_multipart([b"one", b"two", b"three"])
        host, _, port = centre.endpoint.removeprefix("tcp://").partition(":")
        with socket.create_connection((host, int(port))) as plain, suppress(OSError):
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n" * 1000)
        end = time.monotonic() + 20
        while centre.bad <= len(rubbish) and time.monotonic() < end:
            centre._turn(time.monotonic() + 0.05)
        found = centre.fuse(0, 2)
        assert not raw.poll(0)
    assert centre.bad == len(rubbish) + 1
    assert_close(found.symbols, in_one_process(pvi, 0, 2))


class Liar(Peer):
    """An access point whose factors cannot be."""

    def _answer(self, work: object, note: Note) -> bytes:
        factor = {name: np.full_like(note.arrays[name], -1.0) for name in fusion_wire.FACTOR}
        return fusion_wire.pack(Note(Kind.ANSWER, {"index": self.index, "job": note.numbers["job"]}, factor, self.session))


def test_factors_that_cannot_be_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pvi = create("pvi-sequential")
    with centre_of(pvi) as centre, running(centre, sources()) as runners:
        monkeypatch.setattr(runners[0].peer, "_answer", Liar._answer.__get__(runners[0].peer))
        found = centre.fuse(0, 2)
    assert centre.bad == summary(centre.events)["bad"] == 1
    assert found.contributed == (1, 2, 3)
    assert_close(found.symbols, in_one_process(pvi, 0, 2, without=(0,)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"users": 5}, "users is 5"), ({"of": 3}, "--of 4"), ({"index": 4}, "counted from 0"), ({}, "book"), ({"data_len": 9}, "data_len")],
)
def test_access_points_of_another_system_are_told_why_not(change: dict[str, int], reason: str) -> None:
    with centre_of(create("pvi-sequential")) as centre, stranger(centre.endpoint) as raw:
        raw.send(fusion_wire.pack(Note(Kind.HELLO, {**HELLO, **change})))
        centre.wait(1, timeout_s=0.1)
        assert raw.poll(2000)
        assert reason in fusion_wire.reason_of(fusion_wire.unpack(raw.recv()))
    assert (centre.present, centre.refused) == ((), 1)


def test_a_place_that_is_taken_cannot_be_stolen() -> None:
    with centre_of(create("pvi-sequential")) as centre, running(centre, sources()):
        with Peer(sources()[1], centre.endpoint, index=1, of=POINTS, heartbeat_ms=50) as thief:
            end = time.monotonic() + 0.4
            thread = threading.Thread(target=lambda: thief.run(stop=lambda: time.monotonic() > end))
            thread.start()
            found = centre.fuse(0, 2)
            while thread.is_alive():
                centre._turn(time.monotonic() + 0.05)
            thread.join()
        assert "there already" in thief.refused
        assert found.contributed == (0, 1, 2, 3)
    assert summary(centre.events) == {"joined": 4}


def test_nobody_is_waited_for_for_ever() -> None:
    with centre_of(create("pvi-sequential"), patience_s=0.2) as centre:
        assert centre.wait() == 0
        with pytest.raises(SilentPeerError, match="massaccess ap"):
            centre.fuse(0, 1)
    lonely = Peer(sources()[0], "tcp://127.0.0.1:9", index=0, of=POINTS, heartbeat_ms=50)
    with lonely, pytest.raises(SilentPeerError, match="massaccess fuse"):
        lonely.run(patience_s=0.2)


def test_other_machines_have_to_be_allowed() -> None:
    with pytest.raises(ConfigError, match="other machines"):
        centre_of(create("pvi-sequential"), endpoint="tcp://0.0.0.0:0")


def test_who_speaks_seldom_is_not_lost_at_once() -> None:
    with pytest.raises(ConfigError, match="every 100 ms"):
        centre_of(create("pvi-sequential"), lost_s=0.15)


def test_an_access_point_that_fails_says_so() -> None:
    class Broken(SimulatedShare):
        def frames(self, start: int, count: int):
            if start:
                raise FormatError("no such frames")
            return super().frames(start, count)

    with centre_of(create("pvi-sequential")) as centre, running(centre, sources(Broken)) as runners:
        found = centre.fuse(1, 1)
        runners[3].thread.join(5)
        assert isinstance(runners[3].error, FormatError)
    assert found.contributed == (0, 1, 2)


def test_a_recording_is_fused_to_its_end(tmp_path: Path) -> None:
    pvi = create("pvi-sequential")
    _, obs = Simulation(CONFIG, SEED).frames(0, 5)
    known = Metadata(frame=2, noise_var=obs.noise_var, adc_bits=1, adc_scale=obs.front_end.scale)
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(torch.cat([obs.pilot_rx, obs.data_rx], 1).numpy(), known)
    recording = open_recording(tmp_path / "air")
    points = [RecordedShare(recording, index, POINTS) for index in range(POINTS)]
    assert [point.antennas for point in points] == [4, 4, 4, 4]
    with centre_of(pvi) as centre, running(centre, points):  # type: ignore[arg-type]
        found = list(centre.frames(0, batch=8))  # begins where the recording does
    assert [(part.start, len(part)) for part in found] == [(2, 5)]
    assert_close(found[0].symbols, in_one_process(pvi, 0, 5))
    assert points[0].frames(0, 1) is None


def test_frames_of_a_stream_come_from_a_buffer() -> None:
    pvi = create("pvi-sequential")
    simulation = Simulation(CONFIG, SEED)
    _, obs = simulation.frames(0, 6)
    buffers = []
    for part in shares(obs, POINTS):
        known = {"noise_var": obs.noise_var, "modulation": obs.modulation, "front_end": obs.front_end}
        buffers.append(FrameBuffer(obs.pilots, CONFIG.data_len, part.antennas, capacity=4, **known))
        buffers[-1].index, buffers[-1].of = len(buffers) - 1, POINTS  # type: ignore[attr-defined]
        buffers[-1].push(torch.cat([part.pilot_rx, part.data_rx], 1)[:3])
    with centre_of(pvi, deadline_s=2.0) as centre, running(centre, buffers):  # type: ignore[arg-type]
        first = next(centre.frames(0, 6, batch=8))
        for buffer, part in zip(buffers, shares(obs, POINTS), strict=True):
            buffer.push(torch.cat([part.pilot_rx, part.data_rx], 1)[3:])
        second = next(centre.frames(3, 3, batch=8))
    assert (len(first), len(second)) == (3, 3)
    assert_close(first.symbols, in_one_process(pvi, 0, 3))
    assert_close(second.symbols, in_one_process(pvi, 3, 3))
    assert buffers[0].span() == (2, 6)
    assert buffers[0].dropped == 0
    assert buffers[0].frames(0, 1) is None
