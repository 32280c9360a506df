"""Verdicts on antennas: each fault gets its own, healthy arrays none, and swaps are found for what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from massaccess.calibration import examine, tone_response
from massaccess.calibration.health import VERDICTS, coherence
from massaccess.calibration.swaps import find_swaps
from massaccess.errors import ShapeError
from massaccess.rng import complex_normal

ANTENNAS, LENGTH, LEVEL, NOISE = 16, 2048, 0.1, 0.1


@pytest.fixture
def gain(generator):
    return torch.polar(10 ** (torch.randn(ANTENNAS, generator=generator) / 20), 2 * math.pi * torch.rand(ANTENNAS, generator=generator))


def noise(generator):
    return LEVEL * NOISE * complex_normal(LENGTH, ANTENNAS, generator=generator)


def traffic(gain, generator):
    sent = complex_normal(LENGTH, 8, generator=generator) @ complex_normal(8, ANTENNAS, generator=generator) / math.sqrt(8)
    return LEVEL * sent * gain + noise(generator)


def tone(gain, generator):
    return LEVEL * torch.exp(2j * math.pi * 0.1 * torch.arange(LENGTH))[:, None] * gain + noise(generator)


def look(samples, gain):
    return examine(samples, response=tone_response(samples[None], frequency=0.1), stored=np.asarray(gain).astype(complex))


def test_a_healthy_array_is_ok(gain, generator):
    for found in (examine(traffic(gain, generator)), look(tone(gain, generator), gain)):
        assert found.sure
        assert found.mask.all()
        assert str(found) == "16 of 16 antennas ok"


@pytest.mark.parametrize("kind", ["traffic", "tone"])
def test_dead_noisy_and_saturated_antennas_are_told_apart(gain, generator, kind):
    samples = traffic(gain, generator) if kind == "traffic" else tone(gain, generator)
    alone = noise(generator)
    samples[:, 2] = alone[:, 2]  # only the receiver's own noise
    samples[:, 3] = 0
    samples[:, 5] += 20 * alone[:, 5]
    samples[:, 7] *= 50
    samples = torch.complex(samples.real.clamp(-1, 1), samples.imag.clamp(-1, 1))
    found = examine(samples) if kind == "traffic" else look(samples, gain)
    assert {name: found.of(name) for name in VERDICTS[1:]} == {
        "saturated": [7],
        "dead": [2, 3],
        "noisy": [5],
        "swapped": [],
        "drifting": [],
    }
    assert "12 of 16 antennas ok; saturated 7; dead 2, 3; noisy 5" in str(found)


def test_a_deaf_antenna_is_found_by_what_it_does_not_share_even_at_full_power(gain, generator):
    samples = traffic(gain, generator)
    samples[:, 4] = LEVEL * complex_normal(LENGTH, generator=generator)
    assert examine(samples).of("dead") == [4]


def test_silence_all_over_says_nothing_of_deaf_antennas(generator):
    found = examine(noise(generator))
    assert not found.sure
    assert found.mask.all()


def test_a_swap_is_told_from_drift(gain, generator):
    now = gain.clone()
    now[[1, 6]] = gain[[6, 1]]
    now[9] *= torch.exp(torch.tensor(0.6j))
    found = look(tone(now, generator), gain)
    assert found.of("swapped") == [1, 6]
    assert found.swaps == {1: 6, 6: 1}
    assert found.of("drifting") == [9]
    assert abs(found.measures["phase_deg"][9] - math.degrees(0.6)) < 1


def test_a_common_phase_and_a_small_drift_are_no_fault(gain, generator):
    now = gain * torch.exp(torch.tensor(2.0j)) * torch.exp(1j * torch.deg2rad(5 * torch.randn(ANTENNAS, generator=generator).clamp(-2, 2)))
    assert look(tone(now, generator), gain).mask.all()


def test_a_level_that_changed_counts_as_drift(gain, generator):
    now = gain.clone()
    now[3] *= 2
    assert look(tone(now, generator), gain).of("drifting") == [3]


def test_coherence_of_independent_noise_is_1(generator):
    samples = complex_normal(1000, 32, generator=generator)
    assert abs(coherence(samples).mean() - 1) < 0.1


def test_permutations_are_found_pairs_and_longer_ones():
    expected = np.array([0.0, 50.0, 100.0, 170.0, -60.0])
    assert find_swaps(expected[[0, 2, 3, 1, 4]], expected, [1, 2, 3], 5.0) == {1: 2, 2: 3, 3: 1}
    assert find_swaps(expected[[0, 2, 1, 3, 4]] + [0, 0, 0, 9, 0], expected, [1, 2, 3], 5.0) == {1: 2, 2: 1}
    assert find_swaps(expected + 20, expected, [0, 1, 2], 5.0) == {}
    assert find_swaps(expected, expected, [], 5.0) == {}


def test_samples_that_do_not_fit_are_refused(gain, generator):
    with pytest.raises(ShapeError, match="time, antenna"):
        examine(torch.zeros(2, 3, 4, dtype=torch.complex64))
    samples = tone(gain, generator)
    with pytest.raises(ShapeError, match="one capture"):
        examine(samples, response=tone_response(samples[None, :, :4], frequency=0.1))
