"""P0 by sampling: finds who is active without knowing the truth, and channels about as good as message passing."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.simulate import Simulation
from massaccess.registry import create
from massaccess.rng import generator

CONFIG = SystemConfig(users=64, rows=4, columns=4, pilot_len=32, data_len=0, snr_db=10.0, channel="rayleigh", activity=0.1)


def receive(config, frames=16, **options):
    frame, obs = Simulation(config, 1).frames(0, frames)
    return frame, obs, create("score-jadce", **options)(obs, generator=generator(1, "score-jadce"))


def nmse_db(frame, estimate):
    truth = frame.channel * frame.active[..., None]
    return 10 * math.log10(float((estimate.channel - truth).abs().square().sum() / truth.abs().square().sum()))


def wrong(frame, estimate):
    return float((estimate.active != frame.active).double().mean())


def test_finds_everybody_at_10_db_and_is_near_message_passing():
    frame, obs, found = receive(CONFIG)
    assert wrong(frame, found) < 0.003
    assert nmse_db(frame, found) < nmse_db(frame, create("mmv-amp")(obs)) + 1.5


def test_error_falls_with_the_noise():
    """P0's claim of -45 dB and full accuracy at high SNR."""
    frame, _, found = receive(CONFIG.replace(snr_db=45.0), 8)
    assert wrong(frame, found) == 0
    assert nmse_db(frame, found) < -45


def test_mean_beats_sample():
    config = CONFIG.replace(snr_db=15.0)
    (frame, _, mean), (_, _, sample) = (receive(config, 8, answer=answer) for answer in ("mean", "sample"))
    assert nmse_db(frame, mean) < nmse_db(frame, sample)
    assert torch.equal(mean.activity, sample.activity)


def test_false_alarm_rate_is_the_one_asked_for():
    """The threshold follows from the noise alone: silent users exceed it about as often as they should."""
    frame, _, found = receive(CONFIG.replace(snr_db=15.0), 32, false_alarm=0.02)
    rate = float(found.active[~frame.active].double().mean())
    assert 0.005 < rate < 0.06


def test_noise_that_a_step_of_finite_size_needs():
    """beta = 1 makes the chain wider than the prior takes it to be: silent rows look active."""
    config = CONFIG.replace(users=128, rows=8, columns=8, pilot_len=28)
    frame, _, found = receive(config, 2)
    _, _, hot = receive(config, 2, beta=1.0)
    assert wrong(frame, found) < 0.2 * wrong(frame, hot)


def test_late_answers():
    _, obs = Simulation(CONFIG, 1).frames(0, 2)
    found = create("score-jadce")(dataclasses.replace(obs, hurry=lambda: True))
    assert found.info["cut"] and found.info["steps"] == 8
    assert bool(torch.isfinite(found.activity).all())


def test_options_that_make_no_sense():
    for options in ({"guidance": "none"}, {"answer": "guess"}):
        with pytest.raises(UnknownNameError, match="choose one of"):
            create("score-jadce", **options)
    for options in ({"step": 2.0}, {"levels": 0}, {"false_alarm": 1.5}, {"sigma_min": 5.0}):
        with pytest.raises(ConfigError):
            create("score-jadce", **options)
    with pytest.raises(UnknownNameError, match="auto"):
        receive(CONFIG, 1, weights="none")
