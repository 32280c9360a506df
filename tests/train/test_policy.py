"""Rows out of the receiver's iterations: as noisy as they say, and the same from the same seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from massaccess.errors import ConfigError
from massaccess.rng import complex_normal, generator
from massaccess.train.loop import Training
from massaccess.train.policy import rows
from massaccess.train.recipe import Policy, Recipe, from_dict

BEAMS = 8
POLICY = Policy(rows=256, users=(3, 6), pilots_beyond_users=(0, 6), data=(5, 10))


class Exact(nn.Module):
    """The posterior of independent beams of these powers, ``trust`` times as sure of itself as it may be."""

    coloured = True

    def __init__(self, trust: float = 1.0) -> None:
        super().__init__()
        self.power, self.trust, self.calls = torch.linspace(0.2, 1.8, BEAMS), trust, 0

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        shrink = self.power / (self.power + noise_var)
        return shrink * x, shrink * noise_var / self.trust


def channels(seed: int, count: int = 256) -> Tensor:
    return complex_normal(count, BEAMS, generator=generator(seed, "channels")) * torch.linspace(0.2, 1.8, BEAMS).sqrt()


def leaning(network: nn.Module, policy: Policy, draws: int = 60) -> float:
    """How far the noise of a row leans towards its channel: minus a share of it where the prior was heard already."""
    found = [rows(network, channels(seed), policy, generator=generator(seed, "policy")) for seed in range(draws)]
    total = sum(((x - clean) * clean.conj() / noise_var).real.sum() for x, noise_var, clean in found)
    return float(total / sum((clean.abs().square() / noise_var).sum() for _, noise_var, clean in found))


def surprise(network: nn.Module, policy: Policy, draws: int = 60) -> Tensor:
    """Squared error over stated variance, the mean of each beam."""
    ratios = []
    for seed in range(draws):
        x, noise_var, clean = rows(network, channels(seed), policy, generator=generator(seed, "policy"))
        ratios.append(((x - clean).abs().square() / noise_var).mean(0))
    return torch.stack(ratios).mean(0)


@pytest.mark.parametrize("with_data", [0.0, 1.0])
@pytest.mark.parametrize("iterations", [0, 3])
def test_rows_are_as_noisy_as_they_say(with_data, iterations):
    policy = dataclasses.replace(POLICY, with_data=with_data, iterations=iterations)
    ratio = surprise(Exact(), policy)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.04), ratio
    assert bool(((ratio > 0.85) & (ratio < 1.15)).all()), ratio
    assert abs(leaning(Exact(), policy)) < 0.01


def test_a_network_that_claims_too_much_sees_what_comes_of_it():
    """The network's own errors come back to it as noise of which it was told too little: that is what it is trained on."""
    policy = dataclasses.replace(POLICY, pilots_beyond_users=(0, 0), with_data=0.0, snr_db=(15.0, 20.0))
    assert float(surprise(Exact(trust=4.0), policy, 30).mean()) > 1.2 * float(surprise(Exact(), policy, 30).mean())


def test_the_generator_decides_everything():
    first, second = (rows(Exact(), channels(1), POLICY, generator=generator(5, "policy")) for _ in range(2))
    other = rows(Exact(), channels(1), POLICY, generator=generator(6, "policy"))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_data", [0.0, 1.0])
def test_shapes(seed, with_data):
    policy = dataclasses.replace(POLICY, with_data=with_data)
    clean = channels(seed, 100)
    x, noise_var, found = rows(Exact(), clean, policy, generator=generator(seed, "policy"))
    assert x.shape == noise_var.shape == found.shape and x.shape[1] == BEAMS
    assert 100 - 6 < len(x) <= 100 and torch.equal(found, clean[: len(found)])
    assert x.dtype == torch.complex64 and noise_var.dtype == torch.float32
    assert bool((noise_var > 0).all() and torch.isfinite(torch.view_as_real(x)).all())


def test_iterations_are_bounded():
    """The network runs at most ``iterations`` times, without gradients, and not at all where there are none."""
    network = Exact()
    for seed in range(8):
        network.calls = 0
        x, _, _ = rows(network, channels(seed), POLICY, generator=generator(seed, "policy"))
        assert network.calls <= POLICY.iterations and not x.requires_grad
    network.calls = 0
    rows(network, channels(1), dataclasses.replace(POLICY, iterations=0), generator=generator(1, "policy"))
    assert network.calls == 0


def test_noise_is_coloured_where_data_are_softly_known():
    """The interference of other users is strong in the beams that are."""
    policy = dataclasses.replace(POLICY, with_data=1.0, iterations=0)
    _, noise_var, _ = rows(Exact(), channels(1), policy, generator=generator(3, "policy"))
    assert float((noise_var.amax(1) / noise_var.amin(1)).mean()) > 1.05


def recipe(network: str, **changes: object) -> Recipe:
    config = {"width": 8, "multipliers": [1, 1], "attention": []} if network == "ncsnpp" else {"stages": 1, "hidden": 8}
    return from_dict(
        {
            "name": "x",
            "network": network,
            "config": config,
            "rows": 4,
            "columns": 4,
            "data": {"sources": [{"channel": "rayleigh"}]},
            "validation": {"channels": 32, "every": 5},
            "optimiser": {"steps": 2, "batch": 8},
            "policy": {"rows": 32, "users": [2, 3], "pilots_beyond_users": [0, 2]},
            **changes,
        }
    )


def test_networks_of_white_noise_refuse_it(tmp_path):
    with pytest.raises(ConfigError, match=r"leave out the table \[policy\]"):
        Training(recipe("ncsnpp"), tmp_path / "x.safetensors").run()
    assert not list(tmp_path.iterdir())


def test_bounds_are_checked():
    with pytest.raises(ConfigError, match="policy"):
        recipe("gate", policy={"rows": 8, "users": [5, 3]})
