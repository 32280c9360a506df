"""Prior moments against enumeration and simulation."""

from __future__ import annotations

import pytest
import torch

from massaccess.forward.modulation import MODULATIONS, constellation
from massaccess.priors.bernoulli_gaussian import BernoulliGaussian
from massaccess.priors.constellation import ConstellationPrior
from massaccess.rng import complex_normal, generator


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("sigma", [0.05, 0.4, 2.0])
def test_constellation_moments_equal_enumeration(modulation, sigma):
    points = constellation(modulation).points.to(torch.complex128)
    x = 1.5 * complex_normal(500, generator=generator(1), dtype=torch.complex128)
    weight = torch.softmax(-(x[:, None] - points).abs().square() / sigma**2, -1)
    mean = (weight * points).sum(-1)
    var = (weight * (points - mean[:, None]).abs().square()).sum(-1)
    found = ConstellationPrior(modulation).moments(x, torch.tensor(sigma, dtype=torch.float64))
    torch.testing.assert_close(found[0], mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], var, rtol=1e-6, atol=1e-6)


def test_bernoulli_gaussian_moments_are_the_posterior_of_simulated_rows():
    """The mean minimises the squared error, and the variance says how large that is."""
    draw = generator(2)
    active = torch.rand(200000, generator=draw) < 0.3
    rows = 1.4 * complex_normal(200000, 3, generator=draw) * active[:, None]
    noisy = rows + 0.8 * complex_normal(200000, 3, generator=draw)
    prior = BernoulliGaussian(0.3, torch.tensor(1.96))
    mean, var = prior.moments(noisy, torch.tensor(0.8))
    error = (mean - rows).abs().square().mean()
    assert float(error) == pytest.approx(float(var.mean()), rel=0.02)
    for scale in (0.97, 1.03):
        assert float((scale * mean - rows).abs().square().mean()) > float(error)
    chance = torch.sigmoid(prior.log_odds(noisy, torch.tensor(0.8)))
    middle = (chance > 0.4) & (chance < 0.6)
    assert float(active[middle].double().mean()) == pytest.approx(0.5, abs=0.03)
