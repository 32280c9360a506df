"""Frames as items, and flowgraphs that end with a reason."""

from __future__ import annotations

import os
import re
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
from gnuradio.massaccess import _base
from gnuradio.massaccess._base import FrameBlock, guarded, item

from massaccess import MassaccessError
from massaccess.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


class Numbers(FrameBlock):
    """Notes the frame numbers that it sees, and fails on request."""

    def __init__(self, fail_at=None, where="work"):
        super().__init__("numbers", in_sig=[(np.complex64, 4)])
        self.seen, self.fail_at, self.where = [], fail_at, where
        self.message_port_register_in(pmt.intern("poke"))
        self.set_msg_handler(pmt.intern("poke"), self.poke)

    @guarded(result=True)
    def start(self):
        if self.where == "start":
            raise ValueError("no start")
        return True

    @guarded
    def poke(self, message):
        raise KeyError("poked")

    @guarded
    def general_work(self, input_items, output_items):
        count = min(len(input_items[0]), 3)
        self.seen += self.frame_indices(0, count).tolist()
        if self.fail_at is not None and self.seen[-1] >= self.fail_at:
            raise ValueError("too far")
        self.consume(0, count)
        return 0


def tag(offset, frame):
    found = gr.tag_t()
    found.offset, found.key, found.value = offset, pmt.intern("frame"), pmt.from_uint64(frame)
    return found


def flowgraph(sink, frames=10, tags=(), endless=False):
    tb = gr.top_block()
    tb.kept = blocks.vector_source_c([0.0] * 4 * frames, endless, 4, tags), sink
    tb.connect(*tb.kept)
    return tb


def test_an_untagged_stream_counts_from_0():
    sink = Numbers()
    massaccess.run(flowgraph(sink))
    assert sink.seen == list(range(10))


def test_items_without_a_tag_follow_their_predecessor():
    sink = Numbers()
    massaccess.run(flowgraph(sink, 8, [tag(1, 100), tag(4, 2**40), tag(5, 7)]))
    assert sink.seen == [0, 100, 101, 102, 2**40, 7, 8, 9]


def test_a_block_that_raises_in_work_ends_the_flowgraph():
    with pytest.raises(_base.BlockFailure, match=r"block numbers.* failed: ValueError: too far") as caught:
        massaccess.run(flowgraph(Numbers(fail_at=5), endless=True))
    assert isinstance(caught.value, MassaccessError)
    assert "general_work" in caught.value.details
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_block_that_raises_in_start_ends_the_flowgraph():
    with pytest.raises(_base.BlockFailure, match="no start"):
        massaccess.run(flowgraph(Numbers(where="start"), endless=True))


def test_a_handler_that_raises_ends_the_flowgraph():
    tb = flowgraph(Numbers(), endless=True)
    strobe = blocks.message_strobe(pmt.PMT_T, 10)
    tb.msg_connect(strobe, "strobe", tb.kept[1], "poke")
    with pytest.raises(_base.BlockFailure, match="KeyError: 'poked'"):
        massaccess.run(tb)


def test_a_failure_does_not_haunt_the_next_run():
    with pytest.raises(_base.BlockFailure):
        massaccess.run(flowgraph(Numbers(fail_at=0)))
    massaccess.run(flowgraph(Numbers()))


class Slow(FrameBlock):
    """Passes frames on, and computes for ``seconds`` with each batch; so it stops at its leisure when the flowgraph is locked."""

    def __init__(self, seconds, length=4):
        super().__init__("slow", in_sig=[(np.complex64, length)], out_sig=[(np.complex64, length)])
        self.seconds = seconds

    @guarded
    def general_work(self, input_items, output_items):
        count = min(len(input_items[0]), len(output_items[0]))
        output_items[0][:count] = input_items[0][:count]
        self.tag_frames(0, self.frame_indices(0, count))
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            sum(range(300))
        self.consume(0, count)
        return count


def test_a_flowgraph_may_be_reconfigured_on_a_tick_again_and_again():
    """GNU Radio crashes within a few rounds of this when a thread waits for the flowgraph meanwhile."""
    for _ in range(15):
        tb = gr.top_block()
        tb.kept = [blocks.null_source(8 * 512), Slow(0.003, 512), Slow(0.002, 512), blocks.null_sink(8 * 512)]
        tb.connect(*tb.kept)

        def reconfigure(tb=tb):
            tb.kept += [blocks.copy(8 * 512), blocks.null_sink(8 * 512)]
            tb.lock()
            tb.connect(tb.kept[2], *tb.kept[-2:])
            tb.unlock()
            if len(tb.kept) == 12:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.03)


def test_a_flowgraph_that_was_reconfigured_comes_to_its_end():
    tb = flowgraph(Slow(0.01), 100_000)
    tb.sinks = Numbers(), Numbers()
    tb.connect(tb.kept[1], tb.sinks[0])
    rounds = []

    def reconfigure():
        if len(rounds) < 2:
            change = tb.disconnect if rounds else tb.connect
            tb.lock()
            change(tb.kept[1], tb.sinks[1])
            tb.unlock()
            rounds.append(None)

    massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.03)
    assert len(rounds) == 2
    assert tb.sinks[0].seen[-1] > 50_000  # the end, less the untagged frames that lay in the buffers
    assert (np.diff(tb.sinks[0].seen) > 0).all()


def test_a_lock_that_is_never_released_does_not_keep_the_flowgraph():
    tb = flowgraph(Numbers(), endless=True)

    def reconfigure():
        tb.lock()
        raise ValueError("no such block")

    with pytest.raises(ValueError, match="no such block"):
        massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.01)


def test_what_is_called_meanwhile_may_raise():
    def stop():
        raise KeyboardInterrupt

    tb = flowgraph(Numbers(), endless=True)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=stop, tick_seconds=0.01)
    assert threading.active_count() == before


def test_frames_of_ordinary_size_pass():
    assert item(np.complex64, 65, 64) == (np.complex64, 4160)
    assert item(np.float32, 1) is np.float32
    item(np.complex64, 65, 127)


def test_frames_that_make_huge_buffers_are_refused_with_a_size_that_works():
    with pytest.raises(ConfigError, match=r"251 x 257 .* 251 MiB") as caught:
        item(np.complex64, 251, 257)
    item(np.complex64, *map(int, re.search(r"instance (\d+) x (\d+)", str(caught.value)).groups()))


def test_empty_items_are_refused():
    with pytest.raises(ConfigError, match="empty"):
        item(np.complex64, 0, 16)


SUPERVISED = """
import sys
from gnuradio import blocks, gr, massaccess
sys.path.insert(0, {folder!r})
from test_base import Numbers
class program(gr.top_block):
    def __init__(self):
        gr.top_block.__init__(self)
        self.supervisor = massaccess.supervisor(self)
        self.source, self.sink = blocks.vector_source_c([0.0] * 40, True, 4), Numbers(fail_at={fail_at})
        self.other = blocks.null_source(8), blocks.throttle(8, 1000), blocks.null_sink(8)  # would go on for ever
        self.connect(self.source, blocks.head(32, {head}), self.sink)
        if {fail_at} is not None:
            self.connect(*self.other)
tb = program()
tb.start()
tb.wait()
"""


@pytest.mark.parametrize(("fail_at", "code"), [(5, 1), (None, 0)])
def test_supervisor_sets_the_exit_code(fail_at, code):
    program = SUPERVISED.format(folder=str(Path(__file__).parent), fail_at=fail_at, head=1000)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT / "python")}
    )
    assert done.returncode == code, done.stderr
    assert ("massaccess: block numbers0 failed: ValueError: too far" in done.stderr) == bool(code)
