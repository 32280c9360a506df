"""Population, channel, quantizer and pilot framer give what the library gives, frame by frame, whatever the batch sizes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess

from massaccess.errors import ConfigError, MassaccessError
from massaccess.forward.channels import received_power
from massaccess.forward.front_end import front_end, quantize
from massaccess.forward.simulate import Population, Simulation

FRAMES = 40


def tags(sink):
    return sorted((found.offset, str(found.key), pmt.to_python(found.value)) for found in sink.tags())


def frames(sink, *shape):
    return torch.from_numpy(np.array(sink.data(), np.complex64)).reshape(-1, *shape)


class Air(gr.top_block):
    """population -> channel_simulator -> [quantizer] -> sinks."""

    def __init__(self, cell, config, bits=None, scale=0.0, **changes):
        gr.top_block.__init__(self)
        self.population = cell(massaccess.population, seed=5, frames=FRAMES)
        self.channel = cell(massaccess.channel_simulator, seed=5, **changes)
        length = config.frame_len * config.antennas
        self.sent, self.rx = blocks.vector_sink_c(config.frame_len * config.users), blocks.vector_sink_c(length)
        self.truth = blocks.vector_sink_c(config.users * config.antennas)
        self.connect(self.population, self.channel)
        self.connect(self.population, self.sent)
        self.connect((self.channel, 1), self.truth)
        if bits is None:
            self.connect(self.channel, self.rx)
        else:
            self.quantizer = massaccess.quantizer(length, bits, scale)
            self.connect(self.channel, self.quantizer, self.rx)


def test_frames_are_those_of_the_library(cell, config):
    tb = Air(cell, config)
    massaccess.run(tb)
    truth, obs = Simulation(config, 5).frames(0, FRAMES)
    rx = frames(tb.rx, config.frame_len, config.antennas)
    assert torch.equal(frames(tb.truth, config.users, config.antennas), truth.channel)
    torch.testing.assert_close(rx, torch.cat([obs.pilot_rx, obs.data_rx], 1))
    sent = frames(tb.sent, config.frame_len, config.users)
    assert torch.equal((sent != 0).any(1), truth.active)
    assert torch.equal(sent[:, config.pilot_len :], truth.symbols * truth.active[:, None])


@pytest.mark.parametrize("changes", [{"cfo_hz": 200.0}, {"chain_phase_deg": 30.0}, {"channel": "pathloss", "power_control": False}])
def test_impairments_are_those_of_the_library(cell, config, changes):
    tb = Air(cell, config, **changes)
    massaccess.run(tb)
    _, obs = Simulation(config.replace(**changes), 5).frames(0, FRAMES)
    torch.testing.assert_close(frames(tb.rx, config.frame_len, config.antennas), torch.cat([obs.pilot_rx, obs.data_rx], 1))
    gains = [value for _, key, value in tags(tb.rx) if key == "user_gain"]
    if obs.user_gain is None:
        assert gains == []
    else:
        torch.testing.assert_close(torch.tensor(np.array(gains), dtype=torch.float32), obs.user_gain)


def test_batches_do_not_change_the_draws(cell, config):
    whole, pieces = Air(cell, config), Air(cell, config)
    for block in (pieces.population, pieces.channel):
        block.set_max_noutput_items(3)
    massaccess.run(whole)
    massaccess.run(pieces)
    torch.testing.assert_close(frames(whole.rx, config.frame_len, config.antennas), frames(pieces.rx, config.frame_len, config.antennas))


def test_tags_say_what_the_receiver_must_know(cell, config):
    tb = Air(cell, config)
    massaccess.run(tb)
    found = tags(tb.rx)
    assert [value for _, key, value in found if key == "frame"] == list(range(FRAMES))
    first = {key: value for offset, key, value in found if offset == 0}
    assert first["noise_var"] == pytest.approx(config.noise_var)
    assert (first["rx_rate"], first["rx_freq"], first["rx_time"]) == (config.sample_rate_hz, config.carrier_hz, (0, 0.0))
    assert len(first["pilot_book"]) == 8
    assert {key for offset, key, _ in found if offset} == {"frame"}


def test_snr_changes_while_running(cell, config):
    block = cell(massaccess.channel_simulator, snr_db=10.0)
    block.set_snr_db(20.0)
    sent, rx = blocks.vector_source_c([0.0] * config.frame_len * config.users * 2, False, config.frame_len * config.users), None
    rx = blocks.vector_sink_c(config.frame_len * config.antennas)
    tb = gr.top_block()
    tb.connect(sent, block, rx)
    massaccess.run(tb)
    assert [value for _, key, value in tags(rx) if key == "noise_var"] == [pytest.approx(config.replace(snr_db=20.0).noise_var)]


def test_the_frame_tag_picks_the_draws(cell, config):
    """A stream that starts at frame 21 gets the noise of frame 21."""
    length = config.frame_len * config.users
    mark = gr.tag_t()
    mark.offset, mark.key, mark.value = 0, pmt.intern("frame"), pmt.from_uint64(21)
    silence, rx = (
        blocks.vector_source_c([0.0] * length * 3, False, length, [mark]),
        blocks.vector_sink_c(config.frame_len * config.antennas),
    )
    tb = gr.top_block()
    tb.kept = cell(massaccess.channel_simulator, seed=5)
    tb.connect(silence, tb.kept, rx)
    massaccess.run(tb)
    noise = Simulation(config, 5).propagation.noise(1)[5:8]
    torch.testing.assert_close(frames(rx, config.frame_len, config.antennas), noise)


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_quantizer_is_that_of_the_library(cell, config, bits):
    scale = (received_power(config) / 2) ** 0.5
    tb = Air(cell, config, bits=bits, scale=scale)
    massaccess.run(tb)
    converter = front_end(bits=bits or None, power=received_power(config))
    _, obs = Simulation(config, 5).frames(0, FRAMES)
    wanted = quantize(torch.cat([obs.pilot_rx, obs.data_rx], 1), converter)
    agree = (frames(tb.rx, config.frame_len, config.antennas) - wanted).abs() < 1e-5
    assert agree.float().mean() > 0.9999  # rounding of the matrix product may cross a threshold
    first = {key: value for offset, key, value in tags(tb.rx) if offset == 0}
    assert first["adc_bits"] == bits
    assert first["adc_scale"] == pytest.approx(scale)
    assert [value for _, key, value in tags(tb.rx) if key == "frame"] == list(range(FRAMES))


def test_every_start_tells_everything_anew(cell, config):
    """A flowgraph that is reconfigured starts its blocks again, and whoever was connected then has not heard the first tags."""
    tb = Air(cell, config, bits=1, scale=2.0)
    length = config.frame_len * config.antennas
    tb.disconnect_all()
    tb.population, tb.head = cell(massaccess.population), blocks.head(8 * length, 4)
    tb.connect(tb.population, tb.channel, tb.quantizer, tb.head, tb.rx)
    for _ in range(2):
        massaccess.run(tb)
        told = {key: value for _, key, value in tags(tb.rx)}
        assert told["noise_var"] == pytest.approx(config.noise_var)
        assert (told["adc_bits"], told["adc_scale"]) == (1, 2.0)
        assert len(told["pilot_book"]) == 8
        tb.head.reset()
        tb.rx.reset()


def test_an_impossible_ratio_is_refused_where_it_is_set(cell):
    block = cell(massaccess.channel_simulator)
    with pytest.raises(ConfigError, match="snr_db"):
        block.set_snr_db(float("nan"))


def test_gain_control_settles_near_the_received_power(cell, config):
    tb = Air(cell, config, bits=1)
    massaccess.run(tb)
    steps = [value for _, key, value in tags(tb.rx) if key == "adc_scale"]
    assert len(steps) < FRAMES / 2
    assert steps[-1] == pytest.approx((received_power(config) / 2) ** 0.5, rel=0.1)


@pytest.mark.parametrize("bits", [-1, 17])
def test_quantizer_refuses_impossible_bits(bits):
    with pytest.raises(ConfigError, match="1 to 16"):
        massaccess.quantizer(64, bits)


def pdu(user, octets):
    return pmt.cons(pmt.dict_add(pmt.make_dict(), pmt.intern("user"), pmt.from_long(user)), pmt.init_u8vector(len(octets), list(octets)))


def decoded(config, samples):
    """Payload and check of every user in frames [B T N]."""
    population = Population(config)
    bits = population.constellation.decide(samples[:, config.pilot_len :].transpose(1, 2))
    return population.framing.decode(bits)


def test_a_payload_wakes_its_user_and_is_sent(cell, config):
    source = cell(massaccess.population, frames=20, active_users=1)
    sink = blocks.vector_sink_c(config.frame_len * config.users)
    for octets in (b"abc", b"def"):
        source.enqueue(pdu(7, octets))
    source.enqueue(pdu(2, b"xyz"))
    tb = gr.top_block()
    tb.connect(source, sink)
    massaccess.run(tb)
    samples = frames(sink, config.frame_len, config.users)
    payload, ok = decoded(config, samples)
    assert bytes(payload[0, 7].tolist()) == b"abc"
    assert bytes(payload[1, 7].tolist()) == b"def"
    assert bytes(payload[0, 2].tolist()) == b"xyz"
    assert ok[0, 7]
    assert ok[1, 7]
    assert ok[0, 2]


@pytest.mark.parametrize(
    "message", [pmt.PMT_T, pdu(99, b"abc"), pdu(1, b"too long"), pmt.cons(pmt.make_dict(), pmt.init_u8vector(3, [1, 2, 3]))]
)
def test_malformed_payloads_are_counted_and_harm_nobody(cell, message):
    source = cell(massaccess.population, frames=20)
    source.enqueue(message)
    assert (source.rejected, source.overflowed) == (1, 0)


def test_waiting_payloads_are_bounded(cell):
    source = cell(massaccess.population, frames=20)
    for _ in range(1030):
        source.enqueue(pdu(0, b"abc"))
    assert source.overflowed == 6


def test_pilot_framer_makes_the_frame_of_one_user(cell, config):
    framer = cell(massaccess.pilot_framer, user=3)
    store = blocks.message_debug()
    tb = gr.top_block()
    tb.kept = framer, store
    tb.msg_connect(framer, "frame", store, "store")
    tb.start()
    framer.send(pdu(3, b"abc"))
    framer.send(pmt.PMT_T)
    while not store.num_messages():
        pass
    tb.stop()
    tb.wait()
    found = store.get_message(0)
    samples = torch.tensor(np.array(pmt.c32vector_elements(pmt.cdr(found)), np.complex64))
    assert torch.allclose(samples[: config.pilot_len], Population(config).pilots[:, 3])
    frame = torch.zeros(1, config.frame_len, config.users, dtype=torch.complex64)
    frame[0, :, 3] = samples
    payload, ok = decoded(config, frame)
    assert bytes(payload[0, 3].tolist()) == b"abc"
    assert ok[0, 3]
    assert framer.rejected == 1


def test_parameters_are_checked_at_once(cell):
    with pytest.raises(MassaccessError, match="unknown channel"):
        cell(massaccess.channel_simulator, channel="ether")
    with pytest.raises(MassaccessError, match="active_users"):
        cell(massaccess.population, active_users=17)
    with pytest.raises(MassaccessError, match="unknown modulation"):
        cell(massaccess.population, modulation="8psk")
    with pytest.raises(MassaccessError, match="user is 16"):
        cell(massaccess.pilot_framer, user=16)
