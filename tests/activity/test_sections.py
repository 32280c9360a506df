"""The non-coherent default against what can be enumerated, its twin in tensors, and its reach."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch

from massaccess.activity.index_covariance import IndexCovariance
from massaccess.activity.section_problem import Problem
from massaccess.activity.section_tensors import batched
from massaccess.activity.sections import SectionCovariance, compiled
from massaccess.core import Estimate, Frame, Observation, SystemConfig
from massaccess.errors import ConfigError
from massaccess.evaluate.metrics import Tally
from massaccess.forward.simulate import Simulation
from massaccess.priors.profiles import AngularProfiles, gain_levels
from massaccess.weights import choose_profiles

P3 = SystemConfig.from_toml(Path(__file__).resolve().parents[2] / "benchmarks/noncoherent/cell.toml")
CELL = P3.replace(users=30, rows=2, pilot_len=10)
UMA = SystemConfig(users=40, activity=0.1, pilot_len=9, data_len=0, index_bits=1, pilot_kind="gaussian", snr_db=8.0, channel="uma")


def errors(receiver: object, frame: Frame, obs: Observation) -> int:
    tally = Tally()
    tally.add(CELL, frame, receiver(obs))  # type: ignore[operator]
    return int(tally.summary()["ser_devices_errors"])


def exact_posterior(obs: Observation, levels: list[float] | None = None) -> torch.Tensor:
    """Probability [B N Q+1] of silence and of each sequence of each device, by enumeration of all states of the cell. With ``levels``,
    equally likely gains of everybody."""
    users, sequences = obs.users, obs.sequences
    gains = [None] if levels is None else levels
    states = [(0, None), *itertools.product(range(1, sequences + 1), gains)]
    book = obs.pilots.to(torch.complex128).unflatten(1, (users, sequences))
    noise = obs.noise_var * torch.eye(obs.pilot_len, dtype=torch.complex128)
    result = torch.zeros(obs.frames, users, sequences + 1, dtype=torch.float64)
    for frame in range(obs.frames):
        rx = obs.pilot_rx[frame].to(torch.complex128)
        logs, wholes = [], list(itertools.product(states, repeat=users))
        for whole in wholes:
            cov, prior = noise.clone(), 0.0
            for user, (choice, level) in enumerate(whole):
                prior += math.log(1 - obs.activity) if not choice else math.log(obs.activity / sequences / len(gains))
                if choice:
                    gain = float(obs.user_gain[frame, user]) if level is None else level
                    pilot = book[:, user, choice - 1]
                    cov += gain * pilot[:, None] * pilot.conj()
            fit = (rx.conj() * torch.linalg.solve(cov, rx)).sum().real
            logs.append(prior - float(fit) - obs.antennas * float(torch.linalg.slogdet(cov)[1]))
        chance = torch.softmax(torch.tensor(logs, dtype=torch.float64), 0)
        for share, whole in zip(chance, wholes, strict=True):
            for user, (choice, _) in enumerate(whole):
                result[frame, user, choice] += share
    return result


def told(estimate: Estimate) -> torch.Tensor:
    """[B N Q+1]."""
    odds = estimate.sequence_odds.double()
    return torch.softmax(torch.cat([torch.zeros_like(odds[..., :1]), odds], -1), -1)


def test_posteriors_are_the_exact_ones_of_a_cell_that_can_be_enumerated() -> None:
    config = CELL.replace(users=5, activity=0.4, rows=1, columns=3, pilot_len=3, tx_power_dbm=10.0)
    _, obs = Simulation(config, 2).frames(0, 12)
    exact = exact_posterior(obs)
    assert ((exact > 0.05) & (exact < 0.95)).float().mean() > 0.2  # frames in doubt
    found = told(SectionCovariance(sweeps=4000, certain=1e9, ignore=-1e9)(obs))
    assert (found - exact).abs().max() < 0.04
    assert (found - exact).abs().mean() < 0.01
    rough = told(SectionCovariance(sweeps=0)(obs))
    assert (rough - exact).abs().mean() > 2 * (found - exact).abs().mean()


def test_gains_that_are_not_known_are_averaged_over() -> None:
    config = CELL.replace(users=3, activity=0.4, rows=1, columns=4, pilot_len=3, tx_power_dbm=10.0)
    _, obs = Simulation(config, 5).frames(0, 8)
    hidden = dataclasses.replace(obs, user_gain=None, gain_range_db=(0.0, 2.5))
    levels = (10 ** (gain_levels(0.0, 2.5)[0] / 10)).tolist()  # of nearly equal weights
    assert len(levels) == 4
    found = told(SectionCovariance(sweeps=4000, certain=1e9, ignore=-1e9)(hidden))
    assert (found - exact_posterior(hidden, levels)).abs().max() < 0.04
    assert (found - exact_posterior(obs)).abs().max() > 0.08


@pytest.mark.parametrize("index_bits", [1, 2])
@pytest.mark.parametrize("situation", ["cell", "long", "unknown", "uma", "kronecker"])
def test_compiled_and_tensor_sweeps_agree(situation: str, index_bits: int) -> None:
    config = {"long": CELL.replace(pilot_len=5), "uma": UMA, "kronecker": UMA.replace(channel="kronecker", rows=4, columns=8)}.get(
        situation, CELL
    )
    _, obs = Simulation(config.replace(index_bits=index_bits, users=12), 4).frames(0, 5)
    if situation == "unknown":
        obs = dataclasses.replace(obs, user_gain=None, gain_range_db=(0.0, 47.8))
    profiles = choose_profiles("auto", obs)
    leveled = profiles.leveled(0.0, 47.8) if situation == "unknown" else profiles
    problem = Problem.of(obs, leveled, sweeps=7, neglect=0.02, ignore=-6.0, certain=30.0)
    assert (problem.looks == 0) == (situation in ("uma", "kronecker"))
    left, right = compiled(problem), batched(problem)
    assert int(left.sweeps.max()) > 7  # some frames were sampled
    assert torch.equal(left.sweeps, right.sweeps)
    assert left.level_mass.shape == (5, 12, 30 if situation == "unknown" else 1)
    for name in ("odds", "power", "level_mass", "silence"):
        torch.testing.assert_close(getattr(right, name), getattr(left, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left.silence + left.level_mass.sum(2), torch.ones(5, 12, dtype=torch.float64))


@pytest.mark.parametrize("gains", ["known", "unknown"])
def test_no_worse_than_the_best_single_moves(gains: str) -> None:
    frame, obs = Simulation(CELL.replace(users=60), 1).frames(0, 200)
    if gains == "unknown":
        obs = dataclasses.replace(obs, user_gain=None, gain_range_db=(0.0, 47.8))
    ours, moves = errors(SectionCovariance(), frame, obs), errors(IndexCovariance(), frame, obs)
    assert moves >= 100
    assert ours <= moves if gains == "known" else ours < 0.95 * moves


def test_correlated_antennas_halve_the_errors_of_the_covariance() -> None:
    frame, obs = Simulation(UMA.replace(users=80), 1).frames(0, 60)
    ours, moves = errors(SectionCovariance(), frame, obs), errors(IndexCovariance(), frame, obs)
    assert moves > 50
    assert ours < moves / 2


def test_sampled_sweeps_are_for_frames_in_doubt() -> None:
    _, obs = Simulation(CELL.replace(pilot_len=40, tx_power_dbm=40.0), 1).frames(0, 20)
    assert int(SectionCovariance()(obs).info["sweeps"].max()) <= 9
    _, obs = Simulation(CELL.replace(pilot_len=6), 1).frames(0, 20)
    assert int(SectionCovariance(sweeps=33)(obs).info["sweeps"].max()) > 33


def test_a_near_user_does_not_hide_a_far_one() -> None:
    """Signals of 52 and 9 dB over the noise, per sequence and antenna."""
    frame, obs = Simulation(CELL.replace(users=2, rows=4, columns=4, activity=1.0, pilot_len=20), 1).frames(0, 100)
    gain = torch.tensor([10**4.8, 10**0.5]).expand(100, 2)
    sent = torch.nn.functional.one_hot(frame.bits[..., 0].long(), 2)[..., None]
    wanted = frame.channel * (gain / obs.user_gain).sqrt()[..., None]
    as_drawn, as_wanted = (obs.pilots @ (sent * rows[:, :, None]).flatten(1, 2) for rows in (frame.channel, wanted))
    loud = dataclasses.replace(obs, pilot_rx=obs.pilot_rx - as_drawn + as_wanted, user_gain=gain, activity=0.5)
    assert errors(SectionCovariance(), frame, loud) <= 1


def test_levels_of_a_range() -> None:
    levels, share = gain_levels(-3.0, 44.0)
    assert share.sum() == pytest.approx(1, abs=1e-6)
    assert -3 < levels[0] < -2.5
    assert 42 < levels[-1] < 44
    assert (levels.diff() > 0).all()
    assert levels.diff().max() < 2.6
    distance = 10 ** (-(levels.double() + 3) / 36.7)  # evenly spread: so are the levels' probabilities
    nearest = 10 ** (-47 / 36.7)
    assert float(share.double() @ distance) == pytest.approx((1 + nearest) / 2, rel=2e-3)
    assert float(share.double() @ distance**2) == pytest.approx((1 + nearest + nearest**2) / 3, rel=2e-3)
    leveled = AngularProfiles.flat(antennas=3).leveled(-3.0, 44.0)
    assert leveled.alike
    torch.testing.assert_close(10 * leveled.power[:, 0].log10(), levels)
    assert gain_levels(3.0, 3.0)[0].tolist() == [3.0]


@pytest.mark.parametrize("option", [{"sweeps": -1}, {"foreign": 0.6}, {"neglect": -0.1}, {"components": -1}, {"certain": -1.0}])
def test_options_out_of_range_are_named(option: dict[str, float]) -> None:
    _, obs = Simulation(CELL, 1).frames(0, 1)
    with pytest.raises(ConfigError, match=next(iter(option))):
        SectionCovariance(**option)(obs)  # type: ignore[arg-type]


def test_gains_are_known_or_in_a_range() -> None:
    _, obs = Simulation(CELL, 1).frames(0, 1)
    with pytest.raises(ConfigError, match="one of them"):
        dataclasses.replace(obs, gain_range_db=(0.0, 3.0))
    with pytest.raises(ConfigError, match="low first"):
        dataclasses.replace(obs, user_gain=None, gain_range_db=(3.0, 0.0))
