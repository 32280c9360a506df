"""USRP arrays against a simulated device: the order of calls, what is refused and why, gaps, retuning, and transmission."""

from __future__ import annotations

import sys

import numpy as np
import pmt
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess import _base
from gnuradio.massaccess import _simulated_usrp as sim
from gnuradio.massaccess._array_tags import name_channels, parse_channels
from gnuradio.massaccess._uhd import device_args, uhd_of

from massaccess.errors import ConfigError, MassaccessError, UnknownNameError

BOARDS = "B1, B2"


@pytest.fixture(autouse=True)
def fresh():
    sim.reset()
    _base.armed.clear()


def source(more="samples=40000", **changes):
    return massaccess.usrp_array_source(**{"addresses": BOARDS, "channels": 2, "driver": "sim", "more_args": more, **changes})


def sink(more="num_send_frames=8", **changes):
    return massaccess.usrp_array_sink(**{"addresses": BOARDS, "channels": 2, "driver": "sim", "more_args": more, **changes})


def received(block, antennas=4):
    """Vectors, and tags as {name: [(offset, value)]}, of a source that ends."""
    tb = gr.top_block()
    end = blocks.vector_sink_c(antennas)
    tb.connect(block, end)
    massaccess.run(tb)
    tags = {}
    for tag in sorted(end.tags(), key=lambda tag: tag.offset):
        tags.setdefault(str(tag.key), []).append((tag.offset, pmt.to_python(tag.value)))
    return np.array(end.data(), np.complex64).reshape(-1, antennas), tags


def calls():
    return [name for name, _ in sim.log]


def position(name, which=0):
    return [index for index, found in enumerate(calls()) if found == name][which]


class TestOrder:
    def test_boards_are_brought_into_step_in_the_order_that_keeps_them_there(self):
        source(antenna="RX2", bandwidth=20e6, subdev="A:0 B:0", master_clock_rate=200e6)
        order = (
            *("usrp_source", "set_clock_source", "set_time_source", "set_subdev_spec", "set_samp_rate", "get_mboard_sensor"),
            *("set_time_unknown_pps", "get_time_last_pps", "set_antenna", "set_bandwidth", "set_gain", "set_command_time"),
            *("set_center_freq", "clear_command_time", "get_sensor", "set_start_time"),
        )
        first, last = [position(name) for name in order], [position(name, -1) for name in order]
        assert first == sorted(first)
        steps = [order.index(name) for name in ("set_samp_rate", "get_mboard_sensor", "set_time_unknown_pps", "set_command_time")]
        assert all(last[step - 1] < first[step] for step in steps)  # whole steps, for all boards, before the next begins
        assert last[order.index("set_command_time")] < first[order.index("set_center_freq")]
        assert last[order.index("set_center_freq")] < first[order.index("clear_command_time")]
        assert last[order.index("clear_command_time")] < first[order.index("get_sensor")]

    def test_every_board_and_channel_is_set(self):
        source(gain=(1.0, 2.0, 3.0, 4.0), freq=2.4e9)
        assert [arguments for name, arguments in sim.log if name == "set_clock_source"] == [("external", 0), ("external", 1)]
        assert [arguments for name, arguments in sim.log if name == "set_gain"] == [(1.0, 0), (2.0, 1), (3.0, 2), (4.0, 3)]
        assert [arguments for name, arguments in sim.log if name == "set_center_freq"] == [(2.4e9, index) for index in range(4)]
        assert {arguments for name, arguments in sim.log if name == "set_rx_agc"} == {(False, index) for index in range(4)}
        times = {arguments[0] for name, arguments in sim.log if name == "set_command_time"}
        assert len(times) == 1

    def test_it_is_armed_again_when_the_flowgraph_starts(self):
        received(source())
        assert calls().count("set_start_time") == 2

    def test_device_arguments_and_stream_formats(self):
        source("samples=100,num_recv_frames=256", addresses="10.0.0.2 10.0.0.3", master_clock_rate=200e6)
        where, stream = sim.log[0][1]
        assert where == "addr0=10.0.0.2,addr1=10.0.0.3,master_clock_rate=200000000,samples=100,num_recv_frames=256"
        assert stream == "fc32/sc16 [0, 1, 2, 3]"
        with pytest.raises(ConfigError, match="once each"):
            device_args(["a", "a"])
        with pytest.raises(ConfigError, match="once each"):
            source(addresses="")

    def test_two_boards_on_a_cable(self):
        source(reference="mimo")
        clocks = [arguments for name, arguments in sim.log if name.endswith("_source") and name != "usrp_source"]
        assert clocks == [("internal", 0), ("mimo", 1), ("mimo", 1)]
        assert "set_time_unknown_pps" not in calls() and "set_time_now" in calls()

    def test_the_simulated_device_has_the_methods_of_the_real_one(self):
        uhd = pytest.importorskip("gnuradio.uhd")
        for kind in ("usrp_source", "usrp_sink"):
            own = {name for each in (sim._Device, getattr(sim, kind)) for name in vars(each) if not name.startswith("_")}
            assert own <= set(dir(getattr(uhd, kind)))
        for kind in ("stream_args", "time_spec", "tune_request"):
            assert {name for name in vars(getattr(sim, kind)) if not name.startswith("_")} <= set(dir(getattr(uhd, kind)))
        when = uhd.time_spec(1, 0.75) + uhd.time_spec(0.5)
        own = sim.time_spec(1, 0.75) + sim.time_spec(0.5)
        assert (when.get_full_secs(), when.get_frac_secs()) == (own.get_full_secs(), own.get_frac_secs()) == (2, 0.25)

    def test_several_streamers_are_set_by_one_edge(self):
        block = source(boards_per_device=1)
        assert len(block.devices) == 2
        assert calls().count("set_time_next_pps") == 2
        assert position("set_time_next_pps", 1) - position("set_time_next_pps") == 1
        samples, tags = received(block)
        assert len(samples) == 40000
        assert len(tags["rx_time"]) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ("unlocked=ref", "board B2 does not lock to its external reference within 5 s .sensor ref_locked.: check the 10 MHz cable"),
            ("unlocked=lo", "oscillator of channel 3 .B2. does not lock"),
            ("pps_fault=1", "boards disagree on the time of the last PPS"),
            ("missing=B2", "no USRP answers to .*driver='sim'"),
        ],
    )
    def test_boards_that_do_not_come_into_step(self, more, words):
        with pytest.raises(MassaccessError, match=words):
            source(more)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"rate": 3e6}, "the boards make 2985074.62687 samples/s, not 3000000"),
            ({"reference": "internal"}, "do not run in step: connect 10 MHz and PPS of an OctoClock"),
            ({"gain": (1.0, 2.0)}, "2 gains are given for 4 channels"),
            ({"channels": 0}, "pass 1 or more"),
            ({"rate": 0.0}, "rate is 0"),
        ],
    )
    def test_settings_that_cannot_be(self, changes, words):
        with pytest.raises(ConfigError, match=words):
            source(**changes)

    def test_unknown_names_are_told(self):
        with pytest.raises(UnknownNameError, match="unknown reference 'moon'"):
            source(reference="moon")
        with pytest.raises(UnknownNameError, match="unknown driver 'soapy'"):
            source(driver="soapy")
        with pytest.raises(UnknownNameError, match="argument of the simulated array"):
            source("snr=3")

    def test_without_uhd_it_names_the_simulation(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gnuradio.uhd", None)
        monkeypatch.delattr(gr.__class__, "uhd", raising=False)
        import gnuradio

        monkeypatch.delattr(gnuradio, "uhd", raising=False)
        with pytest.raises(MassaccessError, match=r"install GNU Radio with UHD .* driver='sim'"):
            uhd_of("uhd")

    def test_without_hardware_it_names_the_simulation(self):
        pytest.importorskip("gnuradio.uhd")
        with pytest.raises(MassaccessError, match=r"no USRP answers to 'addr0=127.0.0.1.*driver='sim'"):
            massaccess.usrp_array_source(addresses="127.0.0.1", reference="internal")

    def test_a_device_that_is_told_too_late_ends_the_flowgraph_with_the_reason(self):
        block = source("late=1")
        block._interleaver._patience = 0.3
        with pytest.raises(_base.BlockFailure, match=r"no samples within .* start time had passed"):
            received(block)


class TestStream:
    def test_tags_stand_on_the_first_vector_once(self):
        samples, tags = received(source())
        assert len(samples) == 40000
        (offset, when), seconds = tags["rx_time"][0], sim.log[-1][1][0]
        assert (offset, len(tags["rx_time"])) == (0, 1)
        assert abs(when[0] + when[1] - seconds) < 1e-6
        assert tags["rx_rate"] == [(0, 1e6)]
        assert tags["rx_freq"] == [(0, 3.5e9)]
        assert tags["rx_gain"] == [(0, 20.0)]
        assert tags["rx_channels"] == [(0, "B1:0,1 B2:0,1")]
        assert parse_channels("B1:0,1 B2:0,1") == source().channels
        assert name_channels(parse_channels("B1:0,1 B2:0,1")) == "B1:0,1 B2:0,1"

    def test_antennas_are_in_the_order_of_boards_and_channels(self):
        samples, _ = received(source("samples=4096,dead=2,snr_db=60"))
        power = (np.abs(samples) ** 2).mean(0)
        assert power[2] < 1e-4 * power[[0, 1, 3]].min()

    def test_sixty_four_antennas(self):
        boards = " ".join(f"S{board}" for board in range(32))
        block = source("samples=20000,overflow_every=5000,overflow_board=0", addresses=boards, boards_per_device=8)
        samples, _ = received(block, 64)
        lost = [length for device in block.devices for *_, length in device.lost]
        assert len(samples) == block.stats()["vectors"]
        assert 20000 - sum(lost) <= len(samples) < 20000  # losses of different streamers may be at the same time

    @pytest.mark.parametrize("board", [-1, 0, 1])
    def test_losses_of_all_boards_or_of_one_are_told_once_and_counted(self, board):
        """Each sample says its own number by its phase, so whatever is passed on must lie where its time says."""
        block = source(f"samples=400000,overflow_every=9000,overflow_len=400,overflow_board={board},snr_db=80,tone_hz=1,retune_phase=0")
        samples, tags = received(block)
        lost, stats = block.devices[0].lost, block.stats()
        assert len(lost) > 10
        told = (
            lost if stats["lost_vectors"] == sum(length for *_, length in lost) else lost[:-1]
        )  # nothing comes behind one at the very end
        assert stats["lost_vectors"] == sum(length for *_, length in told)
        assert stats["vectors"] == len(samples) == 400000 - sum(length for *_, length in lost)
        assert stats["gaps"] == len(tags["rx_time"]) - 1
        assert bool(stats["disagreements"]) == (board >= 0)
        dropped = sum(length for *_, length in lost)
        assert stats["dropped_samples"] in ((2 * dropped, 2 * stats["lost_vectors"]) if board >= 0 else (0,))
        start = tags["rx_time"][0][1]
        number = np.zeros(len(samples))
        edges = [*(offset for offset, _ in tags["rx_time"]), len(samples)]
        for (offset, when), stop in zip(tags["rx_time"], edges[1:], strict=True):
            tick = (when[0] - start[0] + when[1] - start[1]) * 1e6
            number[offset:stop] = tick + np.arange(stop - offset)
        turned = samples * np.exp(-2j * np.pi * number / 1e6)[:, None]
        assert np.abs(np.angle(turned / turned[0])).max() < 0.02

    def test_a_retune_is_timed_and_tagged_where_it_happens(self):
        block = source("samples=3000000,throttle=1,snr_db=40", rate=1e6)
        tb = gr.top_block()
        end = blocks.vector_sink_c(4)
        tb.connect(block, end)
        done = []

        def tick():
            if not done and block.stats()["vectors"] > 50000:
                sim.log.clear()
                block.set_freq(2.4e9)
                done.append(sim.log[0][1][0])

        massaccess.run(tb, on_tick=tick)
        tags = sorted((tag.offset, pmt.to_python(tag.value)) for tag in end.tags() if str(tag.key) == "rx_freq")
        assert [freq for _, freq in tags] == [3.5e9, 2.4e9]
        times = {tag.offset: pmt.to_python(tag.value) for tag in end.tags() if str(tag.key) == "rx_time"}
        seconds, fraction = times[tags[1][0]]
        assert seconds + fraction >= done[0] - 1e-6
        assert block.stats()["retunes"] == 1
        assert block.stats()["gaps"] == 0
        assert calls()[0] == "set_command_time"

    def test_a_stream_that_stalls_is_counted(self):
        """The device goes silent in the middle; the flowgraph is stopped from outside."""
        block = source("samples=0,throttle=1")
        block._interleaver._patience = 0.3
        tb, end = gr.top_block(), blocks.null_sink(32)
        tb.connect(block, end)

        def tick():
            if block.stats()["vectors"] > 20000:
                block.devices[0]._silent = True
            if block.stats()["stalls"]:
                tb.stop()

        massaccess.run(tb, on_tick=tick)
        assert block.stats()["stalls"] >= 1

    def test_a_new_gain_is_tagged(self):
        block = source()
        block.set_gain(11)
        assert received(block)[1]["rx_gain"] == [(0, 11.0)]

    def test_it_runs_again(self):
        block = source()
        first, _ = received(block)
        second, tags = received(block)
        assert len(second) == len(first)
        assert tags["rx_time"][0][0] == 0


class TestSink:
    def send(self, block, bursts, length=100):
        """``bursts`` are times, or None."""
        tags = []
        for number, when in enumerate(bursts):
            entries = {"packet_len": pmt.from_long(length)} | ({"tx_time": pmt.to_pmt(when)} if when else {})
            for key, value in entries.items():
                tag = gr.tag_t()
                tag.offset, tag.key, tag.value = number * length, pmt.intern(key), value
                tags.append(tag)
        samples = np.arange(4 * length * len(bursts)).astype(np.complex64)
        tb = gr.top_block()
        begin = blocks.vector_source_c(samples.tolist(), False, 4, tags)
        tb.connect(begin, block)
        massaccess.run(tb)
        return samples.reshape(-1, 4)

    def test_the_order_is_that_of_the_source(self):
        sink()
        order = ("usrp_sink", "set_clock_source", "set_samp_rate", "set_time_unknown_pps", "set_gain", "set_center_freq", "get_sensor")
        assert [position(name) for name in order] == sorted(position(name) for name in order)
        assert sim.log[0][1][2] == "packet_len"
        assert "set_rx_agc" not in calls()

    def test_bursts_go_out_at_their_times_antenna_by_antenna(self):
        block = sink()
        when = ((7, 0.25), (7, 0.5), None)
        sent = self.send(block, when)
        device = block.devices[0]
        assert [found for found, _ in device.bursts] == [(7, 0.25), (7, 0.5), None]
        assert np.array_equal(np.concatenate([piece for _, pieces in device.bursts for piece in pieces]), sent[:, 0])

    def test_reports_are_counted(self):
        block = sink("late=1,overflow_every=2")
        self.send(block, [(1, 0.0)] * 4)
        assert block.stats() == {"underflows": 2, "late": 4, "lost_packets": 0, "bursts": 4}
