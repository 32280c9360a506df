"""Recipes, what they draw, and the loss that they minimise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.banks import save_bank
from massaccess.forward.channels import Bank, make_channel
from massaccess.networks import NETWORKS, build
from massaccess.priors.beams import Beams
from massaccess.rng import complex_normal, generator
from massaccess.train.data import Matrices, Modelled, PlaneWaves, TrainingData
from massaccess.train.objective import level_weights, loss, noise_levels
from massaccess.train.recipe import Noise, Recipe, available, from_dict, read

BASE = {"name": "x", "network": "ncsnpp", "data": {"sources": [{"channel": "uma"}]}, "validation": {"channels": 100}}


def recipe(**changes: object) -> Recipe:
    return from_dict({**BASE, **changes})


@pytest.mark.parametrize("name", available())
def test_shipped_recipes_are_whole(name):
    found = read(name)
    assert found.name == name and found.summary
    assert found.network in NETWORKS
    assert from_dict(found.to_dict()) == found
    with torch.device("meta"):
        build(found.network, found.network_config)


def test_small_recipes_are_small():
    for name in ("uma-ncsnpp-small", "p0-refinenet-small"):
        found = read(name)
        count = sum(one.numel() for one in build(found.network, found.network_config).parameters())
        assert 1e5 < count < 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": "x"}, "unknown field of recipe 'networks'"),
        ({"optimiser": {"stepz": 3}}, "unknown field of optimiser"),
        ({"optimiser": {"steps": "many"}}, "pass a value like"),
        ({"optimiser": {"steps": 0}}, "1 or more"),
        ({"optimiser": {"schedule": "sine"}}, "choose one of constant, cosine"),
        ({"noise": {"least": 3.0, "greatest": 1.0}}, "least < greatest"),
        ({"noise": 3}, "make it a table"),
        ({"data": {"sources": []}}, "data.sources"),
        ({"data": {"sources": [{"channel": "uma", "weight": 0.0}]}}, "above 0"),
        ({"kind": "matrix"}, "data.sizes"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        recipe(**change)


def test_unknown_and_missing_recipes(tmp_path):
    with pytest.raises(UnknownNameError, match="uma-gate"):
        read("uma-gates")
    with pytest.raises(ConfigError, match="no recipe"):
        read(str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_text("network = ")
    with pytest.raises(ConfigError, match="not TOML"):
        read(str(tmp_path / "x.toml"))


def test_held_out_channels_are_of_the_training_half_and_never_drawn():
    data = TrainingData.of(recipe())
    bank = make_channel(SystemConfig(), split="train")
    assert isinstance(bank, Bank)
    assert torch.equal(data.held, bank.rows[-100:])
    (rows,) = data.mixture.drawers
    assert torch.equal(rows.h, bank.rows[:-100])
    assert data.covariance is not None and data.covariance.shape == (64, 64)


def test_batches_follow_the_step_alone():
    setup = recipe()
    data = TrainingData.of(setup)
    first, second = data.batch(setup, 5), TrainingData.of(setup).batch(setup, 5)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(data.batch(setup, 6)[0], first[0])


def test_own_bank(tmp_path):
    h = complex_normal(40, 64, generator=generator(0)).numpy()
    path = save_bank(tmp_path / "mine.npz", h, np.zeros(40), 40, {})
    setup = recipe(validation={"channels": 8}).with_bank(str(path))
    data = TrainingData.of(setup)
    assert len(data.held) == 8 and len(data.mixture.drawers[0].h) == 32
    with pytest.raises(ConfigError, match="held out"):
        TrainingData.of(recipe().with_bank(str(path)))


def test_the_ray_traced_town_is_never_trained_on():
    with pytest.raises(ConfigError, match="mismatch only"):
        TrainingData.of(recipe(data={"sources": [{"channel": "florence"}]}))


def test_mixture_keeps_shares_and_jitter():
    sources = [{"channel": "rayleigh", "weight": 3.0}, {"channel": "paths", "weight": 1.0}]
    data = TrainingData.of(recipe(data={"sources": sources, "power_jitter_db": 3.0}))
    rows = data.mixture.draw(4000, generator=generator(1))
    power = rows.abs().square().mean(-1)
    assert rows.shape == (4000, 64)
    spread = (power.log10() * 10).std()
    assert 1 < spread < 5
    plain = dataclasses.replace(data.mixture, power_jitter_db=0.0).draw(4000, generator=generator(1)).abs().square().mean(-1)
    assert float((power / plain).log10().abs().max()) <= 0.3001


def test_plane_waves_have_unit_power_and_few_directions():
    rows = PlaneWaves(8, 8).draw(4000, generator=generator(2))
    assert float(rows.abs().square().mean()) == pytest.approx(1, abs=0.05)
    beams = torch.fft.fft2(rows.reshape(-1, 8, 8)).flatten(1).abs().square()
    top = beams.sort(1, descending=True).values[:, :16].sum(1) / beams.sum(1)
    assert float(top.mean()) > 0.7


def test_matrices_have_silent_users():
    drawer = Matrices(lambda antennas: make_channel(SystemConfig(rows=1, columns=antennas, channel="rayleigh")), 0.25, ((20, 9),))
    rows = drawer.draw(200, generator=generator(3))
    awake = rows.abs().sum(-1) > 0
    assert rows.shape == (200, 20, 9)
    assert float(awake.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(rows[awake].abs().square().mean()) == pytest.approx(1, abs=0.05)


def test_noise_levels_are_what_their_names_say():
    draw = generator(4)
    uniform = noise_levels(Noise(least=0.01, greatest=10.0), 20000, generator=draw).log10() / 2
    assert float(uniform.min()) >= -2 and float(uniform.max()) <= 1
    assert float(uniform.mean()) == pytest.approx(-0.5, abs=0.02)
    normal = 10 * noise_levels(Noise("log-normal", centre_db=-7.0, spread_db=3.0), 20000, generator=draw).log10()
    assert float(normal.mean()) == pytest.approx(-7, abs=0.1) and float(normal.std()) == pytest.approx(3, abs=0.1)


def test_the_loss_is_denoising_score_matching():
    """|sigma s + z|^2 with s = (D - x) / sigma^2, at the posterior mean of white channels: 1 / (1 + sigma^2)."""
    rows, white = (complex_normal(20000, 4, generator=generator(5, name)) for name in ("rows", "noise"))
    noise_var, noise = torch.full((20000,), 0.5), Noise()
    beams = Beams.of(None, antennas=4, like=rows)

    def network(x: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x / (1 + var[:, None]), (var / (1 + var))[:, None].expand(x.shape)

    found, parts = loss(network, rows, white, noise_var, noise=noise, beams=beams, nll=0.0)
    score = (network(rows + math.sqrt(0.5) * white, noise_var)[0] - (rows + math.sqrt(0.5) * white)) / 0.5
    torch.testing.assert_close(found, (math.sqrt(0.5) * score + white).abs().square().mean())
    assert float(found) == pytest.approx(1 / 1.5, rel=0.02)
    both, parts = loss(network, rows, white, noise_var, noise=noise, beams=beams, nll=2.0)
    assert float(parts["nll"]) == pytest.approx(1 - math.log(1.5), abs=0.02)
    assert float(both) == pytest.approx(float(parts["error"] + 2 * parts["nll"]), rel=1e-5)


def test_relative_weighting_is_one_at_the_linear_estimate():
    noise_var, power = torch.tensor([0.01, 1.0, 100.0]), torch.tensor([0.5, 1.5])
    error = (power / (power + noise_var[:, None]) * noise_var[:, None]).mean(-1)
    torch.testing.assert_close(level_weights(Noise(weighting="relative"), noise_var[:, None], power) * error, torch.ones(3))
    torch.testing.assert_close(level_weights(Noise(), noise_var[:, None], power), 1 / noise_var)


def test_models_are_drawn_on_the_fly():
    data = TrainingData.of(recipe(data={"sources": [{"channel": "kronecker"}]}))
    assert isinstance(data.mixture.drawers[0], Modelled)
    assert len(data.held) == 100
