"""A network that is the closed form gives the closed form's variances."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from massaccess.priors.bernoulli_gaussian import BernoulliGaussian
from massaccess.priors.learned_matrix import LearnedMatrix
from massaccess.rng import complex_normal, generator

CLOSED = BernoulliGaussian(0.2, torch.tensor(1.0))


class Closed(nn.Module):
    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, None]:
        return CLOSED.moments(x, noise_var.sqrt()[:, None])[0], None


def test_variances_of_rows_are_those_of_the_closed_form():
    draw = generator(0)
    awake = torch.rand(20, 50, 1, generator=draw) < 0.2
    x = complex_normal(20, 50, 256, generator=draw) * awake + 0.4 * complex_normal(20, 50, 256, generator=draw)
    mean, var = LearnedMatrix(Closed()).moments(x, torch.tensor(0.4))
    wanted_mean, wanted = CLOSED.moments(x, torch.tensor(0.4))
    torch.testing.assert_close(mean, wanted_mean)
    torch.testing.assert_close(var[awake[..., 0]], wanted[awake[..., 0]], rtol=0.05, atol=0)  # a row has 256 entries
    assert float(var[~awake[..., 0]].max()) < 1e-6


def test_a_silent_matrix_has_no_variance():
    mean, var = LearnedMatrix(Closed()).moments(torch.zeros(1, 8, 64) + 0j, torch.ones(1))
    assert not mean.any() and bool(torch.isfinite(var).all())
