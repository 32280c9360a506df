"""Missed users and false alarms: what the whole frame, and a second look at it, put right."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from massaccess.activity.covariance import Covariance
from massaccess.core import Estimate, Frame, Observation, SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.receivers.reexamine import Verdict, cleaned, identities
from massaccess.receivers.two_stage import TwoStage
from massaccess.registry import create, takes

CONFIG = SystemConfig(users=24, rows=4, columns=4, pilot_len=14, data_len=20, activity=0.2, snr_db=12.0, channel="rayleigh")
SURE = 12.0  # log odds
FRAMES = 24


class Once:
    """A detector that says ``odds`` when it is called first."""

    def __init__(self, odds: Tensor) -> None:
        self.odds, self.calls = odds, 0

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        self.calls += 1
        if self.calls > 1:
            return Covariance()(obs)
        return Estimate(torch.sigmoid(self.odds), info={"log_odds": self.odds.double()})


def frames(config: SystemConfig = CONFIG, count: int = FRAMES) -> tuple[Frame, Observation]:
    """Frames in which somebody is silent and at least two speak."""
    frame, obs = Simulation(config, 4).frames(0, 2 * count)
    keep = ((frame.active.sum(1) > 1) & (~frame.active).any(1)).nonzero()[:count, 0]
    cut = {name: getattr(frame, name)[keep] for name in ("active", "bits", "symbols", "channel")}
    return Frame(**cut), dataclasses.replace(obs, pilot_rx=obs.pilot_rx[keep], data_rx=obs.data_rx[keep])


def truth(frame: Frame) -> Tensor:
    return torch.where(frame.active, SURE, -SURE)


def one_of(mask: Tensor) -> Tensor:
    """The first user of each frame that ``mask`` marks, one-hot [B N]."""
    return torch.nn.functional.one_hot(mask.float().argmax(1), mask.shape[1]).bool()


def bit_errors(frame: Frame, found: Estimate) -> Tensor:
    """Wrong bits [B N] of active users."""
    wrong = constellation("qpsk").decide(found.symbols.mT) != frame.bits
    return wrong.sum(-1) * frame.active


def joined(detector: object, **options: object) -> TwoStage:
    return TwoStage(detector, create("learned-ep"), **options)


def test_a_false_alarm_is_found_out_and_hurts_nobody():
    frame, obs = frames()
    ghost = one_of(~frame.active)
    odds = torch.where(ghost, SURE, truth(frame))
    found, told = joined(Once(odds), spare=6)(obs), create("learned-ep")(obs, active=frame.active)
    hard = joined(Once(odds))(obs)
    assert bool(hard.active[ghost].all()) and not bool(found.active[ghost].any())
    assert int(bit_errors(frame, found).sum()) <= int(bit_errors(frame, told).sum()) + 4
    assert not bool(found.channel[ghost].any()) and bool(torch.isinf(found.symbol_var.mT[ghost]).all())
    assert float(found.active[frame.active].float().mean()) > 0.98


def test_a_user_that_was_thought_unlikely_is_received():
    frame, obs = frames()
    shy = one_of(frame.active)
    odds = torch.where(shy, -1.4, truth(frame))
    found, hard = joined(Once(odds), spare=6)(obs), joined(Once(odds))(obs)
    assert not bool(hard.active[shy].any()) and float(found.active[shy].float().mean()) > 0.95
    assert int(bit_errors(frame, found).sum()) < 0.1 * int(bit_errors(frame, hard).sum())


@pytest.mark.parametrize("spare", [0, 6])
def test_a_frame_that_a_missed_user_spoiled_is_repaired(spare):
    """Nobody thinks of the missed user at first; the detector is wrong only once."""
    frame, obs = frames()
    lost = one_of(frame.active)
    odds = torch.where(lost, -40.0, truth(frame))
    once, again = joined(Once(odds), spare=spare)(obs), joined(Once(odds), spare=spare, reexamine=3)(obs)
    assert not bool(once.active[lost].any()) and float(again.active[lost].float().mean()) > 0.9
    assert int(bit_errors(frame, again).sum()) < 0.2 * int(bit_errors(frame, once).sum())
    assert int(again.info["reexamined"].max()) <= 3 and bool((again.info["checks"] >= once.active.sum(1)).all())


def test_a_stream_says_whose_it_is():
    """One user is taken for another that is silent: its data give its channel, and through that its pilots give it away."""
    frame, obs = frames(CONFIG.replace(data_len=40, snr_db=16.0))
    lost, ghost = one_of(frame.active), one_of(~frame.active)
    alike = joined(Once(torch.where(ghost, SURE, torch.where(lost, -40.0, truth(frame)))), spare=0)(obs)
    ok = Verdict.of(obs, alike).ok
    assert not bool(ok[ghost].any())
    named = identities(obs, alike, ok)
    swapped = alike.active[ghost] & ~alike.active[lost]
    assert float((named[lost] > 6)[swapped].float().mean()) > 0.5
    found = joined(Once(torch.where(ghost, SURE, torch.where(lost, -40.0, truth(frame)))), spare=6, reexamine=3)(obs)
    assert float(found.active[lost].float().mean()) > 0.9 and float(found.active[ghost].float().mean()) < 0.1


def test_what_is_left_of_the_pilots_without_those_that_came_through():
    frame, obs = frames(CONFIG.replace(snr_db=20.0))
    ok = frame.active & ~one_of(frame.active)
    left = cleaned(obs, ok, frame.symbols.masked_fill(~ok[:, None], torch.nan))
    alone = (obs.pilots * one_of(frame.active)[:, None]) @ frame.channel
    noise = (left.pilot_rx - alone).abs().square().mean()
    assert float(noise) < 0.5 * float((obs.pilot_rx - alone).abs().square().mean())
    assert float(Covariance()(left).active[one_of(frame.active)].float().mean()) > 0.9


@pytest.mark.parametrize("options", [{"spare": 6}, {"reexamine": 2}, {"spare": 6, "reexamine": 2}])
def test_nobody_and_everybody(options):
    frame, obs = frames()
    quiet = dataclasses.replace(obs, pilot_rx=0.01 * obs.pilot_rx, data_rx=0.01 * obs.data_rx)
    for odds in (torch.full((FRAMES, 24), -SURE), torch.full((FRAMES, 24), -1.0)):
        none = joined(Once(odds), **options)(quiet)
        assert not bool(none.active.any()) and not bool(none.channel.any()) and bool(torch.isinf(none.symbol_var).all())
    config = CONFIG.replace(users=6, activity=0.9, active_users=6)
    frame, obs = Simulation(config, 2).frames(0, 8)
    for activity in (1.0, 0.9):
        every = joined(Once(torch.full((8, 6), SURE)), **options)(dataclasses.replace(obs, activity=activity))
        assert bool(every.active.all()) and int(bit_errors(frame, every).sum()) < 20


def test_frames_and_users_do_not_influence_one_another():
    _, obs = frames(CONFIG.replace(pilot_len=7, snr_db=9.0))
    receiver = joined(Covariance(), spare=4, reexamine=2)
    whole = receiver(obs)
    assert bool(whole.info["reexamined"].any()) and not bool((whole.info["reexamined"] > 0).all())
    for index in range(6):
        part = slice(index, index + 1)
        alone = receiver(dataclasses.replace(obs, pilot_rx=obs.pilot_rx[part], data_rx=obs.data_rx[part]))
        torch.testing.assert_close(alone.activity, whole.activity[part], rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(alone.channel, whole.channel[part], rtol=1e-2, atol=1e-2)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    once = joined(Covariance(), spare=4)  # whitening goes with the number of a user, so a second look would not be the same
    mixed = once(dataclasses.replace(obs, pilots=obs.pilots[:, order]))
    torch.testing.assert_close(mixed.activity, once(obs).activity[:, order], rtol=1e-2, atol=1e-3)


def test_time_that_is_up():
    _, obs = frames(CONFIG.replace(pilot_len=8))
    receiver = joined(Covariance(), spare=4, reexamine=3)
    polls = iter(range(1000))
    found = receiver(dataclasses.replace(obs, hurry=lambda: next(polls) >= 1))
    calm = receiver(obs)
    assert bool(found.info["cut"].all()) and not bool(found.info["reexamined"].any())
    assert not bool(calm.info["cut"].any())
    assert calm.info["nfe"] == pytest.approx(float(calm.info["evaluations"].double().mean()))


@pytest.mark.parametrize("changes", [{"adc_bits": 1}, {"modulation": "16qam"}, {"channel": "pathloss", "power_control": False}])
def test_other_situations(changes):
    config = CONFIG.replace(pilot_len=20, **changes)
    frame, obs = Simulation(config, 3).frames(0, 16)
    hard, found = joined(Covariance())(obs), joined(Covariance(), spare=6, reexamine=2)(obs)
    assert bool(torch.isfinite(torch.view_as_real(found.channel)).all())
    assert int((found.active ^ frame.active).sum()) <= int((hard.active ^ frame.active).sum()) + 3


def test_frames_without_a_check_sum_are_not_looked_at_again():
    _, obs = frames(CONFIG.replace(data_len=9))
    assert "reexamined" not in joined(Covariance(), spare=4, reexamine=2)(obs).info


def test_what_cannot_be_joined_is_named():
    with pytest.raises(ConfigError, match="spare=0"):
        create("covariance+iterative-lmmse-ep", spare=3)
    with pytest.raises(ConfigError, match="reexamine=0"):
        create("covariance+pc-jcedd", reexamine=1)
    with pytest.raises(ConfigError, match="temper"):
        create("jcedd", temper=0.5)
    with pytest.raises(ConfigError, match="pass a number"):
        create("jcedd", reexamine="often")
    with pytest.raises(UnknownNameError):
        create("perfect-activity+learned-ep", reexamine=1)
    assert create("covariance+iterative-lmmse-ep", reexamine=1).reexamine == 1


def test_the_default_receiver_looks_twice_and_joined_names_do_not():
    default, plain = create("jcedd"), create("covariance+learned-ep")
    assert default.spare and default.reexamine and not plain.spare and not plain.reexamine
    assert create("jcedd", reexamine=0).reexamine == 0
    assert takes("jcedd", "reexamine") and takes("covariance+ls-zf", "spare") and not takes("learned-ep", "spare")
