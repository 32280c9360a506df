"""Access points and their fusion centre in flowgraphs: the library's answers, clean ends, and reasons when something is missing."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError
from massaccess.forward.front_end import front_end, quantize
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

CONFIG = SystemConfig(
    users=4,
    active_users=4,
    rows=4,
    columns=4,
    pilot_len=16,
    data_len=24,
    snr_db=10,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
SIZES = {"users": 4, "pilot_len": 16, "data_len": 24}
FRAMES, POINTS = 12, 2


def endpoint():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"tcp://127.0.0.1:{found.getsockname()[1]}"


def air():
    """Frames [FRAMES L M] as one array heard them, and the observation."""
    _, obs = Simulation(CONFIG, 2).frames(0, FRAMES)
    return torch.cat([obs.pilot_rx, obs.data_rx], 1).numpy(), obs


class Cell(gr.top_block):
    """One array, its access points and their centre."""

    def __init__(self, samples, points=POINTS, of=POINTS, **options):
        gr.top_block.__init__(self)
        where, antennas = endpoint(), CONFIG.antennas // points
        self.source = blocks.vector_source_c(samples.reshape(-1).tolist(), False, CONFIG.frame_len * CONFIG.antennas)
        self.splitter = massaccess.array_splitter(frame_len=CONFIG.frame_len, antennas=CONFIG.antennas, of=points)
        self.points = [
            massaccess.access_point(endpoint=where, index=index, of=of, antennas=antennas, noise_var=CONFIG.noise_var, timeout=5.0, **SIZES)
            for index in range(points)
        ]
        limits = {"deadline": 2.0, "timeout": 5.0, "lost": 2.0, "max_batch": 4}
        self.center = massaccess.fusion_center(endpoint=where, of=of, **{**limits, **options}, **SIZES)
        self.symbols = blocks.vector_sink_c(CONFIG.data_len * CONFIG.users)
        self.packets, self.active = (blocks.message_debug() for _ in range(2))
        self.connect(self.source, self.splitter)
        for port, point in enumerate(self.points):
            self.connect((self.splitter, port), point)
        self.connect((self.center, 1), self.symbols)
        self.msg_connect(self.center, "packets", self.packets, "store")
        self.msg_connect(self.center, "active", self.active, "store")

    def found(self):
        return torch.from_numpy(np.array(self.symbols.data(), np.complex64)).reshape(-1, CONFIG.data_len, CONFIG.users)


@pytest.mark.parametrize("mode", ["sequential", "synchronous"])
def test_the_flowgraph_gives_the_answers_of_the_library(mode):
    samples, obs = air()
    tb = Cell(samples, mode=mode)
    massaccess.run(tb)
    expected = create(f"pvi-{mode}", clients=POINTS)(obs).symbols
    torch.testing.assert_close(tb.found(), expected, rtol=1e-3, atol=1e-3)
    frames = [tag.offset for tag in tb.symbols.tags() if str(tag.key) == "frame"]
    assert frames == list(range(FRAMES))
    stats = tb.center.stats()
    assert (stats["frames"], stats["bad"], stats["lost"]) == (FRAMES, 0, 0)
    assert tb.packets.num_messages() == stats["packets"] > FRAMES
    assert tb.active.num_messages() == FRAMES
    told = pmt.car(tb.active.get_message(0))
    assert list(pmt.s32vector_elements(pmt.dict_ref(told, pmt.intern("access_points"), pmt.PMT_NIL))) == [0, 1]
    assert [point.stats()["frames"] for point in tb.points] == [FRAMES] * POINTS


def test_more_frames_than_the_queue_holds_wait_for_the_centre():
    samples, _ = air()
    tb = Cell(np.concatenate([samples] * 8))
    massaccess.run(tb)
    assert len(tb.found()) == 8 * FRAMES
    assert [point.stats()["dropped"] for point in tb.points] == [0] * POINTS
    torch.testing.assert_close(tb.found()[:FRAMES], tb.found()[-FRAMES:], rtol=1e-3, atol=1e-3)


def test_an_access_point_that_never_comes_is_done_without():
    samples, _ = air()
    tb = Cell(samples, of=3, wait_for=2)
    massaccess.run(tb)
    assert len(tb.found()) == FRAMES


def test_a_centre_that_nobody_joins_ends_with_a_reason():
    tb = gr.top_block()
    tb.center = massaccess.fusion_center(endpoint=endpoint(), of=2, timeout=0.3, **SIZES)
    tb.sink = blocks.null_sink(8 * CONFIG.data_len * CONFIG.users)
    tb.connect((tb.center, 1), tb.sink)
    with pytest.raises(MassaccessError, match="no access point"):
        massaccess.run(tb)


def test_an_access_point_without_a_centre_ends_with_a_reason():
    samples, _ = air()
    tb = gr.top_block()
    tb.source = blocks.vector_source_c(samples[..., :8].reshape(-1).tolist(), True, CONFIG.frame_len * 8)
    tb.point = massaccess.access_point(endpoint=endpoint(), of=2, antennas=8, noise_var=0.1, timeout=0.3, **SIZES)
    tb.connect(tb.source, tb.point)
    with pytest.raises(MassaccessError, match="massaccess fuse"):
        massaccess.run(tb)


def test_a_flowgraph_that_is_stopped_stops_at_once():
    samples, _ = air()
    tb = Cell(np.concatenate([samples] * 4), of=3)  # the third never comes: everybody waits
    tb.start()
    time.sleep(0.3)
    began = time.monotonic()
    for block in (*tb.points, tb.center._center):
        block.interrupt()
    tb.stop()
    tb.wait()
    assert time.monotonic() - began < 4


def test_unknown_noise_is_named():
    samples, _ = air()
    tb = gr.top_block()
    tb.source = blocks.vector_source_c(samples[..., :8].reshape(-1).tolist(), False, CONFIG.frame_len * 8)
    tb.point = massaccess.access_point(endpoint=endpoint(), of=2, antennas=8, **SIZES)
    tb.connect(tb.source, tb.point)
    with pytest.raises(MassaccessError, match="noise variance"):
        massaccess.run(tb)


def test_converters_of_an_access_point_may_have_a_dither():
    _, obs = Simulation(CONFIG.replace(adc_bits=None), 2).frames(0, 4)
    samples = torch.cat([obs.pilot_rx, obs.data_rx], 1)[..., :8]
    made = front_end(bits=1, power=2.0, dither=0.7, frame=(CONFIG.frame_len, 8))
    point = massaccess.access_point(antennas=8, noise_var=0.1, adc_scale=1.0, adc_dither=0.7, **SIZES)
    known = point._known()
    assert torch.equal(known["front_end"].offset, made.offset)
    assert known["front_end"].scale == made.scale
    assert quantize(samples, known["front_end"]).shape == samples.shape


def test_splitting_keeps_the_order_of_antennas_and_the_tags():
    samples, _ = air()
    tb = gr.top_block()
    tag = gr.tag_t()
    tag.offset, tag.key, tag.value = 3, pmt.intern("noise_var"), pmt.from_double(0.5)
    tb.source = blocks.vector_source_c(samples.reshape(-1).tolist(), False, CONFIG.frame_len * CONFIG.antennas, [tag])
    tb.splitter = massaccess.array_splitter(frame_len=CONFIG.frame_len, antennas=CONFIG.antennas, of=4)
    tb.sinks = [blocks.vector_sink_c(CONFIG.frame_len * 4) for _ in range(4)]
    tb.connect(tb.source, tb.splitter)
    for port, sink in enumerate(tb.sinks):
        tb.connect((tb.splitter, port), sink)
    massaccess.run(tb)
    parts = [np.array(sink.data(), np.complex64).reshape(FRAMES, CONFIG.frame_len, 4) for sink in tb.sinks]
    assert np.array_equal(np.concatenate(parts, 2), samples)
    for sink in tb.sinks:
        assert [found.offset for found in sink.tags() if str(found.key) == "noise_var"] == [3]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: massaccess.array_splitter(antennas=10, of=4), "evenly"),
        (lambda: massaccess.access_point(index=4, of=4), "count from 0"),
        (lambda: massaccess.access_point(overflow="never"), "drop_oldest"),
        (lambda: massaccess.fusion_center(wait_for=5, of=4), "wait for"),
        (lambda: massaccess.fusion_center(mode="parallel"), "pvi"),
        (lambda: massaccess.fusion_center(options={"colour": 1}), "choose one of"),
    ],
)
def test_parameters_that_cannot_be(make, reason):
    with pytest.raises((ConfigError, MassaccessError), match=reason):
        make()
