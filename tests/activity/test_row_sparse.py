"""Activity detection from quantised pilots."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from massaccess.activity.row_sparse import RowSparse, SeenLinearly, _posterior
from massaccess.core import SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.likelihoods.linearised import Linearised
from massaccess.registry import create

CONFIG = SystemConfig(
    users=40,
    active_users=6,
    rows=4,
    columns=8,
    pilot_len=20,
    data_len=0,
    snr_db=0,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)


def errors(receiver, config: SystemConfig, count: int = 64) -> float:
    frame, obs = Simulation(config, 3).frames(0, count)
    return float((receiver(obs).active != frame.active).float().mean())


def test_the_posterior_is_that_of_one_system_in_the_users() -> None:
    """The push-through identity: the system in the number of pilots against the one in the number of users."""
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    obs = replace(obs, pilot_rx=obs.pilot_rx.to(torch.complex128), data_rx=obs.data_rx.to(torch.complex128))
    sent = obs.pilots.to(torch.complex128).expand(2, -1, -1)
    draw = torch.Generator().manual_seed(1)
    prec = 1 + torch.rand(2, 40, 1, generator=draw, dtype=torch.float64)
    shift = torch.randn(2, 40, 32, generator=draw, dtype=torch.complex128)
    samples = Linearised.of(obs)
    samples = replace(samples, rx=obs.pilot_rx, noise=1 + torch.rand(2, 20, 1, generator=draw, dtype=torch.float64))
    mean, error, spread = _posterior(samples, sent, prec, shift)
    inverse = torch.linalg.inv((sent.mH / samples.noise.mT) @ sent + torch.diag_embed(prec[..., 0]).to(sent.dtype))
    assert torch.allclose(mean, inverse @ (sent.mH @ (samples.rx / samples.noise) + shift))
    assert torch.allclose(error[..., 0], inverse.diagonal(dim1=-2, dim2=-1).real)
    assert torch.allclose(spread[..., 0], torch.einsum("btk,bkl,btl->bt", sent, inverse, sent.conj()).real)


def test_row_sparse_finds_the_active_where_distortion_as_noise_does_worse() -> None:
    config = CONFIG.replace(pilot_len=14, snr_db=10)
    assert errors(RowSparse(), config) <= errors(create("mmv-amp"), config)
    assert errors(RowSparse(), CONFIG) < 2e-3


def test_ideal_converters_are_better_still() -> None:
    config = CONFIG.replace(pilot_len=12, snr_db=-3)
    assert errors(RowSparse(), config.replace(adc_bits=None)) < errors(RowSparse(), config)


def test_detectors_see_more_in_linearised_pilots_of_correlated_arrays() -> None:
    config = SystemConfig(pilot_len=28, data_len=0, snr_db=15, adc_bits=1, active_users=13)
    plain = create("covariance")
    assert errors(SeenLinearly(plain), config, 128) < errors(plain, config, 128)


def test_with_ideal_converters_nothing_stands_between() -> None:
    _, obs = Simulation(CONFIG.replace(adc_bits=None), 3).frames(0, 4)
    plain = create("covariance")
    assert torch.equal(SeenLinearly(plain)(obs).info["log_odds"], plain(obs).info["log_odds"])


@pytest.mark.parametrize("name", ["onebit-activity", "row-sparse-ep"])
def test_a_louder_receiver_changes_nothing(name: str) -> None:
    """Samples, scale and noise in other units: one bit sees the same."""
    _, obs = Simulation(CONFIG, 3).frames(0, 4)
    loud = replace(
        obs,
        pilot_rx=3 * obs.pilot_rx,
        noise_var=9 * obs.noise_var,
        user_gain=torch.full((4, 40), 9.0),
        front_end=replace(obs.front_end, scale=3 * obs.front_end.scale, distortion_var=9 * obs.front_end.distortion_var),
    )
    same = replace(obs, user_gain=torch.ones(4, 40))
    first, second = (create(name)(one).info["log_odds"] for one in (same, loud))
    assert torch.allclose(first, second, rtol=1e-2, atol=0.05)
