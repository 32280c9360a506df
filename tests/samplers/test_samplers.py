"""Samplers against posteriors that are known: Gaussian unknowns, linear Gaussian observations."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.errors import ConfigError, NotFiniteError, UnknownNameError
from massaccess.rng import complex_normal
from massaccess.samplers import few_step, guidance, langevin, posterior_mean, predictor_corrector, schedules

POWER = torch.tensor([2.0, 0.7, 0.1], dtype=torch.float64)  # of the columns of x
NOISE_VAR = 0.3
FRAMES, COPIES = 64, 64  # chains: so many frames of so many copies of the three columns, since step sizes are meant for many entries
COUNT = FRAMES * COPIES


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def powers(x):
    return POWER.repeat(x.shape[-1] // 3)


def moments(x, sigma):
    shrink = powers(x) / (powers(x) + sigma**2)
    return shrink * x, (shrink * sigma**2).expand(x.shape)


@pytest.fixture(scope="module")
def problem():
    """One observation, many chains: a [4 2], y [4 3], and the posterior's mean [2 3] and covariance [3 2 2] (one a column)."""
    a = complex_normal(4, 2, generator=drawn(1), dtype=torch.complex128)
    x0 = complex_normal(2, 3, generator=drawn(2), dtype=torch.complex128) * POWER.sqrt()
    y = a @ x0 + math.sqrt(NOISE_VAR) * complex_normal(4, 3, generator=drawn(3), dtype=torch.complex128)
    cov = torch.linalg.inv(a.mH @ a / NOISE_VAR + torch.diag_embed((1 / POWER)[:, None].expand(3, 2)).to(a.dtype))
    mean = (cov @ (a.mH @ y).mT[..., None] / NOISE_VAR)[..., 0].mT
    return a, y, mean, cov


def seen_by(problem, frames=FRAMES, copies=COPIES):
    a, y, _, _ = problem
    return guidance.LinearGaussian.of(y.repeat(frames, 1, copies), a.repeat(frames, 1, 1), noise_var=NOISE_VAR)


def start(sigma, seed=5, frames=FRAMES, copies=COPIES):
    x = complex_normal(frames, 2, 3 * copies, generator=drawn(seed), dtype=torch.complex128)
    return (powers(x) + sigma**2).sqrt() * x


def assert_posterior(samples, problem, *, rel):
    """Mean within five standard errors and ``rel`` standard deviations; covariances within five errors of a sample and ``rel``."""
    _, _, mean, cov = problem
    samples = samples.unflatten(-1, (-1, 3)).transpose(1, 2).flatten(0, 1)
    spread = cov.diagonal(dim1=-2, dim2=-1).real.mT.sqrt()
    slack = 5 / math.sqrt(len(samples))
    assert bool(((samples.mean(0) - mean).abs() < (slack + rel) * spread).all())
    off = (samples - samples.mean(0)).mT[..., None]
    found = (off @ off.mH).mean(0)
    limit = (slack + rel) * spread.mT[..., None] * spread.mT[:, None, :]
    assert bool(((found - cov).abs() < limit).all())


def test_likelihood_score_is_the_papers(problem):
    """pull = S^H (noise_var I + var S S^H)^-1 (y - S x), and `affine` is the same thing."""
    a, y, _, _ = problem
    seen, x = seen_by(problem, 5, 1), start(1.0, frames=5, copies=1)
    eye = torch.eye(4, dtype=a.dtype)
    wanted = a.mH @ torch.linalg.solve(NOISE_VAR * eye + 0.4 * a @ a.mH, y - a @ x)
    torch.testing.assert_close(seen.pull(x, 0.4), wanted)
    matrix, offset = seen.affine(0.4, 2.5)
    torch.testing.assert_close(offset - matrix @ x, 2.5 * wanted)


def test_row_noise_is_noise(problem):
    a, y, _, _ = problem
    row = torch.tensor([0.0, 0.3, 2.0, 0.0], dtype=torch.float64)
    seen = guidance.LinearGaussian.of(y[None], a[None], noise_var=NOISE_VAR, row_noise=row[None])
    precision = torch.diag(1 / (NOISE_VAR + row)).to(a.dtype)
    x = start(1.0, frames=1, copies=1)
    torch.testing.assert_close(seen.pull(x, 0.0), (a.mH @ precision @ (y - a @ x)) / 1.0)


def test_fewer_rows_than_unknowns():
    a = complex_normal(1, 2, 5, generator=drawn(), dtype=torch.complex128)
    y, x = complex_normal(1, 2, 3, generator=drawn(1), dtype=a.dtype), complex_normal(1, 5, 3, generator=drawn(2), dtype=a.dtype)
    wanted = a.mH @ torch.linalg.solve(0.2 * torch.eye(2, dtype=a.dtype) + 0.7 * a @ a.mH, y - a @ x)
    torch.testing.assert_close(guidance.LinearGaussian.of(y, a, noise_var=0.2).pull(x, 0.7), wanted)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_guided_score_is_exact_for_gaussian_columns(problem, sigma):
    """At every noise level, x + sigma^2 score is the joint posterior mean given y and x_t."""
    a, y, _, _ = problem
    x = start(sigma, frames=1, copies=1)
    precision = a.mH @ a / NOISE_VAR + torch.diag_embed((1 / POWER + 1 / sigma**2)[:, None].expand(3, 2)).to(a.dtype)
    shift = (a.mH @ y / NOISE_VAR + x[0] / sigma**2).mT
    wanted = torch.linalg.solve(precision, shift[..., None])[..., 0].mT
    score = guidance.guided(moments, seen_by(problem, 1, 1))
    torch.testing.assert_close(guidance.denoised(score)(x, sigma)[0], wanted)
    torch.testing.assert_close(guidance.denoiser(moments, seen_by(problem, 1, 1))(x, sigma)[0], wanted)


@pytest.mark.parametrize("corrections", [0, 1, 3])
def test_predictor_corrector_samples_the_posterior(problem, corrections):
    levels = schedules.geometric(0.02, 6.0, 250)
    score = guidance.guided(moments, seen_by(problem))
    samples = predictor_corrector.sample(score, start(6.0), levels, corrections=corrections, generator=drawn(7))
    assert_posterior(samples, problem, rel=0.06)


def test_annealed_langevin_samples_the_posterior(problem):
    levels = schedules.geometric(0.02, 6.0, 120)
    score = guidance.guided(moments, seen_by(problem))
    samples = langevin.sample(score, start(6.0), levels, steps=6, r=0.2, generator=drawn(7))
    assert_posterior(samples, problem, rel=0.12)


def test_flat_guidance_is_too_wide_and_a_larger_weight_sharpens(problem):
    """P1's likelihood score at weight 1 ends near the posterior; at 2.5 the samples are nearer to the truth's posterior mean."""
    _, _, mean, cov = problem
    levels = schedules.geometric(0.02, 6.0, 250)
    error = []
    for weight in (1.0, 2.5):
        score = guidance.flat(moments, seen_by(problem), weight=weight)
        samples = predictor_corrector.sample(score, start(6.0), levels, corrections=1, generator=drawn(7))
        error.append(float((samples - mean.repeat(1, COPIES)).abs().square().mean()))
    exact = float(cov.diagonal(dim1=-2, dim2=-1).real.mean())
    assert error[1] < 0.7 * error[0]
    assert error[0] == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize("solver", [few_step.heun, few_step.dpm_solver])
def test_probability_flow_carries_the_noise_to_the_posterior(problem, solver):
    levels = schedules.karras(0.02, 20.0, 24)
    mean_of = guidance.denoiser(moments, seen_by(problem))
    assert_posterior(solver(mean_of, start(20.0), levels), problem, rel=0.06)


def test_solvers_have_their_order(problem):
    """Twice the steps: about a quarter of the error."""
    mean_of = guidance.denoiser(moments, seen_by(problem, 16))
    for solver in (few_step.heun, few_step.dpm_solver):
        ends = [solver(mean_of, start(5.0, frames=16), schedules.geometric(0.05, 5.0, steps)) for steps in (20, 40, 640)]
        coarse, fine = ((end - ends[-1]).abs().max() for end in ends[:2])
        assert float(coarse / fine) > 3


@pytest.mark.parametrize(("sigma", "excess"), [(30.0, 3.0), (12.0, 2.0)])
def test_the_printed_step_overshoots(sigma, excess):
    """Target CN(0, 1 + sigma^2) in the papers' real units: the printed step size multiplies the variance, Song's keeps it."""
    total = 2 * sigma**2 + 1  # unit variance and sigma^2 per real part, halved below
    x = math.sqrt(total) * complex_normal(64, 768, generator=drawn(), dtype=torch.complex128)
    moved = {
        rule: langevin.sample(lambda x, _: -x / total, x, torch.full((40,), sigma * math.sqrt(2)), step_rule=rule, generator=drawn(1))
        for rule in langevin.STEP_RULES
    }
    assert float(moved["song"].abs().square().mean() / total) == pytest.approx(1, rel=0.12)
    assert float(moved["printed"].abs().square().mean() / total) > excess


def test_the_printed_step_is_inert_at_low_levels():
    x = torch.zeros(8, 64, dtype=torch.complex128) + 0.05
    moves = []
    for rule in langevin.STEP_RULES:
        moved = langevin.step(lambda x, s: -x / s**2, x, 0.01, r=0.3, step_rule=rule, generator=drawn())
        moves.append(float((moved - x).abs().square().mean()))
    assert moves[1] < 0.02 * moves[0]


def test_norms_are_those_of_a_frame():
    """A loud neighbour in the batch changes nothing."""
    slope, noise = torch.ones(3, 4, 5) + 0j, torch.ones(3, 4, 5) + 0j
    eta = langevin.step_size(slope, noise, 1.0, r=0.3, step_rule="song")
    loud = slope.clone()
    loud[1] *= 100
    again = langevin.step_size(loud, noise, 1.0, r=0.3, step_rule="song")
    assert eta.shape == (3, 1, 1)
    assert torch.equal(eta[::2], again[::2])


def test_real_parts_and_complex_numbers_are_the_same_chain():
    levels = schedules.geometric(0.1, 3.0, 60)
    parts = 3 * torch.randn(FRAMES, 16, COPIES, generator=drawn(), dtype=torch.float64) * math.sqrt(0.5)
    moved = predictor_corrector.sample(lambda x, s: -x / (1 + s**2), parts, levels, corrections=1, generator=drawn(1))
    assert float(moved.square().mean()) == pytest.approx((1 + 0.01) / 2, rel=0.06)


def test_masked_entries_stay_and_count_nothing():
    mask = torch.tensor([True, True, False])[:, None]
    x = start(3.0, frames=8, copies=1).mT.clone()
    levels = schedules.geometric(0.1, 3.0, 20)
    for sampler in (langevin.sample, predictor_corrector.sample):
        moved = sampler(lambda x, s: -x / (1 + s**2), x, levels, mask=mask, generator=drawn())
        assert torch.equal(moved[:, 2], x[:, 2])
        assert not torch.equal(moved[:, 0], x[:, 0])


def test_divergence_is_said():
    for sampler in (langevin.sample, predictor_corrector.sample):
        with pytest.raises(NotFiniteError, match="smaller r"):
            sampler(lambda x, s: x * torch.nan, torch.ones(1, 2) + 0j, schedules.geometric(0.1, 1.0, 5), generator=drawn())
        with pytest.raises(NotFiniteError, match="song"):
            sampler(
                lambda x, s: x * torch.inf, torch.ones(1, 2) + 0j, schedules.geometric(0.1, 1.0, 5), step_rule="printed", generator=drawn()
            )


@pytest.mark.parametrize("sampler", [langevin.sample, predictor_corrector.sample])
def test_on_step_stops(sampler):
    seen = []

    def stop(i, x):
        seen.append(i)
        return i == 3

    sampler(lambda x, s: -x, torch.ones(1, 2) + 0j, schedules.geometric(0.1, 1.0, 9), generator=drawn(), on_step=stop)
    assert seen == [0, 1, 2, 3]


def test_options_that_make_no_sense():
    with pytest.raises(UnknownNameError, match="song"):
        langevin.sample(lambda x, s: -x, torch.ones(1, 2), torch.ones(1), step_rule="sing", generator=drawn())
    for bad in (lambda: schedules.geometric(1, 0.1, 5), lambda: schedules.karras(0.1, 1, 0)):
        with pytest.raises(ConfigError, match="pass"):
            bad()
    with pytest.raises(ConfigError, match="above 0"):
        predictor_corrector.sample(lambda x, s: -x, torch.ones(1, 2), torch.ones(2), r=0.0, generator=drawn())


def test_schedules():
    levels = schedules.geometric(0.01, 30.0, 1500)
    assert len(levels) == 1501
    assert float(levels[0]) == pytest.approx(30) and float(levels[-1]) == pytest.approx(0.01)
    torch.testing.assert_close(levels[1:] / levels[:-1], (levels[1] / levels[0]).expand(1500))
    karras = schedules.karras(0.01, 30.0, 8)
    assert len(karras) == 9 and float(karras[0]) == pytest.approx(30) and karras[-1] == 0
    assert bool((karras.diff() < 0).all())


def column_denoiser(x, noise_var):
    shrink = POWER / (POWER + noise_var)
    return shrink * x, shrink * noise_var


def test_message_passing_finds_the_posterior_mean(problem):
    """One variance a column: exact for Gaussian columns, in two rounds."""
    _, _, mean, cov = problem
    found = posterior_mean.solve(column_denoiser, seen_by(problem, 2, 1), rounds=3, damping=1.0, pooled=False)
    torch.testing.assert_close(found.mean[0], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.var[0, 0], cov.diagonal(dim1=-2, dim2=-1).real.mean(1), rtol=1e-4, atol=1e-5)
    assert not bool(found.diverged.any())


def test_message_passing_of_a_sparse_prior_beats_the_linear_mean():
    """96 unknowns of which a tenth is there, 48 rows: the Bernoulli-Gaussian denoiser wins over LMMSE."""
    from massaccess.priors.bernoulli_gaussian import BernoulliGaussian

    frames, unknowns, rows, columns = 6, 96, 48, 8
    awake = torch.rand(frames, unknowns, 1, generator=drawn()) < 0.1
    x0 = awake * complex_normal(frames, unknowns, columns, generator=drawn(1))
    a = complex_normal(frames, rows, unknowns, generator=drawn(2))
    y = a @ x0 + 0.3 * complex_normal(frames, rows, columns, generator=drawn(3))
    seen = guidance.LinearGaussian.of(y, a, noise_var=0.09)
    prior = BernoulliGaussian(0.1, torch.ones(1))

    def denoise(x, noise_var):
        mean, var = prior.moments(x, noise_var[..., 0].sqrt())
        return mean, var[..., None]

    found = posterior_mean.solve(denoise, seen, rounds=12, start_var=0.1)
    linear = seen.posterior(torch.zeros_like(x0), 0.1)
    gain = (linear - x0).abs().square().sum() / (found.mean - x0).abs().square().sum()
    assert float(gain) > 30
    assert int(found.rounds.max()) <= 12


def test_message_passing_notices_divergence(problem):
    """A denoiser that claims certainty and moves away: the answer is that of a round before, finite, and marked."""
    steps = []

    def bad(x, noise_var):
        steps.append(1)
        return x + 10.0 ** len(steps), noise_var * 0.5

    found = posterior_mean.solve(bad, seen_by(problem, 2, 1), rounds=30)
    assert bool(found.diverged.all())
    assert bool(torch.isfinite(torch.view_as_real(found.mean)).all())
    assert len(steps) < 30
    with pytest.raises(ConfigError, match="damping"):
        posterior_mean.solve(bad, seen_by(problem, 2, 1), damping=0.0)
