"""What the transmitter sends is what the library says, as a stream and as timed bursts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess

from massaccess import SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.simulate import Population
from massaccess.forward.transmit import Sender
from massaccess.forward.waveform import matched, preamble, to_rows

CELL = {"users": 6, "pilot_len": 8, "data_len": 24, "activity": 0.4, "preamble_len": 8, "guard_len": 8}
CONFIG = SystemConfig(**CELL, samples_per_symbol=4, sample_rate_hz=1e6)
SLOT = CONFIG.burst.slot_samples


class Sent(gr.top_block):
    """Transmitter, and a sink for each of its streams."""

    def __init__(self, **options):
        gr.top_block.__init__(self)
        self.source = massaccess.burst_transmitter(**{**CELL, **options})
        self.sinks = [blocks.vector_sink_c() for _ in range(self.source.output_signature().max_streams())]
        for port, sink in enumerate(self.sinks):
            self.connect((self.source, port), sink)

    @property
    def samples(self):
        return np.stack([np.array(sink.data(), np.complex64) for sink in self.sinks], 1)

    def tags(self):
        return [(tag.offset, str(tag.key), pmt.to_python(tag.value)) for tag in self.sinks[0].tags()]


def sent(**options):
    tb = Sent(**options)
    massaccess.run(tb)
    return tb


def payload(user, octets, **known):
    told = pmt.dict_add(pmt.make_dict(), pmt.intern("user"), pmt.from_long(user))
    for key, value in known.items():
        told = pmt.dict_add(told, pmt.intern(key), pmt.from_bool(value))
    return pmt.cons(told, pmt.init_u8vector(len(octets), list(octets)))


def symbols(samples):
    """Pilots and data [slots, pilot_len + data_len, streams] of samples [n streams]."""
    slots = torch.from_numpy(samples.reshape(-1, SLOT, samples.shape[1]))
    return matched(to_rows(slots, CONFIG.burst), CONFIG.burst)


def test_slots_are_frames_of_the_population():
    """Slot n of a seed is frame n: users 4 and 1, in that order, from slot 13 on, over the edge of a block of draws."""
    tb = sent(user_list=(4, 1), seed=3, first_slot=13, frames=12)
    truth = torch.cat([Population(CONFIG, 3).transmit(block).samples for block in (0, 1)])[13:25]
    torch.testing.assert_close(symbols(tb.samples), truth[:, :, [4, 1]], atol=1e-4, rtol=0)
    assert tb.source.stats()["slots"] == 12
    assert tb.source.stats()["bursts"] == int((truth[:, 0, [4, 1]] != 0).sum()) > 0


def test_everybody_sends_the_preamble():
    samples = Sender(CONFIG.replace(activity=1.0)).slot(0).samples
    lead, rate = CONFIG.burst.lead, 4
    seen = torch.fft.ifft(torch.fft.fft(torch.from_numpy(samples), dim=0) * pulse_spectrum()[:, None], dim=0)[lead * rate :: rate]
    torch.testing.assert_close(seen[:8], preamble(CONFIG.burst)[:, None].expand(-1, 6), atol=1e-4, rtol=0)


def pulse_spectrum():
    from massaccess.forward.waveform import pulse

    return pulse(CONFIG.burst, 4).to(torch.float32) * 2


@pytest.mark.parametrize("chunk", [100, 5000])
def test_streams_add_up_whatever_the_chunks(chunk):
    one = sent(user_list=(0, 2, 5), seed=1, frames=20)
    other = Sent(user_list=(0, 2, 5), combine=True, seed=1, frames=20)
    other.source.set_max_noutput_items(chunk)
    massaccess.run(other)
    np.testing.assert_allclose(other.samples[:, 0], one.samples.sum(1), atol=1e-5)
    assert len(other.samples) == 20 * SLOT


def test_bursts_have_their_times():
    stream = sent(user_list=(1, 3), seed=2, frames=40)
    bursts = sent(user_list=(1, 3), seed=2, frames=40, mode="burst", epoch=(1_700_000_000, 0.75))
    length = SLOT - 2 * 4  # a burst ends before its slot does
    awake = [n for n in range(40) if np.abs(stream.samples[n * SLOT : (n + 1) * SLOT]).any()]
    assert 0 < len(awake) < 40
    wanted = np.concatenate([stream.samples[n * SLOT : n * SLOT + length] for n in awake])
    np.testing.assert_array_equal(bursts.samples, wanted)
    tags = bursts.tags()
    assert [(offset, value) for offset, key, value in tags if key == "frame"] == [(i * length, n) for i, n in enumerate(awake)]
    assert [offset for offset, key, value in tags if key == "tx_sob" and value] == [i * length for i in range(len(awake))]
    assert [offset for offset, key, value in tags if key == "tx_eob" and value] == [(i + 1) * length - 1 for i in range(len(awake))]
    for (_, _, (seconds, fraction)), n in zip([tag for tag in tags if tag[1] == "tx_time"], awake, strict=True):
        assert 0 <= fraction < 1
        assert (seconds - 1_700_000_000) + fraction == pytest.approx(0.75 + n * SLOT / 1e6, abs=1e-9)


def test_bursts_may_tell_their_length():
    tags = sent(user_list=(1, 3), seed=2, frames=20, mode="burst", packet_tag="packet_len").tags()
    assert {value for _, key, value in tags if key == "packet_len"} == {SLOT - 2 * 4}
    assert not {"tx_sob", "tx_eob"} & {key for _, key, _ in tags}


def test_payloads_take_their_turns():
    """Octets, and bits that are encoded already; a second payload of the same user waits for the next slot; users sleep otherwise."""
    sender = Sender(CONFIG)
    bits = np.random.default_rng(0).integers(0, 2, sender.payload_bits).tolist()
    tb = Sent(user_list=(2, 3), frames=4, activity=0.0)
    octets = [bytes([n] * tb.source.payload_bytes) for n in (7, 8)]
    for message in (payload(2, octets[0]), payload(3, bits, coded=True), payload(2, octets[1])):
        tb.source.enqueue(message)
    massaccess.run(tb)
    seen = symbols(tb.samples)
    framing, points = sender._population.framing, sender._population.constellation
    assert torch.equal((seen.abs().amax(1) > 0.1), torch.tensor([[True, True], [True, False], [False, False], [False, False]]))
    for slot, content in enumerate(octets):
        received = points.decide(seen[slot, 8:, 0])
        decoded, ok = framing.decode(received.expand(6, -1))
        assert ok[2] and bytes(decoded[2].tolist()) == content
    assert points.decide(seen[0, 8:, 1]).tolist() == bits
    assert tb.source.stats()["payloads"] == 3


def test_what_cannot_be_sent_is_counted():
    source = massaccess.burst_transmitter(**CELL, user_list=(2,))
    good = bytes(source.payload_bytes)
    for bad in (payload(1, good), payload(2, good[:-1]), payload(2, [2] * source.payload_bits, coded=True), pmt.intern("x")):
        source.enqueue(bad)
    for _ in range(1030):
        source.enqueue(payload(2, good))
    stats = source.stats()
    assert (stats["rejected"], stats["queue"], stats["overflowed"]) == (4, 1024, 6)


def test_amplitude_and_clipping():
    """Of one user: root mean square amplitude / sqrt(rate) during the burst, peaks below full scale; of six together they are not."""
    one = sent(activity=1.0, user_list=(0,), frames=50)
    six = sent(activity=1.0, user_list=range(6), combine=True, frames=50)
    samples = one.samples
    energy = np.square(np.abs(samples)).sum() / (50 * CONFIG.burst.symbols)
    assert energy == pytest.approx(1.0, rel=0.05)
    assert one.source.stats()["clipped"] == 0
    assert six.source.stats()["clipped"] > 0


def test_late_slots_are_left_out_and_early_ones_wait():
    tb = Sent(user_list=(0, 1, 2, 3, 4, 5), seed=1, frames=400, mode="burst", epoch=50.0)
    now = [50.0 + 100 * SLOT / 1e6]

    def clock():
        now[0] += SLOT / 1e6
        return now[0]

    tb.source.set_clock(clock)
    massaccess.run(tb)
    frames = [value for _, key, value in tb.tags() if key == "frame"]
    times = [seconds + fraction for seconds, fraction in (value for _, key, value in tb.tags() if key == "tx_time")]
    assert frames[0] >= 101
    assert tb.source.stats()["late"] + tb.source.stats()["slots"] == 400
    assert tb.source.stats()["late"] >= 100
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("options", "error", "cure"),
    [
        ({"samples_per_symbol": 1, "guard_len": 0, "preamble_len": 0}, ConfigError, "samples_per_symbol"),
        ({"user_list": (0, 9)}, ConfigError, "different numbers of 0 to 5"),
        ({"user_list": (1, 1)}, ConfigError, "different numbers"),
        ({"amplitude": 0.0}, ConfigError, "more than 0"),
        ({"mode": "slots"}, UnknownNameError, "burst, stream"),
        ({"frames": -1}, ConfigError, "0 or more"),
    ],
)
def test_errors_name_the_cure(options, error, cure):
    with pytest.raises(error, match=cure):
        massaccess.burst_transmitter(**{**CELL, **options})
