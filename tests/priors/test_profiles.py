"""Angular profiles: what is done to them keeps them a distribution, and EM finds those that made the channels."""

from __future__ import annotations

import itertools

import pytest
import torch

from massaccess.networks.angles import Angles
from massaccess.priors.profiles import AngularProfiles
from massaccess.priors.profiles_fit import Model
from massaccess.rng import complex_normal, generator
from massaccess.weights import load, profiles_of

SHIPPED = ("uma-angles", "uma-angles-12x12")


def some(components: int = 6, antennas: int = 12, columns: int = 4) -> AngularProfiles:
    draw = generator(1, "profiles")
    weight = torch.rand(components, generator=draw) + 0.1
    return AngularProfiles(weight / weight.sum(), torch.rand(components, antennas, generator=draw) + 0.01, None, columns)


@pytest.mark.parametrize("change", [lambda p: p.with_foreign(0.1), lambda p: p.spread(10.0), lambda p: p.merged(3)])
def test_weights_stay_probabilities_and_powers_positive(change):
    found = change(some())
    torch.testing.assert_close(found.weight.sum(), torch.tensor(1.0))
    assert (found.power > 0).all()
    assert found.weight.shape == found.power.shape[:1]


def test_merging_keeps_the_mean_and_brings_like_to_like():
    base = some(2)
    twins = AngularProfiles(torch.full((4,), 0.25), torch.cat([base.power, 1.01 * base.power]))
    merged = twins.merged(2)
    torch.testing.assert_close(merged.mean, twins.mean)
    assert sorted(merged.weight.tolist()) == [0.5, 0.5]
    assert twins.merged(9) is twins


def test_foreign_channels_may_come_from_every_direction():
    profiles = some()
    added = profiles.with_foreign(0.2).power[6:]
    assert len(added) == 1 + 4
    torch.testing.assert_close(added.mean(1), profiles.mean.mean().expand(5))
    assert added[1:].reshape(4, 3, 4).argmax(-1).tolist() == [[column] * 3 for column in range(4)]


def test_unknown_gains_spread_the_levels_evenly():
    levels = AngularProfiles.flat(antennas=2).spread(10.0).power[:, 0].log10() * 10
    torch.testing.assert_close(levels, torch.linspace(-5, 5, 5))


def test_em_finds_the_profiles_that_made_the_channels():
    draw = generator(2, "em")
    truth = torch.tensor([[4.0, 0.1, 0.1, 1.0], [0.1, 2.0, 3.0, 0.1]])
    pick = torch.rand(4000, generator=draw) < 0.3
    rows = truth[pick.long()].sqrt() * complex_normal(4000, 4, generator=draw)
    model = Model.of(rows, torch.eye(4) + 0j)
    history = []
    for now in model.iterate(model.begin(2, generator=draw), tolerance=1e-6):
        history = now.history
        if len(history) > 300:
            break
    order = now.parameters[:, 0].argsort(descending=True)
    torch.testing.assert_close(now.parameters[order], truth, rtol=0.12, atol=0.03)
    assert abs(float(now.weight[order][1]) - 0.3) < 0.03
    assert all(after >= before - 1e-6 for before, after in itertools.pairwise(history))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_a_distribution_over_an_orthonormal_basis(name):
    profiles = profiles_of(load(name))
    antennas = profiles.power.shape[1]
    torch.testing.assert_close(profiles.basis.mH @ profiles.basis, torch.eye(antennas) + 0j, atol=1e-5, rtol=0)
    torch.testing.assert_close(profiles.mean.sum(), torch.tensor(float(antennas)), rtol=0.05, atol=0)
    assert isinstance(load(name).network, Angles)


def test_the_holder_is_a_denoiser_that_knows_its_error():
    network = load("uma-angles").network
    covariance, draw = network.covariance, generator(3, "denoise")
    pick = torch.multinomial(network.weight, 400, replacement=True, generator=draw)
    root = torch.linalg.cholesky(covariance[pick] + 1e-6 * torch.eye(64))
    rows = (root @ complex_normal(400, 64, 1, generator=draw))[..., 0]
    mean, error = network(rows + 0.3 * complex_normal(400, 64, generator=draw), torch.full((400,), 0.09))
    measured = float((mean - rows).abs().square().mean())
    assert measured < 0.06
    assert abs(float(error.mean()) / measured - 1) < 0.1
