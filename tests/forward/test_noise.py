"""The noise variance is found without knowing who sends what."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.core import FrontEnd, SystemConfig
from massaccess.errors import ShapeError
from massaccess.forward.noise import estimate_noise_var, with_estimated_noise
from massaccess.forward.simulate import Simulation
from massaccess.rng import complex_normal, generator

SPORADIC = SystemConfig()
COHERENT = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50)


def ratio(config: SystemConfig, frames: int = 64) -> float:
    _, obs = Simulation(config, 5).frames(0, frames)
    return estimate_noise_var(obs.pilot_rx, obs.data_rx) / config.noise_var


@pytest.mark.parametrize("channel", ["uma", "rayleigh"])
@pytest.mark.parametrize("base", [SPORADIC, COHERENT])
@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_whole_frames_give_the_noise_within_three_percent(channel: str, base: SystemConfig, snr_db: float) -> None:
    assert ratio(base.replace(channel=channel, snr_db=snr_db)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("snr_db", "most"), [(0.0, 1.25), (10.0, 1.15), (20.0, 1.08), (40.0, 1.08)])
def test_pilots_alone_give_it_roughly(snr_db: float, most: float) -> None:
    for channel in ("uma", "rayleigh"):
        assert 0.92 < ratio(COHERENT.replace(data_len=0, channel=channel, snr_db=snr_db)) < most


def test_noise_alone_and_any_scale() -> None:
    noise = 3 * complex_normal(16, 24, 40, generator=generator(0))
    found = estimate_noise_var(noise[:, :8], noise[:, 8:])
    assert found == pytest.approx(9, rel=0.03)
    assert estimate_noise_var(1e-4 * noise[:, :8], 1e-4 * noise[:, 8:]) == pytest.approx(1e-8 * found, rel=1e-4)
    turned = noise.mT
    assert estimate_noise_var(turned[:, :1], turned[:, 1:]) == pytest.approx(found, rel=1e-4)


def test_frames_without_noise_or_without_anything_are_no_trouble() -> None:
    _, obs = Simulation(COHERENT.replace(snr_db=200.0), 1).frames(0, 4)
    power = float(obs.data_rx.abs().square().mean())
    assert 0 < estimate_noise_var(obs.pilot_rx, obs.data_rx) < 1e-8 * power
    assert estimate_noise_var(0 * obs.pilot_rx, 0 * obs.data_rx) > 0
    assert estimate_noise_var(obs.pilot_rx[:1, :1], obs.data_rx[:1, :0]) > 0


def test_an_observation_takes_its_own_estimate_less_the_distortion() -> None:
    _, obs = Simulation(SPORADIC, 2).frames(0, 8)
    plain = with_estimated_noise(obs)
    assert plain.noise_var == pytest.approx(SPORADIC.noise_var, rel=0.1)
    share = FrontEnd(bits=4, distortion_var=0.3 * plain.noise_var)
    less = with_estimated_noise(dataclasses.replace(obs, front_end=share))
    assert less.linear_noise_var == pytest.approx(plain.noise_var)


def test_parts_of_different_frames_are_refused() -> None:
    with pytest.raises(ShapeError, match="pass"):
        estimate_noise_var(torch.zeros(2, 3, 4) + 0j, torch.zeros(3, 3, 4) + 0j)
