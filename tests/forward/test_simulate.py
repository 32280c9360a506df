"""The simulated world: signal model, powers, and frames that do not depend on how they are asked for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.forward.simulate import BLOCK, Simulation, observe

CONFIG = SystemConfig(users=20, rows=4, columns=4, pilot_len=6, data_len=12, channel="rayleigh")


def test_noiseless_frames_obey_the_signal_model():
    frame, obs = Simulation(CONFIG.replace(snr_db=120.0), 1).frames(0, 8)
    active = frame.channel * frame.active[..., None]
    torch.testing.assert_close(obs.pilot_rx, obs.pilots @ active, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(obs.data_rx, frame.symbols @ active, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"cfo_hz": 100.0, "chain_phase_deg": 20.0}, {"active_users": 3}, {"adc_bits": 2}])
def test_frames_do_not_depend_on_batches(changes):
    simulation = Simulation(CONFIG.replace(**changes), 1)
    frame, obs = simulation.frames(0, 3 * BLOCK)
    for start, count in ((0, 1), (5, 20), (BLOCK - 1, 2), (2 * BLOCK, BLOCK)):
        part, seen = Simulation(CONFIG.replace(**changes), 1).frames(start, count)
        rows = slice(start, start + count)
        assert torch.equal(part.active, frame.active[rows])
        assert torch.equal(part.bits, frame.bits[rows])
        assert torch.equal(part.channel, frame.channel[rows])
        torch.testing.assert_close(seen.pilot_rx, obs.pilot_rx[rows])


def test_seeds_and_points_differ_as_they_should():
    _, one = Simulation(CONFIG, 1).frames(0, 4)
    _, two = Simulation(CONFIG, 2).frames(0, 4)
    assert not torch.equal(one.pilot_rx, two.pilot_rx)
    quiet, _ = Simulation(CONFIG.replace(snr_db=30.0), 1).frames(0, 4)
    frame, _ = Simulation(CONFIG, 1).frames(0, 4)
    assert torch.equal(quiet.channel, frame.channel)  # common random numbers between the points of a sweep


@pytest.mark.parametrize(("convention", "active"), [("received", None), ("received", 5), ("per-user", 5)])
def test_snr_is_what_it_says(convention, active):
    config = CONFIG.replace(snr_db=6.0, snr_convention=convention, active_users=active)
    frame, obs = Simulation(config, 3).frames(0, 2000)
    signal = frame.channel * frame.active[..., None]
    sent = frame.symbols @ signal
    noise = obs.data_rx - sent
    power = (
        sent.abs().square().mean() if convention == "received" else (frame.symbols[..., :1] @ frame.channel[:, :1]).abs().square().mean()
    )
    assert 10 * math.log10(float(power / noise.abs().square().mean())) == pytest.approx(6.0, abs=0.1)


def test_activity_is_bernoulli_or_a_fixed_count():
    frame, _ = Simulation(CONFIG.replace(activity=0.2), 1).frames(0, 4000)
    assert float(frame.active.double().mean()) == pytest.approx(0.2, abs=0.005)
    assert float(frame.active.sum(1).double().var()) == pytest.approx(20 * 0.2 * 0.8, rel=0.1)
    frame, obs = Simulation(CONFIG.replace(active_users=7), 1).frames(0, 200)
    assert bool((frame.active.sum(1) == 7).all())
    assert float(frame.active.double().mean(0).std()) < 0.1
    assert obs.activity == 7 / 20


def test_carrier_offset_turns_and_chain_phase_does_not():
    plain, _ = Simulation(CONFIG, 1).frames(0, 2)
    config = CONFIG.replace(snr_db=120.0, cfo_hz=200.0)
    frame, obs = Simulation(config, 1).frames(0, 2)
    rotated = Simulation(config, 1).propagation.rotation(0)[:2]
    assert float(rotated.abs().std()) < 1e-6
    slope = rotated[:, 1:] * rotated[:, :-1].conj()
    torch.testing.assert_close(slope, slope[:, :1].expand_as(slope), rtol=1e-4, atol=1e-4)
    assert float(slope.angle().abs().max()) <= 2 * math.pi * 200 / 15e3 + 1e-5
    torch.testing.assert_close(
        obs.pilot_rx, (obs.pilots * rotated[:, :6]) @ (frame.channel * frame.active[..., None]), rtol=1e-3, atol=1e-3
    )
    turned, _ = Simulation(CONFIG.replace(chain_phase_deg=30.0), 1).frames(0, 2)
    phase = turned.channel / plain.channel
    torch.testing.assert_close(phase, phase[:1, :1].expand_as(phase), rtol=1e-3, atol=1e-3)
    assert float(phase[0, 0].angle().std()) > math.radians(15)


def test_observations_tell_what_the_converters_add():
    config = CONFIG.replace(adc_bits=1, adc_dither=0.5, adc_offset=0.1)
    frame, obs = Simulation(config, 1).frames(0, 5)
    plain = Simulation(CONFIG.replace(adc_bits=1), 1).frames(0, 5)[1]
    offset = obs.front_end.offset
    received = torch.cat(
        [obs.pilots @ (frame.channel * frame.active[..., None]), frame.symbols @ (frame.channel * frame.active[..., None])], 1
    )
    samples = torch.cat([obs.pilot_rx, obs.data_rx], 1)
    assert len(torch.unique(((samples + offset).real * 1e3).round())) == 2
    signs = (samples + offset).real.sign()
    loud = (received + offset).real.abs() > 4 * math.sqrt(config.noise_var)
    assert torch.equal(signs[loud], (received + offset).real.sign()[loud])
    assert plain.front_end.offset is None
    assert len(torch.unique(plain.pilot_rx.real)) == 2
    assert torch.equal(obs.to("cpu").front_end.offset, offset)
    assert torch.equal(replace(obs, pilot_rx=obs.pilot_rx[:2], data_rx=obs.data_rx[:2]).front_end.offset, offset)
    with pytest.raises(ShapeError, match=r"front_end\.offset"):
        replace(obs, data_rx=obs.data_rx[:, :-1])


def test_config_reads_back_from_toml(tmp_path):
    config = CONFIG.replace(adc_bits=3, adc_dither=0.25, active_users=4)
    path = tmp_path / "system.toml"
    path.write_text(config.to_toml())
    assert SystemConfig.from_toml(path) == config
    path.write_text("[other]\n")
    with pytest.raises(ConfigError, match=r"\[system\]"):
        SystemConfig.from_toml(path)


@pytest.mark.parametrize("octets", [b"[system]\nusers = ", b"\xff\xfe", b"system = 3\n"])
def test_a_broken_config_file_is_named(tmp_path, octets):
    path = tmp_path / "system.toml"
    path.write_bytes(octets)
    with pytest.raises(ConfigError, match=r"system\.toml"):
        SystemConfig.from_toml(path)


@pytest.mark.parametrize(
    "changes",
    [
        *({"users": 0}, {"users": "many"}, {"users": 2.5}, {"users": True}, {"active_users": 21}, {"data_len": -1}, {"pilot_seed": None}),
        *(
            {"activity": 0.0},
            {"activity": 1.5},
            {"adc_bits": 0},
            {"adc_dither": -0.1},
            {"sample_rate_hz": 0.0},
            {"carrier_hz": "3.5G"},
            {"cfo_hz": math.inf},
        ),
        *({"adc_dither": -0.1}, {"snr_db": math.nan}, {"snr_db": 1e9}, {"snr_db": None}, {"power_control": "no"}, {"channel": 3}),
    ],
)
def test_config_refuses_what_cannot_be(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        CONFIG.replace(**changes)


def test_unknown_names_are_listed():
    with pytest.raises(UnknownNameError, match="received"):
        CONFIG.replace(snr_convention="loud")
    with pytest.raises(UnknownNameError, match="snr_db"):
        SystemConfig.from_dict({"snr": 3})
    with pytest.raises(UnknownNameError, match="rayleigh"):
        Simulation(CONFIG.replace(channel="umi")).frames(0, 1)
    with pytest.raises(ShapeError, match="count of 1"):
        Simulation(CONFIG).frames(0, 0)
    with pytest.raises(ShapeError, match="pilots"):
        observe(torch.zeros(1, 3, 4, dtype=torch.complex64), torch.ones(6, 2, dtype=torch.complex64), noise_var=1.0)


def test_the_observation_knows_how_the_antennas_are_arranged():
    config = SystemConfig(users=4, rows=2, columns=3, pilot_len=5, data_len=0, channel="rayleigh")
    obs = Simulation(config).frames(0, 1)[1]
    assert obs.grid == (2, 3)
    with pytest.raises(ShapeError, match="rows and columns"):
        replace(obs, array=(2, 2))
    with pytest.raises(ConfigError, match="array="):
        _ = replace(obs, array=None).grid
