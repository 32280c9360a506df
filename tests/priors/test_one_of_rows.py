"""The section prior against sums over its cases, finite differences, and the row prior that it contains."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.priors.bernoulli_gaussian import BernoulliGaussian
from massaccess.priors.one_of_rows import OneOfRows, gain_grid

SIGMA = torch.tensor(0.7, dtype=torch.float64)


def sections(rows: int, count: int = 6, antennas: int = 3) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(count, rows, antennas, dtype=torch.complex128, generator=draws)
    return x * torch.linspace(0.3, 3, count, dtype=torch.float64)[:, None, None]


def by_cases(x: torch.Tensor, activity: float, powers: list[float], var: float) -> torch.Tensor:
    """Posterior mean of one section [Q M], case by case with normal densities."""
    rows = len(x)
    total, mean = (1 - activity) * density(x.flatten(), var), torch.zeros_like(x)
    for row in range(rows):
        for power in powers:
            others = torch.cat([x[:row], x[row + 1 :]]).flatten()
            weight = activity / rows / len(powers) * density(x[row], power + var) * density(others, var)
            total = total + weight
            mean[row] += weight * power / (power + var) * x[row]
    return mean / total


def density(x: torch.Tensor, var: float) -> torch.Tensor:
    return torch.exp(-x.abs().square().sum() / var) / (math.pi * var) ** x.numel()


@pytest.mark.parametrize("powers", [[2.0], [0.5, 2.0, 8.0]])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_mean_is_that_of_all_cases(rows, powers):
    x = sections(rows)
    mean, _ = OneOfRows(0.3, torch.tensor(powers, dtype=torch.float64)).moments(x, SIGMA)
    expected = torch.stack([by_cases(one, 0.3, powers, float(SIGMA**2)) for one in x])
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("powers", [[2.0], [0.5, 2.0, 8.0]])
def test_variance_over_noise_is_the_mean_slope(powers):
    """Divergence of the mean, real and imaginary parts by automatic differentiation, halved: what the Onsager term needs."""
    prior, x = OneOfRows(0.3, torch.tensor(powers, dtype=torch.float64)), sections(3)
    _, var = prior.moments(x, SIGMA)

    def planar(parts: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(prior.moments(torch.view_as_complex(parts), SIGMA)[0])

    for number, one in enumerate(x):
        slopes = torch.autograd.functional.jacobian(planar, torch.view_as_real(one).contiguous())
        for row in range(3):
            own = slopes[row, :, :, row].flatten(2).flatten(0, 1)  # the row's entries by its own entries
            torch.testing.assert_close(own.diagonal().mean(), var[number, row] / SIGMA**2)


def test_one_row_is_bernoulli_gaussian():
    x, power = sections(1), torch.tensor(1.3, dtype=torch.float64)
    ours, rows = OneOfRows(0.2, power[None]), BernoulliGaussian(0.2, power)
    torch.testing.assert_close(ours.log_odds(x, SIGMA), rows.log_odds(x, SIGMA))
    for mine, theirs in zip(ours.moments(x, SIGMA), rows.moments(x, SIGMA), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_odds_stay_finite_for_devices_that_always_send():
    odds = OneOfRows(1.0, torch.ones(1, dtype=torch.float64)).log_odds(sections(2), SIGMA)
    assert bool(torch.isfinite(odds).all())


def test_gain_grid_is_the_quantiles_of_even_distances():
    """Half of the gains lie beyond that of the mean distance, all within the range."""
    gains = gain_grid(0.0, 47.7)
    middle = ((1 + 10 ** (-47.7 / 36.7)) / 2) ** -3.67
    assert float((gains > middle).double().mean()) == 0.5
    assert float(gains.min()) > 1
    assert float(gains.max()) < 10**4.77
