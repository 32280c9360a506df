"""Averages of the probit log-likelihood: against quadrature, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.likelihoods.expected_probit import slopes


def by_quadrature(sign: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, noise_var: float) -> tuple[torch.Tensor, torch.Tensor]:
    node = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    weight = torch.softmax(-node.square() / 2, 0)
    z = mean.double()[..., None] + var.double().sqrt()[..., None] * node
    x = sign.double()[..., None] * z / math.sqrt(noise_var)
    ratio = math.sqrt(2 / math.pi) / torch.special.erfcx(-x * math.sqrt(0.5))
    return (weight * ratio).sum(-1) * sign / math.sqrt(noise_var), (weight * ratio * (x + ratio)).sum(-1) / noise_var


@pytest.mark.parametrize("var", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("noise_var", [0.05, 1.0])
def test_averages_are_those_of_quadrature(var: float, noise_var: float) -> None:
    mean = torch.linspace(-12, 12, 97)
    for sign in (torch.ones(97), -torch.ones(97)):
        found = slopes(sign, mean, torch.full_like(mean, var), torch.tensor(noise_var))
        expected = by_quadrature(sign, mean, torch.full_like(mean, var), noise_var)
        assert float((found[0] - expected[0]).abs().max()) < 8e-3 / math.sqrt(noise_var) + 2e-3 * float(expected[0].abs().max())
        assert float((found[1] - expected[1]).abs().max()) < 3e-3 / noise_var


def test_the_curvature_is_the_derivative_of_the_slope() -> None:
    mean, step = torch.linspace(-4, 4, 41, dtype=torch.float64), 1e-5
    var, noise, sign = torch.full_like(mean, 0.7), torch.tensor(0.3, dtype=torch.float64), torch.ones_like(mean)
    above, below = (slopes(sign, mean + shift, var, noise)[0] for shift in (step, -step))
    torch.testing.assert_close((below - above) / (2 * step), slopes(sign, mean, var, noise)[1], rtol=1e-6, atol=1e-6)


def test_far_out_nothing_overflows() -> None:
    mean = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])
    slope, curvature = slopes(torch.ones(5), mean, torch.zeros(5), torch.tensor(1.0))
    assert bool(torch.isfinite(slope).all() & torch.isfinite(curvature).all())
    torch.testing.assert_close(slope[[0, 4]], torch.tensor([1e4, 0.0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(curvature[[0, 4]], torch.tensor([1.0, 0.0]), rtol=1e-3, atol=1e-3)
