"""Local search: against all vectors there are, and one path against the other."""

from __future__ import annotations

import itertools

import pytest
import torch

from massaccess.detection.ep import ExpectationPropagation
from massaccess.detection.linear import LmmseDetector, MatchedFilter
from massaccess.detection.search import Searched
from massaccess.forward.modulation import constellation
from massaccess.priors.constellation import ConstellationPrior
from massaccess.rng import complex_normal, generator


def problem(modulation, users=3, antennas=3, frames=40, times=5, noise_var=0.3, seed=1):
    """Two of the users share most of their channel."""
    draw = generator(seed, "search")
    channel = complex_normal(frames, users, antennas, generator=draw, dtype=torch.complex128)
    channel[:, 1] = channel[:, 0] + 0.3 * channel[:, 1]
    points = constellation(modulation).points.to(torch.complex128)
    sent = points[torch.randint(len(points), (frames, times, users), generator=draw)]
    noise = complex_normal(frames, times, antennas, generator=draw, dtype=torch.complex128)
    rx = sent @ channel + noise_var**0.5 * noise
    present = torch.ones(frames, users, dtype=torch.bool)
    return MatchedFilter.of(rx, channel, torch.full((frames, antennas), noise_var, dtype=torch.float64), present), sent, rx, channel


def metric(filtered, symbols):
    quadratic = torch.einsum("bdi,bij,bdj->bd", symbols.conj(), filtered.gram, symbols).real
    return quadratic - 2 * (symbols.conj() * filtered.match).sum(-1).real


def decided(found, modulation):
    levels = ConstellationPrior(modulation).amplitudes
    parts = torch.view_as_real(found.symbols)
    return torch.view_as_complex(levels[torch.bucketize(parts, (levels[1:] + levels[:-1]) / 2)])


@pytest.mark.parametrize("modulation", ["qpsk", "16qam"])
def test_it_never_lowers_the_likelihood_and_nearly_finds_the_greatest(modulation):
    filtered, _, _, _ = problem(modulation, users=2 if modulation == "16qam" else 3)
    prior = ConstellationPrior(modulation)
    plain, searched = ExpectationPropagation(), Searched(ExpectationPropagation())
    before, after = (metric(filtered, decided(one(filtered, prior), modulation)) for one in (plain, searched))
    assert bool((after <= before + 1e-6).all())
    points = constellation(modulation).points.to(torch.complex128)
    vectors = torch.tensor(list(itertools.product(points.tolist(), repeat=filtered.gram.shape[-1])), dtype=torch.complex128)
    least = torch.stack([metric(filtered, vector.expand_as(filtered.match)) for vector in vectors]).amin(0)
    missed = [float((value > least + 1e-6).double().mean()) for value in (before, after)]
    assert missed[0] > 0.05
    assert missed[1] < {"qpsk": 0.25, "16qam": 0.7}[modulation] * missed[0], missed


@pytest.mark.parametrize("modulation", ["qpsk", "16qam"])
def test_compiled_equals_batched(modulation):
    filtered, _, _, _ = problem(modulation, users=4)
    filtered.present[::3, 2:] = False
    filtered.gram[~(filtered.present[:, :, None] & filtered.present[:, None, :])] = 0
    filtered.match[~filtered.present[:, None].expand_as(filtered.match)] = 0
    prior = ConstellationPrior(modulation)
    parts = torch.view_as_real(LmmseDetector()(filtered, prior).symbols)
    start = torch.bucketize(parts, (prior.amplitudes[1:] + prior.amplitudes[:-1]) / 2)
    search = Searched(LmmseDetector())
    for left, right in zip(
        search._compiled(filtered, start, prior.amplitudes), search._batched(filtered, start, prior.amplitudes), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)
    assert bool((search._compiled(filtered, start, prior.amplitudes)[0] != start).any())


def test_fewer_errors_and_honest_reliabilities_where_two_users_look_alike():
    filtered, sent, _, _ = problem("qpsk", users=6, antennas=12, frames=400, times=10, noise_var=0.5)
    prior = ConstellationPrior("qpsk")
    wrong = []
    for detector in (ExpectationPropagation(), Searched(ExpectationPropagation())):
        found = detector(filtered, prior)
        wrong.append(int((torch.sign(found.symbols.real) != torch.sign(sent.real)).sum()))
        assert bool((found.symbol_var > 0).all())
    assert wrong[1] < 0.9 * wrong[0]


def test_what_did_not_move_is_left_alone():
    filtered, _, _, _ = problem("qpsk", noise_var=1e-3)
    prior = ConstellationPrior("qpsk")
    plain = ExpectationPropagation()(filtered, prior)
    searched = Searched(ExpectationPropagation())(filtered, prior)
    same = torch.sign(plain.symbols.real) == torch.sign(searched.symbols.real)
    assert torch.equal(plain.symbols.real[same], searched.symbols.real[same])


def test_no_data_is_no_work():
    filtered, _, _, _ = problem("qpsk", times=0)
    assert Searched(ExpectationPropagation())(filtered, ConstellationPrior("qpsk")).symbols.shape[1] == 0
