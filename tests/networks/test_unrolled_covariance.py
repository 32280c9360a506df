"""Unrolled covariance descent: untrained it already detects, and its looks are likelihood ratios."""

from __future__ import annotations

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError
from massaccess.forward.simulate import Simulation
from massaccess.networks.covariance_statistics import Statistics, evidence
from massaccess.networks.unrolled_covariance import Looks, UnrolledCovariance, in_beams
from massaccess.rng import complex_normal


def frames(count=40, **changes):
    config = SystemConfig(**{"users": 64, "pilot_len": 12, "data_len": 0, "snr_db": 10.0, "channel": "rayleigh", **changes})
    frame, obs = Simulation(config, 4).frames(0, count)
    given = obs.pilot_rx, obs.pilots.expand(count, -1, -1), torch.full((count,), obs.noise_var), torch.full((count,), obs.activity)
    return frame.active, given, obs.grid


@torch.no_grad()
def test_untrained_it_is_covariance_descent():
    active, given, grid = frames()
    for options in ({"looks": 0}, {"looks": 2}):
        trace = UnrolledCovariance(stages=8, **options).trace(*given, grid)
        errors = [float(((one > 0) != active).float().mean()) for one in trace]
        assert errors[-1] < 3e-3 < errors[0]


@torch.no_grad()
def test_any_size_and_any_order_of_users(generator):
    network = UnrolledCovariance(stages=3, looks=1)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for length, users, grid in ((7, 9, (3, 4)), (40, 5, (2, 2)), (1, 20, (12, 12))):
        rx = 2 * complex_normal(3, length, grid[0] * grid[1], generator=generator)
        pilots = complex_normal(3, length, users, generator=generator)
        given = torch.ones(3), torch.full((3,), 0.1), grid
        found = network(rx, pilots, *given)
        assert found.shape == (3, users) and bool(torch.isfinite(found).all())
        order = torch.randperm(users, generator=generator)
        torch.testing.assert_close(network(rx, pilots[..., order], *given), found[:, order], rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_a_profile_of_certain_equal_beams_is_the_independent_likelihood(generator):
    looks = Looks(1)
    looks.chance.fill_(30.0)
    looks.strength.zero_()
    filters, beams = complex_normal(2, 6, 5, generator=generator), complex_normal(2, 6, 16, generator=generator)
    energy = (filters.mH @ beams).abs().square().mean(-1)
    precision = torch.rand(2, 5, generator=generator) + 0.5
    told = looks(Statistics(precision, energy, filters, torch.ones(2)), beams)
    torch.testing.assert_close(told[..., 1], evidence(precision, energy).clamp(-4, 8), rtol=1e-3, atol=1e-4)


def test_beams_keep_energy_and_need_the_array(generator):
    rx = complex_normal(2, 3, 12, generator=generator)
    beams = in_beams(rx, (3, 4))
    torch.testing.assert_close(beams.abs().square().sum(-1), rx.abs().square().sum(-1))
    angle = 2 * torch.pi * (torch.arange(12) % 4) / 4
    wave = in_beams(torch.polar(torch.ones(12), angle).expand(1, 1, 12), (3, 4))[0, 0].abs()
    assert int(wave.argmax()) == 1 and float(wave.max()) == pytest.approx(12**0.5, rel=1e-4)
    with pytest.raises(ConfigError, match="rows and columns"):
        UnrolledCovariance(stages=1, looks=1)(rx, rx[..., :5], torch.ones(2), torch.full((2,), 0.1))
    for options in ({"stages": 0}, {"stages": 2, "looks": 3}):
        with pytest.raises(ConfigError, match="stage"):
            UnrolledCovariance(**options)
