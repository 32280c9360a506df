"""Packed samples in the stream: nothing is lost on the way, over ZMQ and through recordings as well, and tags travel along."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError
from massaccess.forward.channels import received_power
from massaccess.forward.front_end import front_end, quantize
from massaccess.forward.packing import octets, pack
from massaccess.forward.simulate import Simulation
from massaccess.link.listener import Listener
from massaccess.link.metadata import Metadata
from massaccess.link.publisher import Publisher
from massaccess.link.recording import open_recording
from massaccess.link.recording_format import data_file

CONFIG = SystemConfig(users=16, rows=4, columns=4, pilot_len=12, data_len=20, channel="rayleigh", snr_db=12.0, active_users=3, adc_bits=1)
LENGTH = CONFIG.frame_len * CONFIG.antennas
FRAMES = 40


def mark(offset, key, value):
    found = gr.tag_t()
    found.offset, found.key, found.value = offset, pmt.intern(key), value
    return found


def numbered(indices, **first):
    told = [mark(row, "frame", pmt.from_uint64(int(index))) for row, index in enumerate(indices)]
    return told + [mark(0, key, pmt.from_double(value)) for key, value in first.items()]


def tags(sink):
    return sorted((found.offset, str(found.key), pmt.to_python(found.value)) for found in sink.tags())


def quantized(bits=1, **options):
    """Frames [FRAMES L M] that a converter gave, and that converter."""
    config = CONFIG.replace(adc_bits=bits, **options)
    _, obs = Simulation(config, 5).frames(0, FRAMES)
    return torch.cat([obs.pilot_rx, obs.data_rx], 1).numpy(), Simulation(config, 5).front_end


def chain(*blocks_in_a_row):
    tb = gr.top_block()
    tb.kept = blocks_in_a_row
    tb.connect(*blocks_in_a_row)
    return tb


def sizes(bits=1):
    return {"frame_len": CONFIG.frame_len, "antennas": CONFIG.antennas, "bits": bits}


# --- in one flowgraph -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize(("offset", "dither"), [(0.0, 0.0), (0.1, 0.4)])
def test_what_is_unpacked_is_what_the_quantizer_gave(bits, offset, dither):
    _, obs = Simulation(CONFIG.replace(adc_bits=None), 5).frames(0, FRAMES)
    rx = torch.cat([obs.pilot_rx, obs.data_rx], 1).numpy()
    source = blocks.vector_source_c(rx.ravel().tolist(), False, LENGTH, numbered(range(7, 7 + FRAMES), noise_var=0.5))
    quantizer = massaccess.quantizer(LENGTH, bits, 0.0, offset, dither)  # its gain control moves now and then
    plain, again = blocks.vector_sink_c(LENGTH), blocks.vector_sink_c(LENGTH)
    packed = blocks.vector_sink_b(CONFIG.frame_len * octets(CONFIG.antennas, bits))
    packer, unpacker = massaccess.sample_packer(**sizes(bits)), massaccess.sample_unpacker(**sizes(bits))
    tb = chain(source, quantizer, packer, unpacker, again)
    tb.connect(quantizer, plain)
    tb.connect(packer, packed)
    massaccess.run(tb)
    wanted = np.array(plain.data(), np.complex64)
    assert np.array_equal(np.array(again.data(), np.complex64).view(np.uint32), wanted.view(np.uint32))
    assert len(packed.data()) == FRAMES * CONFIG.frame_len * octets(CONFIG.antennas, bits)
    assert tags(again) == tags(packed) == tags(plain)
    assert len([key for _, key, _ in tags(plain) if key == "adc_scale"]) > 1
    assert {(key, value) for row, key, value in tags(plain) if row == 0} >= {("adc_offset", offset), ("adc_dither", dither)}


@pytest.mark.parametrize(("offset", "dither"), [(0.0, 0.5), (-0.2, 0.0), (0.1, 0.3)])
def test_the_quantizer_dithers_as_the_library_does(offset, dither):
    _, obs = Simulation(CONFIG.replace(adc_bits=None), 5).frames(0, FRAMES)
    rx = torch.cat([obs.pilot_rx, obs.data_rx], 1)
    sink = blocks.vector_sink_c(LENGTH)
    source = blocks.vector_source_c(rx.numpy().ravel().tolist(), False, LENGTH)
    massaccess.run(chain(source, massaccess.quantizer(LENGTH, 1, 2.0, offset, dither), sink))
    converter = front_end(bits=1, power=8.0, threshold=offset, dither=dither, frame=(CONFIG.frame_len, CONFIG.antennas))
    assert np.array_equal(np.array(sink.data(), np.complex64), quantize(rx, converter).numpy().ravel())


def test_parameters_take_the_place_of_tags():
    samples, _ = quantized(adc_dither=0.4)
    scale = (received_power(CONFIG) / 2) ** 0.5
    source = blocks.vector_source_c(samples.ravel().tolist(), False, LENGTH)
    known = {"scale": scale, "dither": 0.4}
    sink = blocks.vector_sink_c(LENGTH)
    massaccess.run(chain(source, massaccess.sample_packer(**sizes(), **known), massaccess.sample_unpacker(**sizes(), **known), sink))
    assert np.array_equal(np.array(sink.data(), np.complex64), samples.ravel())


def test_other_bits_than_the_quantizers_are_named():
    source = blocks.vector_source_c([0.1] * LENGTH * 4, False, LENGTH)
    tb = chain(source, massaccess.quantizer(LENGTH, 2, 1.0), massaccess.sample_packer(**sizes(1)), blocks.null_sink(LENGTH // 4))
    with pytest.raises(MassaccessError, match="frames have 2 bits a part and this block expects 1"):
        massaccess.run(tb)
    for bits in (0, 17):
        with pytest.raises(ConfigError, match="1 to 16"):
            massaccess.sample_packer(bits=bits)
    with pytest.raises(ConfigError, match="dither"):
        massaccess.sample_unpacker(dither=-0.1)
    with pytest.raises(ConfigError, match="dither"):
        massaccess.quantizer(64, dither=-1.0)
    with pytest.raises(ConfigError, match="offset"):
        massaccess.quantizer(64, offset=float("nan"))


@pytest.mark.parametrize("changes", [{}, {"adc_dither": 0.3, "adc_offset": 0.1}, {"adc_bits": 3, "adc_dither": 0.2}])
def test_receivers_answer_the_same_with_and_without_packing(changes):
    """And know of the dither what the library's simulation knows."""
    config = CONFIG.replace(**changes)
    digests = []
    for packed in (False, True):
        tb = massaccess.uplink(config, "covariance+lmmse-lmmse", seed=3, frames=32, threads=1, packed=packed)
        massaccess.run(tb)
        digests.append(tb.receiver.digest())
        assert tb.meter.summary()["lost"] == 0
    assert digests[0] == digests[1]


def test_the_receiver_sees_the_observation_of_the_library(cell, monkeypatch):
    config, seen = CONFIG.replace(adc_dither=0.3, adc_offset=0.1), []
    block = cell(massaccess.receiver, receiver="energetic", max_batch=8)
    kind = type(block._decoder._engine._receiver)
    energetic = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, obs, **rest: seen.append(obs) or energetic(self, obs, **rest))
    samples, converter = quantized(adc_dither=0.3, adc_offset=0.1)
    scale = (received_power(config) / 2) ** 0.5
    told = numbered(range(8), noise_var=0.1, adc_scale=scale, adc_offset=0.1, adc_dither=0.3)
    source = blocks.vector_source_c(samples[:8].ravel().tolist(), False, LENGTH, [*told, mark(0, "adc_bits", pmt.from_long(1))])
    massaccess.run(chain(source, block))
    found = seen[-1].front_end
    assert torch.equal(found.offset, converter.offset)
    assert (found.bits, found.scale) == (1, pytest.approx(converter.scale))


# --- recordings -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"adc_dither": 0.3, "adc_offset": 0.1}, {"adc_bits": 4}])
def test_packed_recordings_are_received_with_the_same_digest(tmp_path, changes):
    config = CONFIG.replace(**changes)
    for name, packed in (("plain", False), ("packed", True)):
        tb = massaccess.uplink(config, "energetic", seed=3, frames=32, threads=1, record=str(tmp_path / name), packed=packed)
        massaccess.run(tb)
    one, two = (open_recording(tmp_path / name) for name in ("plain", "packed"))
    assert np.array_equal(one.samples, two.samples)
    assert [run.metadata for run in one.runs] == [run.metadata for run in two.runs]
    plain, packed = (data_file(recording.path).stat().st_size for recording in (one, two))
    assert plain == 32 // config.adc_bits * packed
    digests = []
    for name in ("plain", "packed"):
        received = massaccess.capture(tmp_path / name, "covariance+lmmse-lmmse", seed=3, threads=1)
        massaccess.run(received)
        digests.append(received.receiver.digest())
    assert digests[0] == digests[1]


def test_only_quantised_frames_can_be_recorded_packed(tmp_path):
    with pytest.raises(ConfigError, match="1 to 16"):
        massaccess.sigmf_recorder(str(tmp_path / "air"), packed=True)
    with pytest.raises(ConfigError, match="1 to 16"):
        massaccess.uplink(CONFIG.replace(adc_bits=None), packed=True)


# --- over the wire --------------------------------------------------------------------------------------------------------------------


def octet_source(samples, converter, told):
    packed = pack(samples, converter)
    return blocks.vector_source_b(packed.ravel().tolist(), False, packed[0].size, told), packed


@pytest.mark.parametrize("mode", ["pub", "push"])
def test_two_flowgraphs_with_a_wire_between_them(mode):
    samples, converter = quantized()
    scale = (received_power(CONFIG) / 2) ** 0.5
    source, _ = octet_source(samples, converter, numbered(range(100, 100 + FRAMES), noise_var=0.5, adc_scale=scale))
    publisher = massaccess.zmq_sample_publisher(**sizes(), endpoint="tcp://127.0.0.1:*", mode=mode, high_water_mark=1000, max_batch=7)
    listener = massaccess.zmq_sample_listener(**sizes(), endpoint=publisher.endpoint, mode=mode, high_water_mark=1000)
    sink = blocks.vector_sink_c(LENGTH)
    far = chain(listener, massaccess.sample_unpacker(**sizes()), sink)
    near = chain(source, publisher)
    far.start()
    assert publisher.wait_for_listener(10)
    near.run()
    far.wait()
    assert massaccess.failures.first is None
    assert (listener.lost, listener.bad) == (0, 0)
    assert np.array_equal(np.array(sink.data(), np.complex64), samples.ravel())
    assert [value for _, key, value in tags(sink) if key == "frame"] == list(range(100, 100 + FRAMES))
    assert [(row, value) for row, key, value in tags(sink) if key == "noise_var"] == [(0, 0.5)]


def test_listeners_without_gnu_radio_hear_the_octets():
    samples, converter = quantized()
    source, packed = octet_source(samples, converter, numbered(range(FRAMES), adc_scale=0.7))
    publisher = massaccess.zmq_sample_publisher(**sizes(), endpoint="tcp://127.0.0.1:*", mode="push")
    with Listener(publisher.endpoint, mode="push") as listener:
        received = []
        thread = threading.Thread(target=lambda: received.extend(listener))
        thread.start()
        massaccess.run(chain(source, publisher))
        thread.join(10)
    assert np.array_equal(np.concatenate([message["packed"] for message in received]), packed)
    assert received[0].metadata == Metadata(frame=0, adc_scale=0.7)


def test_what_is_no_frame_is_counted_and_silence_ends_with_a_reason():
    with Publisher(mode="push", linger_s=0.5) as publisher:
        listener = massaccess.zmq_sample_listener(**sizes(), endpoint=publisher.endpoint, mode="push", timeout=1.0)
        tb = chain(listener, blocks.null_sink(CONFIG.frame_len * octets(CONFIG.antennas, 1)))
        frame = np.arange(3, dtype=np.uint64)
        wrong = (
            {"activity": np.zeros((3, 8), np.float32)},
            {"packed": np.zeros((3, 7, 7), np.uint8)},
            {"packed": np.zeros((3, 7), np.uint8)},
        )
        for arrays in wrong:
            publisher.send({"frame": frame, **arrays}, Metadata(frame=0), timeout_s=10)
        with pytest.raises(MassaccessError, match="publisher is there and silent"):
            massaccess.run(tb)
    assert listener.bad == 3


def test_a_listener_stops_at_once():
    listener = massaccess.zmq_sample_listener(**sizes(), endpoint="tcp://127.0.0.1:9", timeout=0)
    tb = chain(listener, blocks.null_sink(CONFIG.frame_len * octets(CONFIG.antennas, 1)))
    tb.start()
    time.sleep(0.3)
    began = time.monotonic()
    tb.stop()
    tb.wait()
    assert time.monotonic() - began < 2
