"""Channels from signs: the stationary point of the bound, and the limits that are known."""

from __future__ import annotations

import torch

from massaccess.estimation.ascent import Ascent
from massaccess.estimation.variational import SignVariational
from massaccess.likelihoods.expected_probit import slopes
from massaccess.likelihoods.real_form import stacked
from massaccess.rng import complex_normal, generator


def situation(times: int, antennas: int, noise_var: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = generator(0, "variational")
    channel = complex_normal(2, 4, antennas, generator=draw, dtype=torch.complex128)
    sent = complex_normal(2, times, 4, generator=draw, dtype=torch.complex128)
    rx = sent @ channel + noise_var**0.5 * complex_normal(2, times, antennas, generator=draw, dtype=torch.complex128)
    return channel, stacked(sent), torch.cat([rx.real, rx.imag], 1)


def test_real_form_is_the_complex_product() -> None:
    draw = generator(1, "real")
    sent, channel = complex_normal(2, 5, 3, generator=draw), complex_normal(2, 3, 4, generator=draw)
    product, halves = sent @ channel, torch.cat([channel.real, channel.imag], 1)
    torch.testing.assert_close(stacked(sent) @ halves, torch.cat([product.real, product.imag], 1))


def test_the_answer_is_a_stationary_point_of_the_bound() -> None:
    _, sent, rx = situation(30, 6, 0.2)
    noise = torch.tensor(0.1, dtype=torch.float64)
    for covariance in ("shared", "diagonal"):
        estimator = SignVariational(200, covariance)
        found = estimator(rx.sign(), sent, offset=torch.zeros(60, 6).double(), noise_var=noise)
        var = sent.square() @ found.spread if found.diagonal else ((sent @ found.spread) * sent).sum(-1, keepdim=True)
        slope, _ = slopes(rx.sign(), sent @ found.mean, var, noise)
        assert float((sent.mT @ slope - 2 * found.mean).abs().max()) < 1e-3
        again = SignVariational(2, covariance)(rx.sign(), sent, offset=torch.zeros(60, 6).double(), noise_var=noise, start=found)
        assert float((again.mean - found.mean).abs().max()) < 1e-4


def test_many_signs_give_the_channel_and_its_error() -> None:
    channel, sent, rx = situation(2000, 3, 1.0)
    found = SignVariational(20)(rx.sign(), sent, offset=torch.zeros(4000, 3).double(), noise_var=torch.tensor(0.5).double())
    error = (found.rows - channel).abs().square().mean()
    assert float(error) < 0.01
    assert 0.4 < float(error / found.error.mean()) < 2.0


def test_an_offset_before_the_comparators_is_taken_away() -> None:
    channel, sent, rx = situation(2000, 3, 1.0)
    offset = torch.randn(4000, 3, generator=generator(2, "offset")).double()
    noise = torch.tensor(0.5).double()
    found = SignVariational(20)((rx + offset).sign(), sent, offset=offset, noise_var=noise)
    assert float((found.rows - channel).abs().square().mean()) < 0.01


def test_steps_that_overshoot_are_shortened() -> None:
    at, ascent = torch.ones(1, 1), Ascent(dim=1)
    for _ in range(12):  # maximise -3 x^2 with steps that take its curvature for 1
        at = at + ascent.step(-6 * at, -6 * at)
    assert float(at.abs()) < 1e-3
