"""Users that are out of step: who may be active, with which delay."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.activity import candidates
from massaccess.activity.angular import AngularCovariance
from massaccess.activity.candidates import Candidates, Waveforms, _between, waveforms
from massaccess.core import SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.forward.waveform import modulate, preamble
from massaccess.rng import complex_normal, generator

AIR = SystemConfig(
    users=40,
    rows=4,
    columns=4,
    pilot_len=20,
    data_len=24,
    active_users=4,
    snr_db=10.0,
    channel="rayleigh",
    samples_per_symbol=4,
    preamble_len=8,
    guard_len=8,
    timing_offset=0.5,
)


def test_noise_and_leaking_data_are_white_in_the_space_of_the_waveforms():
    _, seen = Simulation(AIR.replace(users=1, active_users=1, snr_db=200.0), 0).frames(0, 1)
    waves = Waveforms.of(seen.pilots, seen.burst, noise_var=0.3, power=0.0, reach=0.5)
    size = waves.last - waves.first
    noise = complex_normal(20000, size, generator=generator(0, "noise")) * 0.3**0.5
    white = noise.to(torch.complex128) @ waves.basis.conj()
    torch.testing.assert_close(white.mH @ white / 20000, torch.eye(white.shape[1], dtype=torch.complex128), atol=0.05, rtol=0)
    assert white.shape[1] < 0.75 * size  # what no waveform reaches is left out


def test_waveforms_between_the_delays_of_the_book():
    _, seen = Simulation(AIR, 0).frames(0, 2)
    waves = waveforms(seen)
    index = torch.tensor([[3, 7], [11, 30]])
    delay = torch.tensor([[0.1, -0.37], [0.49, 0.0]], dtype=torch.double)
    burst = seen.burst
    head = preamble(burst)[:, None, None].expand(-1, 2, 2)
    pilots = seen.pilots[:, index]
    sent = torch.cat([head, pilots, torch.zeros(burst.data_len, 2, 2)]).to(torch.complex128).movedim(0, 1)
    exact = modulate(sent, burst, delay=delay, rate=2)[:, waves.first : waves.last]
    exact = (waves.basis.mH @ exact).mT
    error = (_between(waves, index, delay) - exact).abs().square().sum(-1) / exact.abs().square().sum(-1)
    assert float(error.max()) < 2e-3


def test_active_users_are_among_the_candidates_with_their_delays():
    frame, seen = Simulation(AIR, 1).frames(0, 16)
    near = Candidates.of(seen)
    here = torch.zeros_like(frame.active).scatter(1, near.index, True)
    assert bool(here[frame.active].all())
    assert near.index.shape[1] < AIR.users
    delay = near.everybody({})["delay"]
    assert float((delay - frame.delay)[frame.active].square().mean().sqrt()) < 0.08


def test_a_closer_look_sharpens_the_delays(monkeypatch):
    frame, seen = Simulation(AIR.replace(snr_db=15.0), 1).frames(0, 16)

    def error() -> float:
        delay = Candidates.of(seen).everybody({})["delay"]
        return float((delay - frame.delay)[frame.active].square().mean().sqrt())

    sharp = error()
    monkeypatch.setattr(candidates, "SHARPENED", 0)
    assert sharp < 0.8 * error()


def test_data_beyond_the_pilots_are_not_needed():
    frame, seen = Simulation(AIR.replace(data_len=0), 1).frames(0, 16)
    assert int((AngularCovariance()(seen).active != frame.active).sum()) <= 1


def test_out_of_step_users_are_detected_and_their_delays_told():
    frame, seen = Simulation(AIR, 1).frames(0, 32)
    found = AngularCovariance()(seen)
    wrong = int((found.active != frame.active).sum())
    nominal = AngularCovariance()(dataclasses.replace(seen, rows=None, burst=None))
    assert wrong <= 2
    assert int((nominal.active != frame.active).sum()) > 10 * max(wrong, 1)


def test_known_delays_leave_everybody_a_candidate():
    frame, seen = Simulation(AIR, 1).frames(0, 16)
    told = dataclasses.replace(seen, timing_range=0.0, user_delay=frame.delay)
    near = Candidates.of(told)
    assert near.index.shape[1] == AIR.users
    assert torch.equal(AngularCovariance()(told).active, frame.active)


@pytest.mark.parametrize("gain", [0.2, 5.0])
def test_known_gains_are_reckoned_with(gain):
    _, seen = Simulation(AIR.replace(snr_db=20.0), 1).frames(0, 4)
    told = {"user_gain": torch.full((4, AIR.users), gain), "noise_var": seen.noise_var * gain}
    scaled = dataclasses.replace(seen, rows=seen.rows * gain**0.5, **told)
    torch.testing.assert_close(AngularCovariance()(scaled).activity, AngularCovariance()(seen).activity, atol=0.05, rtol=0)
