"""Activity detectors against exhaustive search, simulation and each other."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from massaccess.activity import covariance
from massaccess.activity.covariance import Covariance
from massaccess.activity.mmv_amp import MmvAmp
from massaccess.activity.somp import Somp
from massaccess.core import SystemConfig
from massaccess.forward.simulate import Simulation

SMALL = SystemConfig(users=7, rows=4, columns=4, pilot_len=5, data_len=0, activity=0.3, snr_db=8.0, channel="rayleigh")


def negative_log_posterior(obs, active):
    """Exact for independent Rayleigh antennas: M (log|S| + tr S^-1 C) - log p(active), active [N]."""
    book = obs.pilots.to(torch.complex128)
    s = (book * active) @ book.mH + obs.noise_var * torch.eye(len(book), dtype=book.dtype)
    rx = obs.pilot_rx[0].to(torch.complex128)
    fit = torch.logdet(s).real * obs.antennas + torch.trace(rx.mH @ torch.linalg.solve(s, rx)).real
    count = int(active.sum())
    return float(fit) - count * math.log(obs.activity) - (obs.users - count) * math.log(1 - obs.activity)


def test_covariance_decision_is_the_map_decision():
    """Against all 2^7 activity patterns, for 40 frames: none has a better posterior than the greedy decision."""
    for start in range(40):
        _, obs = Simulation(SMALL, 2).frames(start, 1)
        costs = {bits: negative_log_posterior(obs, torch.tensor(bits, dtype=torch.float64)) for bits in itertools.product((0, 1), repeat=7)}
        found = tuple(int(bit) for bit in Covariance()(obs).active[0])
        assert costs[found] == pytest.approx(min(costs.values()), abs=1e-4)


def test_log_odds_are_differences_of_the_log_posterior():
    _, obs = Simulation(SMALL, 2).frames(0, 1)
    estimate = Covariance()(obs)
    active = estimate.active[0].double()
    for user in range(7):
        on, off = active.clone(), active.clone()
        on[user], off[user] = 1, 0
        expected = negative_log_posterior(obs, off) - negative_log_posterior(obs, on)
        assert float(estimate.info["log_odds"][0, user]) == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("channel", ["rayleigh", "kronecker"])
def test_compiled_covariance_equals_batched(channel):
    config = SMALL.replace(users=20, pilot_len=8, channel=channel)
    _, obs = Simulation(config, 2).frames(0, 16)
    rx = obs.pilot_rx.to(torch.complex128)
    problem = covariance.Problem(
        rx @ rx.mH / obs.antennas,
        obs.pilots.to(torch.complex128),
        torch.ones(16, 20, dtype=torch.float64),
        obs.noise_var,
        obs.antennas,
        1.2,
    )
    left, right = (path(problem, 10 * problem.gain, 40, 1e-3) for path in (covariance._descend_compiled, covariance._descend_batched))
    torch.testing.assert_close(left[0], right[0], rtol=1e-6, atol=1e-8)
    assert torch.equal(left[1], right[1])
    active = left[0] > 0.5
    torch.testing.assert_close(covariance._flip_compiled(problem, active), covariance._flip_batched(problem, active), rtol=1e-6, atol=1e-6)


def test_descent_ends_where_the_likelihood_is_stationary():
    """Power above zero: p^H S^-1 C S^-1 p = p^H S^-1 p; at zero the slope must not be negative."""
    _, obs = Simulation(SMALL.replace(users=20, pilot_len=8), 2).frames(0, 8)
    rx = obs.pilot_rx.to(torch.complex128)
    problem = covariance.Problem(
        rx @ rx.mH / 16, obs.pilots.to(torch.complex128), torch.ones(8, 20, dtype=torch.float64), obs.noise_var, 16, 1.0
    )
    power, _ = covariance.descend(problem, 100 * problem.gain, tolerance=1e-9, sweeps=4000)
    precision, match = problem.precision_and_match(power)
    slope = (precision - match) / precision
    assert float(slope[power > 0].abs().max()) < 1e-3
    assert float(slope[power == 0].min()) > -1e-3


@pytest.mark.parametrize("detector", [Covariance(), Somp()])
def test_known_gains_help(detector):
    """Users many dB apart: a detector that knows the gains makes fewer errors."""
    config = SMALL.replace(users=30, pilot_len=14, rows=8, columns=8, channel="pathloss", power_control=False, snr_db=20.0)
    frame, obs = Simulation(config, 2).frames(0, 64)
    assert obs.user_gain is not None
    known = (detector(obs).active ^ frame.active).sum()
    blind = (detector(dataclasses.replace(obs, user_gain=None)).active ^ frame.active).sum()
    assert int(known) < int(blind)


def test_somp_finds_everybody_without_noise_and_nobody_in_noise():
    config = SMALL.replace(users=40, pilot_len=16, activity=0.1, snr_db=60.0)
    frame, obs = Simulation(config, 2).frames(0, 64)
    assert float((Somp()(obs).active ^ frame.active).double().mean()) < 2e-3
    noise = dataclasses.replace(obs, pilot_rx=obs.noise_var**0.5 * torch.randn(64, 16, 16, dtype=torch.complex64))
    crowd = [Somp(false_alarm=chance)(noise).active.any(1).double().mean() for chance in (0.01, 0.9)]
    assert float(crowd[0]) < 0.1
    assert float(crowd[1]) > 0.2


def test_somp_sees_no_more_than_the_false_alarm_rate_says():
    config = SMALL.replace(users=40, pilot_len=16)
    draws = torch.Generator().manual_seed(5)
    _, obs = Simulation(config, 2).frames(0, 1)
    rx = obs.noise_var**0.5 * torch.randn(2000, 16, 16, dtype=torch.complex64, generator=draws)
    noise = dataclasses.replace(obs, pilot_rx=rx, data_rx=rx[:, :0])
    rate = float(Somp(false_alarm=0.1)(noise).active.any(1).double().mean())
    assert 0.05 < rate < 0.12  # the union bound is nearly tight: users' statistics are weakly dependent


def test_amp_finds_the_active_and_comes_down_to_the_noise():
    config = SystemConfig(users=64, pilot_len=24, data_len=0, snr_db=10.0, channel="rayleigh")
    frame, obs = Simulation(config, 2).frames(0, 64)
    estimate = MmvAmp()(obs)
    assert float((estimate.active ^ frame.active).double().mean()) < 5e-3
    truth = frame.channel * frame.active[..., None]
    assert float(estimate.info["effective_noise_var"].median()) < 1.5 * obs.noise_var  # the interference is gone from the residual
    error = float((estimate.channel - truth).abs().square().sum() / truth.abs().square().sum())
    assert 10 * math.log10(error) < -8


@pytest.mark.parametrize(("pilot_len", "bar"), [(12, 1.3e-3)])
def test_covariance_reaches_its_published_class(pilot_len, bar):
    """128 users, 64 antennas, 10 dB, 12 QPSK pilots, 256 frames over 4 books: about 6e-4 of the decisions wrong."""
    wrong = 0
    for book in range(4):
        config = SystemConfig(pilot_len=pilot_len, data_len=0, snr_db=10.0, channel="rayleigh", pilot_seed=book)
        frame, obs = Simulation(config, book).frames(0, 64)
        wrong += int((Covariance()(obs).active ^ frame.active).sum())
    assert wrong / (256 * 128) < bar
