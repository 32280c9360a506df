"""Doubtful users: moments of channels that may be zero, and the evidence of a frame."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.detection.linear import Symbols
from massaccess.estimation.estimate import ChannelEstimate
from massaccess.forward.simulate import Simulation
from massaccess.receivers.doubt import LEAST, Doubt
from massaccess.registry import create
from massaccess.rng import complex_normal, generator

CONFIG = SystemConfig(users=8, active_users=8, rows=4, columns=4, pilot_len=10, data_len=16, snr_db=12.0, channel="rayleigh")


def doubt(chance: torch.Tensor, prior_odds: float = 0.0) -> Doubt:
    return Doubt(chance, prior_odds, chance == 1)


def symbols(var: float, times: int = 10) -> Symbols:
    nothing = torch.zeros(1, times, 2, dtype=torch.complex64)
    return Symbols(nothing, nothing.real + 1, nothing, nothing.real + var)


def test_the_message_has_the_moments_of_a_channel_that_may_be_zero():
    mean, error = torch.tensor([[[1 + 1j]]]), torch.tensor([[[0.5]]])
    draw = generator(1, "doubt")
    here = torch.rand(200_000, generator=draw) < 0.3
    drawn = (mean[0, 0, 0] + math.sqrt(0.5) * complex_normal(200_000, generator=draw)) * here
    found = doubt(torch.full((1, 1), 0.3)).message(ChannelEstimate(mean, error))
    assert complex(found.mean) == pytest.approx(complex(drawn.mean()), abs=0.01)
    assert float(found.error) == pytest.approx(float(drawn.var()), rel=0.02)


def test_detection_sees_the_mean_power():
    known = ChannelEstimate(torch.tensor([[[2j]]]), torch.tensor([[[0.5]]]))
    found = doubt(torch.full((1, 1), 0.25)).average(known)
    assert float(found.mean.abs().square() + found.error) == pytest.approx(0.25 * 4.5)


def test_evidence_is_the_likelihood_ratio_of_gaussian_rows():
    """The prior log odds and nothing else where the symbols were known to begin with, or are still open."""
    seen = ChannelEstimate(complex_normal(1, 2, 4, generator=generator(3)), torch.rand(1, 2, 4, generator=generator(4)) + 0.5)
    power = torch.ones(1, 2, 4)
    with_user = torch.distributions.Normal(0, ((power + seen.error) / 2).sqrt())
    without = torch.distributions.Normal(0, (seen.error / 2).sqrt())
    parts = torch.view_as_real(seen.mean)
    ratio = (with_user.log_prob(parts[..., 0]) - without.log_prob(parts[..., 0])).sum(-1)
    ratio = ratio + (with_user.log_prob(parts[..., 1]) - without.log_prob(parts[..., 1])).sum(-1)
    start = doubt(torch.full((1, 2), 0.5), prior_odds=-0.7)
    torch.testing.assert_close(start.heard(seen, power, symbols(1.0), 4).chance, torch.sigmoid(ratio - 0.7), rtol=1e-4, atol=1e-5)
    sure = start.heard(seen, power, symbols(0.0), 4).chance
    torch.testing.assert_close(sure, torch.sigmoid(ratio - 0.7 - 10 * math.log(4)).clamp_min(LEAST), rtol=1e-3, atol=1e-5)


def test_a_cautious_doubt_keeps_the_detectors_word_while_symbols_are_open():
    doubt = Doubt(torch.tensor([[0.9, 0.2]]), 0.0, torch.zeros(1, 2, dtype=torch.bool)).cautious()
    silent = ChannelEstimate(torch.zeros(1, 2, 8, dtype=torch.complex64), torch.full((1, 2, 8), 0.1))
    nothing = torch.zeros(1, 5, 2)
    for var, kept in ((torch.ones(1, 5, 2), True), (nothing, False)):
        soft = Symbols(nothing + 0j, var, nothing + 0j, var)
        chance = doubt.heard(silent, torch.ones(1, 2, 8), soft, 4).chance
        assert torch.allclose(chance, doubt.chance, atol=1e-3) is kept


def test_users_that_are_sure_stay_sure():
    seen = ChannelEstimate(torch.zeros(1, 2, 4) + 0j, torch.full((1, 2, 4), 0.01))
    heard = doubt(torch.tensor([[1.0, 0.6]])).heard(seen, torch.ones(1, 2, 4), symbols(1.0), 4)
    assert heard.chance.tolist() == [[1.0, pytest.approx(LEAST)]]


@pytest.mark.parametrize("name", ["learned-ep", "iterative-lmmse-ep"])
def test_symbols_that_are_known_help_the_others_and_come_back(name):
    config = CONFIG.replace(pilot_len=6, snr_db=6.0)
    frame, obs = Simulation(config, 1).frames(0, 48)
    told = torch.full_like(frame.symbols, torch.nan)
    told[..., :4] = frame.symbols[..., :4]
    active = torch.ones(48, 8, dtype=torch.bool)
    plain, helped = create(name)(obs, active=active), create(name)(obs, active=active, told=told)
    assert torch.equal(helped.symbols[..., :4], frame.symbols[..., :4])
    wrong = [
        (torch.sign(torch.view_as_real(one.symbols[..., 4:])) != torch.sign(torch.view_as_real(frame.symbols[..., 4:]))).sum()
        for one in (plain, helped)
    ]
    assert int(wrong[1]) < 0.8 * int(wrong[0])
    nothing = create(name)(obs, active=active, told=torch.full_like(told, torch.nan))
    torch.testing.assert_close(nothing.channel, plain.channel, rtol=0.1, atol=0.2)


def test_probabilities_of_one_are_decisions():
    _, obs = Simulation(CONFIG, 1).frames(0, 16)
    chances = torch.ones(16, 8)
    soft, hard = (create("learned-ep")(dataclasses.replace(obs, activity=0.5), active=one) for one in (chances, chances > 0))
    torch.testing.assert_close(soft.channel, hard.channel, rtol=0.02, atol=0.02)
    assert torch.equal(soft.active, hard.active)
