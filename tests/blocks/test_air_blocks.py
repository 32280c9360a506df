"""Samples of an array in flowgraphs: made, recorded, played back, and brought over sockets, also to and from GNU Radio's own blocks."""

from __future__ import annotations

import contextlib
import itertools
import threading

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess, zeromq

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError
from massaccess.forward.air import Air
from massaccess.forward.impairments import Impairments
from massaccess.forward.simulate import Population, Propagation
from massaccess.link.air_broker import Broker
from massaccess.link.air_user import Transmitters, Waves

CONFIG = SystemConfig(
    users=6,
    rows=1,
    columns=4,
    pilot_len=8,
    data_len=8,
    activity=0.4,
    channel="rayleigh",
    snr_db=20.0,
    samples_per_symbol=4,
    preamble_len=8,
    guard_len=8,
    timing_offset=0.3,
    cfo_hz=100.0,
    sample_rate_hz=1e6,
)
SIZE = CONFIG.burst.slot_samples
FRAMES = 40
IMPAIRMENTS = {"chain_gain_db": 1.0, "phase_noise_hz": 50.0, "converter_bits": 10}


def make(block, config=CONFIG, **changes):
    names = block.__init__.__code__.co_varnames[: block.__init__.__code__.co_argcount]
    return block(**{**{name: value for name, value in config.to_dict().items() if name in names}, **changes})


def tags(sink):
    """(offset, key, value), in order."""
    return sorted(((found.offset, str(found.key), pmt.to_python(found.value)) for found in sink.tags()), key=lambda row: row[:2])


def samples(sink):
    return np.array(sink.data(), np.complex64).reshape(-1, CONFIG.antennas)


class Simulated(gr.top_block):
    """population -> air_simulator -> sink, and whatever else is asked for."""

    def __init__(self, record="", **changes):
        gr.top_block.__init__(self)
        self.population = make(massaccess.population, seed=5, frames=FRAMES)
        self.air = make(massaccess.air_simulator, seed=5, **changes)
        self.array, self.truth = blocks.vector_sink_c(CONFIG.antennas), blocks.vector_sink_c(CONFIG.users * CONFIG.antennas)
        self.connect(self.population, self.air, self.array)
        self.connect((self.air, 1), self.truth)
        if record:
            self.recorder = make(massaccess.array_recorder, path=str(record), seed=5)
            self.connect(self.air, self.recorder)


def sent():
    return torch.cat([Population(CONFIG, 5).transmit(block).samples for block in range(3)])[:FRAMES]


def test_the_array_is_that_of_the_library():
    tb = Simulated(**IMPAIRMENTS)
    massaccess.run(tb)
    expected = Air(CONFIG, 5, Impairments(**IMPAIRMENTS)).push_frames(sent())
    np.testing.assert_array_equal(samples(tb.array), expected.numpy())
    truth = np.array(tb.truth.data(), np.complex64).reshape(FRAMES, CONFIG.users, CONFIG.antennas)
    np.testing.assert_allclose(truth[17], Propagation(CONFIG, 5).channel(1)[0][1] * tb.air.air.chains.gain, rtol=1e-5)
    assert [row for row in tags(tb.truth) if row[1] == "frame"] == [(frame, "frame", frame) for frame in range(FRAMES)]
    assert tags(tb.array) == [(0, "rx_freq", 3.5e9), (0, "rx_rate", 1e6), (0, "rx_time", (0, 0.0))]


def test_a_stream_may_begin_with_any_slot():
    tb = gr.top_block()
    number = gr.python_to_tag((0, pmt.intern("frame"), pmt.from_uint64(20)))
    source = blocks.vector_source_c(sent()[20:].flatten().tolist(), False, CONFIG.frame_len * CONFIG.users, [number])
    air, sink = make(massaccess.air_simulator, seed=5), blocks.vector_sink_c(CONFIG.antennas)
    tb.connect(source, air, sink)
    massaccess.run(tb)
    np.testing.assert_array_equal(samples(sink), Air(CONFIG, 5).push_frames(sent()).numpy()[20 * SIZE :])
    assert tags(sink)[-1] == (0, "rx_time", (0, pytest.approx(20 * SIZE / 1e6)))


def test_overflows_lose_samples_and_tell_the_time():
    tb = Simulated(overflow_chance=0.3, overflow_samples=200)
    massaccess.run(tb)
    whole = Air(CONFIG, 5).push_frames(sent()).numpy()
    found, places = samples(tb.array), [(offset, round(value[1] * 1e6)) for offset, key, value in tags(tb.array) if key == "rx_time"]
    edges = [offset for offset, _ in places] + [len(found)]
    for (offset, number), stop in zip(places, edges[1:], strict=True):
        np.testing.assert_array_equal(found[offset:stop], whole[number : number + stop - offset])
    lost = sum(two[1] - one[1] - (two[0] - one[0]) for one, two in itertools.pairwise(places))
    assert tb.air.overflows == len(places) - 1 > 5
    assert tb.air.lost_samples == lost > 0


def test_a_replay_is_what_was_recorded(tmp_path):
    tb = Simulated(tmp_path / "array", overflow_chance=0.2, overflow_samples=100)
    massaccess.run(tb)
    assert tb.recorder.samples == len(samples(tb.array))
    again = gr.top_block()
    replay, sink = massaccess.array_replay(str(tmp_path / "array")), blocks.vector_sink_c(CONFIG.antennas)
    again.connect(replay, sink)
    massaccess.run(again)
    np.testing.assert_array_equal(samples(sink), samples(tb.array))
    assert replay.config == CONFIG.replace(code="none") and replay.seed == 5
    assert tags(sink) == tags(tb.array)


def test_a_pause_is_a_gap(tmp_path):
    tb = gr.top_block()
    recorder = make(massaccess.array_recorder, path=str(tmp_path / "array"))
    source = blocks.vector_source_c(list(range(4 * 100)), False, 4)
    tb.connect(source, recorder)
    recorder.start()
    recorder._take(np.ones((30, 4), np.complex64), {"rx_time": (2, 0.5)})
    recorder.set_record(False)
    recorder._take(np.ones((30, 4), np.complex64), {})
    recorder.set_record(True)
    recorder._take(np.ones((30, 4), np.complex64), {})
    recorder.finish()
    replay = massaccess.array_replay(str(tmp_path / "array"))
    assert [(run.first, run.count, run.metadata.frame) for run in replay._recording.runs] == [(0, 30, 2_500_000), (30, 30, 2_500_060)]
    assert replay._time(replay._recording.runs[1]) == (2, pytest.approx(0.50006))


def test_repetitions_go_on_by_whole_slots(tmp_path):
    massaccess.run(Simulated(tmp_path / "array"))
    tb = gr.top_block()
    replay, head, sink = (
        massaccess.array_replay(str(tmp_path / "array"), repeat=True),
        blocks.head(8 * CONFIG.antennas, FRAMES * SIZE + 10),
        blocks.vector_sink_c(CONFIG.antennas),
    )
    tb.connect(replay, head, sink)
    massaccess.run(tb)
    times = [(offset, value) for offset, key, value in tags(sink) if key == "rx_time"]
    assert times == [(0, (0, 0.0)), (FRAMES * SIZE, (0, pytest.approx(FRAMES * SIZE / 1e6)))]
    np.testing.assert_array_equal(samples(sink)[FRAMES * SIZE :], samples(sink)[:10])


def test_frames_and_samples_are_not_mixed_up(tmp_path):
    massaccess.run(Simulated(tmp_path / "array"))
    with pytest.raises(ConfigError, match="array_replay"):
        massaccess.sigmf_replay(str(tmp_path / "array"))
    with pytest.raises(ConfigError, match="set it to 4"):
        massaccess.array_replay(str(tmp_path / "array"), vlen=64)
    with pytest.raises(ConfigError, match="samples_per_symbol=4"):
        massaccess.array_recorder(str(tmp_path / "other"), samples_per_symbol=1, preamble_len=0, guard_len=0)


# --- sockets --------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(step):
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
def broker(tmp_path, endpoints, slots=FRAMES):
    with Broker(CONFIG, endpoints, f"ipc://{tmp_path}/base", seed=5, slots=slots) as made, running(made.step):
        yield made


@contextlib.contextmanager
def users(tmp_path):
    where = {user: f"ipc://{tmp_path}/user{user}" for user in range(CONFIG.users)}
    with Transmitters(Waves(CONFIG, 5, range(CONFIG.users), slots=FRAMES), where, most=1000) as these, running(lambda: these.serve(0.02)):
        yield where


def expected(slots=FRAMES):
    waves = Waves(CONFIG, 5, range(CONFIG.users), slots=FRAMES)
    streams = torch.from_numpy(np.stack([waves(0, slots * SIZE, user) for user in range(CONFIG.users)], 1))
    air = Air(CONFIG, 5)
    return torch.cat([air.push(streams), air.flush()]).numpy()


def test_the_source_brings_the_air_with_its_time(tmp_path):
    with users(tmp_path) as there, broker(tmp_path, there) as air:
        tb = gr.top_block()
        source, sink = massaccess.air_source(1, 4, 1e6, 2.4e9, air.endpoint), blocks.vector_sink_c(CONFIG.antennas)
        tb.connect(source, sink)
        massaccess.run(tb)
    np.testing.assert_array_equal(samples(sink), expected())
    assert tags(sink) == [(0, "rx_freq", 2.4e9), (0, "rx_rate", 1e6), (0, "rx_time", (0, 0.0))]
    assert source.stats() == {"received": FRAMES * SIZE, "gaps": 0, "asked_again": source.stats()["asked_again"], "malformed": 0}


def test_a_source_without_a_broker_says_so(tmp_path):
    tb = gr.top_block()
    source, sink = massaccess.air_source(1, 4, endpoint=f"ipc://{tmp_path}/nobody", timeout=0.3), blocks.null_sink(32)
    tb.connect(source, sink)
    with pytest.raises(MassaccessError, match="massaccess air broker"):
        massaccess.run(tb)


def test_gnu_radios_own_source_reads_the_array(tmp_path):
    """zeromq.req_source of vlen antennas, which knows nothing of massaccess."""
    with users(tmp_path) as there, broker(tmp_path, there) as air:
        tb = gr.top_block()
        source, head, sink = zeromq.req_source(8, 4, air.endpoint, 100, False, -1), blocks.head(32, 10 * SIZE), blocks.vector_sink_c(4)
        tb.connect(source, head, sink)
        tb.run()
    np.testing.assert_array_equal(samples(sink), expected()[: 10 * SIZE])


def test_gnu_radios_own_sink_is_a_user(tmp_path):
    """One user is a flowgraph of stock blocks with zeromq.rep_sink, the others are ours; the air is the same."""
    with users(tmp_path) as there:
        wave = np.concatenate([Waves(CONFIG, 5, (2,))(0, FRAMES * SIZE, 2), np.zeros(100 * SIZE, np.complex64)])
        transmitter = gr.top_block()
        source, sink = blocks.vector_source_c(wave.tolist(), False), zeromq.rep_sink(8, 1, "tcp://127.0.0.1:*", 100, False, -1)
        transmitter.connect(source, sink)
        transmitter.start()
        try:
            with broker(tmp_path, {**there, 2: sink.last_endpoint()}, slots=20) as air:
                tb = gr.top_block()
                array, found = massaccess.air_source(1, 4, endpoint=air.endpoint), blocks.vector_sink_c(4)
                tb.connect(array, found)
                massaccess.run(tb)
        finally:
            transmitter.stop()
            transmitter.wait()
    np.testing.assert_array_equal(samples(found)[: 20 * SIZE - 40], expected(20)[: 20 * SIZE - 40])
