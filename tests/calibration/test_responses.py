"""Responses of chains to a tone and to a preamble: errors are what the noise must leave, whatever phases, levels and offsets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from massaccess.calibration import broadband_response, compare, correction_of, delay_taps, fill, filling, tone_response, turned
from massaccess.calibration.broadband import delayed
from massaccess.calibration.correction import group_delay
from massaccess.errors import ConfigError, ShapeError
from massaccess.rng import complex_normal

ARRAYS, ANTENNAS = 12, 16


def chains(draw, spread_db=1.0):
    phase = 2 * math.pi * torch.rand(ARRAYS, ANTENNAS, generator=draw)
    return torch.polar(10 ** (spread_db * torch.randn(ARRAYS, ANTENNAS, generator=draw) / 20), phase)


def tone(gain, frequency, length, noise_var, draw):
    wave = torch.exp(2j * math.pi * frequency[:, None] * torch.arange(length))
    return wave[..., None] * gain[:, None] + math.sqrt(noise_var) * complex_normal(len(gain), length, gain.shape[1], generator=draw)


def waveform(draw, length=64):
    """Noise-like, in half the band."""
    bins = torch.fft.fft(complex_normal(length - 16, generator=draw), length)
    bins[length // 4 : -length // 4] = 0
    wave = torch.fft.ifft(bins)
    wave = wave * torch.hann_window(length)
    return wave / wave.abs().square().mean().sqrt()


def test_a_tone_gives_phases_as_well_as_noise_allows(generator):
    gain = chains(generator)
    frequency = 0.1 + 0.02 * (torch.rand(ARRAYS, generator=generator) - 0.5)
    found = tone_response(tone(gain, frequency, 512, 0.1, generator), frequency=0.1)
    phase, level = compare(found.gain, gain)
    ratio = phase.square().mean().sqrt() / torch.rad2deg(found.phase_std).square().mean().sqrt()
    assert 0.85 < ratio < 1.15
    assert level.abs().max() < 1.0
    assert (found.noise_var / 0.1 - 1).abs().max() < 0.4
    assert (found.frequency - frequency).abs().max() < 2e-5


def test_a_constant_does_not_disturb_a_tone_and_its_frequency_may_be_negative(generator):
    gain = chains(generator)
    samples = tone(gain, torch.full((ARRAYS,), -0.2), 500, 1e-6, generator) + 3.0
    phase, _ = compare(tone_response(samples, frequency=-0.2).gain, gain)
    assert phase.abs().max() < 0.3


def test_one_loud_chain_does_not_choose_the_frequency(generator):
    """A chain with a tone of its own, thirty times as strong."""
    gain = chains(generator)
    samples = tone(gain, torch.full((ARRAYS,), 0.1), 512, 0.01, generator)
    samples[..., 3] = 30 * torch.exp(2j * math.pi * 0.12 * torch.arange(512))
    assert (tone_response(samples, frequency=0.1).frequency - 0.1).abs().max() < 1e-4


def test_noise_is_no_tone(generator):
    with pytest.raises(ConfigError, match="no tone within"):
        tone_response(complex_normal(1, 1024, ANTENNAS, generator=generator))
    with pytest.raises(ConfigError, match="no tone"):
        tone_response(torch.zeros(1, 128, 4, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="64 or more"):
        tone_response(torch.zeros(1, 8, 4, dtype=torch.complex64))


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_a_known_waveform_gives_phases_levels_and_delays(generator, spread):
    gain, wave = chains(generator), waveform(generator)
    delays = spread * (2 * torch.rand(ARRAYS, ANTENNAS, generator=generator, dtype=torch.double) - 1)
    copies = torch.stack([delayed(wave, row + 70.3, 220) for row in delays]).transpose(1, 2)
    turns = torch.exp(2j * math.pi * 0.004 * torch.arange(220))
    samples = copies * gain[:, None] * turns[:, None] + 0.1 * complex_normal(ARRAYS, 220, ANTENNAS, generator=generator)
    found = broadband_response(samples, wave, max_frequency=0.01)
    phase, level = compare(found.gain, gain)
    bound = torch.rad2deg(found.phase_std).square().mean().sqrt()
    assert phase.square().mean().sqrt() < (1.2 if spread == 0 else 2.5) * bound  # a delay and a turning phase are told apart less well
    assert level.square().mean().sqrt() < 0.3
    weight = gain.abs().square()
    true = delays - (weight * delays).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    assert (found.delay - true).square().mean().sqrt() < 0.06
    assert (found.frequency - 0.004).abs().max() < 1e-3


def test_what_the_air_does_to_a_known_user_is_divided_out(generator):
    gain, wave = chains(generator), waveform(generator)
    steering = torch.exp(1j * math.pi * 0.3 * torch.arange(ANTENNAS))
    samples = delayed(wave, torch.tensor([20.0]), 128)[..., None] * (gain * steering)[:, None] + 0j
    found = broadband_response(samples + 1e-3 * complex_normal(*samples.shape, generator=generator), wave, expected=steering)
    assert compare(found.gain, gain)[0].abs().max() < 0.5


def test_a_capture_without_the_waveform_is_told(generator):
    wave = waveform(generator)
    with pytest.raises(ConfigError, match="known waveform is not in the capture"):
        broadband_response(complex_normal(2, 200, ANTENNAS, generator=generator), wave, max_frequency=0.01)
    with pytest.raises(ShapeError, match="as long as the waveform"):
        broadband_response(complex_normal(2, 20, ANTENNAS, generator=generator), wave)


def test_comparison_ignores_a_common_phase_and_level_and_is_not_pulled_by_outliers(generator):
    gain = chains(generator)
    moved = gain.clone()
    moved[:, :4] *= torch.exp(torch.tensor(2.0j))
    phase, level = compare(3 * moved * torch.exp(torch.tensor(0.7j)), gain)
    assert phase[:, 4:].abs().max() < 1e-3
    assert (phase[:, :4] - math.degrees(2.0)).abs().max() < 1e-3
    assert level.abs().max() < 1e-4


def test_the_mean_of_captures_turns_each_captures_phase_away(generator):
    gain = chains(generator)[:1]
    captures = gain * torch.polar(torch.ones(8, 1), 6 * torch.rand(8, 1, generator=generator))
    found = tone_response(tone(captures.expand(8, -1), torch.full((8,), 0.1), 256, 0.5, generator), frequency=0.1)
    phase, _ = compare(found.mean().gain, gain)
    assert phase.square().mean().sqrt() < 1.5 * math.degrees(math.sqrt(0.5 / (2 * 8 * 256)))


def test_turning_leaves_what_agrees_alone():
    gain = torch.tensor([[1.0 + 1j, 2.0, 0.0]])
    assert torch.allclose(turned(gain, gain), gain)


def test_a_correction_makes_the_chains_equal_and_drops_deaf_ones(generator):
    gain = np.asarray(chains(generator)[0]).astype(complex)
    gain[5] = 1e-5
    found = correction_of(gain)
    assert np.ptp(np.abs(gain * found.factor)[found.mask]) < 1e-5
    assert np.abs(np.angle(gain * found.factor)[found.mask]).max() < 1e-5
    assert list(np.nonzero(~found.mask)[0]) == [5]
    assert found.factor[5] == 0
    phases = correction_of(gain, amplitude=False)
    assert np.allclose(np.abs(phases.factor[phases.mask]), 1)
    with pytest.raises(ConfigError, match="no channel"):
        correction_of(np.zeros(4))


@given(st.floats(-2, 2), st.floats(-0.35, 0.35))
@settings(max_examples=30, deadline=None)
def test_filters_take_delays_away_within_the_band(delay, frequency):
    taps = delay_taps(np.array([delay, 0.0]))[:, 0]
    turns = np.exp(-2j * np.pi * frequency * np.arange(len(taps))) @ taps
    assert abs(turns - np.exp(2j * np.pi * frequency * (delay - group_delay(taps)))) < 0.01


def test_delays_are_corrected_only_where_they_matter():
    assert correction_of(np.ones(3), np.array([0.0, 0.02, -0.05])).delay is None
    assert np.allclose(correction_of(np.ones(3), np.array([1.0, 1.4, 0.0])).delay, [0, 0.4, -1])


def test_filling_is_the_conditional_mean(generator):
    """Error as the covariance says, less than that of zeros, for Gaussian signals."""
    root = torch.linalg.qr(complex_normal(6, 6, generator=generator))[0] * torch.tensor([2.0, 1.0, 0.3, 0.1, 0.05, 0.01])
    cov = root @ root.mH
    mask = torch.tensor([True, True, False, True, True, True])
    clean = complex_normal(200000, 6, generator=generator) @ root.mT
    level = float(cov.diagonal().real.mean())
    noisy = clean + math.sqrt(0.1 * level) * complex_normal(200000, 6, generator=generator)
    weights = filling(mask, cov, 0.1)
    left = (fill(noisy, mask, weights) - clean)[:, 2].abs().square().mean()
    due = cov[2, 2].real - (weights @ cov[mask][:, ~mask]).real[0, 0]
    assert abs(left / due - 1) < 0.02
    assert left < 0.9 * clean[:, 2].abs().square().mean()
    assert torch.equal(fill(noisy, mask, weights)[:, mask], noisy[:, mask])
    assert filling(mask, None).abs().sum() == 0
    with pytest.raises(ConfigError, match="no antenna is left"):
        filling(~mask & mask, cov)
    with pytest.raises(ShapeError, match=r"pass \[antennas, antennas\]"):
        filling(mask, cov[:4, :4])
