"""Data detectors against exhaustive enumeration and each other."""

from __future__ import annotations

import itertools

import pytest
import torch

from massaccess.detection.ep import ExpectationPropagation
from massaccess.detection.linear import LmmseDetector, MatchedFilter, ZeroForcing
from massaccess.detection.oamp import Oamp
from massaccess.forward.modulation import constellation
from massaccess.priors.constellation import ConstellationPrior
from massaccess.rng import complex_normal, generator


def link(modulation, frames, times, users, antennas, noise_var, seed=1):
    draw = generator(seed, "detection")
    alphabet = constellation(modulation)
    index = torch.randint(0, len(alphabet.points), (frames, times, users), generator=draw)
    sent = alphabet.points[index].to(torch.complex128)
    channel = complex_normal(frames, users, antennas, generator=draw, dtype=torch.complex128)
    noise = complex_normal(frames, times, antennas, generator=draw, dtype=torch.complex128)
    rx = sent @ channel + noise_var**0.5 * noise
    beam_noise = torch.full((frames, antennas), noise_var, dtype=torch.float64)
    return sent, channel, rx, MatchedFilter.of(rx, channel, beam_noise, torch.ones(frames, users, dtype=torch.bool))


def exact_posterior_mean(channel, rx, noise_var, points):
    users = channel.shape[0]
    words = torch.tensor(list(itertools.product(points.tolist(), repeat=users)), dtype=torch.complex128)
    distance = (rx[:, None, :] - words @ channel).abs().square().sum(-1) / noise_var
    return torch.softmax(-distance, -1).to(words.dtype) @ words


@pytest.mark.parametrize("modulation", ["qpsk", "16qam"])
def test_one_user_is_exact(modulation):
    """With one user there is nothing to approximate: EP's posterior is the exact one."""
    _, channel, rx, filtered = link(modulation, 2, 40, 1, 3, 0.8)
    found = ExpectationPropagation()(filtered, ConstellationPrior(modulation))
    points = constellation(modulation).points.to(torch.complex128)
    for frame in range(2):
        expected = exact_posterior_mean(channel[frame], rx[frame], 0.8, points)
        torch.testing.assert_close(found.mean[frame], expected, rtol=1e-5, atol=1e-5)


def test_ep_is_close_to_the_exact_posterior_and_closer_than_lmmse():
    _, channel, rx, filtered = link("qpsk", 20, 30, 3, 4, 0.4)
    points = constellation("qpsk").points.to(torch.complex128)
    exact = torch.stack([exact_posterior_mean(channel[frame], rx[frame], 0.4, points) for frame in range(20)])
    prior = ConstellationPrior("qpsk")
    ep = (ExpectationPropagation(rounds=10)(filtered, prior).mean - exact).abs().square().mean()
    lmmse = (LmmseDetector()(filtered, prior).mean - exact).abs().square().mean()
    assert float(ep) < 0.25 * float(lmmse)
    assert float(ep) < 0.01


@pytest.mark.parametrize("modulation", ["qpsk", "16qam"])
def test_compiled_ep_equals_batched(modulation):
    *_, filtered = link(modulation, 3, 11, 4, 5, 0.3)
    prior, detector = ConstellationPrior(modulation), ExpectationPropagation()
    for one, other in zip(detector._compiled(filtered, prior), detector._batched(filtered, prior), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("detector", [ZeroForcing(), LmmseDetector(), ExpectationPropagation(rounds=1)])
def test_symbols_are_unbiased_with_the_variance_claimed(detector):
    sent, _, _, filtered = link("qpsk", 100, 200, 4, 8, 0.5)
    found = detector(filtered, ConstellationPrior("qpsk"))
    error = found.symbols - sent
    slope = (found.symbols * sent.conj()).real.mean()
    assert float(slope) == pytest.approx(1.0, abs=0.01)
    assert float(error.abs().square().mean() / found.symbol_var.mean()) == pytest.approx(1.0, abs=0.05)


def test_lmmse_detector_is_the_first_round_of_ep():
    *_, filtered = link("qpsk", 2, 9, 4, 6, 0.5)
    prior = ConstellationPrior("qpsk")
    one, other = LmmseDetector()(filtered, prior), ExpectationPropagation(rounds=1)(filtered, prior)
    torch.testing.assert_close(one.symbols, other.symbols)
    torch.testing.assert_close(one.symbol_var, other.symbol_var)


def test_order_of_the_detectors():
    """On a loaded array: EP below OAMP below LMMSE below zero forcing in symbol errors."""
    sent, _, _, filtered = link("qpsk", 200, 50, 12, 16, 1.2)
    prior, points = ConstellationPrior("qpsk"), constellation("qpsk")
    wrong = [
        float((points.decide(d(filtered, prior).symbols) != points.decide(sent)).double().mean())
        for d in (ExpectationPropagation(), Oamp(), LmmseDetector(), ZeroForcing())
    ]
    assert wrong[0] < wrong[1] < wrong[2] < wrong[3]


def test_empty_slots_stay_empty():
    *_, channel, rx, _ = link("qpsk", 2, 5, 4, 6, 0.5)
    present = torch.tensor([[True, True, False, False], [True, True, True, True]])
    filtered = MatchedFilter.of(rx, channel * present[..., None], torch.full((2, 6), 0.5, dtype=torch.float64), present)
    for detector in (ZeroForcing(), LmmseDetector(), Oamp(), ExpectationPropagation()):
        found = detector(filtered, ConstellationPrior("qpsk"))
        assert not bool(found.symbols[0, :, 2:].any())
        assert bool(torch.isinf(found.symbol_var[0, :, 2:]).all())
        assert bool(torch.isfinite(found.symbol_var[1]).all())
