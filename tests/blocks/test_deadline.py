"""A receiver that polls the clock: deadlines are kept and counted, and nobody waits for one whose flowgraph has stopped."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from gnuradio import blocks, massaccess
from gnuradio.massaccess._budget import Budget

from massaccess.errors import ConfigError


def uplink(config, **options):
    known = {"seed": 5, "frames": 8, "threads": 1, "max_batch": 4}
    return massaccess.uplink(config, options.pop("receiver", "patient"), **{**known, **options})


def polls(*times, seconds, stopped=lambda: False):
    """What a budget that began at 0 says at ``times``."""
    clock = iter((0.0, *times))
    budget = Budget(seconds, stopped, clock=lambda: next(clock))
    return [budget() for _ in times]


def test_time_is_up_when_another_step_would_be_too_long():
    assert polls(0.3, 0.5, 0.7, 0.9, seconds=1.0) == [False, False, False, True]


def test_what_comes_before_the_first_poll_is_no_step():
    assert polls(0.8, 0.9, 0.95, seconds=1.0) == [False, False, False]
    assert polls(1.1, seconds=1.0) == [True]


def test_without_a_deadline_the_clock_is_not_asked():
    assert polls(seconds=0.0) == []
    budget = Budget(0.0, lambda: False)
    assert not budget()
    assert Budget(0.0, lambda: True)()


def test_frames_that_the_deadline_cuts_are_counted(config):
    tb = uplink(config, options={"steps": 50}, deadline_ms=20.0)
    massaccess.run(tb)
    stats = tb.receiver.stats()
    assert (stats["frames"], stats["cut"]) == (8, 8)


@pytest.mark.parametrize("deadline_ms", [0.0, 5000.0])
def test_without_a_deadline_or_before_it_nothing_is_cut(config, deadline_ms):
    tb = uplink(config, options={"steps": 3}, deadline_ms=deadline_ms)
    massaccess.run(tb)
    assert (tb.receiver.stats()["frames"], tb.receiver.stats()["cut"]) == (8, 0)


def test_a_receiver_may_tell_of_each_frame(config):
    tb = uplink(config, options={"steps": 1, "each": True})
    massaccess.run(tb)
    assert tb.receiver.stats()["cut"] == 2  # one in each batch


@pytest.mark.parametrize("deadline_ms", [-1.0, float("nan"), float("inf")])
def test_an_impossible_deadline_is_refused(config, deadline_ms):
    with pytest.raises(ConfigError, match="0 for no deadline"):
        uplink(config, deadline_ms=deadline_ms)


@pytest.mark.parametrize("frames", [0, 4])  # the source goes on, and has ended
@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_stopping_in_the_middle_of_a_long_decode_is_quick(config, frames, overflow):
    tb = uplink(config, frames=frames, overflow=overflow)
    stopped = []

    def stop():
        stopped.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=stop, tick_seconds=0.5)
    assert time.monotonic() - stopped[0] < 20
    assert tb.receiver.stats()["cut"] == 0  # what nobody waits for is not counted


def test_stopping_without_run_is_quick_while_frames_come(config):
    tb = uplink(config, frames=0)
    tb.start()
    time.sleep(0.5)
    began = time.monotonic()
    tb.stop()
    tb.wait()
    assert time.monotonic() - began < 2


def test_a_flowgraph_that_is_reconfigured_decodes_in_full(config):
    tb = uplink(config, frames=0, options={"steps": 20})
    extra, steps = blocks.null_sink(config.users * 4), []

    def reconfigure():
        done = tb.receiver.stats()["frames"]
        if not steps:
            tb.lock()
            tb.connect(tb.receiver, extra)
            tb.unlock()
            steps.append(done)
        elif done > steps[0] + 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.3)
    assert tb.receiver.stats()["cut"] == 0


def test_rounds_of_the_coherent_receiver_are_left_out(config):
    """A million rounds that never settle: only the clock ends them."""
    options = {"rounds": 10**6, "tolerance": -1.0}
    tb = uplink(config, receiver="jcedd", options=options, deadline_ms=20.0)
    massaccess.run(tb)
    assert (tb.receiver.stats()["frames"], tb.receiver.stats()["cut"]) == (8, 8)
    assert tb.meter.summary()["aep"] < 0.1
