"""Angular covariance detection: known answers, what it must not depend on, and that kernel and tensor operations agree."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from massaccess.activity.angular import AngularCovariance, Problem, _descend_batched, _descend_compiled
from massaccess.activity.covariance import Covariance
from massaccess.core import Observation, SystemConfig
from massaccess.errors import ConfigError, ShapeError
from massaccess.forward.simulate import Simulation
from massaccess.priors.profiles import AngularProfiles
from massaccess.rng import complex_normal, generator
from massaccess.weights import choose_profiles

UMA = SystemConfig(users=128, pilot_len=14, data_len=0, snr_db=10.0, channel="uma")
RAYLEIGH = UMA.replace(channel="rayleigh", pilot_len=12)
TWO_BEAMS = AngularProfiles(torch.tensor([0.5, 0.5]), torch.tensor([[1.98, 0.02] * 8, [0.02, 1.98] * 8]))


def errors(config: SystemConfig, detector: object, frames: int, seed: int = 5) -> int:
    frame, obs = Simulation(config, seed).frames(0, frames)
    return int((detector(obs).active != frame.active).sum())


def problem(obs: Observation, **options: object) -> Problem:
    detector = AngularCovariance(**options)
    return Problem.of(obs, detector._profiles(obs), detector)


def two_users(active: tuple[bool, ...], seed: int = 3, noise_var: float = 0.05) -> Observation:
    """Users whose channels are of the profiles of `TWO_BEAMS`, first one, then the other; 16 antennas, 6 pilots."""
    draw = generator(seed, "two")
    frames, users = 40, len(active)
    pilots = torch.sgn(complex_normal(6, users, generator=draw).real) + 0j
    profile = TWO_BEAMS.power[torch.arange(users) % 2]
    channel = profile.sqrt() * complex_normal(frames, users, 16, generator=draw) * torch.tensor(active)[:, None]
    rx = pilots @ channel + math.sqrt(noise_var) * complex_normal(frames, 6, 16, generator=draw)
    return Observation(rx, rx[:, :0], pilots, noise_var, activity=0.5)


@pytest.mark.parametrize(("config", "frames"), [(UMA, 10), (RAYLEIGH, 10), (RAYLEIGH.replace(channel="kronecker"), 8)])
def test_kernel_and_tensor_operations_agree(config, frames):
    obs = Simulation(config, 3).frames(0, frames)[1]
    work = problem(obs)
    compiled, batched = _descend_compiled(work), _descend_batched(work)
    assert torch.equal(compiled[0] > 0, batched[0] > 0)
    assert float((compiled[0] - batched[0]).abs().median()) < 0.01
    torch.testing.assert_close(compiled[1], batched[1], atol=5e-3, rtol=1e-2)
    assert torch.equal(compiled[2], batched[2])


def test_one_user_gets_the_log_odds_of_the_mixture():
    """With nobody else there, the descent is exact: log odds of two Gaussians against noise, to the power of the last exponent."""
    obs = two_users((True,))
    work = Problem.of(obs, TWO_BEAMS, AngularCovariance(foreign=0.0, neglect=0.0))
    found = _descend_compiled(work)[0][:, 0].double()
    pilot = obs.pilots[:, 0].to(torch.complex128)
    seen = torch.einsum("l,blm->bm", pilot.conj(), obs.pilot_rx.to(torch.complex128)) / pilot.abs().square().sum()
    noise = obs.noise_var / pilot.abs().square().sum()
    total = TWO_BEAMS.power.double() + noise
    evidence = (-(seen.abs().square()[:, None] / total) - total.log()).sum(-1) + (seen.abs().square() / noise + noise.log()).sum(1)[:, None]
    exact = (float(work.exponents[-1]) * (evidence + math.log(0.5))).logsumexp(1)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-2)


def test_profiles_tell_users_apart_whose_pilots_are_the_same():
    """Two users share a pilot: only the beams say that a second one is there, and with which power."""
    obs = two_users((True, True))
    same = replace(obs, pilot_rx=obs.pilot_rx, pilots=obs.pilots[:, :1].expand(-1, 2).contiguous())
    draw = generator(4, "same")
    channel = TWO_BEAMS.power.sqrt() * complex_normal(40, 2, 16, generator=draw)
    rx = same.pilots @ channel + math.sqrt(obs.noise_var) * complex_normal(40, 6, 16, generator=draw)
    both = Problem.of(replace(same, pilot_rx=rx), TWO_BEAMS, AngularCovariance(foreign=0.0, neglect=0.0))
    alone = Problem.of(replace(same, pilot_rx=same.pilots[:, :1] @ channel[:, :1]), TWO_BEAMS, AngularCovariance(foreign=0.0, neglect=0.0))
    assert (_descend_compiled(both)[0] > 0).sum(1).float().mean() > 1.9
    assert (_descend_compiled(alone)[0] > 0).sum(1).float().mean() < 1.1


def test_it_beats_covariance_maximum_likelihood_on_the_cell_that_it_knows():
    assert errors(UMA, AngularCovariance(), 96) < 0.4 * errors(UMA, Covariance(), 96)


def test_without_a_covariance_it_is_as_good_on_independent_antennas():
    config = RAYLEIGH.replace(pilot_len=10)
    assert errors(config, AngularCovariance(), 192) <= errors(config, Covariance(), 192)


def test_a_known_covariance_helps_where_no_profiles_ship():
    config = RAYLEIGH.replace(channel="kronecker")
    assert errors(config, AngularCovariance(), 64) < 0.6 * errors(config, Covariance(), 64)


def test_foreign_channels_do_not_ruin_it():
    """Independent antennas, told to be urban macro: the profile without structure takes them."""
    frame, obs = Simulation(RAYLEIGH.replace(pilot_len=16), 5).frames(0, 64)
    known = Simulation(UMA, 5).frames(0, 1)[1].channel_cov
    wrong = AngularCovariance()(replace(obs, channel_cov=known)).active != frame.active
    assert wrong.float().mean() < 2e-3


def test_an_array_of_another_size_has_profiles_of_its_own():
    config = UMA.replace(rows=12, columns=12)
    assert choose_profiles("auto", Simulation(config).frames(0, 1)[1]).power.shape[1] == 144
    assert errors(config, AngularCovariance(), 64) < 0.5 * errors(config, Covariance(), 64)


def test_known_gains_count_and_unknown_ones_are_searched_for():
    config = RAYLEIGH.replace(channel="pathloss-20db", power_control=False, pilot_len=16)
    frame, obs = Simulation(config, 2).frames(0, 48)
    hidden = replace(obs, user_gain=None)
    known, blind, spread = (
        int((detector(seen).active != frame.active).sum())
        for detector, seen in ((AngularCovariance(), obs), (AngularCovariance(), hidden), (AngularCovariance(spread_db=20.0), hidden))
    )
    assert known < spread < blind


def test_gains_are_the_same_as_stronger_pilots():
    obs = Simulation(UMA, 4).frames(0, 6)[1]
    gain = torch.linspace(0.5, 2.0, 128)
    scaled = replace(obs, user_gain=gain.expand(6, -1))
    louder = replace(obs, pilots=obs.pilots * gain.sqrt())
    first, second = (AngularCovariance()(seen).info["log_odds"] for seen in (scaled, louder))
    torch.testing.assert_close(first, second, rtol=1e-2, atol=0.05)


def test_the_threshold_moves_decisions_alone():
    obs = Simulation(UMA, 4).frames(0, 16)[1]
    plain, strict = AngularCovariance()(obs), AngularCovariance(threshold=3.0)(obs)
    assert torch.equal(plain.info["log_odds"], strict.info["log_odds"])
    assert torch.equal(strict.active, plain.info["log_odds"] > 3.0)


def test_everybody_active_is_believed():
    obs = replace(Simulation(UMA, 4).frames(0, 2)[1], activity=1.0)
    assert AngularCovariance()(obs).active.all()


def test_beams_without_power_are_left_out_and_independent_antennas_are_one():
    uma, rayleigh = Simulation(UMA, 4).frames(0, 4)[1], Simulation(RAYLEIGH, 4).frames(0, 4)[1]
    assert (AngularCovariance()(uma).info["beams"] < 64).all()
    assert (AngularCovariance(neglect=0.0)(uma).info["beams"] == 64).all()
    assert (AngularCovariance()(rayleigh).info["beams"] == 1).all()


@pytest.mark.parametrize(
    "options", [{"foreign": 0.9}, {"neglect": -0.1}, {"spread_db": -1.0}, {"components": -1}, {"hold": 0}, {"effort": -1.0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="pass"):
        AngularCovariance(**options)(Simulation(UMA, 4).frames(0, 1)[1])


def test_weights_must_hold_profiles_for_this_array():
    obs = Simulation(UMA, 4).frames(0, 1)[1]
    with pytest.raises(ConfigError, match="angular profiles"):
        AngularCovariance(weights="uma-gate")(obs)
    with pytest.raises(ShapeError, match="antennas"):
        AngularCovariance(weights="uma-angles-12x12")(obs)
    AngularCovariance(weights="uma-mixture")(obs)
