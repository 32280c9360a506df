"""Unrolled covariance descent: untrained it already detects, and its looks are likelihood ratios."""

from __future__ import annotations

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError
from massaccess.forward.simulate import Simulation
from massaccess.networks.sectors import sectors
from massaccess.networks.unrolled_covariance import UnrolledCovariance
from massaccess.rng import complex_normal


def frames(count=40, **changes):
    config = SystemConfig(**{"users": 64, "pilot_len": 12, "data_len": 0, "snr_db": 10.0, "channel": "rayleigh", **changes})
    frame, obs = Simulation(config, 4).frames(0, count)
    given = obs.pilot_rx, obs.pilots.expand(count, -1, -1), torch.full((count,), obs.noise_var), torch.full((count,), obs.activity)
    return frame.active, given, obs.grid


@torch.no_grad()
def test_untrained_it_is_covariance_descent():
    active, given, grid = frames()
    for options in ({"sectored": 0}, {"sectored": 4}):
        trace = UnrolledCovariance(stages=8, **options).trace(*given, grid)
        errors = [float(((one > 0) != active).float().mean()) for one in trace]
        assert errors[-1] < 3e-3 < errors[0]


@torch.no_grad()
def test_any_size_and_any_order_of_users(generator):
    network = UnrolledCovariance(stages=3, sectored=1)
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


def test_sectors_hold_all_beams_once(generator):
    rx = complex_normal(2, 3, 20, generator=generator)
    groups = sectors(rx, (4, 5))
    assert groups.looks.tolist() == [2.0] * 5 + [10.0] and groups.count == 5 and groups.cov.shape == (2, 6, 3, 3)
    torch.testing.assert_close((groups.cov * groups.looks[:, None, None]).sum(1), rx @ rx.mH)
    assert sectors(rx, (1, 20)).looks.tolist() == [1.0] * 20
    with pytest.raises(ConfigError, match="rows and columns"):
        UnrolledCovariance(stages=1, sectored=1)(rx, rx[..., :5], torch.ones(2), torch.full((2,), 0.1))


def test_a_wave_lies_in_one_sector_at_any_elevation():
    row, column = torch.arange(4)[:, None], torch.arange(8)
    for elevation in range(4):
        wave = torch.polar(torch.ones(4, 8), 2 * torch.pi * (row * elevation / 4 + 3 * column / 8)).reshape(1, 1, 32)
        energy = sectors(wave, (4, 8)).cov[0, :, 0, 0].real
        assert int(energy.argmax()) == 3 and float(energy[3]) > 0.99 * float(energy.sum())


@torch.no_grad()
def test_with_independent_antennas_untrained_sectors_change_nothing():
    _, given, grid = frames(4)
    plain, told = (UnrolledCovariance(stages=6, sectored=count)(*given, grid) for count in (0, 3))
    torch.testing.assert_close(plain, told, rtol=1e-2, atol=0.1)


def test_options_that_do_not_fit_are_named():
    for options in ({"stages": 0}, {"stages": 2, "sectored": 3}):
        with pytest.raises(ConfigError, match="stage"):
            UnrolledCovariance(**options)
