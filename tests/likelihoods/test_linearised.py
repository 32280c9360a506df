"""Gaussians that stand in for cells: both ways to compute them agree, and they are those of expectation propagation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import erfcx, log_ndtr
from torch import Tensor

from massaccess.core import Observation, SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.likelihoods import _sign_kernel as kernel
from massaccess.likelihoods.linearised import SILENCE, Linearised

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
