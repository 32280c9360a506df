"""Index modulation: bits choose sequences, and sequences tell bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from massaccess.core import Estimate, SystemConfig, sequence_estimate
from massaccess.errors import ConfigError, ShapeError
from massaccess.evaluate.metrics import Tally
from massaccess.forward.index_modulation import llrs, to_bits, to_index
from massaccess.forward.simulate import Population, Simulation
from massaccess.registry import check_frames

P3 = SystemConfig.from_toml(Path(__file__).resolve().parents[2] / "benchmarks/noncoherent/cell.toml")
CONFIG = P3.replace(users=10, rows=2, pilot_len=12, index_bits=2, activity=0.3)


def test_bits_and_index_are_inverse() -> None:
    index = torch.arange(8)
    assert torch.equal(to_index(to_bits(index, 3)), index)
    assert to_bits(torch.tensor(6), 3).tolist() == [1, 1, 0]


def test_llrs_are_those_of_the_marginals() -> None:
    chance = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    first, second = llrs(chance.log() + 5).tolist()
    assert first == pytest.approx(torch.tensor(0.3 / 0.7).log().item(), abs=1e-6)
    assert second == pytest.approx(torch.tensor(0.4 / 0.6).log().item(), abs=1e-6)
    assert llrs(torch.zeros(3, 1)).shape == (3, 0)


def test_each_device_sends_one_sequence_of_its_own() -> None:
    frame, obs = Simulation(CONFIG, 3).frames(0, 40)
    assert obs.pilots.shape == (12, 40)
    assert (obs.users, obs.sequences, frame.bits.shape) == (10, 4, (40, 10, 2))
    assert torch.linalg.vector_norm(obs.pilots, dim=0).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    rows = torch.zeros(40, 10, 4, 8, dtype=torch.complex64)
    rows.scatter_(2, to_index(frame.bits)[..., None, None].expand(-1, -1, 1, 8), (frame.channel * frame.active[..., None])[:, :, None])
    noise = obs.pilot_rx - obs.pilots @ rows.flatten(1, 2)
    assert float(noise.abs().square().mean()) == pytest.approx(CONFIG.noise_var, rel=0.06)
    assert (to_index(frame.bits).flatten().bincount() > 60).all()


def test_by_sequence_every_sequence_is_a_user() -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    rows = obs.by_sequence
    assert (rows.users, rows.sequences, rows.activity) == (40, 1, pytest.approx(0.075))
    assert torch.equal(rows.user_gain[:, 4:8], obs.user_gain[:, 1:2].expand(-1, 4))


def test_coherent_frames_have_the_book_they_had() -> None:
    config = SystemConfig(users=5, pilot_len=9)
    coherent, indexed = Population(config).pilots, Population(config.replace(index_bits=1, data_len=0)).pilots
    assert torch.equal(indexed[:, :5], coherent)


def test_decisions_are_those_of_fewest_symbol_errors() -> None:
    estimate = sequence_estimate(torch.tensor([[[-0.1, -0.1], [0.1, -3.0], [-9.0, -9.0]]]))
    assert estimate.activity[0, 0] > 0.5
    assert estimate.active.tolist() == [[False, True, False]]


def test_symbol_errors_of_devices_are_counted() -> None:
    frame, _ = Simulation(CONFIG, 3).frames(0, 30)
    perfect = torch.where(torch.arange(4) == to_index(frame.bits)[..., None], 9.0, -9.0).where(frame.active[..., None], -9.0)
    tally = Tally()
    tally.add(CONFIG, frame, sequence_estimate(perfect))
    assert tally.summary()["ser_devices"] == tally.summary()["ser"] == tally.summary()["ber"] == 0
    wrong = perfect.roll(1, -1)  # all sequences wrong, all activity right
    tally = Tally()
    tally.add(CONFIG, frame, sequence_estimate(wrong))
    active = int(frame.active.sum())
    assert tally.summary()["ser"] == 1
    assert tally.summary()["ser_devices_errors"] == active
    assert tally.summary()["aep"] == 0
    tally = Tally()
    tally.add(CONFIG, frame, sequence_estimate(torch.full_like(perfect, -9.0)))  # nobody found
    assert tally.summary()["ser_devices_errors"] == active
    tally = Tally()
    tally.add(CONFIG, frame, sequence_estimate(torch.full_like(perfect, 9.0)))  # everybody found
    assert tally.summary()["ser_devices"] > 1 - active / 300
    tally = Tally()
    tally.add(CONFIG, frame, Estimate(frame.active.float()))
    assert tally.summary()["ser_devices"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_len": 4}, "--data 0"),
        ({"index_bits": 9}, "0 \\(coherent"),
        ({"index_bits": -1}, "0 \\(coherent"),
        ({"bandwidth_hz": 0.0}, "bandwidth"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CONFIG.replace(**changes)


def test_bad_calls_are_named() -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    with pytest.raises(ShapeError, match="side by side"):
        type(obs)(obs.pilot_rx, obs.data_rx, obs.pilots, 1.0, sequences=3)
    with pytest.raises(ShapeError, match="index_bits of each device"):
        Population(CONFIG).choose(torch.ones(3, 10, dtype=torch.bool), torch.zeros(3, 10, 1, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="noncoherent"):
        check_frames("covariance", 4)
