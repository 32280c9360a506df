"""The receiver blocks and the meter: the library's answers, and no frame lost without a count."""

from __future__ import annotations

import resource
import threading
import time

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import BlockFailure

from massaccess.errors import ConfigError, UnknownNameError
from massaccess.evaluate.metrics import Tally
from massaccess.forward.noise import estimate_noise_var
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

JOINT = "covariance+iterative-lmmse-ep"


def uplink(config, receiver, **options):
    options.setdefault("seed", 5)
    options.setdefault("frames", 40)
    options.setdefault("threads", 1)
    return massaccess.uplink(config, receiver, **options)


def counts(summary):
    return {name: value for name, value in summary.items() if name.endswith("_errors") or name == "frames"}


def library(config, receiver, frames, seed=5):
    truth, obs = Simulation(config, seed).frames(0, frames)
    tally = Tally()
    tally.add(config, truth, create(receiver)(obs, generator=torch.Generator().manual_seed(0)))
    return tally.summary()


class Stream(gr.top_block):
    """Samples [B, T * M] with tags into a receiver block, and all that comes out."""

    def __init__(self, samples, receiver, tags=(), noise_tag=True, repeat=False):
        gr.top_block.__init__(self)
        length = samples.shape[1]
        marks = [mark(0, "noise_var", pmt.from_double(0.1)), *tags] if noise_tag else list(tags)
        self.source = blocks.vector_source_c(samples.ravel().tolist(), repeat, length, marks)
        self.receiver = receiver
        self.activity = blocks.vector_sink_f(receiver.output_signature().sizeof_stream_item(0) // 4)
        self.messages = {port: blocks.message_debug() for port in receiver.PORTS}
        self.connect(self.source, receiver, self.activity)
        for port, sink in self.messages.items():
            self.msg_connect(receiver, port, sink, "store")

    def frames(self):
        return [pmt.to_python(tag.value) for tag in sorted(self.activity.tags(), key=lambda tag: tag.offset) if str(tag.key) == "frame"]


def mark(offset, key, value):
    found = gr.tag_t()
    found.offset, found.key, found.value = offset, pmt.intern(key), value
    return found


def received(config, frames, seed=5):
    _, obs = Simulation(config, seed).frames(0, frames)
    return torch.cat([obs.pilot_rx, obs.data_rx], 1).reshape(frames, -1).numpy()


# --- answers --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"adc_bits": 2}, {"channel": "uma", "rows": 8, "columns": 8}, {"modulation": "16qam", "snr_db": 20.0}]
)
def test_the_flowgraph_answers_like_the_library(config, changes):
    config = config.replace(**changes)
    tb = uplink(config, JOINT)
    massaccess.run(tb)
    summary = tb.meter.summary()
    assert (summary["compared"], summary["lost"], summary["unasked"]) == (40, 0, 0)
    assert counts(summary) == counts(library(config, JOINT, 40))
    assert summary["nmse_db"] == pytest.approx(library(config, JOINT, 40)["nmse_db"], abs=1e-2)


def test_known_powers_reach_the_receiver(config):
    config = config.replace(channel="pathloss", power_control=False)
    tb = uplink(config, JOINT, frames=16)
    massaccess.run(tb)
    assert counts(tb.meter.summary()) == counts(library(config, JOINT, 16))


def test_a_detector_answers_like_the_library(config):
    tb = uplink(config.replace(data_len=0), "covariance")
    assert isinstance(tb.receiver, massaccess.activity_detector)
    massaccess.run(tb)
    assert counts(tb.meter.summary()) == counts(library(config.replace(data_len=0), "covariance", 40))


def test_the_detector_takes_the_activity_of_any_receiver(cell, config):
    tb = Stream(received(config, 8), cell(massaccess.activity_detector, receiver=JOINT))
    massaccess.run(tb)
    assert tb.receiver.stats()["frames"] == 8


def test_equal_seeds_give_equal_digests_whatever_the_scheduler_does(config):
    digests = set()
    for piece in (1, 3, 64):
        tb = uplink(config, "energetic", frames=50, max_batch=16)
        tb.channel.set_max_noutput_items(piece)
        massaccess.run(tb)
        digests.add(tb.receiver.digest())
    assert len(digests) == 1
    other = uplink(config, "energetic", frames=50, max_batch=16, seed=6)
    massaccess.run(other)
    assert other.receiver.digest() not in digests


def test_packets_carry_the_payloads_that_were_sent(cell, config):
    config = config.replace(snr_db=25.0)
    simulation = Simulation(config, 5)
    truth, _ = simulation.frames(0, 8)
    tb = Stream(received(config, 8), cell(massaccess.receiver, receiver=JOINT))
    massaccess.run(tb)
    payload, _ = simulation.population.framing.decode(truth.bits)
    found = set()
    for index in range(tb.messages["packets"].num_messages()):
        message = tb.messages["packets"].get_message(index)
        known = pmt.to_python(pmt.car(message))
        assert known["receiver"] == JOINT
        found.add((known["frame"], known["user"], bytes(pmt.u8vector_elements(pmt.cdr(message)))))
    sent = {(frame, user, bytes(payload[frame, user].tolist())) for frame, user in truth.active.nonzero().tolist()}
    assert found <= sent
    assert len(found) > 0.9 * len(sent)


def test_active_sets_are_published(cell, config):
    tb = Stream(received(config, 8), cell(massaccess.activity_detector, receiver="covariance"))
    massaccess.run(tb)
    activity = np.array(tb.activity.data()).reshape(8, -1)
    for frame in range(8):
        message = tb.messages["active"].get_message(frame)
        assert pmt.to_python(pmt.car(message))["frame"] == frame
        assert list(pmt.s32vector_elements(pmt.cdr(message))) == np.flatnonzero(activity[frame] > 0.5).tolist()


def test_statistics_are_published_at_the_end(cell, config):
    tb = Stream(received(config, 8), cell(massaccess.receiver, receiver="energetic"))
    massaccess.run(tb)
    last = pmt.to_python(tb.messages["stats"].get_message(tb.messages["stats"].num_messages() - 1))
    assert (last["frames"], last["dropped"], last["rejected"], last["receiver"]) == (8, 0, 0, "energetic")


# --- streams that are not as they should be -------------------------------------------------------------------------------------------


def test_frames_with_nan_are_rejected_and_counted(cell, config):
    samples = received(config, 10)
    samples[3, 17], samples[7, 0] = np.nan, np.inf
    tb = Stream(samples, cell(massaccess.receiver, receiver="energetic"))
    massaccess.run(tb)
    assert tb.frames() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert (tb.receiver.stats()["frames"], tb.receiver.stats()["rejected"]) == (8, 2)
    assert len(tb.activity.data()) == 8 * config.users


def test_frame_numbers_are_kept_and_an_untagged_stream_counts_from_0(cell, config):
    tb = Stream(received(config, 5), cell(massaccess.receiver, receiver="energetic"))
    massaccess.run(tb)
    assert tb.frames() == [0, 1, 2, 3, 4]
    tb = Stream(
        received(config, 5),
        cell(massaccess.receiver, receiver="energetic"),
        [mark(0, "frame", pmt.from_uint64(70)), mark(3, "frame", pmt.from_uint64(90))],
    )
    massaccess.run(tb)
    assert tb.frames() == [70, 71, 72, 90, 91]


def test_tags_are_handed_on_with_their_frame(cell, config):
    """Also those of a rejected frame, which go on with the frame after it; and the first answer says who made it."""
    samples = received(config, 8)
    samples[3, 0] = np.nan
    marks = [mark(3, "rx_freq", pmt.from_double(3.5e9)), mark(5, "calibration", pmt.intern("cal-1"))]
    tb = Stream(samples, cell(massaccess.receiver, receiver="energetic"), marks)
    massaccess.run(tb)
    told = {(str(tag.key), tag.offset) for tag in tb.activity.tags() if str(tag.key) != "frame"}
    assert tb.frames() == [0, 1, 2, 4, 5, 6, 7]
    assert told == {("noise_var", 0), ("receiver", 0), ("version", 0), ("rx_freq", 3), ("calibration", 4)}


def test_without_a_noise_variance_the_flowgraph_ends_with_a_reason(cell, config):
    tb = Stream(received(config, 5), cell(massaccess.receiver, receiver="energetic"), noise_tag=False)
    with pytest.raises(BlockFailure, match="pass noise_var, or tag"):
        massaccess.run(tb)
    tb = Stream(received(config, 5), cell(massaccess.receiver, receiver="energetic", noise_var=0.1), noise_tag=False)
    massaccess.run(tb)
    assert tb.receiver.stats()["frames"] == 5


def test_a_noise_variance_of_minus_one_is_read_from_the_frames(cell, config, monkeypatch):
    seen = []

    def note(self, obs, *, generator=None):
        seen.append((obs.frames, obs.noise_var))
        return energetic(self, obs, generator=generator)

    block = cell(massaccess.receiver, receiver="energetic", max_batch=8, noise_var=-1)
    kind = type(block._decoder._engine._receiver)
    energetic = kind.__call__
    monkeypatch.setattr(kind, "__call__", note)
    samples = received(config, 16)
    rx = torch.from_numpy(samples).reshape(2, 8, config.frame_len, config.antennas)
    massaccess.run(Stream(samples, block, [mark(3, "noise_var", pmt.from_double(0.2))]))
    assert seen == [(8, pytest.approx(estimate_noise_var(half[:, :1], half[:, 1:]), rel=1e-5)) for half in rx]
    for wrong in (-2, -0.5):
        with pytest.raises(ConfigError, match="-1 to estimate"):
            block.set_noise_var(wrong)


def test_a_change_of_noise_cuts_the_batch(cell, config, monkeypatch):
    seen = []

    def note(self, obs, *, generator=None):
        seen.append((obs.frames, round(obs.noise_var, 3), obs.front_end.bits))
        return energetic(self, obs, generator=generator)

    block = cell(massaccess.receiver, receiver="energetic", max_batch=8)
    kind = type(block._decoder._engine._receiver)
    energetic = kind.__call__
    monkeypatch.setattr(kind, "__call__", note)
    changes = [
        mark(3, "noise_var", pmt.from_double(0.2)),
        mark(5, "adc_bits", pmt.from_long(1)),
        mark(5, "adc_scale", pmt.from_double(1.5)),
    ]
    massaccess.run(Stream(received(config, 10), block, changes))
    assert seen == [(3, 0.1, None), (2, 0.2, None), (3, 0.2, 1), (2, 0.2, 1)]


def test_another_pilot_book_is_refused(cell, config):
    tb = Stream(
        received(config, 5), cell(massaccess.receiver, receiver="energetic", pilot_seed=1), [mark(0, "pilot_book", pmt.intern("00000000"))]
    )
    with pytest.raises(BlockFailure, match="pilot book 00000000 but this receiver has"):
        massaccess.run(tb)


def test_a_wrong_item_length_is_refused_when_connecting(cell, config):
    tb = gr.top_block()
    source, sink = blocks.null_source(8 * 7), cell(massaccess.receiver, receiver="energetic")
    with pytest.raises(ValueError, match="itemsize mismatch"):
        tb.connect(source, sink)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"receiver": "nope"}, UnknownNameError, "unknown receiver"),
        ({"receiver": "perfect-csi-zf"}, ConfigError, "genie"),
        ({"receiver": "perfect-activity+ls-zf"}, ConfigError, "genie"),
        ({"receiver": "covariance"}, ConfigError, "activity_detector"),
        ({"receiver": "ls-zf"}, ConfigError, "must know who is active"),
        ({"receiver": JOINT, "options": {"colour": 1}}, UnknownNameError, "colour"),
        ({"receiver": JOINT, "overflow": "panic"}, UnknownNameError, "overflow"),
        ({"receiver": JOINT, "max_batch": 0}, ConfigError, "max_batch"),
        ({"receiver": JOINT, "noise_var": float("nan")}, ConfigError, "noise_var"),
        ({"receiver": JOINT, "data_len": 0}, ConfigError, "empty"),
        ({"receiver": JOINT, "max_batch": 10**6}, ConfigError, "max_batch"),
    ],
)
def test_parameters_are_checked_at_once(cell, changes, error, words):
    with pytest.raises(error, match=words):
        cell(massaccess.receiver, **changes)


def test_an_impossible_noise_is_refused_where_it_is_set(cell):
    with pytest.raises(ConfigError, match="noise_var"):
        cell(massaccess.receiver, receiver=JOINT).set_noise_var(float("nan"))


def test_the_throttle_lets_single_frames_through(config):
    """It sleeps for all that it takes at once: nothing would come, and Ctrl-C would wait."""
    assert uplink(config, "energetic", rate=2.0).throttle.max_noutput_items() == 1
    assert uplink(config, "energetic", rate=1000.0).throttle.max_noutput_items() == 100
    with pytest.raises(ConfigError, match=r"pass 0\.1 or more"):
        uplink(config, "energetic", rate=1e-9)


# --- receivers that are not as they should be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_a_receiver_that_raises_ends_the_flowgraph_with_its_reason(config, overflow):
    tb = uplink(config, "poisoned", frames=0, overflow=overflow)
    with pytest.raises(BlockFailure, match="ZeroDivisionError: the model is poisoned"):
        massaccess.run(tb)


def test_a_slow_receiver_offline_loses_nothing(config):
    tb = uplink(config, "energetic", options={"seconds": 0.002}, frames=150, max_batch=16)
    massaccess.run(tb)
    assert tb.meter.summary()["compared"] == 150
    assert tb.receiver.stats()["dropped"] == 0


def test_a_slow_receiver_live_drops_whole_frames_and_counts_them(config):
    tb = uplink(config, "energetic", options={"seconds": 0.01}, frames=200, overflow="drop_oldest", max_batch=4, queue_frames=8)
    massaccess.run(tb)
    stats, summary = tb.receiver.stats(), tb.meter.summary()
    assert stats["dropped"] > 100
    assert stats["frames"] + stats["dropped"] == 200
    assert summary["compared"] == stats["frames"]
    assert summary["compared"] + summary["lost"] == 200  # the last frames are never the dropped ones


def test_live_memory_stays_flat(cell, config):
    """An endless fast stream into a slow receiver: after a while, memory no longer grows."""
    block = cell(
        massaccess.receiver, receiver="energetic", options={"seconds": 0.005}, overflow="drop_oldest", max_batch=4, queue_frames=16
    )
    tb = Stream(received(config, 32), block, repeat=True)
    peaks, reached = [], iter((20_000, 60_000))
    goal = next(reached)

    def watch():
        nonlocal goal
        if tb.receiver.stats()["dropped"] > goal:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            goal = next(reached, None)
            if goal is None:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=watch, tick_seconds=0.02)
    assert peaks[1] - peaks[0] < 20


def test_a_short_truth_buffer_makes_it_slow_and_not_stuck(config, cell):
    """With fewer frames in flight than a batch needs, the receiver takes what there is."""
    tb = gr.top_block()
    source, air = cell(massaccess.population, frames=6), cell(massaccess.channel_simulator)
    receiver, stage = (
        cell(massaccess.receiver, receiver="energetic", max_batch=64),
        blocks.throttle(config.frame_len * config.antennas * 8, 5),
    )
    sink = blocks.null_sink(config.users * 4)
    tb.connect(source, air, stage, receiver, sink)
    massaccess.run(tb)
    assert receiver.stats()["frames"] == 6


def test_stopping_a_flowgraph_in_the_middle_is_quick(config):
    tb = uplink(config, "energetic", options={"seconds": 0.001}, frames=0)
    stopped = []

    def stop():
        if tb.receiver.stats()["frames"] > 10:
            stopped.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=stop, tick_seconds=0.01)
    assert time.monotonic() - stopped[0] < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("massaccess")]


def test_a_flowgraph_that_is_reconfigured_goes_on(config):
    tb = uplink(config, "energetic", options={"seconds": 0.0005}, frames=0)
    extra, steps = blocks.null_sink(config.users * 4), []

    def reconfigure():
        done = tb.receiver.stats()["frames"]
        if not steps and done > 20:
            tb.lock()
            tb.connect(tb.receiver, extra)
            tb.unlock()
            steps.append(tb.receiver.stats()["frames"])
        if steps and done > steps[0] + 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.01)
    summary = tb.meter.summary()
    assert summary["compared"] > 100
    assert counts(summary)["aep_errors"] < 0.1 * summary["compared"] * config.users


# --- meter ----------------------------------------------------------------------------------------------------------------------------


def test_the_meter_counts_frames_without_an_answer(cell, config):
    """Frames 1 and 4 were never answered, frame 9 was never sent."""
    tb = gr.top_block()
    meter = cell(massaccess.meter, compare="activity")
    sent = np.zeros((6, config.frame_len * config.users), np.complex64)
    answers = [0, 2, 3, 5, 9]
    source = blocks.vector_source_c(sent.ravel().tolist(), False, sent.shape[1])
    found = blocks.vector_source_f(
        [0.0] * config.users * 5, False, config.users, [mark(row, "frame", pmt.from_uint64(frame)) for row, frame in enumerate(answers)]
    )
    errors = blocks.vector_sink_f()
    tb.connect(source, (meter, 0))
    tb.connect(found, (meter, 1))
    tb.connect(meter, errors)
    massaccess.run(tb)
    summary = meter.summary()
    assert (summary["compared"], summary["lost"]) == (4, 2)
    assert summary["aep_errors"] == 0
    assert list(errors.data()) == [0.0] * 4


def test_the_meter_tells_false_alarms_from_missed_users(cell, config):
    tb = gr.top_block()
    meter = cell(massaccess.meter, compare="activity")
    sent = np.zeros((3, config.frame_len, config.users), np.complex64)
    sent[0, :, :2] = sent[1, :, 0] = 1
    answers = np.zeros((3, config.users), np.float32)
    answers[0, 1:4] = answers[2, 5] = 0.9  # one missed and two invented, one missed, one invented
    frames = [[mark(row, "frame", pmt.from_uint64(row)) for row in range(3)]] * 2
    source = blocks.vector_source_c(sent.reshape(-1).tolist(), False, config.frame_len * config.users, frames[0])
    tb.connect(source, (meter, 0))
    tb.connect(blocks.vector_source_f(answers.reshape(-1).tolist(), False, config.users, frames[1]), (meter, 1))
    errors, alarms = blocks.vector_sink_f(), blocks.vector_sink_f()
    tb.connect((meter, 0), errors)
    tb.connect((meter, 1), alarms)
    massaccess.run(tb)
    assert (list(errors.data()), list(alarms.data())) == ([3.0, 1.0, 1.0], [2.0, 0.0, 1.0])


def test_the_meter_emits_errors_per_frame(config):
    tb = uplink(config.replace(snr_db=-12.0), JOINT)
    users, alarms, packets = (blocks.vector_sink_f() for _ in range(3))
    for port, sink in enumerate((users, alarms, packets)):
        tb.connect((tb.meter, port), sink)
    massaccess.run(tb)
    assert sum(users.data()) == tb.meter.summary()["aep_errors"] > 0
    assert sum(alarms.data()) == tb.meter.summary()["p_fa_errors"]
    assert sum(packets.data()) > 0
    assert len(packets.data()) == 40


def test_the_meter_checks_its_parameters(cell):
    with pytest.raises(UnknownNameError, match="unknown comparison"):
        cell(massaccess.meter, compare="some")
    with pytest.raises(ConfigError, match="hold_frames"):
        cell(massaccess.meter, hold_frames=0)
