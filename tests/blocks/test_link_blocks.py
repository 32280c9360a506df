"""Recording, replaying and publishing from a flowgraph: bit-exact, tagged, and never stuck."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import ABSENT

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, FormatError, MassaccessError
from massaccess.link.listener import Listener
from massaccess.link.metadata import Metadata, metadata_of
from massaccess.link.recorder import Recorder
from massaccess.link.recording import open_recording

CONFIG = SystemConfig(users=8, rows=2, columns=2, pilot_len=6, data_len=10, channel="rayleigh", adc_bits=3, active_users=2)
BURST = ("samples_per_symbol", "preamble_len", "guard_len", "roll_off", "timing_offset", "common_cfo_hz")
FIELDS = {name: value for name, value in CONFIG.to_dict().items() if name not in BURST}
VLEN = CONFIG.frame_len * CONFIG.antennas
SHAPES = {"activity": (CONFIG.users,), "symbols": (CONFIG.data_len, CONFIG.users), "channel": (CONFIG.users, CONFIG.antennas)}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((*shape, 2)).astype(np.float32).view(np.complex64)[..., 0]


def tag(offset, key, value):
    found = gr.tag_t()
    found.offset, found.key, found.value = offset, pmt.intern(key), value
    return found


def numbered(indices):
    return [tag(row, "frame", pmt.from_uint64(int(index))) for row, index in enumerate(indices)]


def graph(*chain):
    """A flowgraph of blocks in a row, which keeps them alive."""
    tb = gr.top_block(catch_exceptions=True)
    tb.kept = chain
    tb.connect(*chain)
    return tb


def record(path, frames, tags, **options):
    source = blocks.vector_source_c(frames.ravel().tolist(), False, VLEN, tags)
    recorder = massaccess.sigmf_recorder(str(path), **{**FIELDS, **options})
    massaccess.run(graph(source, recorder))
    return recorder


def replay(path, **options):
    """Samples [frames T M], the frame indices, and the other tags as (item, name, value)."""
    source, sink = massaccess.sigmf_replay(str(path), **options), blocks.vector_sink_c(VLEN)
    massaccess.run(graph(source, sink))
    tags = sorted((found.offset, str(found.key), pmt.to_python(found.value)) for found in sink.tags())
    samples = np.array(sink.data(), np.complex64).reshape(-1, CONFIG.frame_len, CONFIG.antennas)
    return samples, [value for _, key, value in tags if key == "frame"], [found for found in tags if found[1] != "frame"]


class Results(gr.sync_block):
    """Stands in for a receiver: tagged results of ``frames`` frames, at ``pause`` seconds each."""

    def __init__(self, frames, names=tuple(SHAPES), pause=0.0, tags=()):
        signature = [(np.float32 if name == "activity" else np.complex64, int(np.prod(SHAPES[name]))) for name in names]
        gr.sync_block.__init__(self, "results", None, signature)
        self.values = {name: noise(frames, *SHAPES[name], seed=row) for row, name in enumerate(names)}
        self.values["activity"] = self.values["activity"].real.copy()
        self.frames, self.pause, self.made, self.tags_to_make = frames, pause, 0, tags

    def work(self, input_items, output_items):
        count = min(len(output_items[0]), self.frames - self.made, 4)
        if not count:
            return -1
        time.sleep(self.pause * count)
        for port, values in enumerate(self.values.values()):
            output_items[port][:count] = values[self.made : self.made + count].reshape(count, -1)
            for row in range(count):
                self.add_item_tag(port, self.made + row, pmt.intern("frame"), pmt.from_uint64(100 + self.made + row))
        for row, key, value in self.tags_to_make:
            if self.made <= row < self.made + count:
                self.add_item_tag(0, row, pmt.intern(key), value)
        self.made += count
        return count


def publish(source, publisher):
    tb = gr.top_block()
    tb.kept = source, publisher
    for port in range(len(source.values)):
        tb.connect((source, port), (publisher, port))
    return tb


def publisher(**options):
    sizes = {"users": CONFIG.users, "antennas": CONFIG.antennas, "data_len": CONFIG.data_len, "endpoint": "tcp://127.0.0.1:*"}
    return massaccess.zmq_publisher(**{**sizes, **options})


@pytest.fixture
def sigint():
    """Gives SIGINT back its handler; GNU Radio programs set their own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


# --- recorder and replay --------------------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_replayed(tmp_path):
    frames = noise(150, CONFIG.frame_len, CONFIG.antennas)
    recorder = record(tmp_path / "air", frames, [*numbered(range(7, 157)), tag(0, "noise_var", pmt.from_double(0.25))], seed=5)
    assert recorder.frames == 150
    samples, indices, tags = replay(tmp_path / "air")
    assert np.array_equal(samples, frames) and indices == list(range(7, 157))
    assert (0, "noise_var", 0.25) in tags and (0, "adc_bits", 3) in tags and {item for item, *_ in tags} == {0}
    assert open_recording(tmp_path / "air").config == CONFIG and open_recording(tmp_path / "air").seed == 5


def test_tags_come_back_where_they_were(tmp_path):
    time_tag = pmt.make_tuple(pmt.from_uint64(1_700_000_000), pmt.from_double(0.125))
    indices = [*range(20), *range(25, 45)]
    tags = [tag(0, "rx_time", time_tag), tag(0, "rx_freq", pmt.from_double(2.4e9)), tag(30, "noise_var", pmt.from_double(2.0))]
    record(tmp_path / "air", noise(40, VLEN), [*numbered(indices), *tags, tag(3, "somebody_elses", pmt.PMT_T)])
    assert [run.metadata.frame for run in open_recording(tmp_path / "air").runs] == [0, 25, 35]
    _, found, told = replay(tmp_path / "air")
    assert found == indices
    places = [(item, name) for item, name, _ in told if name in ("rx_time", "noise_var")]
    assert places == [(0, "noise_var"), (0, "rx_time"), (30, "noise_var")]
    assert (0, "rx_time", (1_700_000_000, 0.125)) in told and (0, "rx_freq", 2.4e9) in told


def test_a_stream_without_frame_tags_counts_from_0(tmp_path):
    record(tmp_path / "air", noise(5, VLEN), [])
    assert replay(tmp_path / "air")[1] == [0, 1, 2, 3, 4]


def test_the_simulation_survives_the_recording(tmp_path):
    from massaccess.forward.simulate import Simulation

    _, obs = Simulation(CONFIG, seed=2).frames(0, 12)
    rx = np.concatenate([obs.pilot_rx.numpy(), obs.data_rx.numpy()], 1)
    record(tmp_path / "air", rx, numbered(range(12)), seed=2)
    metadata, samples = next(open_recording(tmp_path / "air").chunks(12))
    assert np.array_equal(samples, rx)
    assert metadata.noise_var == obs.noise_var and metadata.adc_scale == obs.front_end.scale


def test_pausing_leaves_a_gap(tmp_path):
    recorder = record(tmp_path / "air", noise(5, VLEN), [], record=False)
    assert recorder.frames == 0 and not os.listdir(tmp_path)
    recorder.set_record(True)
    assert recorder._record


def test_a_second_start_records_under_a_second_name(tmp_path):
    recorder = massaccess.sigmf_recorder(str(tmp_path / "air"), **FIELDS)
    for seed in (0, 1):
        massaccess.run(graph(blocks.vector_source_c(noise(3, VLEN, seed=seed).ravel().tolist(), False, VLEN), recorder))
    assert np.array_equal(open_recording(tmp_path / "air-2").samples.ravel(), noise(3, VLEN, seed=1).ravel())


def test_recorder_defaults_are_those_of_the_system():
    import inspect

    defaults = {name: parameter.default for name, parameter in inspect.signature(massaccess.sigmf_recorder.__init__).parameters.items()}
    for entry in dataclasses.fields(SystemConfig):
        if entry.name in BURST:  # a waveform is recorded by array_recorder
            continue
        assert defaults[entry.name] == (ABSENT[entry.name] if entry.default is None else entry.default)


def test_an_existing_recording_stops_the_flowgraph_before_it_starts(tmp_path):
    record(tmp_path / "air", noise(1, VLEN), [])
    with pytest.raises(ConfigError, match="overwrite=True"):
        massaccess.sigmf_recorder(str(tmp_path / "air"), **FIELDS)


def test_a_tag_that_cannot_be_ends_the_flowgraph_with_the_reason(tmp_path):
    with pytest.raises(MassaccessError, match="noise_var is -1"):
        record(tmp_path / "air", noise(9, VLEN), [tag(4, "noise_var", pmt.from_double(-1.0))])
    assert len(open_recording(tmp_path / "air")) == 4


def test_wrong_vlen_names_the_right_one(tmp_path):
    record(tmp_path / "air", noise(1, VLEN), [])
    with pytest.raises(ConfigError, match=f"set it to {VLEN}"):
        massaccess.sigmf_replay(str(tmp_path / "air"), vlen=VLEN + 4)


def test_a_flowgraph_with_another_vlen_does_not_connect(tmp_path):
    recorder = massaccess.sigmf_recorder(str(tmp_path / "air"), **FIELDS)
    with pytest.raises(ValueError, match="itemsize mismatch"):
        graph(blocks.vector_source_c([0] * (VLEN + 4), False, VLEN + 4), recorder)


def test_a_truncated_recording_is_refused_or_salvaged(tmp_path):
    record(tmp_path / "air", noise(10, VLEN), [])
    os.truncate(tmp_path / "air.sigmf-data", 9 * VLEN * 8 + 17)
    with pytest.raises(FormatError, match="salvage"):
        massaccess.sigmf_replay(str(tmp_path / "air"))
    samples, indices, _ = replay(tmp_path / "air", salvage=True)
    assert indices == list(range(9)) and np.array_equal(samples.reshape(9, -1), noise(10, VLEN)[:9])


def test_repeat_goes_round(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(noise(3, VLEN), metadata_of(CONFIG, frame=0))
        recorder.write(noise(2, VLEN), metadata_of(CONFIG, frame=10))
    source, head, sink = massaccess.sigmf_replay(str(tmp_path / "air"), repeat=True), blocks.head(8 * VLEN, 12), blocks.vector_sink_c(VLEN)
    massaccess.run(graph(source, head, sink))
    indices = [pmt.to_uint64(found.value) for found in sorted(sink.tags(), key=lambda found: found.offset) if str(found.key) == "frame"]
    assert indices == [0, 1, 2, 10, 11] * 2 + [0, 1]


RECORDING_PROGRAM = """
import sys
import numpy as np
from gnuradio import blocks, gr, massaccess
source = blocks.vector_source_c([0.5] * {vlen}, True, {vlen})
throttle = blocks.throttle(8 * {vlen}, 2000.0)
recorder = massaccess.sigmf_recorder(sys.argv[1], rows=2, columns=2, pilot_len=6, data_len=10, channel="rayleigh")
tb = gr.top_block()
tb.connect(source, throttle, recorder)
print("ready", flush=True)
massaccess.run(tb)
"""


def test_ctrl_c_leaves_a_valid_recording(tmp_path):
    program = [sys.executable, "-c", RECORDING_PROGRAM.format(vlen=VLEN), str(tmp_path / "air")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    part = wait_for(lambda: next((file for file in Path(tmp_path).glob(".air*") if file.stat().st_size > 50 * VLEN * 8), None))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert part is not None and len(open_recording(tmp_path / "air")) > 50
    assert sorted(os.listdir(tmp_path)) == ["air.sigmf-data", "air.sigmf-meta"]


def wait_for(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


# --- publisher ------------------------------------------------------------------------------------------------------------------------


def collect(listener, received):
    thread = threading.Thread(target=lambda: received.extend(listener))
    thread.start()
    return thread


@pytest.mark.parametrize("mode", ["pub", "push"])
def test_listeners_hear_every_frame_bit_by_bit(mode):
    source, sink, received = Results(100), publisher(mode=mode, high_water_mark=1000), []
    with Listener(sink.endpoint, mode=mode) as listener:
        thread = collect(listener, received)
        assert sink.wait_for_listener(10)
        massaccess.run(publish(source, sink))
        thread.join(10)
        assert (listener.lost, listener.bad, listener.ended) == (0, 0, True)
    assert np.array_equal(np.concatenate([message["frame"] for message in received]), np.arange(100, 200))
    for name, values in source.values.items():
        assert np.array_equal(np.concatenate([message[name] for message in received]), values)


@pytest.mark.parametrize("names", [("activity", "symbols"), ("activity", "channel"), ("activity",)])
def test_symbols_and_channels_may_stay_at_home(names):
    options = {size: 0 for size, name in (("data_len", "symbols"), ("antennas", "channel")) if name not in names}
    sink, received = publisher(mode="push", **options), []
    with Listener(sink.endpoint, mode="push") as listener:
        thread = collect(listener, received)
        massaccess.run(publish(Results(10, names), sink))
        thread.join(10)
    assert set(received[0].arrays) == {"frame", *names}


def test_messages_break_where_the_metadata_changes():
    tags = [(0, "receiver", pmt.intern("jcedd")), (0, "noise_var", pmt.from_double(0.5)), (6, "noise_var", pmt.from_double(0.75))]
    sink, received = publisher(mode="push"), []
    with Listener(sink.endpoint, mode="push") as listener:
        thread = collect(listener, received)
        massaccess.run(publish(Results(12, tags=tags), sink))
        thread.join(10)
    for message in received:
        expected = 0.5 if message["frame"][0] < 106 else 0.75
        assert message.metadata == Metadata(frame=int(message["frame"][0]), receiver="jcedd", noise_var=expected)
    assert 106 in [message["frame"][0] for message in received]


def test_pub_without_a_listener_runs_free_and_says_so():
    sink = publisher(linger=0.1)
    massaccess.run(publish(Results(40), sink))
    assert sink.sent == 0 and sink.dropped > 0


def test_push_without_a_listener_waits_and_still_stops_at_once():
    sink = publisher(mode="push", linger=0.1)
    tb = publish(Results(40), sink)
    tb.start()
    time.sleep(0.3)
    began = time.monotonic()
    tb.stop()
    tb.wait()
    assert sink.sent == 0 and time.monotonic() - began < 2


def test_push_to_a_stalled_listener_stops_at_once():
    sink = publisher(mode="push", linger=0.1, high_water_mark=1, max_batch=1)
    with Listener(sink.endpoint, mode="push", high_water_mark=1):
        tb = publish(Results(100_000), sink)
        tb.start()
        stalled = wait_for(lambda: sink.sent == (time.sleep(0.3), sink.sent)[1])
        began = time.monotonic()
        tb.stop()
        tb.wait()
    assert stalled is not None and time.monotonic() - began < 2


def test_a_listener_that_vanishes_does_not_stop_a_pub():
    sink = publisher(high_water_mark=2, linger=0.1)
    listener = Listener(sink.endpoint)
    assert sink.wait_for_listener(10)
    tb = publish(Results(400, pause=0.001), sink)
    tb.start()
    next(listener)
    listener.close()
    tb.wait()
    assert massaccess.failures.first is None and sink.sent > 0


def test_other_machines_need_permission():
    with pytest.raises(ConfigError, match="allow_remote=True"):
        publisher(endpoint="tcp://0.0.0.0:*")


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="max_batch"):
        publisher(max_batch=0)


def test_a_flowgraph_that_starts_twice_publishes_twice():
    sink = publisher(linger=0.1)
    for _ in range(2):
        massaccess.run(publish(Results(8), sink))
    assert sink.dropped > 0
