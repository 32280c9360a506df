"""The block gives what the library gives, with tags; gaps as a radio tags them; and frames that the receivers decode."""

from __future__ import annotations

import functools
import math
import threading
import time

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import itertools

import pmt
import torch
from gnuradio import blocks, gr, massaccess

from massaccess import SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.simulate import Population
from massaccess.forward.transmit import Sender
from massaccess.forward.waveform import matched
from massaccess.rng import complex_normal
from massaccess.synchronisation import Synchronizer

ON_AIR = {"pilot_len": 16, "data_len": 24, "samples_per_symbol": 4, "preamble_len": 16, "guard_len": 8}
CONFIG = SystemConfig(users=12, rows=2, columns=4, activity=0.25, sample_rate_hz=1e6, **ON_AIR)
SLOT, M = CONFIG.burst.slot_samples, CONFIG.antennas
BEGIN = (1_700_000_000, 0.999)


@functools.cache
def samples_of(slots, seed=5, snr_db=20.0):
    """[n antennas] of an array whose oscillator is off by 2 % of the symbol rate; users keep channels; slots begin 40 samples late."""
    sent = np.concatenate([Sender(CONFIG, seed).slot(slot).samples for slot in range(slots)])
    draw = torch.Generator().manual_seed(seed)
    channel = complex_normal(CONFIG.users, M, generator=draw).numpy()
    rx = np.concatenate([np.zeros((40, M)), sent @ channel, np.zeros((8, M))])
    noise = complex_normal(*rx.shape, generator=draw).numpy() * math.sqrt(3 * 10 ** (-snr_db / 10))
    turning = np.exp(2j * math.pi * 0.005 * np.arange(len(rx)))[:, None]
    return (rx * turning + noise).astype(np.complex64)


def moment(sample):
    whole, fraction = divmod(BEGIN[1] + sample / 1e6, 1)
    return BEGIN[0] + int(whole), fraction


def tag(offset, key, value):
    made = gr.tag_t()
    made.offset, made.key, made.value = offset, pmt.intern(key), massaccess._base.to_pmt(value)
    return made


def pieces_of(length, gaps, seed=4):
    """(first, end) of what is left of samples 0 .. length between so many gaps."""
    rng = np.random.default_rng(seed)
    kept = 1 + rng.exponential(1.6 * SLOT, gaps).astype(int)
    kept[::9] = 1 + rng.integers(3, size=len(kept[::9]))
    lost = np.where(rng.random(gaps) < 0.6, rng.integers(1, 9, gaps), rng.integers(1, 3 * SLOT, gaps))
    starts = np.concatenate([[0], np.cumsum(kept + lost)])
    assert starts[-1] < length
    return [*zip(starts[:-1].tolist(), (starts[:-1] + kept).tolist(), strict=True), (int(starts[-1]), length)]


class Chain(gr.top_block):
    """Samples with tags, as a radio gives them -> synchronizer -> sink."""

    def __init__(self, pieces=None, slots=120, output="waveform", tags=(), items=0, **options):
        gr.top_block.__init__(self)
        samples = samples_of(slots)
        self.pieces = pieces or [(0, len(samples))]
        told, offset = [tag(0, "rx_rate", 1e6), tag(0, "rx_freq", 3.5e9), tag(0, "calibration", "roof"), *tags], 0
        for first, end in self.pieces:
            told.append(tag(offset, "rx_time", moment(first)))
            offset += end - first
        self.stream = np.concatenate([samples[first:end] for first, end in self.pieces])
        self.source = blocks.vector_source_c(self.stream.reshape(-1).tolist(), False, M, told)
        self.sync = massaccess.synchronizer(M, **ON_AIR, output=output, **options)
        length = (CONFIG.burst.rows if output == "waveform" else CONFIG.frame_len) * M
        self.sink = blocks.vector_sink_c(length)
        self.copy = blocks.copy(8 * M)
        if items:
            self.copy.set_max_noutput_items(items)
        self.connect(self.source, self.copy, self.sync, self.sink)

    @property
    def frames(self):
        return np.array(self.sink.data(), np.complex64).reshape(-1, self.sink.input_signature().sizeof_stream_item(0) // 8 // M, M)

    def tags(self, key):
        return [(found.offset, pmt.to_python(found.value)) for found in self.sink.tags() if str(found.key) == key]


def library(pieces, slots=120):
    samples, sync, frames = samples_of(slots), Synchronizer(CONFIG.burst, M, sample_rate_hz=1e6), []
    for first, end in pieces:
        frames += sync.push(samples[first:end], time=moment(first), rate=1e6, freq=3.5e9)
    return frames + sync.flush(), sync


@pytest.mark.parametrize("items", [0, 97])
def test_frames_are_those_of_the_library(items):
    tb = Chain(items=items)
    massaccess.run(tb)
    wanted, sync = library(tb.pieces)
    assert len(wanted) == 120
    np.testing.assert_array_equal(tb.frames, np.stack([frame.rows for frame in wanted]))
    assert tb.tags("frame") == [(row, frame.frame) for row, frame in enumerate(wanted)]
    assert tb.tags("rx_freq") == [(0, 3.5e9)]
    assert tb.tags("rx_rate") == [(0, 1e6)]
    assert tb.tags("calibration") == [(0, "roof")]
    told = tb.tags("noise_var")
    assert told[0] == (0, wanted[0].noise_var)
    assert len(told) < 20
    (row, (seconds, fraction)), *_ = tb.tags("rx_time")
    assert row == 0
    assert (seconds - BEGIN[0]) + (fraction - BEGIN[1]) == pytest.approx(40e-6, abs=1e-6)
    stats = tb.sync.stats()
    assert {name: stats[name] for name in sync.counters} == sync.counters
    assert stats["locked"]
    assert stats["cfo_hz"] == pytest.approx(5000, abs=50)


def test_symbols_are_those_of_the_matched_filter():
    waves, symbols = Chain(), Chain(output="symbols")
    massaccess.run(waves)
    massaccess.run(symbols)
    wanted = matched(torch.from_numpy(waves.frames), CONFIG.burst)
    torch.testing.assert_close(torch.from_numpy(symbols.frames), wanted, atol=1e-4, rtol=1e-4)


def test_a_thousand_overflows():
    """Tagged as UHD does: rx_time on the first item after each. Every whole slot comes, at its place, with its number."""
    slots = 3400
    pieces = pieces_of(len(samples_of(slots)), 1000)
    tb = Chain(pieces, slots, epoch=(BEGIN[0], BEGIN[1] + 40e-6))
    massaccess.run(tb)
    stats = tb.sync.stats()
    assert (stats["gaps"], stats["locks"], stats["lock_lost"], stats["restarts"]) == (1000, 1, 0, 0)
    assert stats["lost_samples"] == sum(after[0] - before[1] for before, after in itertools.pairwise(pieces))
    numbers = [number for _, number in tb.tags("frame")]
    whole = {n for first, end in pieces for n in range(max(-(-(first - 40) // SLOT), 0), (end - 40) // SLOT) if n < slots}
    assert whole <= set(numbers)
    assert len(set(numbers)) == len(numbers) == stats["frames"]
    assert len(set(numbers) - whole) < 20  # a gap took a sample or two of their guard
    assert stats["frames"] + stats["partial"] + stats["missing"] == max(numbers) + 1

    sent = Population(CONFIG, 5)
    active = torch.cat([sent.transmit(block).samples for block in range(slots // 16 + 1)])
    channel = complex_normal(CONFIG.users, M, generator=torch.Generator().manual_seed(5))
    wanted = active[numbers] @ channel
    seen = matched(torch.from_numpy(tb.frames), CONFIG.burst)
    likeness = (wanted.conj() * seen).sum((1, 2)).abs() / (wanted.norm(dim=(1, 2)) * seen.norm(dim=(1, 2)))
    busy = wanted.norm(dim=(1, 2)) > 0
    assert likeness[busy].min() > 0.8
    for row, (seconds, fraction) in tb.tags("rx_time"):
        place = (seconds - BEGIN[0] + fraction - BEGIN[1]) * 1e6 - 40
        assert place == pytest.approx(numbers[row] * SLOT, abs=0.5)


@pytest.mark.parametrize("output", ["waveform", "symbols"])
def test_receivers_decode_what_comes_out(output):
    tb = Chain(output=output)
    waveform = dict(ON_AIR) if output == "waveform" else {"pilot_len": 16, "data_len": 24}
    receiver = massaccess.receiver("jcedd", users=12, rows=2, columns=4, activity=0.25, max_batch=16, **waveform)
    tb.packets = blocks.message_debug()
    tb.connect(tb.sync, receiver)
    tb.msg_connect(receiver, "packets", tb.packets, "store")
    massaccess.run(tb)
    population = Population(CONFIG, 5)
    awake = torch.cat([population.transmit(block).active for block in range(8)])[:120]
    found = set()
    for index in range(tb.packets.num_messages()):
        known = pmt.to_python(pmt.car(tb.packets.get_message(index)))
        found.add((known["frame"], known["user"]))
    sent = {(frame, user) for frame, user in awake.nonzero().tolist()}
    assert found <= sent
    assert len(found) > 0.9 * len(sent)


def test_activity_detector_takes_waveforms():
    tb = Chain()
    detector = massaccess.activity_detector("covariance", users=12, rows=2, columns=4, activity=0.25, **ON_AIR)
    tb.activity = blocks.vector_sink_f(12)
    tb.connect(tb.sync, detector, tb.activity)
    massaccess.run(tb)
    awake = torch.cat([Population(CONFIG, 5).transmit(block).active for block in range(8)])[:120]
    found = torch.tensor(tb.activity.data()).reshape(-1, 12) > 0.5
    assert (found != awake).float().mean() < 0.02


def test_retunes_and_foreign_rates_are_counted():
    start = 60 * SLOT + 40
    tb = Chain(tags=[tag(start, "rx_freq", 3.6e9), tag(start + 10 * SLOT, "rx_rate", 2e6), tag(start + 12 * SLOT, "rx_rate", 1e6)])
    massaccess.run(tb)
    stats = tb.sync.stats()
    assert stats["retunes"] == 1
    assert stats["foreign_samples"] == 2 * SLOT
    assert [value for _, value in tb.tags("rx_freq")] == [3.5e9, 3.6e9]


def test_noise_variance_may_change_while_running():
    tb = Chain(noise_var=0.5)
    tb.sync.set_noise_var(0.25)
    massaccess.run(tb)
    assert tb.tags("noise_var") == [(0, 0.25)]


def test_stats_are_published():
    tb = Chain()
    tb.stats = blocks.message_debug()
    tb.msg_connect(tb.sync, "stats", tb.stats, "store")
    massaccess.run(tb)
    known = pmt.to_python(tb.stats.get_message(tb.stats.num_messages() - 1))
    assert known["frames"] == 120
    assert known["locked"] is True
    assert len(known["rms"]) == len(known["clipped_antennas"]) == M


def test_it_stops_at_once():
    """An endless source, and a sink that takes nothing for a while."""
    tb = gr.top_block()
    tb.source = blocks.vector_source_c(samples_of(120)[40:][: 119 * SLOT].reshape(-1).tolist(), True, M)
    tb.sync = massaccess.synchronizer(M, **ON_AIR)
    tb.sink = blocks.null_sink(CONFIG.burst.rows * M * 8)
    tb.connect(tb.source, tb.sync, tb.sink)
    tb.start()
    deadline = time.monotonic() + 30
    while not tb.sync.stats()["frames"] and time.monotonic() < deadline:
        time.sleep(0.02)
    tb.sync._frames.interrupt()
    tb.stop()
    ended = threading.Thread(target=tb.wait, daemon=True)
    ended.start()
    ended.join(30)
    assert not ended.is_alive()
    assert tb.sync.stats()["frames"]


def test_dropped_samples_are_a_gap():
    from gnuradio.massaccess._sample_queue import Chunk, SampleQueue

    queue = SampleQueue(100, "drop_oldest")
    queue.put(Chunk(np.zeros((60, 2)), (0, 0.0), 1e6, 3.5e9, (("calibration", "roof"),)))
    queue.put(Chunk(np.zeros((60, 2)), (0, 60e-6)))
    assert queue.dropped == 60
    chunk = queue.take()
    assert (chunk.time, chunk.rate, chunk.freq, chunk.tags) == ((0, 60e-6), 1e6, 3.5e9, (("calibration", "roof"),))
    queue.close()
    assert queue.take() is None


@pytest.mark.parametrize(
    ("options", "error", "cure"),
    [
        ({"preamble_len": 4}, ConfigError, "8 symbols or more"),
        ({"output": "bits"}, UnknownNameError, "symbols, waveform"),
        ({"overflow": "drop"}, UnknownNameError, "block, drop_oldest"),
        ({"queue_slots": 0}, ConfigError, "1 or more"),
        ({"noise_var": -2.0}, ConfigError, "positive"),
        ({"antennas": 1009, "pilot_len": 1009}, ConfigError, "factors of 2"),
    ],
)
def test_errors_name_the_cure(options, error, cure):
    with pytest.raises(error, match=cure):
        massaccess.synchronizer(**{**ON_AIR, **options})


def test_a_second_run_counts_on():
    """A flowgraph that starts again: whatever was between is not known, and every frame says its time anew."""
    tb = Chain()
    massaccess.run(tb)
    tb.source.rewind()
    tb.source.set_data(tb.stream.reshape(-1).tolist(), [tag(0, "rx_time", (5, 0.0))])
    massaccess.run(tb)
    numbers = [number for _, number in tb.tags("frame")]
    assert numbers[-120:] == list(range(120, 240))
    assert tb.sync.stats()["restarts"] == 1
    assert tb.sync.stats()["locks"] == 2
