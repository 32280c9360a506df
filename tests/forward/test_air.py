"""The air as a stream: the frames of the simulation, what each impairment does, and nothing that depends on chunk sizes."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, ShapeError
from massaccess.forward.air import Air, delayed
from massaccess.forward.impairments import Impairments, Overflows, convert
from massaccess.forward.simulate import BLOCK, Population, Propagation
from massaccess.forward.waveform import matched, modulate, preamble, to_rows
from massaccess.rng import complex_normal, generator

CONFIG = SystemConfig(
    users=12, rows=2, columns=4, pilot_len=8, data_len=24, activity=0.3, channel="rayleigh", snr_db=200.0, snr_convention="per-user",
    samples_per_symbol=4, preamble_len=8, guard_len=8, timing_offset=0.5, cfo_hz=250.0, sample_rate_hz=1e6,
)  # fmt: skip
ROUGH = Impairments(300.0, 6.0, 0.0, 1.0, 0.5, 3.0, 0.05, 10)


def streams(config, slots, seed=1):
    """What all users send [slots * slot_samples, users], nominal."""
    burst, population = config.burst, Population(config, seed)
    sent = torch.cat([population.transmit(block).samples for block in range(-(-slots // BLOCK))])[:slots]
    head = preamble(burst)[:, None] * (sent != 0).any(1)[:, None]
    return modulate(torch.cat([head, sent], 1), burst).flatten(0, 1), sent


def through(air, samples, chunk=10**9):
    return torch.cat([*(air.push(part) for part in samples.split(chunk)), air.flush()])


def test_slots_are_the_frames_of_the_simulation():
    """Filters over a stream and Fourier transforms over slots are two ways to delay, turn and add up bursts."""
    samples, sent = streams(CONFIG, 20)
    received = through(Air(CONFIG, 1), samples).unflatten(0, (20, -1))
    for block, rows in ((0, slice(0, 16)), (1, slice(0, 4))):
        expected, channel, _ = Propagation(CONFIG, 1).receive(sent[16 * block :][rows], block, rows)
        found = to_rows(received[16 * block :][rows], CONFIG.burst)
        assert float((found - expected).abs().square().mean()) < 1e-5 * float(expected.abs().square().mean())
        assert torch.equal(Air(CONFIG, 1).truth(16 * block + 2).channel, channel[2])


@pytest.mark.parametrize("impairments", [Impairments(), ROUGH, Impairments(clock_ppm=50.0)])
def test_chunk_sizes_change_nothing(impairments):
    samples, _ = streams(CONFIG.replace(snr_db=10.0, common_cfo_hz=3e3), 6)
    whole = through(Air(CONFIG, 1, impairments), samples)
    assert len(whole) == len(samples)
    for chunk in (7, 192, 500):
        assert torch.equal(through(Air(CONFIG, 1, impairments), samples, chunk), whole)


def test_frames_of_symbols_are_the_same_air():
    """But for the ends of pulses that reach into the next slot."""
    samples, sent = streams(CONFIG, 20)
    stream, whole = through(Air(CONFIG, 1), samples), Air(CONFIG, 1).push_frames(sent)
    assert float((stream - whole).abs().square().mean()) < 1e-5 * float(whole.abs().square().mean())
    air = Air(CONFIG, 1)
    assert torch.equal(torch.cat([air.push_frames(part) for part in sent.split(3)]), whole)


def test_a_later_start_is_the_same_air():
    samples, _ = streams(CONFIG, 6)
    size = CONFIG.burst.slot_samples
    whole = through(Air(CONFIG.replace(snr_db=10.0), 1, ROUGH), samples)
    tail = through(Air(CONFIG.replace(snr_db=10.0), 1, ROUGH, first_slot=4), samples[4 * size :])
    torch.testing.assert_close(tail[40:], whole[4 * size + 40 :])  # but for the tails of bursts before


def test_any_stream_is_delayed_by_fractions_of_samples():
    """A tone that never pauses comes out as the tone of an earlier instant."""
    n, delay = torch.arange(-20, 220, dtype=torch.double), torch.tensor([-2.0, -1.37, 0.0, 0.5, 1.99])
    for frequency in (0.0, 0.11, -0.156):
        tone = torch.polar(torch.ones_like(n), 2 * math.pi * frequency * n).to(torch.complex64)[:, None].expand(-1, 5)
        angle = 2 * math.pi * frequency * (n[20:-20, None] - delay.double())
        assert float((delayed(tone, delay, 20) - torch.polar(torch.ones_like(angle), angle)).abs().max()) < 3e-4


def test_noise_has_the_variance_that_was_asked_for():
    config = CONFIG.replace(snr_db=-7.0)
    noise = through(Air(config, 3), torch.zeros(100 * config.burst.slot_samples, config.users, dtype=torch.complex64))
    count = noise.numel()
    assert float(noise.abs().square().mean()) == pytest.approx(config.noise_var, rel=5 / math.sqrt(count))
    assert abs(complex((noise[:-1] * noise[1:].conj()).mean())) < 5 * config.noise_var / math.sqrt(count)  # white
    symbols = matched(to_rows(noise.unflatten(0, (100, -1)), config.burst), config.burst)
    assert float(symbols.abs().square().mean()) == pytest.approx(config.noise_var, rel=0.05)


def test_the_common_carrier_turns_on_from_slot_to_slot():
    samples, _ = streams(CONFIG, 3)
    plain, turned = (through(Air(CONFIG.replace(common_cfo_hz=cfo), 1), samples) for cfo in (0.0, 1234.5))
    angle = 2 * math.pi * 1234.5 / CONFIG.sample_rate_hz * torch.arange(len(samples), dtype=torch.double)
    torch.testing.assert_close(turned, plain * torch.polar(torch.ones_like(angle), angle).to(plain.dtype)[:, None], rtol=1e-4, atol=1e-4)


def test_phase_noise_is_a_wiener_process_of_its_linewidth():
    air = Air(CONFIG, 1, Impairments(phase_noise_hz=200.0))
    phase = torch.stack([air.phase_noise(slot) for slot in range(200)])
    for lag in (1, 50):
        change = phase[:, lag:] - phase[:, :-lag]
        assert float(change.square().mean()) == pytest.approx(2 * math.pi * 200.0 * lag / CONFIG.sample_rate_hz, rel=0.1)
    samples, _ = streams(CONFIG, 1)
    still, turned = (through(Air(CONFIG.replace(users=1), 1, item), samples[:, :1] + 1) for item in (None, air.impairments))
    spread = (turned / still).angle()[:: CONFIG.burst.slot_samples // 4, 0]
    expected = Air(CONFIG.replace(users=1), 1, air.impairments).phase_noise(0)[:: CONFIG.burst.slot_samples // 4, 0]
    torch.testing.assert_close(spread, expected, atol=1e-3, rtol=0)


def test_the_arrays_clock_drifts():
    config = CONFIG.replace(timing_offset=0.0, cfo_hz=0.0, users=1)
    tone = torch.polar(torch.ones(40000), 2 * math.pi * 0.01 * torch.arange(40000)).to(torch.complex64)[:, None]
    size = config.burst.slot_samples
    plain, late = (through(Air(config, 1, Impairments(clock_ppm=ppm)), tone) for ppm in (0.0, 100.0))
    slot = 150  # whole, in the middle: sample n is taken n * 1e-4 samples earlier
    turn = (late[slot * size + 20 : (slot + 1) * size - 20] / plain[slot * size + 20 : (slot + 1) * size - 20]).angle()
    assert float(turn.mean()) == pytest.approx(-2 * math.pi * 0.01 * (slot + 0.5) * size * 1e-4, rel=0.01)


def test_chains_are_as_they_were_drawn():
    config = CONFIG.replace(rows=20, columns=20, chain_phase_deg=30.0, cfo_hz=0.0)
    chains = Air(config, 1, Impairments(chain_gain_db=1.0, iq_gain_db=0.5, iq_phase_deg=3.0, dc_offset=0.1)).chains
    assert float((20 * chains.gain.abs().log10()).std()) == pytest.approx(1.0, rel=0.15)
    torch.testing.assert_close(chains.gain / chains.gain.abs(), Propagation(config, 1).chain_phase)
    tone = torch.polar(torch.ones(1000), 2 * math.pi * 0.05 * torch.arange(1000)).to(torch.complex64)[:, None].expand(-1, 400)
    out = torch.fft.fft(chains.apply(tone), dim=0) / 1000
    rejection = 20 * (out[50].abs() / out[-50].abs()).log10()
    torch.testing.assert_close(rejection, chains.image_rejection_db, atol=0.05, rtol=0)
    assert 25 < float(rejection.median()) < 40  # (0.058 / 2) ** 2 + (0.052 / 2) ** 2: about 28 dB
    torch.testing.assert_close(out[0], chains.dc, atol=1e-4, rtol=0)


def test_converters_resolve_and_clip():
    x = complex_normal(20000, generator=generator(0, "x"))
    y = convert(x, 8, 4 / math.sqrt(2))
    step = 2 * 4 / math.sqrt(2) / 2**8
    assert float((y - x).abs().square().mean()) == pytest.approx(2 * step**2 / 12, rel=0.05)
    assert len(torch.view_as_real(y).unique()) <= 2**8
    assert float(torch.view_as_real(convert(10 * x, 8, 1.0)).abs().max()) == pytest.approx(1 - 1 / 2**8)


def test_path_loss_is_fixed_and_within_its_range():
    air = Air(CONFIG.replace(users=200), 1, Impairments(path_loss_db=20.0))
    loss_db = -20 * air.loss.log10()
    assert float(loss_db.min()) >= 0 and 17 < float(loss_db.max()) <= 20
    plain, lossy = Air(air.config, 1).truth(5).channel, air.truth(5).channel
    torch.testing.assert_close(lossy, plain * air.loss[:, None])


def test_overflows_are_the_same_in_any_chunks():
    overflows = Overflows(0.3, 900, 192, seed=4)
    samples = torch.arange(60 * 192)
    for chunk in (50, 192, 1000):
        kept = torch.cat(
            [piece for start in range(0, len(samples), chunk) for _, piece in overflows.cut(samples[start : start + chunk], start)]
        )
        lost = torch.cat([torch.arange(a, min(b, len(samples))) for a, b in overflows.gaps(0, len(samples))])
        assert torch.equal(torch.cat([kept, lost]).sort().values, samples)
    assert 5 < len(overflows.gaps(0, len(samples))) <= sum(a < b for a, b in map(overflows.gap, range(60)))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="samples_per_symbol=4"):
        Air(SystemConfig(channel="rayleigh"))
    with pytest.raises(ShapeError, match="a column a user"):
        Air(CONFIG).push(torch.zeros(10, 3))
    with pytest.raises(ConfigError, match="converter_bits"):
        Impairments(converter_bits=17)
    with pytest.raises(ConfigError, match="iq_gain_db"):
        Impairments(iq_gain_db=-1.0)
