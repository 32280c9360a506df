"""Activity and channels from signs: gradients against automatic differentiation; who is silent fades away."""

from __future__ import annotations

import torch

from massaccess.samplers.advi import Factors, SignProblem
from massaccess.samplers.advi_access import ascend, elbo, gradients, score

USERS, ROWS, ANTENNAS = 6, 40, 12


def problem(active: torch.Tensor) -> SignProblem:
    """One frame of signs at 13 dB; real and imaginary parts are simply two sets of unknowns."""
    design = torch.randn(1, ROWS, 2 * USERS, dtype=torch.float64)
    channel = torch.randn(1, 2 * USERS, ANTENNAS, dtype=torch.float64) / 2**0.5 * torch.cat([active, active])[:, None]
    noise = 0.16 * torch.randn(1, ROWS, ANTENNAS, dtype=torch.float64)
    signs = torch.sign(design @ channel + noise)
    return SignProblem(signs, design / 0.16, torch.full((1, 2 * USERS, 1), 0.5, dtype=torch.float64))


def test_gradients_are_those_of_autograd() -> None:
    p = problem(torch.ones(USERS, dtype=torch.float64))
    shapes = ((1, USERS, 1), (1, 2 * USERS, ANTENNAS))
    points = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes for _ in range(2)]
    alpha, channel = Factors(*points[:2]), Factors(*points[2:])
    draws = [torch.randn(5, *shape, dtype=torch.float64) for shape in shapes]
    theirs = torch.autograd.grad(elbo(p, alpha, channel, *draws).sum(), points)
    for ours, slope in zip(gradients(p, alpha, channel, *draws), theirs, strict=True):
        torch.testing.assert_close(ours, slope)


def test_silent_users_fade() -> None:
    active = torch.tensor([1.0, 0, 0, 1, 0, 0], dtype=torch.float64)
    found = ascend(problem(active), samples=1, step=0.05, steps=400, generator=torch.Generator().manual_seed(0))
    power, var = (part.mean(2).reshape(1, 2, USERS).sum(1) for part in (found.channel.square(), found.var))
    says = score(power, var, activity=1 / 3, noise_var=0.05, threshold=0.05)
    assert torch.equal(says[0] > 0.5, active > 0)
    assert says[0][active == 0].max() < 0.1


def test_scores_rise_with_power() -> None:
    power = torch.tensor([[0.0, 0.01, 0.1, 1.0, 2.0]])
    says = score(power, torch.full_like(power, 0.02), activity=0.4, noise_var=0.1, threshold=0.15)
    assert bool((says.diff() > 0).all())
    assert (says > 0.5).tolist() == [[False, False, False, True, True]]


def test_power_below_its_own_uncertainty_is_nobody() -> None:
    power = torch.tensor([[0.001, 0.0012, 0.0]])
    assert not bool((score(power, 2 * power, activity=0.3, noise_var=0.1, threshold=0.05) > 0.5).any())
