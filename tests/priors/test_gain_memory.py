"""What earlier frames tell of gains."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from massaccess.core import Estimate, Observation, SystemConfig
from massaccess.errors import ConfigError, ShapeError
from massaccess.evaluate.montecarlo import Campaign, evaluate
from massaccess.forward.simulate import Simulation
from massaccess.priors.gain_memory import GainMemory
from massaccess.registry import create

P3 = SystemConfig.from_toml(Path(__file__).resolve().parents[2] / "benchmarks/noncoherent/cell.toml")
CELL = P3.replace(users=40, activity=0.15, rows=2, pilot_len=14, placement_seed=3)
RANGE = (0.0, 47.8)


def hidden(frames: int, first: int = 0) -> tuple[torch.Tensor, Observation]:
    frame, obs = Simulation(CELL, 1).frames(first, frames)
    return frame, dataclasses.replace(obs, user_gain=None, gain_range_db=RANGE)


def test_posterior_by_hand() -> None:
    memory = GainMemory(users=2, range_db=(0.0, 1.9))
    prior = memory.weight[0]
    seen = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for _ in range(2):  # the first device: surely at the middle level or silent; nothing of the second
        factor = 0.1 + 0.9 / memory.weight[0, 1] * torch.tensor([0.0, 1.0, 0.0])
        expected = memory.weight[0] * factor / (memory.weight[0] * factor).sum()
        memory.learn(Estimate(torch.zeros(1, 2), info={"level_mass": seen[None], "silence": torch.tensor([[0.1, 1.0]])}))
        torch.testing.assert_close(memory.weight[0], expected)
    torch.testing.assert_close(memory.weight[1], prior)
    assert memory.frames == 2
    assert memory.weight[0, 1] > 0.95
    assert float(memory.gain[0]) == pytest.approx(10**0.095, rel=0.03)


def test_batches_add_up_and_old_frames_fade() -> None:
    mass = torch.rand(6, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    silence = 1 - mass.sum(2)
    whole, fading = (GainMemory(users=3, range_db=(0.0, 1.9), forget=forget) for forget in (1.0, 0.5))
    told = {"level_mass": mass, "silence": silence}
    prior = whole.weight
    whole.learn(Estimate(silence, info=told))
    expected = prior * (silence[..., None] + mass / prior).prod(0)
    torch.testing.assert_close(whole.weight, expected / expected.sum(1, keepdim=True))
    fading.learn(Estimate(silence, info=told))
    age = 0.5 ** torch.arange(5, -1, -1)
    aged = prior * ((silence[..., None] + mass / prior).log() * age[:, None, None]).sum(0).exp()
    torch.testing.assert_close(fading.weight, aged / aged.sum(1, keepdim=True))


def test_gains_of_devices_that_stay_are_found() -> None:
    receiver, memory = create("noncoherent"), GainMemory(users=40, range_db=RANGE)
    _, obs = Simulation(CELL, 1).frames(0, 1)
    truth_db = 10 * obs.user_gain[0].log10()
    for first in range(0, 320, 32):
        memory.learn(receiver(memory.tell(hidden(32, first)[1])))
    error_db = (10 * memory.gain.log10() - truth_db).abs()
    heard = truth_db > 6  # above 10 dB at the array
    assert error_db[heard].median() < 1.0
    assert error_db[heard].max() < 3.5


def test_learned_gains_save_most_of_what_not_knowing_them_costs() -> None:
    results = {}
    for gains in ("known", "unknown", "learned"):
        campaign = Campaign([CELL], ["noncoherent"], 600, batch=64, books=3, device="cpu", gains=gains)
        results[gains] = evaluate(campaign)["results"][0]["ser_devices_errors"]
    assert results["known"] >= 100
    assert results["unknown"] > 1.2 * results["known"]
    assert results["learned"] < results["known"] + 0.5 * (results["unknown"] - results["known"])


def test_known_gains_stay_as_they_are() -> None:
    _, obs = Simulation(CELL, 1).frames(0, 1)
    assert GainMemory(users=40, range_db=RANGE).tell(obs) is obs


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ConfigError, match="forget"):
        GainMemory(users=1, range_db=RANGE, forget=0.0)
    with pytest.raises(ConfigError, match="noncoherent"):
        GainMemory(users=40, range_db=RANGE).learn(create("noncoherent-amp")(hidden(1)[1]))
    with pytest.raises(ConfigError, match="placement-seed"):
        Campaign([CELL.replace(placement_seed=None)], ["noncoherent"], 10, gains="learned")
    with pytest.raises(ConfigError, match="placement-seed"):
        Campaign([CELL.replace(power_control=True)], ["noncoherent"], 10, gains="learned")
    with pytest.raises(ShapeError, match="level_evidence"):
        create("noncoherent")(dataclasses.replace(hidden(1)[1], level_evidence=torch.zeros(40, 3)))
    assert math.isfinite(float(GainMemory(users=1, range_db=RANGE).gain))
