"""The mixture's moments against quadrature and the closed form; what the fit promises."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.core import ChannelPrior
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.priors.gaussian import Gaussian
from massaccess.priors.mixture import GaussianMixture
from massaccess.priors.mixture_fit import dft_atoms, fit_mixture
from massaccess.rng import complex_normal, generator

WEIGHT = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def covariances(components: int, antennas: int, seed: int = 0) -> torch.Tensor:
    factor = complex_normal(components, antennas, antennas, generator=generator(seed), dtype=torch.complex128)
    return factor @ factor.mH / antennas + 0.05 * torch.eye(antennas)


def draw_rows(weight: torch.Tensor, covariance: torch.Tensor, count: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = generator(seed)
    label = torch.multinomial(weight, count, replacement=True, generator=draw)
    white = complex_normal(count, covariance.shape[1], generator=draw, dtype=torch.complex128)
    return (torch.linalg.cholesky(covariance)[label] @ white[..., None])[..., 0], label


def test_one_antenna_two_components_against_quadrature() -> None:
    weight, power, noise = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.1, 4.0], dtype=torch.float64), 0.3
    prior = GaussianMixture.of(weight, power[:, None, None] + 0j)
    axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    plane = torch.complex(axis[:, None].expand(1201, 1201), axis.expand(1201, 1201))
    step = float(axis[1] - axis[0]) ** 2
    density = sum(w / (math.pi * p) * torch.exp(-plane.abs().square() / p) for w, p in zip(weight, power, strict=True))
    for x in (0.1 + 0.2j, 0.9 - 0.4j, 2.5 + 1j):
        joint = density * torch.exp(-(x - plane).abs().square() / noise) / (math.pi * noise)
        evidence = joint.sum() * step
        mean = (joint * plane).sum() * step / evidence
        var = (joint * (plane - mean).abs().square()).sum() * step / evidence
        row, level = torch.tensor([[x]], dtype=torch.complex128), torch.tensor([noise], dtype=torch.float64)
        found = prior.moments(row, level.sqrt())
        torch.testing.assert_close(found[0][0, 0], mean, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found[1][0], var, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(prior.log_evidence(row, level)[0], evidence.log(), rtol=1e-6, atol=1e-8)


def test_one_component_is_the_gaussian_prior() -> None:
    covariance = covariances(1, 6)
    rows = complex_normal(2, 5, 6, generator=generator(2), dtype=torch.complex128)
    level = torch.rand(2, 5, dtype=torch.float64) + 0.1
    mixture = GaussianMixture.of(torch.ones(1, dtype=torch.float64), covariance)
    plain = Gaussian.of(covariance[0], antennas=6, like=rows)
    for found, expected in zip(mixture.moments(rows, level), plain.moments(rows, level), strict=True):
        torch.testing.assert_close(found, expected)
    errors = [prior.in_beams(prior.beams.into(rows), level)[1] for prior in (mixture, plain)]
    torch.testing.assert_close(*errors)


def test_moments_and_errors_per_beam_are_the_posterior_by_the_matrices() -> None:
    covariance, noise = covariances(3, 5), 0.4
    prior = GaussianMixture.of(WEIGHT, covariance)
    rows, _ = draw_rows(WEIGHT, covariance + noise * torch.eye(5), 40)
    filters = covariance @ torch.linalg.inv(covariance + noise * torch.eye(5))
    joint = torch.stack(
        [
            torch.distributions.MultivariateNormal(torch.zeros(10).double(), _real(c + noise * torch.eye(5))).log_prob(_stack(rows))
            for c in covariance
        ]
    )
    share = torch.softmax(joint + WEIGHT.log()[:, None], 0)
    each = torch.einsum("kab,nb->kna", filters, rows)
    mean = (share[..., None] * each).sum(0)
    off = each - mean
    spread = torch.einsum("kn,kna,knb->nab", share + 0j, off, off.conj())
    posterior = spread + torch.einsum("kn,kab->nab", share + 0j, covariance - filters @ covariance)
    found, error = prior.in_beams(prior.beams.into(rows), torch.full((40,), noise, dtype=torch.float64))
    torch.testing.assert_close(prior.beams.back(found), mean)
    into = prior.beams.basis
    torch.testing.assert_close(error, (into.mT @ posterior @ into.conj()).diagonal(dim1=-2, dim2=-1).real)


def _stack(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows.real, rows.imag], -1)


def _real(c: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.cat([c.real, -c.imag], 1), torch.cat([c.imag, c.real], 1)]) / 2


def test_it_is_a_channel_prior_in_the_precision_of_the_data() -> None:
    prior = GaussianMixture.of(WEIGHT, covariances(3, 4), like=torch.zeros(1, dtype=torch.complex64))
    assert isinstance(prior, ChannelPrior)
    mean, var = prior.moments(torch.ones(3, 2, 4, dtype=torch.complex64), torch.ones(3, 2))
    assert (mean.dtype, var.dtype, mean.shape, var.shape) == (torch.complex64, torch.float32, (3, 2, 4), (3, 2))
    assert prior.components == 3


def test_tensors_there_and_back() -> None:
    covariance = covariances(3, 4)
    prior = GaussianMixture.of(WEIGHT, covariance)
    torch.testing.assert_close(prior.covariance, covariance)
    again = GaussianMixture.from_tensors(prior.to_tensors(), like=covariance)
    torch.testing.assert_close(again.covariance, covariance, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again.weight, WEIGHT, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu_the_answer_is_the_same() -> None:
    prior = GaussianMixture.of(WEIGHT, covariances(3, 4))
    other = GaussianMixture.from_tensors(prior.to_tensors(), like=torch.zeros(1, dtype=torch.complex128, device="cuda"))
    rows = complex_normal(300, 4, generator=generator(3), dtype=torch.complex128)
    level = torch.ones(300, dtype=torch.float64)
    for found, expected in zip(other.moments(rows.cuda(), level.cuda()), prior.moments(rows, level), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_em_finds_planted_components() -> None:
    planted = torch.stack([torch.diag(torch.tensor(p)) for p in ([4.0, 0.2, 0.1, 0.2], [0.1, 3.0, 2.0, 0.1], [0.2, 0.1, 0.2, 2.0])])
    rows, _ = draw_rows(WEIGHT, planted.to(torch.complex128), 6000)
    fit = fit_mixture(rows, 3, generator=generator(4), iterations=200, tolerance=1e-6)
    order = fit.mixture.covariance.diagonal(dim1=-2, dim2=-1).real.argmax(-1).sort()[1]
    torch.testing.assert_close(fit.mixture.weight[order], WEIGHT, rtol=0.1, atol=0.02)
    torch.testing.assert_close(fit.mixture.covariance[order].real, planted.double(), rtol=0.1, atol=0.15)


@pytest.mark.parametrize("structure", ["full", "toeplitz", "circulant"])
@pytest.mark.parametrize("prior_rows", [0.0, 20.0])
def test_the_likelihood_never_falls_also_without_noise(structure: str, prior_rows: float) -> None:
    """Rank-one groups of channels: every sample covariance is singular."""
    steering = dft_atoms(2, 3, 2)[[1, 5, 14, 20]]
    draw = generator(5)
    rows = steering[torch.randint(4, (300,), generator=draw)].conj() * complex_normal(300, 1, generator=draw, dtype=torch.complex128)
    fit = fit_mixture(rows, 5, generator=draw, structure=structure, grid=(2, 3), iterations=25, tolerance=-math.inf, prior_rows=prior_rows)
    gains = torch.tensor(fit.history).diff()
    assert len(gains) == 25
    assert bool((gains > -1e-9).all())
    assert bool(torch.isfinite(torch.view_as_real(fit.mixture.covariance)).all())


def test_the_likelihood_is_that_of_the_mixture() -> None:
    rows, _ = draw_rows(WEIGHT, covariances(3, 4), 400)
    fit = fit_mixture(rows, 2, generator=generator(6), iterations=5, tolerance=-math.inf)
    nothing = torch.full((400,), 1e-12, dtype=torch.float64)
    assert float(fit.mixture.log_evidence(rows, nothing).mean()) == pytest.approx(fit.history[-1], abs=1e-3)


@pytest.mark.parametrize("structure", ["toeplitz", "circulant"])
def test_structure_is_kept(structure: str) -> None:
    """Entry (a, b) depends on the difference of the antennas' places only, modulo the array for circulant ones."""
    rows = complex_normal(200, 12, generator=generator(7), dtype=torch.complex128)
    fit = fit_mixture(rows, 2, generator=generator(8), structure=structure, grid=(3, 4), iterations=6)
    c = fit.mixture.covariance.reshape(2, 3, 4, 3, 4)
    torch.testing.assert_close(c[:, 1:, 1:, 1:, 1:], c[:, :-1, :-1, :-1, :-1])
    if structure == "circulant":
        torch.testing.assert_close(c.roll((1, 1), (1, 3)), c)
        torch.testing.assert_close(c.roll((1, 1), (2, 4)), c)
    assert float(torch.linalg.eigvalsh(fit.mixture.covariance).min()) > 0


def test_same_seed_same_fit() -> None:
    rows, _ = draw_rows(WEIGHT, covariances(3, 4), 200)
    first, second = (fit_mixture(rows, 3, generator=generator(9), iterations=4).mixture.covariance for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"components": 0}, ConfigError, "pass 1 to 10"),
        ({"structure": "banded"}, UnknownNameError, "circulant, full, toeplitz"),
        ({"grid": (2, 3)}, ShapeError, "rows and columns"),
        ({"rows": torch.zeros(10, 4)}, ShapeError, "complex"),
        ({"rows": torch.zeros(10, 4) + 0j}, ConfigError, "all zero"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict, error: type, says: str) -> None:
    given = {"rows": torch.ones(10, 4) + 0j, "components": 2, "generator": generator(0), **changes}
    with pytest.raises(error, match=says):
        fit_mixture(given.pop("rows"), given.pop("components"), **given)
    with pytest.raises(ShapeError, match="pass"):
        GaussianMixture.of(torch.ones(2), torch.ones(3, 4, 4) + 0j)
