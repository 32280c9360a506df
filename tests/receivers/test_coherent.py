"""Iterative receivers: they reach what the bounds say, whoever chose the users and however the frames are batched."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ShapeError
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.receivers.selection import Selection
from massaccess.registry import create

PAPER = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=10.0, channel="rayleigh")


def nmse_db(frame, estimate):
    truth = frame.channel * frame.active[..., None]
    return 10 * math.log10(float((estimate.channel - truth).abs().square().sum() / truth.abs().square().sum()))


def ber(frame, estimate, config):
    wrong = constellation(config.modulation).decide(estimate.symbols.mT) != frame.bits
    return float(wrong[frame.active].double().mean())


def test_iterations_reach_perfect_data():
    """Rayleigh, 8 dB and more: within 0.1 dB of LMMSE that knows all data (P1 Fig. 10)."""
    for snr_db in (8.0, 10.0):
        frame, obs = Simulation(PAPER.replace(snr_db=snr_db), 1).frames(0, 64)
        found, bound = create("iterative-lmmse-ep")(obs), create("perfect-data-lmmse")(obs, truth=frame)
        assert nmse_db(frame, found) < nmse_db(frame, bound) + 0.1


def test_order_on_correlated_channels():
    """UMa at 10 dB: EP in the loop beats OAMP in the loop, which beats no loop; knowing the covariance helps."""
    config = PAPER.replace(channel="uma")
    frame, obs = Simulation(config, 1).frames(0, 96)
    errors = [ber(frame, create(name)(obs), config) for name in ("iterative-lmmse-ep", "iterative-lmmse-oamp", "lmmse-lmmse", "ls-zf")]
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[1]
    informed, blind = create("iterative-lmmse-ep")(obs), create("iterative-lmmse-ep", use_cov=False)(obs)
    assert nmse_db(frame, informed) < nmse_db(frame, blind) - 1


def test_error_variance_is_what_it_is():
    """The pilot stage: the claimed error variance is the measured one."""
    frame, obs = Simulation(PAPER, 1).frames(0, 64)
    estimate = create("lmmse-lmmse")(obs)
    measured = float((estimate.channel - frame.channel).abs().square().mean())
    assert float(estimate.info["error_var"].mean()) == pytest.approx(measured, rel=0.03)


def test_rounds_stop_when_nothing_moves():
    frame, obs = Simulation(PAPER.replace(snr_db=20.0), 1).frames(0, 32)
    rounds = create("iterative-lmmse-ep")(obs).info["rounds"]
    assert int(rounds.max()) <= 4
    eager = create("iterative-lmmse-ep", tolerance=-1.0)(obs)
    assert int(eager.info["rounds"].min()) == 24
    assert nmse_db(frame, eager) == pytest.approx(nmse_db(frame, create("iterative-lmmse-ep")(obs)), abs=0.02)


def test_one_bit_front_end_costs_but_works():
    ideal, coarse = PAPER.replace(pilot_len=40), PAPER.replace(pilot_len=40, adc_bits=1)
    results = []
    for config in (ideal, coarse):
        frame, obs = Simulation(config, 1).frames(0, 32)
        results.append(ber(frame, create("iterative-lmmse-ep")(obs), config))
    assert results[0] <= results[1] < 0.05


def test_silent_users_do_not_disturb():
    """Adding users that sleep changes nothing for the others when the receiver knows who is active."""
    config = PAPER.replace(users=40, active_users=12)
    frame, obs = Simulation(config, 1).frames(0, 8)
    whole = create("perfect-activity+iterative-lmmse-ep")(obs, truth=frame)
    for index in range(8):
        users = frame.active[index].nonzero()[:, 0]
        cut = dataclasses.replace(
            obs, pilot_rx=obs.pilot_rx[index : index + 1], data_rx=obs.data_rx[index : index + 1], pilots=obs.pilots[:, users], activity=1.0
        )
        alone = create("iterative-lmmse-ep")(cut)
        torch.testing.assert_close(whole.channel[index, users], alone.channel[0], rtol=1e-3, atol=1e-3)


def test_selection_goes_there_and_back():
    active = torch.tensor([[True, False, True, False], [False, False, False, False], [True, True, True, True]])
    slots = Selection.of(active)
    assert slots.index.shape == (3, 4)
    assert torch.equal(slots.present.sum(1), active.sum(1))
    values = torch.rand(3, 4, 2)
    assert torch.equal(slots.put(slots.take(values)[..., 0]), values[..., 0] * active)
    assert bool((slots.present == slots.present.sort(1, descending=True).values).all())


def test_wrong_active_mask_is_named():
    _, obs = Simulation(PAPER, 1).frames(0, 2)
    with pytest.raises(ShapeError, match="active is"):
        create("ls-zf")(obs, active=torch.ones(2, 5, dtype=torch.bool))


def test_time_that_is_up_ends_the_rounds():
    _, obs = Simulation(SystemConfig(users=6, active_users=6, rows=2, columns=4, pilot_len=8, data_len=12, channel="rayleigh"), 1).frames(
        0, 3
    )
    polls = iter(range(99))
    found = create("iterative-lmmse-ep")(dataclasses.replace(obs, hurry=lambda: next(polls) >= 1))
    assert found.info["rounds"].tolist() == [1, 1, 1]
    assert bool(found.info["cut"].all())
    assert not bool(create("iterative-lmmse-ep")(obs).info["cut"].any())
