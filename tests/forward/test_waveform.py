"""Bursts as waveforms: pulses of unit energy without intersymbol interference, offsets that can be undone, white noise."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess import SystemConfig
from massaccess.burst import Burst
from massaccess.errors import ConfigError, ShapeError
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.forward.waveform import instants, matched, modulate, preamble, pulse, to_rows
from massaccess.rng import complex_normal, generator

BURST = Burst(pilot_len=12, data_len=20, preamble_len=8, guard_len=8, samples_per_symbol=4)
AIR = {"preamble_len": 8, "guard_len": 8, "samples_per_symbol": 4}


def symbols(burst: Burst, users: int = 3, frames: int = 2) -> torch.Tensor:
    points = constellation("qpsk").points
    return points[torch.randint(0, 4, (frames, burst.symbols, users), generator=generator(1, "symbols"))].to(torch.complex128)


@pytest.mark.parametrize("rate", [2, 3, 4, 8])
@pytest.mark.parametrize("roll_off", [0.1, 0.25, 1.0])
def test_a_pulse_has_unit_energy_and_no_interference_at_any_rate(rate, roll_off):
    burst = Burst(12, 20, 8, 8, samples_per_symbol=rate, roll_off=roll_off)
    one = torch.zeros(1, burst.symbols, 1, dtype=torch.complex128)
    one[:, 15] = 1
    samples = modulate(one, burst)
    assert samples.abs().square().sum() == pytest.approx(1, abs=1e-12)
    expected = one[:, burst.preamble_len :]
    torch.testing.assert_close(matched(to_rows(samples, burst), burst), expected, atol=1e-12, rtol=0)


def test_the_pulse_and_its_image_have_unit_power_together():
    power = pulse(BURST).square().unflatten(0, (2, -1)).sum(0)
    torch.testing.assert_close(power, torch.ones_like(power))


def test_the_first_symbol_peaks_where_the_slot_says():
    one = torch.zeros(1, BURST.symbols, 1, dtype=torch.complex128)
    one[:, 0] = 1
    assert int(modulate(one, BURST).abs().argmax()) == BURST.lead * BURST.samples_per_symbol


def test_a_whole_delay_shifts_samples_and_a_carrier_offset_turns_them():
    sent = symbols(BURST)
    plain = modulate(sent, BURST)
    late = modulate(sent, BURST, delay=torch.full((2, 3), 1.5))
    torch.testing.assert_close(late, plain.roll(6, 1), atol=1e-6, rtol=0)
    turned = modulate(sent, BURST, cfo=torch.full((2, 3), 0.01))
    angle = 2 * math.pi * 0.01 * instants(BURST, 4)
    torch.testing.assert_close(turned, plain * torch.polar(torch.ones_like(angle), angle)[:, None], atol=1e-6, rtol=0)


def test_rows_take_the_delay_and_the_carrier_offset_of_a_slot_away():
    sent = symbols(BURST)
    moved = modulate(sent, BURST, delay=torch.full((2, 3), 0.3), cfo=torch.full((2, 3), 0.02))
    back = matched(to_rows(moved, BURST, delay=torch.full((2,), 0.3), cfo=0.02), BURST)
    torch.testing.assert_close(back, sent[:, BURST.preamble_len :], atol=2e-3, rtol=0)  # the carrier turns the pulse itself a little
    assert (matched(to_rows(moved, BURST), BURST) - back).abs().max() > 0.5


def test_white_noise_keeps_its_variance():
    noise = complex_normal(200, BURST.slot_samples, 2, generator=generator(2, "noise"))
    rows = to_rows(noise, BURST, delay=0.2)
    assert rows.abs().square().mean() == pytest.approx(1, abs=0.02)
    assert matched(rows, BURST).abs().square().mean() == pytest.approx(1, abs=0.03)


def test_the_preamble_is_twice_the_same_of_unit_modulus():
    sent = preamble(BURST)
    torch.testing.assert_close(sent[:4], sent[4:])
    torch.testing.assert_close(sent.abs(), torch.ones(8))
    spread = torch.fft.fft(sent[:4]).abs()
    torch.testing.assert_close(spread, spread.new_full((4,), 2.0))  # flat


def test_bursts_in_step_make_the_frames_of_symbols():
    config = SystemConfig(users=6, rows=2, columns=2, pilot_len=8, data_len=12, activity=0.5, channel="rayleigh", snr_db=200.0)
    plain, seen = Simulation(config, 3).frames(0, 20)
    burst, waves = Simulation(config.replace(**AIR), 3).frames(0, 20)
    assert torch.equal(plain.bits, burst.bits)
    torch.testing.assert_close(waves.pilot_rx, seen.pilot_rx, atol=1e-5, rtol=0)
    torch.testing.assert_close(waves.data_rx, seen.data_rx, atol=1e-5, rtol=0)


def test_the_noise_of_a_burst_is_that_of_its_symbols():
    config = SystemConfig(users=1, rows=4, columns=4, pilot_len=8, data_len=32, activity=1e-9, snr_db=0.0, snr_convention="per-user", **AIR)
    _, seen = Simulation(config.replace(channel="rayleigh"), 3).frames(0, 64)
    assert seen.rows.abs().square().mean() == pytest.approx(1, abs=0.02)
    assert seen.data_rx.abs().square().mean() == pytest.approx(1, abs=0.03)


def test_offsets_are_told_in_the_truth_and_within_their_ranges():
    config = SystemConfig(users=40, pilot_len=8, data_len=4, channel="rayleigh", timing_offset=0.5, cfo_hz=15.0, sample_rate_hz=60e3, **AIR)
    frame, seen = Simulation(config, 0).frames(3, 30)
    assert frame.delay.shape == frame.cfo.shape == (30, 40)
    assert 0.48 < frame.delay.abs().max() <= 0.5 == seen.timing_range
    assert 0.00095 < frame.cfo.abs().max() <= 0.001 == pytest.approx(seen.cfo_range)
    whole, _ = Simulation(config, 0).frames(0, 40)
    assert torch.equal(whole.delay[3:33], frame.delay)


def test_what_does_not_make_a_burst_is_refused():
    for bad in ({"guard_len": 2}, {"preamble_len": 3}, {"roll_off": 0.0}, {"samples_per_symbol": 1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Burst(**{"pilot_len": 8, "data_len": 8, **bad})
    with pytest.raises(ConfigError, match="samples_per_symbol"):
        SystemConfig(preamble_len=8)
    with pytest.raises(ConfigError, match="adc_dither"):
        SystemConfig(adc_bits=1, adc_dither=0.5, **AIR)
    with pytest.raises(ShapeError, match="preamble, pilots and data"):
        modulate(torch.zeros(1, 3, 2, dtype=torch.complex64), BURST)
    with pytest.raises(ShapeError, match="slots"):
        to_rows(torch.zeros(1, 3, 2, dtype=torch.complex64), BURST)


def test_frames_of_an_observation_are_cut_together():
    config = SystemConfig(users=6, rows=2, columns=2, pilot_len=8, data_len=4, channel="rayleigh", **AIR)
    _, seen = Simulation(config, 3).frames(0, 5)
    part = seen.only(torch.tensor([1, 4]))
    assert torch.equal(part.rows, seen.rows[[1, 4]]) and torch.equal(part.pilot_rx, seen.pilot_rx[[1, 4]])
    with pytest.raises(ShapeError, match="cut all from"):
        type(seen)(seen.pilot_rx[:2], seen.data_rx[:2], seen.pilots, 1.0, rows=seen.rows, burst=seen.burst)
