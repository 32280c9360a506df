"""A network as a prior: any power, any noise, errors that are told where the network tells none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from massaccess.core import ChannelPrior
from massaccess.networks.gate import GatedDenoiser
from massaccess.priors.beams import Beams
from massaccess.priors.learned import POWER_RANGE, Learned
from massaccess.rng import complex_normal, generator

SIZE = 8
LOW, HIGH = POWER_RANGE


class Soft(nn.Module):
    """A denoiser that bends: strong entries pass, weak ones do not. Knows white noise only; remembers what it saw."""

    def __init__(self, head: bool = False) -> None:
        super().__init__()
        self.head, self.seen = head, []

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor | None]:
        self.seen.append((x, noise_var))
        power = x.abs().square()
        share = power / (power + noise_var[:, None])
        return share * x, share * noise_var[:, None] if self.head else None


def turned() -> Beams:
    """A basis that mixes antennas, and powers that differ."""
    basis = torch.linalg.qr(complex_normal(SIZE, SIZE, generator=generator(9))).Q
    return Beams(basis, torch.linspace(0.2, 1.8, SIZE))


def rows(power: float, noise_var: float, count: int = 4) -> Tensor:
    """Rows whose estimated power is exactly ``power``."""
    x = complex_normal(count, SIZE, generator=generator(1))
    return x * ((power + noise_var) / x.abs().square().mean(1, keepdim=True)).sqrt()


def test_inside_the_trained_range_it_is_the_network():
    network = Soft(head=True)
    x, noise = rows(1.0, 0.3), torch.full((4, 1), 0.3)
    prior = Learned(network, Beams(None, torch.ones(SIZE)))
    assert isinstance(prior, ChannelPrior)
    mean, error = prior.in_beams(x, noise)
    exact = network(x, noise[:, 0])
    torch.testing.assert_close(mean, exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(error, exact[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("power", "factor"), [(1.01 * HIGH, 7.0), (0.9 * LOW, 0.2)])
def test_outside_it_scales_with_the_power(power, factor):
    prior = Learned(Soft(head=True), Beams(None, torch.ones(SIZE)))
    x, noise = rows(power, 0.01), torch.full((4, 1), 0.01)
    (mean, error), (scaled, scaled_error) = prior.in_beams(x, noise), prior.in_beams(factor * x, factor**2 * noise)
    torch.testing.assert_close(scaled, factor * mean)
    torch.testing.assert_close(scaled_error, factor**2 * error)


@pytest.mark.parametrize(("power", "least", "greatest"), [(30.0, 0.999 * HIGH, 1.001 * HIGH), (0.5, 0.49, 0.51), (1e-3, 0.999 * LOW, HIGH)])
def test_the_network_sees_powers_that_it_was_trained_for(power, least, greatest):
    network = Soft()
    Learned(network, Beams(None, torch.ones(SIZE))).in_beams(rows(power, 1e-4), torch.full((4, 1), 1e-4))
    x, noise = network.seen[-1]
    seen = (x.abs().square() - noise[:, None]).mean(1)
    assert bool(((seen >= least) & (seen <= greatest)).all())


def test_nothing_jumps_at_the_ends_of_the_range():
    prior = Learned(Soft(), Beams(None, torch.ones(SIZE)))
    for edge in (LOW, HIGH):
        inside, outside = (prior.in_beams(rows(edge * factor, 0.01), torch.full((4, 1), 0.01))[0] for factor in (0.9999, 1.0001))
        torch.testing.assert_close(inside, outside, rtol=1e-3, atol=1e-4)


def test_rows_in_noise_alone_stay_finite():
    """The estimated power is negative where the noise drew little; nothing is divided by it."""
    prior = Learned(Soft(), Beams(None, torch.ones(SIZE)))
    for noise_var in (1e-6, 1.0, 1e4):
        for mean, error in (prior.in_beams(torch.zeros(2, SIZE) + 0j, torch.full((2, 1), noise_var)),):
            assert not bool(mean.any()) and bool(torch.isfinite(error).all() and (error > 0).all())


def test_the_table_is_met_on_its_grid_between_it_and_beyond_it():
    table = torch.tensor([[0.01, *[0.008] * SIZE], [0.1, *[0.05] * SIZE], [1.0, *[0.2] * SIZE]]) * torch.cat(
        [torch.ones(1), torch.linspace(0.5, 1.5, SIZE)]
    )
    prior = Learned(Soft(), Beams(None, torch.ones(SIZE)), table)

    def told(noise_var: float) -> Tensor:
        return prior.in_beams(rows(1.0, noise_var), torch.full((4, 1), noise_var))[1]

    for row in table:
        torch.testing.assert_close(told(float(row[0])), row[1:].expand(4, -1))
    between = told(math.sqrt(0.01 * 0.1))
    torch.testing.assert_close(between, (table[0, 1:] * table[1, 1:]).sqrt().expand(4, -1))
    torch.testing.assert_close(told(1e-4), table[0, 1:].expand(4, -1))
    torch.testing.assert_close(told(50.0), table[-1, 1:].expand(4, -1))


def test_without_a_table_the_error_is_that_of_lmmse():
    beams = turned()
    error = Learned(Soft(), beams).in_beams(rows(1.0, 0.3), torch.full((4, 1), 0.3))[1]
    torch.testing.assert_close(error, (beams.power * 0.3 / (beams.power + 0.3)).expand(4, -1))


def test_a_network_for_white_noise_takes_the_mean_of_coloured():
    prior = Learned(Soft(head=True), turned())
    x, noise = rows(1.0, 0.5), 0.2 + torch.rand(4, SIZE)
    mean, error = prior.in_beams(x, noise)
    plain, plain_error = prior.in_beams(x, noise.mean(1, keepdim=True))
    torch.testing.assert_close(mean, plain)
    torch.testing.assert_close(error, plain_error)


@torch.no_grad()
def test_a_network_for_coloured_noise_sees_its_profile():
    network = GatedDenoiser(2, 4, stages=1, hidden=8)
    prior = Learned(network, Beams(network.basis, network.power))
    x, noise = rows(1.0, 0.5), 0.2 + torch.rand(4, SIZE)
    mean, error = prior.in_beams(x, noise)
    torch.testing.assert_close(mean, x / (1 + noise))
    torch.testing.assert_close(error, noise / (1 + noise))


def test_moments_are_those_of_the_beams():
    beams, sigma = turned(), torch.tensor([0.2, 0.5, 1.0, 3.0])
    prior = Learned(Soft(head=True), beams)
    x = rows(1.0, 0.3)
    mean, var = prior.moments(x, sigma)
    inside, error = prior.in_beams(beams.into(x), sigma.square()[:, None])
    torch.testing.assert_close(beams.into(mean), inside, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(var, error.mean(1))
    assert var.shape == (4,)
    torch.testing.assert_close(mean, Soft()(x, sigma.square())[0], rtol=1e-4, atol=1e-5)  # the network works on antennas


def test_any_number_of_axes():
    prior = Learned(Soft(head=True), turned())
    x, noise = complex_normal(2, 3, 5, SIZE, generator=generator(3)), torch.rand(2, 3, 5, 1) + 0.1
    mean, error = prior.in_beams(x, noise)
    one = prior.in_beams(x[1, 2], noise[1, 2])
    torch.testing.assert_close(mean[1, 2], one[0])
    torch.testing.assert_close(error[1, 2], one[1])
