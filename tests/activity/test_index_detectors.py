"""Detectors of index-modulated pilots against exhaustive search, one another, and the detectors that they are with one sequence each."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from massaccess.activity import index_covariance
from massaccess.activity.covariance import Covariance, descend
from massaccess.activity.index_amp import IndexAmp
from massaccess.activity.index_covariance import IndexCovariance
from massaccess.activity.mmv_amp import MmvAmp
from massaccess.core import Observation, SystemConfig
from massaccess.evaluate.figures.definition import load
from massaccess.evaluate.metrics import Tally
from massaccess.forward.simulate import Simulation

CELL = SystemConfig.from_dict(load("p3-fig7").system).replace(placement_seed=None)
TINY = CELL.replace(users=4, pilot_len=4, activity=0.4, tx_power_dbm=15.0)
DETECTORS = [
    *(IndexAmp(sections=sections, decision=decision) for sections in (False, True) for decision in ("map", "paper")),
    *(IndexCovariance(decision=decision) for decision in ("map", "lr", "fixed")),
]


def log_posterior(obs: Observation, frame: int, chosen: tuple[int, ...]) -> float:
    """Exact up to a constant, for known gains: log p(rx | chosen) + log p(chosen); ``chosen``: a sequence of each device, or -1."""
    book = obs.pilots.to(torch.complex128)
    power = torch.zeros(book.shape[1], dtype=torch.float64)
    for user, sequence in enumerate(chosen):
        if sequence >= 0:
            power[user * obs.sequences + sequence] = obs.user_gain[frame, user]
    s = (book * power) @ book.mH + obs.noise_var * torch.eye(len(book), dtype=book.dtype)
    rx = obs.pilot_rx[frame].to(torch.complex128)
    fit = torch.logdet(s).real * obs.antennas + torch.trace(rx.mH @ torch.linalg.solve(s, rx)).real
    active = sum(sequence >= 0 for sequence in chosen)
    prior = active * math.log(obs.activity / obs.sequences) + (obs.users - active) * math.log(1 - obs.activity)
    return prior - float(fit)


def decided(estimate) -> torch.Tensor:
    return torch.where(estimate.active, estimate.sequence_odds.argmax(-1), -1)


def test_moves_end_where_no_single_move_helps_and_mostly_at_the_best_of_all():
    _, obs = Simulation(TINY, 2).frames(0, 24)
    found, best = decided(IndexCovariance()(obs)), 0
    states = list(itertools.product((-1, 0, 1), repeat=4))
    for number in range(24):
        values = {state: log_posterior(obs, number, state) for state in states}
        mine = tuple(found[number].tolist())
        near = [state for state in states if sum(a != b for a, b in zip(state, mine, strict=True)) == 1]
        assert values[mine] >= max(values[state] for state in near) - 1e-3
        best += values[mine] >= max(values.values()) - 1e-3
    assert best >= 22


def test_odds_are_differences_of_the_log_posterior():
    _, obs = Simulation(TINY, 2).frames(0, 4)
    estimate = IndexCovariance()(obs)
    for number in range(4):
        state = decided(estimate)[number].tolist()
        for user, sequence in itertools.product(range(4), range(2)):
            on, off = ((*state[:user], value, *state[user + 1 :]) for value in (sequence, -1))
            expected = log_posterior(obs, number, on) - log_posterior(obs, number, off)
            assert float(estimate.sequence_odds[number, user, sequence]) == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("index_bits", [0, 1, 2])
def test_compiled_moves_equal_batched(index_bits):
    config = CELL.replace(pilot_len=14, users=40, index_bits=index_bits)
    _, obs = Simulation(config, 2).frames(0, 12)
    problem = index_covariance._problem(obs)
    power, _ = descend(problem, 10 * problem.gain, sweeps=8, tolerance=1e-2)
    start = torch.where(torch.arange(40) % 4 == 0, 0, -1).expand(12, -1)  # far from the answer: many moves
    left, right = (path(problem, start, obs.sequences) for path in (index_covariance._move_compiled, index_covariance._move_batched))
    assert torch.equal(left[0], right[0])
    assert not torch.equal(left[0], start)
    torch.testing.assert_close(left[1], right[1], rtol=1e-4, atol=1e-4)
    assert bool((power >= 0).all())


def test_taking_a_section_out_is_leaving_it_out():
    """Precisions and matches given the others equal those under powers from which the section is missing."""
    _, obs = Simulation(CELL.replace(pilot_len=10, users=6, index_bits=2), 2).frames(0, 3)
    problem = index_covariance._problem(obs)
    power = problem.gain * torch.rand(problem.gain.shape, dtype=torch.float64)
    found = index_covariance.given_others(problem, power, 4)
    for section in range(6):
        columns = slice(4 * section, 4 * section + 4)
        without = power.clone()
        without[:, columns] = 0
        for mine, expected in zip(found, problem.precision_and_match(without), strict=True):
            torch.testing.assert_close(mine[:, section], expected[:, columns], rtol=1e-6, atol=1e-9)


def test_one_sequence_each_is_activity_detection():
    """With Q = 1 the receivers are mmv-amp and covariance; a section of one row is a row."""
    _, obs = Simulation(CELL.replace(index_bits=0), 2).frames(0, 16)
    amp = MmvAmp()(obs).info["log_odds"]
    for sections in (False, True):
        torch.testing.assert_close(IndexAmp(sections=sections)(obs).sequence_odds[..., 0], amp, rtol=1e-3, atol=1e-3)
    odds = Covariance()(obs).info["log_odds"].float()
    torch.testing.assert_close(IndexCovariance()(obs).sequence_odds[..., 0], odds, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("detector", DETECTORS)
def test_units_do_not_matter(detector):
    """Samples and noise times 4 (power 16) with gains times 16; or sequences times 4 with samples and noise: the same answer."""
    _, obs = Simulation(CELL, 2).frames(0, 8)
    plain = detector(obs)
    louder = dataclasses.replace(obs, pilot_rx=4 * obs.pilot_rx, noise_var=16 * obs.noise_var)
    for changed in (
        dataclasses.replace(louder, user_gain=16 * obs.user_gain),
        dataclasses.replace(obs, pilots=4 * obs.pilots, user_gain=obs.user_gain / 16),
    ):
        found = detector(changed)
        assert torch.equal(decided(found), decided(plain))
        torch.testing.assert_close(found.sequence_odds, plain.sequence_odds, rtol=1e-3, atol=1e-2)


def errors(detector, config: SystemConfig = CELL, frames: int = 96, **seen: object) -> float:
    tally = Tally()
    frame, obs = Simulation(config, 5).frames(0, frames)
    tally.add(config, frame, detector(dataclasses.replace(obs, **seen)))
    return tally.summary()["ser_devices"]


def test_what_the_decision_is_worth():
    """At 20 symbols: covariance over AMP, and knowledge of the prior over thresholds (100 devices, 16 antennas, 23 dBm)."""
    short = CELL.replace(pilot_len=20)
    threshold, row, section = (errors(IndexAmp(**kind), short) for kind in ({"decision": "paper"}, {}, {"sections": True}))
    fixed, ratio, best = (errors(IndexCovariance(decision=kind), short) for kind in ("fixed", "lr", "map"))
    assert best < ratio < threshold
    assert best < fixed < threshold
    assert section < row < threshold < 0.06
    assert best < 6e-3


@pytest.mark.parametrize(("detector", "bar"), [(IndexAmp(), 3e-3), (IndexAmp(sections=True), 3e-3), (IndexCovariance(), 2e-3)])
def test_errors_at_forty_symbols(detector, bar):
    assert errors(detector) < bar


def test_covariance_does_nearly_without_gains():
    assert errors(IndexCovariance(), user_gain=None, gain_range_db=(0.0, 47.8)) < 3e-3


@pytest.mark.parametrize("detector", DETECTORS)
def test_everybody_active_is_no_special_case(detector):
    _, obs = Simulation(CELL.replace(users=6, activity=1.0), 2).frames(0, 4)
    odds = detector(obs).sequence_odds
    assert bool(torch.isfinite(odds).all())


@pytest.mark.parametrize("kind", [IndexAmp, IndexCovariance])
def test_unknown_decisions_are_named(kind):
    with pytest.raises(KeyError, match="map"):
        kind(decision="guess")
