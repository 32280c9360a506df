"""Variational inference from signs: gradients against automatic differentiation, one unknown against the integral, two ascents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from massaccess.likelihoods.normal import mills
from massaccess.samplers.advi import Factors, SignProblem, elbo, exact_gradients, gradients, monte_carlo, newton


def problem(unknowns: int = 5, signs: int = 18, columns: int = 3, *, logistic: bool = False, shifted: bool = False) -> SignProblem:
    draw = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    design, u = 1.5 * normal(2, signs, unknowns), math.sqrt(0.5) * normal(2, unknowns, columns)
    shift = normal(2, signs, columns) if shifted else None
    seen = torch.sign(design @ u + (0 if shift is None else shift) + normal(2, signs, columns))
    return SignProblem(seen, design, torch.full((2, unknowns, 1), 0.5, dtype=torch.float64), shift, logistic)


def somewhere(p: SignProblem) -> Factors:
    start = Factors.prior(p)
    return Factors(start.mean + 0.3 * torch.randn_like(start.mean), start.log_sd - 0.4 + 0.2 * torch.randn_like(start.mean))


def slopes_of(bound: Tensor, q: Factors) -> tuple[Tensor, ...]:
    return torch.autograd.grad(bound.sum(), (q.mean, q.log_sd))


@pytest.mark.parametrize("logistic", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_gradients_are_those_of_autograd(logistic: bool, shifted: bool) -> None:
    p = problem(logistic=logistic, shifted=shifted)
    q = somewhere(p)
    eta = torch.randn(7, *q.mean.shape, dtype=torch.float64)
    q.mean.requires_grad_(), q.log_sd.requires_grad_()
    for ours, theirs in zip(gradients(p, q, eta), slopes_of(elbo(p, q, eta), q), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("logistic", [False, True])
def test_exact_gradients_are_those_of_autograd(logistic: bool) -> None:
    """Price's theorem holds of the integral, so quadrature has to be fine."""
    p = problem(logistic=logistic)
    q = somewhere(p)
    q.mean.requires_grad_(), q.log_sd.requires_grad_()
    for ours, theirs in zip(exact_gradients(p, q, nodes=80), slopes_of(elbo(p, q, nodes=80), q), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_monte_carlo_agrees_with_quadrature() -> None:
    p = problem()
    q = somewhere(p)
    eta = torch.randn(50_000, *q.mean.shape, dtype=torch.float64)
    torch.testing.assert_close(elbo(p, q, eta), elbo(p, q, nodes=40), rtol=0.02, atol=0)
    for drawn, exact in zip(gradients(p, q, eta), exact_gradients(p, q, nodes=40), strict=True):
        torch.testing.assert_close(drawn, exact, rtol=0.02, atol=0.4)


def test_seven_nodes_do() -> None:
    q = newton(problem())[0]
    torch.testing.assert_close(elbo(problem(), q), elbo(problem(), q, nodes=60), rtol=0, atol=0.02)


def test_newton_ends_where_the_gradient_vanishes() -> None:
    p = problem()
    q, used = newton(p, steps=60, tolerance=1e-12)
    for slope in exact_gradients(p, q):
        assert slope.abs().max() < 1e-4
    assert int(used.max()) < 60


def test_one_unknown_is_the_integral() -> None:
    """Mean, deviation and evidence of a posterior that can be integrated; the bound stays below the evidence."""
    p = problem(unknowns=1, signs=40)
    q, _ = newton(p, steps=40, tolerance=1e-9)
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    for frame in range(2):
        inner = p.design[frame] * grid  # [n grid]
        for column in range(3):
            log_prior = -grid.square() - 0.5 * math.log(math.pi)  # variance 1/2
            log_density = p.log_link(p.signs[frame, :, column, None] * inner).sum(0) + log_prior
            weight = torch.softmax(log_density, 0)
            mean = (weight * grid).sum()
            sd = ((weight * grid.square()).sum() - mean.square()).sqrt()
            evidence = torch.logsumexp(log_density, 0) + math.log(12 / 4000)
            found = q.mean[frame, 0, column]
            assert abs(found - mean) < 0.1 * sd
            assert abs(q.log_sd[frame, 0, column].exp() - sd) < 0.1 * sd
            bound = elbo(p, q, nodes=40)[frame, column]
            assert evidence - 0.05 < bound < evidence + 1e-6


def test_monte_carlo_climbs_to_the_same_bound() -> None:
    p, draw = problem(), torch.Generator().manual_seed(1)
    best = elbo(p, newton(p)[0], nodes=40).mean()
    q, _ = monte_carlo(p, samples=8, step=0.05, steps=600, tolerance=0.0, generator=draw)
    assert best - 0.05 * abs(best) < elbo(p, q, nodes=40).mean() < best + 0.01
    _, early = monte_carlo(p, samples=8, step=0.05, steps=600, tolerance=0.01, generator=draw)
    assert early < 600


def test_frames_and_columns_do_not_know_one_another() -> None:
    p = problem()
    whole, _ = newton(p)
    alone, _ = newton(p.take(slice(1, 2)))
    torch.testing.assert_close(whole.mean[1:], alone.mean)


def test_mills_ratio_in_single_precision() -> None:
    z = torch.linspace(-200, 12, 5000)
    exact = mills(z.double())
    torch.testing.assert_close(mills(z).double(), exact, rtol=2e-5, atol=1e-30)
