"""Gaussians that stand in for cells: both ways to compute them agree, and they are those of expectation propagation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import erfcx, log_ndtr
from torch import Tensor

from massaccess.core import FrontEnd, Observation, SystemConfig
from massaccess.forward.front_end import front_end, quantize
from massaccess.forward.simulate import Simulation
from massaccess.likelihoods import _sign_kernel as kernel
from massaccess.likelihoods.linearised import SILENCE, Linearised
from massaccess.likelihoods.normal import log_mass
from massaccess.likelihoods.quantized import Quantized

SYSTEM = SystemConfig(
    users=3,
    active_users=3,
    rows=2,
    columns=4,
    pilot_len=4,
    data_len=26,
    snr_db=6.0,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)


def seen(double: bool = True, **changes: object) -> Observation:
    obs = Simulation(SYSTEM.replace(**changes), 1).frames(0, 2)[1]
    if not double:
        return obs
    offset = obs.front_end.offset
    front_end = dataclasses.replace(obs.front_end, offset=None if offset is None else offset.to(torch.complex128))
    wide = {name: getattr(obs, name).to(torch.complex128) for name in ("pilot_rx", "data_rx", "pilots")}
    return dataclasses.replace(obs, front_end=front_end, **wide)


def beliefs(samples: Linearised, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Posteriors of the noiseless samples, some nearly certain."""
    mean = 2 * torch.randn(samples.rx.shape, dtype=samples.rx.dtype, generator=generator)
    return mean, 10 ** (4 * torch.rand(samples.noise.shape, dtype=samples.noise.dtype, generator=generator) - 3)


def test_the_kernel_knows_the_slopes_of_the_normal_distribution_far_out() -> None:
    x = np.concatenate([np.linspace(-40, 36, 40001), -np.logspace(1, 6, 500)])
    first, second = np.empty_like(x), np.empty_like(x)
    kernel.slopes(x, first, second)
    above, below = np.maximum(x, 0), np.minimum(x, 0)
    falling = np.exp(-above * above / 2 - log_ndtr(above)) / np.sqrt(2 * np.pi)
    exact = np.where(x > 0, falling, np.sqrt(2 / np.pi) / erfcx(-below / np.sqrt(2)))
    np.testing.assert_allclose(first, exact, rtol=1e-8)
    near = np.abs(x) < 100  # further out the reference cancels
    np.testing.assert_allclose(second[near], (exact * (exact + x))[near], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("adc", [{}, {"adc_dither": 0.7}, {"adc_offset": -0.4, "adc_dither": 0.1}])
@pytest.mark.parametrize("times", [slice(None), slice(4, None), slice(0, 4)])
def test_the_kernel_and_its_twin_agree(adc: dict[str, float], times: slice, generator: torch.Generator) -> None:
    samples = Linearised.of(seen(**adc))
    for share in (1.0, 0.6, 0.3):
        mean, var = (part[:, times] for part in beliefs(samples, generator))
        rx, noise = samples._batched(mean, var, share, times)
        samples = samples.again(mean, var, share, times)
        torch.testing.assert_close(samples.rx, rx, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(samples.noise, noise, rtol=1e-6, atol=0)


@pytest.mark.parametrize("power", [1e-8, 1e-3, 1e3, 1e6])
def test_far_out_they_agree_and_stay_finite(power: float, generator: torch.Generator) -> None:
    """Samples that contradict what the others say, and posteriors that know less than the samples claim."""
    samples = Linearised.of(seen(adc_dither=0.5))
    for size in (1.0, 30.0):
        mean = size * torch.randn(samples.rx.shape, dtype=samples.rx.dtype, generator=generator)
        var = torch.full_like(samples.noise, power)
        rx, noise = samples._batched(mean, var, 0.6, slice(None))
        samples = samples.again(mean, var, 0.6)
        torch.testing.assert_close((samples.rx, samples.noise), (rx, noise), rtol=1e-5, atol=1e-5)
        assert bool(torch.isfinite(torch.view_as_real(rx)).all()) and bool((noise > 0).all())


def test_they_agree_in_single_precision(generator: torch.Generator) -> None:
    samples = Linearised.of(seen(double=False, adc_dither=0.5))
    mean = 2 * torch.randn(samples.rx.shape, dtype=samples.rx.dtype, generator=generator)
    var = 1 + torch.rand(samples.noise.shape, generator=generator)
    again = samples.again(mean, var, 0.6)
    assert again.rx.dtype == torch.complex64 and again.noise.dtype == torch.float32
    rx, noise = samples._batched(mean, var, 0.6, slice(None))
    torch.testing.assert_close(again.rx, rx, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.noise, noise, rtol=1e-3, atol=0)
    assert bool((samples.noise == SILENCE).all())  # the old ones are left alone


@pytest.mark.parametrize("bits", [1, 2])
def test_frames_and_times_are_apart(bits: int, generator: torch.Generator) -> None:
    samples = Linearised.of(seen(adc_bits=bits))
    mean, var = beliefs(samples, generator)
    both = samples.again(mean, var, 0.6)
    second = samples.take(torch.tensor([False, True])).again(mean[1:], var[1:], 0.6)
    merged = both.put(torch.tensor([1]), second)
    torch.testing.assert_close((merged.rx, merged.noise), (both.rx, both.noise))
    assert bool((samples.put(torch.tensor([1]), second).noise[0] == SILENCE).all())
    part = samples.again(mean[:, 4:], var[:, 4:], 0.6, slice(4, None))
    torch.testing.assert_close(part.rx[:, 4:], both.rx[:, 4:])
    torch.testing.assert_close(part.noise[:, 4:], both.noise[:, 4:])
    torch.testing.assert_close((part.rx[:, :4], part.noise[:, :4]), (samples.rx[:, :4], samples.noise[:, :4]), rtol=0, atol=0)
    later = samples.likelihood.at(slice(4, None)).moments(mean[:, 4:], var[:, 4:])
    torch.testing.assert_close(later, tuple(moment[:, 4:] for moment in samples.likelihood.moments(mean, var)))


def test_ideal_converters_are_linear_already(generator: torch.Generator) -> None:
    obs = seen(adc_bits=None)
    samples = Linearised.of(obs)
    again = samples.again(*beliefs(samples, generator), 0.6)
    assert again is samples
    torch.testing.assert_close(again.rx, torch.cat([obs.pilot_rx, obs.data_rx], 1), rtol=0, atol=0)
    assert bool((again.noise == torch.tensor(obs.noise_var, dtype=again.noise.dtype)).all())


def test_the_cavity_forgets_the_own_sample() -> None:
    rx, noise = torch.full((1, 1, 1), 2.0 - 1.0j), torch.full((1, 1, 1), 0.5)
    samples = dataclasses.replace(Linearised.of(seen(double=False)), rx=rx, noise=noise)
    prior, power = 0.3 + 0.7j, 1.5  # its posterior, given the own sample as well
    var = 1 / (1 / torch.full((1, 1, 1), power) + 1 / noise)
    mean, left = samples.cavity(var * (prior / power + rx / noise), var)
    assert mean.item() == pytest.approx(prior, rel=1e-5) and left.item() == pytest.approx(power, rel=1e-5)


SENT = torch.exp(2.3j * torch.arange(20, dtype=torch.float64))  # what one part is told, the other is soon told as well


def toy(bits: int, noise_var: float, seed: int) -> tuple[Quantized, Linearised]:
    """One channel, one antenna, SENT as pilots, comparators with known dither: cells, and nothing made of them yet."""
    draw = torch.Generator().manual_seed(seed)
    made = front_end(bits=bits, power=1 + noise_var, dither=0.8, frame=(len(SENT), 1))
    front = FrontEnd(bits, made.scale, 0.0, made.offset.to(torch.complex128))
    parts = torch.randn(2, len(SENT) + 1, dtype=torch.float64, generator=draw) * math.sqrt(0.5)
    drawn = torch.complex(parts[0], parts[1])
    rx = quantize((SENT * drawn[0] + math.sqrt(noise_var) * drawn[1:])[None, :, None], front)
    obs = Observation(rx, rx[:, :0], SENT[:, None], noise_var=noise_var, front_end=front)
    return Quantized.of(rx, front, noise_var), Linearised.of(obs)


def posterior(cells: Quantized, noise_var: float) -> tuple[complex, float]:
    """Mean and variance of the channel, CN(0, 1) before, by summing over a grid of 241 x 241."""
    axis = torch.linspace(-4, 4, 241, dtype=torch.float64)
    channel = torch.complex(axis[:, None], axis[None, :])
    z = torch.view_as_real(SENT[:, None, None] * channel)
    low, high = (edge[0][:, None] for edge in (cells.lower, cells.upper))
    root = math.sqrt(noise_var / 2)
    log_p = log_mass((low - z) / root, (high - z) / root).sum((0, -1)) - channel.abs().square()
    weight = torch.softmax(log_p.flatten(), 0).reshape(log_p.shape)
    mean = (weight * channel).sum()
    return complex(mean), float((weight * (channel - mean).abs().square()).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("bits", "noise_var"), [(1, 0.3), (1, 1.0), (2, 0.3)])
def test_the_fixed_point_is_nearly_the_posterior(bits: int, noise_var: float, seed: int) -> None:
    cells, samples = toy(bits, noise_var, seed)
    for _ in range(80):
        weight = SENT.conj()[None, :, None] / samples.noise
        var = 1 / (1 + (weight * SENT[None, :, None]).real.sum())
        mean = var * (weight * samples.rx).sum()
        samples = samples.again(SENT[None, :, None] * mean, SENT.abs().square()[None, :, None] * var, 0.5)
    exact, spread = posterior(cells, noise_var)
    assert abs(complex(mean) - exact) < 0.2 * math.sqrt(spread)
    assert float(var) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("bits", [1, 3])
def test_what_is_said_of_the_amplitude(bits: int, generator: torch.Generator) -> None:
    """First and second derivative of the log-likelihood, against differences."""
    samples = Linearised.of(seen(adc_bits=bits))
    mean, var = beliefs(samples, generator)

    def total(step: float) -> torch.Tensor:
        scaled = math.exp(2 * step) * var
        return samples.likelihood.log_evidence(math.exp(step) * mean, scaled.expand(mean.shape)).sum((1, 2))

    score, information = samples.amplitude(mean, var)
    torch.testing.assert_close(score, (total(1e-4) - total(-1e-4)) / 2e-4, rtol=1e-5, atol=1e-3)
    curvature = -(total(0.05) - 2 * total(0.025) + total(0.0)) / 0.025**2
    torch.testing.assert_close(information, curvature.clamp_min(0), rtol=0.05, atol=1.0)
