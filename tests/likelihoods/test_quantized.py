"""Moments of quantised samples: against quadrature, at their limits, and as derivatives of the evidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from massaccess.core import FrontEnd
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.front_end import front_end, quantize, samples_of
from massaccess.likelihoods.linear import Linear
from massaccess.likelihoods.normal import LOGISTIC, log_mass
from massaccess.likelihoods.quantized import Quantized

BITS = [1, 2, 3, 8]
FRAME = (5, 4)


def converter(bits: int, dither: float = 0.0, threshold: float = 0.0) -> FrontEnd:
    """For samples of power 3, in double precision."""
    made = front_end(bits=bits, power=3.0, dither=dither, threshold=threshold, frame=FRAME)
    return made if made.offset is None else FrontEnd(made.bits, made.scale, made.distortion_var, made.offset.to(torch.complex128))


def noise(*shape: int, power: float = 1.0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128) * math.sqrt(power)


def log_density(link: str, low: Tensor, high: Tensor, z: Tensor, noise_var: float) -> Tensor:
    """log P(low <= z + noise < high) for the real part z, written down another way than in the library; up to a constant."""
    if link == "logistic":
        slope = LOGISTIC / math.sqrt(noise_var / 2)
        return torch.log(torch.sigmoid((high - z) * slope)) + torch.log(torch.sigmoid((z - low) * slope))
    low, high = (low - z) / math.sqrt(noise_var), (high - z) / math.sqrt(noise_var)
    return torch.log((torch.special.erfc(low) - torch.special.erfc(high)) / 2)


def by_quadrature(cells: Quantized, prior: Tensor, var: float, noise_var: float) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] from the trapezoidal rule on 4001 points within 8 deviations of the prior."""
    node = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    point = torch.view_as_real(prior)[..., None] + math.sqrt(var / 2) * node
    inside = log_density(cells.link, cells.lower[..., None], cells.upper[..., None], point, noise_var)
    weight = torch.softmax(inside - node.square() / 2, -1)
    mean = (weight * point).sum(-1)
    spread = (weight * (point - mean[..., None]).square()).sum(-1)
    return torch.view_as_complex(mean), spread.sum(-1)


@pytest.mark.parametrize("link", ["probit", "logistic"])
@pytest.mark.parametrize("adc", [{}, {"dither": 0.6}, {"threshold": 0.5, "dither": 0.2}])
@pytest.mark.parametrize("bits", BITS)
def test_moments_are_those_of_quadrature(bits: int, adc: dict[str, float], link: str) -> None:
    front = converter(bits, **adc)
    for var, noise_var in ((2.0, 0.5), (0.3, 1.0), (0.05, 0.02)):
        prior = noise(3, *FRAME, power=2.0)
        samples = quantize(prior + noise(3, *FRAME, power=var + noise_var), front)
        cells = Quantized.of(samples, front, noise_var, link=link)
        mean, spread = cells.moments(prior, torch.full(FRAME, var, dtype=torch.float64))
        exact, exact_spread = by_quadrature(cells, prior, var, noise_var)
        close = 1e-6 if link == "probit" else 1e-3  # a logistic law is itself averaged over few nodes
        torch.testing.assert_close(mean, exact, rtol=close, atol=close / 10)
        torch.testing.assert_close(spread, exact_spread, rtol=close, atol=0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("bits", BITS)
def test_far_tails_stay_sound(bits: int, dtype: torch.dtype) -> None:
    front, noise_var = converter(bits), 0.1
    samples = samples_of(torch.tensor([[0.5, -0.5], [2 ** (bits - 1) - 0.5, 0.5 - 2 ** (bits - 1)]]), front).to(dtype)
    for var in (1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9):
        reach = 30 * math.sqrt(var + noise_var)
        z = torch.tensor([-reach, -0.1 * reach, 0, 0.1 * reach, reach], dtype=dtype)[:, None] * (1 + 1j)
        cells = Quantized.of(samples, front, noise_var)
        mean, spread = cells.moments(z, torch.tensor(var, dtype=mean_type(dtype)))
        assert bool(torch.isfinite(torch.view_as_real(mean)).all())
        assert bool((spread > 0).all()) and bool((spread <= var * (1 + 1e-6)).all())
        assert bool((cells.log_evidence(z, torch.tensor(var, dtype=mean_type(dtype))) <= 0).all())


def mean_type(dtype: torch.dtype) -> torch.dtype:
    return torch.empty(0, dtype=dtype).real.dtype


def test_a_sample_that_contradicts_the_prior_moves_it_to_the_edge() -> None:
    """Thirty deviations away, the mean is where the ratio of the two variances says, and the variance that of both together."""
    var, noise_var = torch.tensor(1.8, dtype=torch.float64), 0.2
    cells = Quantized.of(torch.ones(1, dtype=torch.complex128) * (1 + 1j), FrontEnd(1, 1.0), noise_var)
    mean, spread = cells.moments(torch.tensor([-30.0 - 30.0j], dtype=torch.complex128), var)
    assert mean.real.item() == pytest.approx(-30 * noise_var / 2 + 1.8 / 2 / 30, rel=2e-2)
    assert spread.item() == pytest.approx(1.8 * noise_var / 2, rel=2e-2)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_evidence_of_all_cells_is_one(bits: int) -> None:
    front = converter(bits, dither=0.4, threshold=0.3)
    level = torch.arange(2**bits, dtype=torch.float64) - 2 ** (bits - 1) + 0.5
    pairs = torch.cartesian_prod(level, level)[:, None, None, :].expand(-1, *FRAME, -1)
    cells = Quantized.of(samples_of(pairs.contiguous(), front), front, 0.7)
    log_evidence = cells.log_evidence(noise(*FRAME, power=4.0), torch.tensor(1.3, dtype=torch.float64))
    torch.testing.assert_close(log_evidence.exp().sum(0), torch.ones(FRAME, dtype=torch.float64))


@pytest.mark.parametrize("bits", [1, 3, None])
def test_the_mean_follows_the_slope_of_the_evidence(bits: int | None) -> None:
    """mean = z + var d/dz* log p(y); torch's gradient is twice that derivative."""
    z, var = noise(2, *FRAME, power=3.0).requires_grad_(), torch.tensor(0.8, dtype=torch.float64)
    samples = noise(2, *FRAME, power=3.0)
    front = converter(bits or 1, dither=0.3)
    seen = Quantized.of(quantize(samples, front), front, 0.5) if bits else Linear(samples, torch.tensor(0.5, dtype=torch.float64))
    (slope,) = torch.autograd.grad(seen.log_evidence(z, var).sum(), z)
    torch.testing.assert_close(seen.moments(z.detach(), var)[0], z.detach() + var * slope / 2)


def test_many_bits_are_an_ideal_converter() -> None:
    front, var, noise_var = converter(12), torch.tensor(1.5, dtype=torch.float64), 0.4
    z = noise(200)
    samples = quantize(z + noise(200), front)
    fine, ideal = (
        seen.moments(z, var) for seen in (Quantized.of(samples, front, noise_var), Linear(samples, torch.tensor(noise_var).double()))
    )
    torch.testing.assert_close(fine[0], ideal[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(fine[1], ideal[1].expand(200), rtol=1e-3, atol=0)


def test_linear_is_the_gaussian_posterior() -> None:
    samples, z, var, noise_var = noise(6), noise(6), torch.rand(6).double() + 0.1, torch.rand(6).double() + 0.1
    mean, spread = Linear(samples, noise_var).moments(z, var)
    torch.testing.assert_close(spread, 1 / (1 / var + 1 / noise_var))
    torch.testing.assert_close(mean, spread * (z / var + samples / noise_var))


@pytest.mark.parametrize("bits", BITS)
def test_scale_is_a_choice_of_units(bits: int) -> None:
    z, y, var = noise(20), noise(20, power=3.0), torch.tensor(0.9, dtype=torch.float64)
    front = converter(bits)
    wide = FrontEnd(bits, 7 * front.scale)
    mean, spread = Quantized.of(quantize(y, front), front, 0.5).moments(z, var)
    scaled, scaled_spread = Quantized.of(quantize(7 * y, wide), wide, 49 * 0.5).moments(7 * z, 49 * var)
    torch.testing.assert_close(scaled, 7 * mean)
    torch.testing.assert_close(scaled_spread, 49 * spread)


def test_one_bit_knows_no_scale() -> None:
    z, y, var = noise(20), noise(20, power=3.0), torch.tensor(0.9, dtype=torch.float64)
    fronts = (FrontEnd(1, 1.0), FrontEnd(1, 5.0))
    one, other = (Quantized.of(quantize(front.scale * y, front), front, 0.5).moments(z, var) for front in fronts)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 3])
def test_one_sided_cells_are_two_sided_ones_that_reach_to_infinity(bits: int) -> None:
    front = FrontEnd(1, 1.0)
    cells = Quantized.of(quantize(noise(50), front), front, 0.5)
    assert cells.one_sided and not Quantized.of(noise(50), FrontEnd(bits, 1.0), 0.5).one_sided
    general = Quantized(cells.lower, cells.upper, cells.noise_var)
    z, var = noise(50, power=9.0), torch.tensor(2.0, dtype=torch.float64)
    torch.testing.assert_close(cells.moments(z, var), general.moments(z, var))


def test_log_mass_is_exact_in_both_tails() -> None:
    low, high = torch.tensor([30.0, -31.0, -1.0, -torch.inf, 3.0]).double(), torch.tensor([31.0, -30.0, 1.0, 3.0, torch.inf]).double()
    far, near = torch.special.log_ndtr(torch.tensor([-30.0, 3.0, -3.0]).double()), math.log(math.erf(math.sqrt(0.5)))
    expected = torch.stack([far[0], far[0], torch.tensor(near).double(), far[1], far[2]])
    torch.testing.assert_close(log_mass(low, high), expected)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="Linear"):
        Quantized.of(noise(3), FrontEnd(None), 1.0)
    with pytest.raises(UnknownNameError, match="probit"):
        Quantized.of(noise(3), FrontEnd(1), 1.0, link="prohibit")
