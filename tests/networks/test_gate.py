"""The gated denoiser: what its form guarantees, before and after it has learned anything."""

from __future__ import annotations

import pytest
import torch

from massaccess.networks.gate import POWER_FLOOR, GatedDenoiser
from massaccess.networks.separable import separable_basis
from massaccess.rng import complex_normal, generator

ROWS, COLUMNS = 2, 4


def correlation(size: int, width: float, centre: float) -> torch.Tensor:
    """Covariance of a uniform array that sees angles around ``centre`` (electrical, radians)."""
    lag = torch.arange(size, dtype=torch.float64)[:, None] - torch.arange(size)
    return torch.exp(-((width * lag) ** 2) / 2) * torch.exp(1j * centre * lag)


def kronecker() -> torch.Tensor:
    """Rows in general, columns circulant: what the basis of the network diagonalises."""
    lag = torch.arange(COLUMNS)
    circulant = torch.fft.ifft(torch.tensor([2.0, 1.2, 0.5, 0.3], dtype=torch.float64))[(lag[:, None] - lag) % COLUMNS] * 1.0
    return torch.kron(correlation(ROWS, 0.7, 0.9).contiguous(), circulant)


def stirred(**options) -> GatedDenoiser:
    """A network with weights as after some training."""
    network = GatedDenoiser(ROWS, COLUMNS, **{"stages": 2, "hidden": 16, **options})
    network.prepare(kronecker().to(torch.complex64))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_the_basis_is_unitary_and_diagonalises_a_kronecker_covariance():
    covariance = kronecker()
    basis = separable_basis(covariance, ROWS, COLUMNS)
    torch.testing.assert_close(basis.mH @ basis, torch.eye(ROWS * COLUMNS) + 0j, rtol=1e-5, atol=1e-6)
    inside = basis.mT @ covariance.to(torch.complex64) @ basis.conj()  # rows h^T turn into h^T basis
    off = inside - torch.diag(inside.diagonal())
    assert float(off.abs().max()) < 1e-5 * float(inside.abs().max())


def test_the_basis_is_that_of_antenna_rows():
    """Simulated rows of that covariance are uncorrelated in beams, with the powers that `prepare` stores."""
    covariance = kronecker()
    power, vectors = torch.linalg.eigh(covariance)
    draw = complex_normal(40000, ROWS * COLUMNS, generator=generator(1), dtype=torch.complex128)
    channel = draw @ (vectors * power.clamp_min(0).sqrt()).mT  # rows h^T with E[h h^H] = covariance
    network = GatedDenoiser(ROWS, COLUMNS, stages=1, hidden=8)
    network.prepare(covariance.to(torch.complex64))
    beams = channel.to(torch.complex64) @ network.basis
    torch.testing.assert_close(beams.abs().square().mean(0), network.power, rtol=0.05, atol=0.01)


@torch.no_grad()
def test_a_new_network_is_lmmse_in_white_and_in_coloured_noise(generator):
    covariance = kronecker()
    network = GatedDenoiser(ROWS, COLUMNS, stages=3, hidden=16)
    network.prepare(covariance.to(torch.complex64))
    x, noise = complex_normal(6, ROWS * COLUMNS, generator=generator), torch.logspace(-2, 2, 6)
    mean, error = network(x, noise)
    eye = torch.eye(ROWS * COLUMNS, dtype=torch.complex128)
    for row in range(6):
        exact = covariance @ torch.linalg.solve(covariance + noise[row] * eye, x[row].to(torch.complex128))
        torch.testing.assert_close(mean[row].to(torch.complex128), exact, rtol=1e-3, atol=1e-4)
        claimed = (covariance - covariance @ torch.linalg.solve(covariance + noise[row] * eye, covariance)).diagonal().real.sum()
        assert float(error[row].sum()) == pytest.approx(float(claimed), rel=1e-3)
    levels = torch.rand(6, ROWS * COLUMNS, generator=generator) + 0.1
    beams, spread = network.in_beams(x, levels)
    torch.testing.assert_close(beams, network.power / (network.power + levels) * x)
    torch.testing.assert_close(spread, network.power * levels / (network.power + levels))


@torch.no_grad()
def test_a_common_phase_passes_through(generator):
    network = stirred()
    x, noise = complex_normal(5, ROWS * COLUMNS, generator=generator), torch.full((5,), 0.2)
    turn = torch.polar(torch.ones(5, 1), torch.linspace(0.3, 6.0, 5)[:, None])
    (mean, error), (turned, same) = network(x, noise), network(turn * x, noise)
    torch.testing.assert_close(turned, turn * mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same, error, rtol=1e-4, atol=1e-5)
    plain = x @ network.basis * (network.power / (network.power + 0.2)) @ network.basis.mH
    assert float((mean - plain).abs().max()) > 1e-2  # the gates do something here


@torch.no_grad()
def test_antennas_and_beams_are_the_same_network(generator):
    network = stirred()
    x, noise = complex_normal(5, ROWS * COLUMNS, generator=generator), torch.rand(5, generator=generator) + 0.05
    mean, error = network(x, noise)
    inside, same = network.in_beams(x @ network.basis, noise[:, None].expand(x.shape))
    torch.testing.assert_close(inside @ network.basis.mH, mean)
    torch.testing.assert_close(same, error)


@torch.no_grad()
def test_noise_of_one_beam_is_heard_in_it(generator):
    """The noise profile matters: a beam that is all noise is believed less than the same beam in quiet."""
    network = stirred(stages=1)
    torch.nn.init.zeros_(network.gates[0].weight)
    torch.nn.init.zeros_(network.gates[0].bias)
    x = complex_normal(1, ROWS * COLUMNS, generator=generator)
    quiet, loud = torch.full((1, ROWS * COLUMNS), 0.1), torch.full((1, ROWS * COLUMNS), 0.1)
    loud[:, 2] = 10.0
    first, second = network.in_beams(x, quiet)[0], network.in_beams(x, loud)[0]
    assert float(second[0, 2].abs()) < 0.5 * float(first[0, 2].abs())
    torch.testing.assert_close(first[:, 3:], second[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize("noise_var", [1e-4, 1e3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_finite_at_both_ends(noise_var, scale, generator):
    network = stirred()
    mean, error = network(scale * complex_normal(4, ROWS * COLUMNS, generator=generator), torch.full((4,), noise_var))
    assert bool(torch.isfinite(torch.view_as_real(mean)).all())
    assert bool(torch.isfinite(error).all() and (error > 0).all())


def test_a_dead_beam_stays_possible():
    network = GatedDenoiser(ROWS, COLUMNS, stages=1, hidden=8)
    network.prepare(torch.ones(8, 8) + 0j)  # one direction only
    assert float(network.power.min()) == pytest.approx(POWER_FLOOR * 1.0, rel=1e-3)


@torch.no_grad()
def test_buffers_survive_double_precision_and_a_state(generator):
    network = stirred()
    x, noise = complex_normal(3, ROWS * COLUMNS, generator=generator), torch.full((3,), 0.3)
    mean, _ = network(x, noise)
    assert float(network.basis.imag.abs().max()) > 0.1
    other = GatedDenoiser(ROWS, COLUMNS, stages=2, hidden=16)
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(x, noise)[0], mean, rtol=0, atol=0)
    double = other.to(torch.float64)
    assert double.basis.dtype == torch.complex128
    exact, spread = double(x.to(torch.complex128), noise.double())
    assert exact.dtype == torch.complex128 and spread.dtype == torch.float64
    torch.testing.assert_close(exact.to(torch.complex64), mean, rtol=1e-3, atol=1e-4)


def test_every_weight_learns_and_the_head_leaves_the_mean_alone(generator):
    network = stirred()
    mean, error = network(complex_normal(16, ROWS * COLUMNS, generator=generator), torch.full((16,), 0.3))
    mean.abs().square().sum().backward(retain_graph=True)
    untouched = {name for name, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())}
    assert untouched == {name for name, _ in network.named_parameters() if name.startswith("head.")}
    before = [value.grad.clone() for name, value in network.named_parameters() if name not in untouched]
    error.log().sum().backward()
    after = [value.grad for name, value in network.named_parameters() if name not in untouched]
    head = [value.grad for name, value in network.named_parameters() if name in untouched]
    assert all(bool(value.any()) for value in head)
    assert all(torch.equal(first, second) for first, second in zip(before, after, strict=True))
