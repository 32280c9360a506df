"""Trained activity detectors: which weights they take, which frames, and that weights that ship are worth shipping."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess import weights
from massaccess.activity.covariance import Covariance
from massaccess.activity.learned import LearnedDetector
from massaccess.core import Observation, SystemConfig
from massaccess.errors import ConfigError, FormatError, ShapeError, UnknownNameError
from massaccess.forward.simulate import Simulation
from massaccess.networks import build

RAW = {"layers": 1, "width": 16, "heads": 2, "max_len": 12}
SYSTEM = SystemConfig(users=20, rows=4, columns=4, pilot_len=8, data_len=0, channel="rayleigh", snr_db=10.0)


def saved(folder, network="vpl-audnet", config=None, book=None):
    config, pilots = config or RAW, {"shortest": 4, "longest": 12, **(book or {"book": "redrawn"})}
    header = weights.Header(network, config, kind="activity", pilots=pilots)
    return str(weights.save(folder / f"{network}.safetensors", build(network, config), header))


def observation(**changes) -> Observation:
    return Simulation(SYSTEM.replace(**changes), 2).frames(0, 6)[1]


def test_log_odds_are_those_of_the_network(tmp_path):
    obs, path = observation(), saved(tmp_path)
    estimate = LearnedDetector(weights=path)(obs)
    given = obs.pilot_rx, obs.pilots.expand(6, -1, -1), torch.full((6,), obs.noise_var), torch.full((6,), 0.1), (4, 4)
    torch.testing.assert_close(estimate.info["log_odds"], weights.load(path).network(*given))
    torch.testing.assert_close(estimate.activity, torch.sigmoid(estimate.info["log_odds"]))
    shifted = LearnedDetector(weights=path, threshold=-2.0)(obs)
    torch.testing.assert_close(shifted.info["log_odds"], estimate.info["log_odds"])
    torch.testing.assert_close(shifted.activity, torch.sigmoid(estimate.info["log_odds"] + 2))


def test_known_gains_scale_the_pilots(tmp_path):
    obs, detector = observation(), LearnedDetector(weights=saved(tmp_path))
    gain = torch.full((6, 20), 4.0)
    louder = dataclasses.replace(obs, pilots=2 * obs.pilots)
    torch.testing.assert_close(detector(dataclasses.replace(obs, user_gain=gain)).activity, detector(louder).activity)


def test_coarse_converters_are_noise(tmp_path):
    obs, detector = observation(adc_bits=1), LearnedDetector(weights=saved(tmp_path))
    plain = dataclasses.replace(obs, noise_var=obs.linear_noise_var, front_end=observation().front_end)
    assert obs.linear_noise_var > obs.noise_var
    torch.testing.assert_close(detector(obs).activity, detector(plain).activity)


def test_longer_frames_are_refused_or_cut(tmp_path):
    path, obs = saved(tmp_path), observation(pilot_len=15)
    with pytest.raises(ShapeError, match="truncate=True"):
        LearnedDetector(weights=path)(obs)
    cut = dataclasses.replace(obs, pilot_rx=obs.pilot_rx[:, :12], pilots=obs.pilots[:12])
    torch.testing.assert_close(LearnedDetector(weights=path, truncate=True)(obs).activity, LearnedDetector(weights=path)(cut).activity)
    physics = saved(tmp_path, config={**RAW, "features": "physics"})
    assert LearnedDetector(weights=physics)(obs).activity.shape == (6, 20)


def test_a_model_of_one_book_refuses_others(tmp_path):
    path = saved(tmp_path, book={"book": "fixed", "kind": "qpsk", "seed": 3, "users": 24})
    known = observation(pilot_seed=3)
    order = torch.randperm(20)
    for obs in (known, dataclasses.replace(known, pilots=known.pilots[:, order]), observation(pilot_seed=3, pilot_len=11)):
        assert LearnedDetector(weights=path)(obs).activity.shape == (6, 20)
    for obs in (observation(), observation(pilot_kind="gaussian", pilot_seed=3)):
        with pytest.raises(ConfigError, match="seed 3 for 24 users and no other"):
            LearnedDetector(weights=path)(obs)


@pytest.mark.parametrize("change", [{"users": 10**9}, {"users": "all"}, {"seed": None}, {"book": "mine"}])
def test_a_book_that_makes_no_sense_is_named(tmp_path, change):
    with pytest.raises(FormatError, match="of pilots"):
        saved(tmp_path, book={"book": "fixed", "kind": "qpsk", "seed": 3, "users": 24, **change})


def test_weights_of_another_kind_are_named(tmp_path):
    path, obs = saved(tmp_path), observation()
    with pytest.raises(ConfigError, match="an activity detector: choose one of kind 'channel'"):
        weights.choose(path, obs)
    with pytest.raises(ConfigError, match="an activity detector: choose one of kind 'matrix'"):
        weights.choose_matrix(path, obs)
    with pytest.raises(ConfigError, match="a prior of single rows: choose one of kind 'activity'"):
        LearnedDetector(weights="uma-gate")(obs)
    with pytest.raises(ConfigError, match="of the network vpl-audnet"):
        LearnedDetector(network="unrolled-covariance", weights=path)(obs)
    with pytest.raises(UnknownNameError, match="uma-gate"):
        LearnedDetector(weights="best")(obs)
    index = tmp_path / "index.toml"
    index.write_text("")
    with pytest.raises(ConfigError, match="massaccess train"):
        weights.choose_activity("auto", "vpl-audnet", index=index)


def test_an_array_that_must_be_known(tmp_path):
    obs, path = observation(), saved(tmp_path, config={**RAW, "scm": True})
    assert LearnedDetector(weights=path)(obs).activity.shape == (6, 20)
    with pytest.raises(ConfigError, match="rows and columns"):
        LearnedDetector(weights=path)(dataclasses.replace(obs, array=None))


@pytest.mark.parametrize(("network", "bar"), [("vpl-audnet", 1.4e-2), ("unrolled-covariance", 2e-3)])
@pytest.mark.parametrize("book", [0, 17])
def test_what_ships_detects_on_any_book(network, bar, book):
    """128 users, 12 pilots, 10 dB, Rayleigh; 160 frames of each of two books."""
    config = SystemConfig(pilot_len=12, data_len=0, channel="rayleigh", snr_db=10.0, pilot_seed=book)
    frame, obs = Simulation(config, 9).frames(0, 160)
    errors = (LearnedDetector(network=network)(obs).active != frame.active).float().mean()
    assert float(errors) < bar


@pytest.mark.parametrize("network", ["vpl-audnet", "unrolled-covariance"])
def test_what_ships_takes_other_sizes(network):
    """Another array, other users, very high SNR: as good as covariance ML within a factor."""
    config = SystemConfig(users=40, rows=12, columns=12, pilot_len=10, data_len=0, channel="rayleigh", snr_db=40.0)
    frame, obs = Simulation(config, 9).frames(0, 60)
    ours, plain = (float((one(obs).active != frame.active).float().mean()) for one in (LearnedDetector(network=network), Covariance()))
    assert ours < 3 * plain + 2e-3
