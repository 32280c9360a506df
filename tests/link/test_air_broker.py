"""The broker of a virtual air between users and a base station: what goes in comes out, whoever stalls, dies or sends rubbish."""

from __future__ import annotations

import contextlib
import itertools
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zmq

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError
from massaccess.forward.air import Air
from massaccess.forward.simulate import BLOCK, Population
from massaccess.link import air_broker
from massaccess.link.air_array import ArrayLine
from massaccess.link.air_broker import Broker
from massaccess.link.air_report import SlotReport
from massaccess.link.air_user import Transmitters, Waves
from massaccess.link.listener import Listener

CONFIG = SystemConfig(
    users=6,
    rows=1,
    columns=4,
    pilot_len=4,
    data_len=8,
    activity=0.4,
    channel="rayleigh",
    snr_db=20.0,
    samples_per_symbol=4,
    preamble_len=4,
    guard_len=4,
    timing_offset=0.3,
    sample_rate_hz=1e6,
)
SIZE = CONFIG.burst.slot_samples
SLOTS = 40
USER = Path(__file__).with_name("air_user.py")
LONG = 60.0  # what nothing should take, on any machine
CLEAR = CONFIG.replace(timing_offset=0.0, snr_db=200.0, snr_convention="per-user", users=2)


@contextlib.contextmanager
def running(step):
    """Calls ``step()`` in a thread, over and over."""
    ended, errors = threading.Event(), []

    def loop():
        try:
            while not ended.is_set():
                step()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not errors


@contextlib.contextmanager
def users(tmp_path, config=CONFIG, seed=3, who=None, **options):
    """Endpoints of users that run."""
    who = range(config.users) if who is None else who
    waves = Waves(config, seed, who, **options)
    with (
        Transmitters(waves, {user: f"ipc://{tmp_path}/user{user}" for user in who}, most=1000) as these,
        running(lambda: these.serve(0.02)),
    ):
        yield these.endpoints


def gather(line, samples, limit=LONG):
    """The next so many samples, or all to the end, by number."""
    deadline, found = time.monotonic() + limit, []
    while not line.ended and sum(len(part) for _, part in found) < samples:
        part = line.poll(0.1)
        found += [] if part is None else [part]
        assert time.monotonic() < deadline
    return found


def nominal(config, slots, seed=3):
    return torch.from_numpy(
        np.stack([Waves(config, seed, range(config.users), slots=slots)(0, slots * SIZE, user) for user in range(config.users)], 1)
    )


def test_the_air_is_that_of_the_library(tmp_path):
    """Through processes' sockets, in other chunks, and with its truth: to the last bit."""
    air = Air(CONFIG, 3)
    expected = torch.cat([air.push(nominal(CONFIG, SLOTS)), air.flush()]).numpy()
    with users(tmp_path, slots=SLOTS) as there:
        for chunk, most in ((4, 8192), (3, 100)):
            with (
                Broker(CONFIG, there, f"ipc://{tmp_path}/base", seed=3, slots=SLOTS, chunk=chunk) as broker,
                running(broker.step),
                ArrayLine(broker.endpoint, CONFIG.antennas, most=most) as line,
            ):
                found = gather(line, 10**9)
            assert [index for index, _ in found] == np.cumsum([0, *(len(part) for _, part in found[:-1])]).tolist()
            np.testing.assert_array_equal(np.concatenate([part for _, part in found]), expected)
            assert broker.finished
            assert broker.counters()["silent_slots"] == 0


def test_the_truth_is_told(tmp_path):
    population, heard = Population(CONFIG, 3), []
    with (
        users(tmp_path) as there,
        Broker(CONFIG, there, f"ipc://{tmp_path}/base", seed=3, slots=SLOTS, monitor=f"ipc://{tmp_path}/truth") as broker,
        Listener(broker.monitor, timeout_s=LONG) as listener,
    ):
        assert broker._monitor.wait_for_listener(LONG)
        with running(broker.step), ArrayLine(broker.endpoint, CONFIG.antennas) as line:
            gather(line, 10**9)
        while sum(len(report.frame) for report in heard) < SLOTS:
            heard.append(SlotReport.of(next(listener), 16))
    active, bits = (np.concatenate([getattr(report, name) for report in heard]) for name in ("active", "bits"))
    sent = [population.transmit(block) for block in range(-(-SLOTS // BLOCK))]
    np.testing.assert_array_equal(active, torch.cat([part.active for part in sent])[:SLOTS].numpy())
    np.testing.assert_array_equal(bits[active], torch.cat([part.bits for part in sent])[:SLOTS].numpy()[active])
    assert heard[-1].counters["users"]["5"]["connections"] == 1


def test_a_base_station_of_other_makers_gets_raw_samples(tmp_path):
    air = Air(CONFIG, 3)
    expected = torch.cat([air.push(nominal(CONFIG, 4)), air.flush()]).numpy()
    with users(tmp_path) as there, Broker(CONFIG, there, f"ipc://{tmp_path}/base", seed=3, slots=4) as broker, running(broker.step):
        context = zmq.Context()
        socket = context.socket(zmq.REQ)
        socket.connect(broker.endpoint)
        found = b""
        while len(found) < expected.nbytes:
            socket.send((50).to_bytes(4, "little"))
            found += socket.recv()
        socket.close()
        context.term()
    assert found == expected.astype("<c8").tobytes()


def test_nothing_runs_away(tmp_path):
    """Without a base station that asks, users are asked for nothing, and what waits is at most a chunk or two."""
    with users(tmp_path) as there, Broker(CONFIG, there, f"ipc://{tmp_path}/base", chunk=2) as broker:
        for _ in range(20):
            broker.step(0.01)
        assert broker.slot == 0
        with ArrayLine(broker.endpoint, CONFIG.antennas, most=10) as line, running(broker.step):
            gather(line, 10)
            time.sleep(0.3)
            assert broker.slot <= 4


@contextlib.contextmanager
def stranger(endpoint, *arguments):
    """The user of ``air_user.py`` in a process of its own."""
    process = subprocess.Popen([sys.executable, str(USER), endpoint, str(SIZE), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()


def heights(found):
    """Number of the first whole slot, and the samples of the slots [slots SIZE M]."""
    index, samples = found[0][0], np.concatenate([part for _, part in found])
    first = -(-index // SIZE)
    whole = samples[first * SIZE - index :]
    whole = whole[: len(whole) // SIZE * SIZE].reshape(-1, SIZE, samples.shape[1])
    return first, whole


def sent_in(found, user=0, seed=3):
    """{slot: value that ``user`` sent in it}, every sample of the slot agreeing, but for those at its ends."""
    first, slots = heights(found)
    air, values = Air(CLEAR, seed), {}
    for slot, received in enumerate(slots, first):
        channel = air.truth(slot).channel[user].numpy()
        middle = received[20:-20] @ channel.conj() / np.vdot(channel, channel)
        assert np.ptp(middle.real) < 0.01
        values[slot] = round(float(middle[0].real))
    return values


@pytest.mark.parametrize("octets", ["16384", "1000"])
def test_a_user_of_twenty_lines_joins(tmp_path, octets):
    endpoint = f"ipc://{tmp_path}/user0"
    with (
        stranger(endpoint, octets),
        Broker(CLEAR, {0: endpoint}, f"ipc://{tmp_path}/base", seed=3, slots=12) as broker,
        running(broker.step),
        ArrayLine(broker.endpoint, CLEAR.antennas) as line,
    ):
        found = sent_in(gather(line, 10**9))
    assert found == {slot: slot + 1 for slot in range(12)}


def test_a_user_that_stalls_is_silent_and_comes_back_at_the_beginning_of_a_slot(tmp_path):
    endpoints = {user: f"ipc://{tmp_path}/user{user}" for user in (0, 1)}
    with (
        stranger(endpoints[0], "1000") as one,  # answers end within slots
        stranger(endpoints[1]),
        Broker(CLEAR, endpoints, f"ipc://{tmp_path}/base", seed=3, patience_s=0.3, chunk=2) as broker,
        running(broker.step),
        ArrayLine(broker.endpoint, CLEAR.antennas, most=SIZE) as line,
    ):
        found = gather(line, 10 * SIZE)
        one.send_signal(signal.SIGSTOP)
        while not broker.lines[0].silent:
            found += gather(line, SIZE)
        found += gather(line, 10 * SIZE)
        one.send_signal(signal.SIGCONT)
        while broker.lines[0].silent:
            found += gather(line, SIZE)
        found += gather(line, 10 * SIZE)
    mine, other = sent_alone(found)
    slots = sorted(mine)
    assert [other[slot] for slot in slots] == [slot + 1 for slot in slots]  # the rest went on
    away = [slot for slot in slots if mine[slot] == 0]
    assert len(away) >= 8 and away == list(range(away[0], away[-1] + 1))
    assert [mine[slot] for slot in slots[: away[0]]] == [slot + 1 for slot in slots[: away[0]]]
    after = np.array([mine[slot] for slot in slots[away[-1] + 1 :]])
    assert len(after) >= 5 and (np.diff(after) == 1).all()
    assert [event.what for event in broker.events] == ["is silent", "is back"]
    assert broker.lines[0].counts.silent_slots >= len(away)


def test_a_user_that_stalls_within_a_slot_drops_the_rest_of_it(tmp_path):
    """It counts its samples itself, and stops after 130 of the 160 that it was asked for."""
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    socket.bind(f"ipc://{tmp_path}/user0")
    state = {"sent": 0}
    with (
        Broker(CLEAR, {0: f"ipc://{tmp_path}/user0"}, f"ipc://{tmp_path}/base", seed=3, patience_s=0.2, chunk=2) as broker,
        ArrayLine(broker.endpoint, CLEAR.antennas, most=SIZE) as line,
    ):

        def answer():
            stalled = state["sent"] == 3 * 160 + 130 and not broker.lines[0].silent
            if not stalled and socket.poll(20):
                (wanted,) = struct.unpack_from("<I", socket.recv())
                count = min(wanted, 130 if state["sent"] == 3 * 160 else 1000)
                index = np.arange(state["sent"], state["sent"] + count)
                state["sent"] += count
                socket.send((index // SIZE + 1).astype("<c8").tobytes())

        with running(answer), running(broker.step):
            found = gather(line, 7 * SIZE)
            while broker.lines[0].silent or state["sent"] < 4 * 160:
                found += gather(line, SIZE)
            values = list(sent_in(found + gather(line, 6 * SIZE)).values())
    socket.close()
    context.term()
    assert SIZE == 80 and values[:7] == list(range(1, 8))  # whole slots that came are used
    back = values.index(9)  # the eighth was cut
    assert set(values[7:back]) == {0} and values[back:] == list(range(9, 9 + len(values) - back))
    assert broker.counters()["dropped"] == 80  # what had come of it, and the rest


def sent_alone(found, seed=3):
    """What users 0 and 1 sent in each slot, told apart by their channels."""
    first, slots = heights(found)
    air = Air(CLEAR, seed)
    values = [{}, {}]
    for slot, received in enumerate(slots, first):
        solved = np.linalg.lstsq(air.truth(slot).channel.numpy().T, received[20:-20].T, rcond=None)[0]
        assert np.ptp(solved.real, axis=1).max() < 0.01
        for user in (0, 1):
            values[user][slot] = round(float(solved[user, 0].real))
    return values


def test_a_user_that_is_killed_and_started_again_comes_back(tmp_path):
    endpoint = f"ipc://{tmp_path}/user0"
    with (
        Broker(CLEAR, {0: endpoint}, f"ipc://{tmp_path}/base", seed=3, patience_s=0.3, chunk=2) as broker,
        running(broker.step),
        ArrayLine(broker.endpoint, CLEAR.antennas, most=SIZE) as line,
    ):
        with stranger(endpoint) as process:
            found = gather(line, 10 * SIZE)
            process.kill()
            while not broker.lines[0].silent:
                found += gather(line, SIZE)
            found += gather(line, 4 * SIZE)
        with stranger(endpoint):
            while broker.lines[0].silent:
                found += gather(line, SIZE)
            found += gather(line, 10 * SIZE)
    values = list(sent_in(found).values())
    again = values.index(1, 1)  # it begins anew with its slot 0
    assert values[: values.index(0)] == list(range(1, values.index(0) + 1))
    assert set(values[values.index(0) : again]) == {0}
    assert values[again:] == list(range(1, len(values) - again + 1))
    assert broker.lines[0].counts.connections == 2
    assert [event.what for event in broker.events] == ["is not there", "is back"]


@pytest.mark.parametrize(
    "rubbish",
    [b"1234567", np.full(SIZE, np.nan, "<c8").tobytes(), bytes(8 * ((1 << 18) + 1)), b""],
    ids=["octets", "nan", "large", "empty"],
)
def test_rubbish_is_silence_and_counted(tmp_path, rubbish):
    context = zmq.Context()
    socket = context.socket(zmq.REP)
    socket.bind(f"ipc://{tmp_path}/user0")

    def answer():
        if socket.poll(20):
            socket.recv()
            socket.send(rubbish)

    with (
        Broker(CLEAR, {0: f"ipc://{tmp_path}/user0"}, f"ipc://{tmp_path}/base", slots=4) as broker,
        running(answer),
        running(broker.step),
        ArrayLine(broker.endpoint, CLEAR.antennas) as line,
    ):
        found = np.concatenate([part for _, part in gather(line, 10**9)])
    socket.close()
    context.term()
    assert len(found) == 4 * SIZE and np.abs(found).max() < 1e-6
    assert broker.counters()["malformed"] >= 1
    assert "malformed" in broker.events[0].what


def test_a_broker_that_is_started_again_goes_on(tmp_path):
    """Users answer the new one, the base station asks it again, and slots keep their numbers: all but those on their way are received."""
    air = Air(CONFIG, 3)
    expected = torch.cat([air.push(nominal(CONFIG, SLOTS)), air.flush()]).numpy()
    with users(tmp_path, slots=SLOTS) as there, ArrayLine(f"ipc://{tmp_path}/base", CONFIG.antennas, most=100, again_s=0.3) as line:
        found = []
        for more in (10 * SIZE, 10**9):
            with Broker(CONFIG, there, f"ipc://{tmp_path}/base", seed=3, slots=SLOTS, chunk=2) as broker, running(broker.step):
                found += gather(line, more)
    assert line.gaps == 1 and line.asked_again >= 1 and line.ended
    assert [event.what for event in broker.events] == ["goes on after another one"]
    (gap,) = (place for place, (one, two) in enumerate(itertools.pairwise(found), 1) if one[0] + len(one[1]) != two[0])
    begin = found[gap][0]
    assert begin % SIZE == 0 and begin - sum(len(part) for _, part in found[:gap]) <= SIZE
    for index, part in found:
        same = part == expected[index : index + len(part)]
        assert same[max(0, begin + 40 - index) :].all() if index >= begin else same.all()  # tails of the burst before the gap are missing


def test_a_base_station_that_is_started_again_goes_on(tmp_path):
    with users(tmp_path) as there, Broker(CONFIG, there, f"ipc://{tmp_path}/base", chunk=2) as broker, running(broker.step):
        with ArrayLine(broker.endpoint, CONFIG.antennas) as line:
            first = gather(line, 10 * SIZE)
        with ArrayLine(broker.endpoint, CONFIG.antennas) as line:
            second = gather(line, 10 * SIZE)
    assert second[0][0] >= first[-1][0] + len(first[-1][1])
    assert second[0][0] - first[-1][0] - len(first[-1][1]) <= 8192  # what was on its way


def test_a_base_station_that_stalls_holds_the_air_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(air_broker, "QUIET_SECONDS", 0.2)
    air = Air(CONFIG, 3)
    expected = torch.cat([air.push(nominal(CONFIG, SLOTS)), air.flush()]).numpy()
    with (
        users(tmp_path, slots=SLOTS) as there,
        Broker(CONFIG, there, f"ipc://{tmp_path}/base", seed=3, slots=SLOTS, chunk=2) as broker,
        running(broker.step),
        ArrayLine(broker.endpoint, CONFIG.antennas, most=SIZE) as line,
    ):
        found = gather(line, 10 * SIZE)
        while not broker.counters()["base_silent"]:
            time.sleep(0.05)
        slot = broker.slot
        assert slot < SLOTS / 2
        time.sleep(0.2)
        assert broker.slot == slot
        found += gather(line, 10**9)
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), expected)
    assert [event.what for event in broker.events] == ["asks for nothing", "is back"]
    assert broker.counters()["silent_slots"] == 0


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="user 6"):
        Broker(CONFIG, {6: f"ipc://{tmp_path}/user"})
    with pytest.raises(ConfigError, match="other machines"):
        Broker(CONFIG, {}, "tcp://0.0.0.0:*")
    with pytest.raises(ConfigError, match="cannot connect to user 1"):
        Broker(CONFIG, {1: "nonsense"}, f"ipc://{tmp_path}/base")
    with pytest.raises(ConfigError, match="cannot bind"):
        Broker(CONFIG, {}, "ipc:///nowhere/at/all")
    with pytest.raises(ConfigError, match="user 9"):
        Waves(CONFIG, 0, (9,))
