"""Bursts of users out of step: slopes, tracking, and whole receivers beside those that know all offsets."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.core import Frame, Observation, SystemConfig
from massaccess.errors import ConfigError
from massaccess.estimation.estimate import ChannelEstimate
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.priors.beams import Beams
from massaccess.receivers.selection import Selection
from massaccess.receivers.waves import WaveLink
from massaccess.registry import create
from massaccess.rng import generator

AIR = SystemConfig(
    users=24,
    rows=4,
    columns=4,
    pilot_len=20,
    data_len=40,
    active_users=4,
    snr_db=12.0,
    channel="rayleigh",
    sample_rate_hz=1e6,
    samples_per_symbol=4,
    preamble_len=8,
    guard_len=8,
    timing_offset=0.5,
    cfo_hz=250.0,
)
STEP = AIR.replace(timing_offset=0.0, cfo_hz=0.0)


def link(config: SystemConfig, frames: int = 4, **told: torch.Tensor) -> tuple:
    """A link of the active users, their true channels, symbols, delays and carriers."""
    frame, seen = Simulation(config, 2).frames(0, frames)
    slots = Selection.of(frame.active)
    channel = slots.take(frame.channel)
    truth = [slots.take(value[..., None])[..., 0] for value in (frame.delay, frame.cfo)]
    return (
        WaveLink.of(dataclasses.replace(seen, **told), slots, Beams.of(None, antennas=config.antennas, like=seen.rows)),
        ChannelEstimate(channel, torch.full_like(channel.real, 1e-6)),
        slots.take(frame.symbols.mT).mT,
        *truth,
    )


def known(frame: Frame, seen: Observation) -> Observation:
    return dataclasses.replace(seen, timing_range=0.0, cfo_range=0.0, user_delay=frame.delay, user_cfo=frame.cfo)


def errors(frame: Frame, estimate) -> float:
    bits = constellation("qpsk").decide(estimate.symbols.mT)
    return float((bits != frame.bits)[frame.active].double().mean())


def test_waves_are_what_was_received():
    wave, channel, symbols, delay, cfo = link(AIR.replace(snr_db=200.0))
    wave = dataclasses.replace(wave, delay=delay, cfo=cfo)
    sent = wave.wave(torch.cat([wave.head, symbols], 1))
    left = (wave.rx - sent @ channel.mean).abs().square().mean() / wave.rx.abs().square().mean()
    assert float(left) < 1e-5  # symbols turn with the carrier, their pulses do not


@pytest.mark.parametrize(("name", "slope"), [("delay", "_late"), ("cfo", "_turning")])
def test_slopes_are_derivatives(name, slope):
    wave, _, symbols, delay, cfo = link(AIR)
    wide = {"rx": wave.rx.to(torch.complex128), "head": wave.head.to(torch.complex128)}
    wave = dataclasses.replace(wave, delay=delay.double(), cfo=cfo.double(), **wide)
    sent = torch.cat([wave.head, symbols.to(torch.complex128)], 1)
    step = 1e-6
    after, before = (dataclasses.replace(wave, **{name: getattr(wave, name) + sign * step}).wave(sent) for sign in (1, -1))
    torch.testing.assert_close(getattr(wave, slope)(sent), (after - before) / (2 * step), atol=1e-4, rtol=1e-3)


def test_tracking_finds_delays_and_carriers_of_known_symbols():
    wave, channel, symbols, delay, cfo = link(AIR.replace(snr_db=25.0))
    sure = dataclasses.replace(wave.unheard(), mean=symbols, var=torch.zeros_like(symbols.real))
    for _ in range(6):
        wave = wave.track(channel, sure)
    assert float((wave.delay - delay).abs().max()) < 0.02
    assert float((wave.cfo - cfo).abs().max()) < 1e-4
    spread = float(((wave.cfo - cfo).square() / wave.loose).mean())
    assert 0.1 < spread < 4  # what is claimed of the carriers is what is known of them


def test_what_is_known_is_left_alone():
    wave, channel, _, _, _ = link(STEP)
    assert wave.track(channel) is wave
    assert wave.tuned(channel) is wave
    late, channel, *_ = link(AIR.replace(timing_offset=0.0))
    assert torch.equal(late.track(channel).delay, late.delay)
    assert not torch.equal(late.track(channel).cfo, late.cfo)


def test_carriers_are_found_before_anything_is_decided():
    wave, channel, _, delay, cfo = link(AIR.replace(snr_db=20.0), frames=8)
    wave = dataclasses.replace(wave, delay=delay)
    tuned = wave.tuned(channel)
    assert float((tuned.cfo - cfo).square().mean()) < 0.05 * float(cfo.square().mean())


def test_bursts_in_step_are_received_like_frames_of_symbols():
    config = STEP.replace(snr_db=6.0, active_users=4)
    frame, seen = Simulation(config, 1).frames(0, 32)
    plain = {"samples_per_symbol": 1, "preamble_len": 0, "guard_len": 0}
    truth, rx = Simulation(config.replace(**plain), 1).frames(0, 32)
    receiver = create("jcedd")
    burst, symbols = receiver(seen, generator=generator(0, "r")), receiver(rx, generator=generator(0, "r"))
    assert torch.equal(frame.bits, truth.bits)
    assert errors(frame, burst) < 1.3 * errors(truth, symbols) + 2e-3


def test_users_out_of_step_are_received_as_if_their_offsets_were_known():
    frame, seen = Simulation(AIR, 1).frames(0, 16)
    receiver = create("jcedd")
    found, told = receiver(seen, generator=generator(0, "r")), receiver(known(frame, seen), generator=generator(0, "r"))
    assert torch.equal(told.active, frame.active)
    assert torch.equal(found.active, frame.active)
    assert errors(frame, told) < 1e-3
    assert errors(frame, found) < 2e-3
    assert float((found.info["delay"] - frame.delay)[frame.active].square().mean().sqrt()) < 0.03
    assert float((found.info["cfo"] - frame.cfo)[frame.active].square().mean().sqrt()) < 2e-4
    deaf = receiver(dataclasses.replace(seen, rows=None, burst=None), generator=generator(0, "r"))
    assert errors(frame, deaf) > 0.02  # whoever takes users to be in step


def test_frames_do_not_depend_on_their_company():
    _, seen = Simulation(AIR, 1).frames(0, 6)
    receiver = create("jcedd")
    together, alone = receiver(seen), receiver(seen.only(torch.tensor([4])))
    torch.testing.assert_close(together.symbols[4:5], alone.symbols, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(together.info["delay"][4:5], alone.info["delay"], atol=1e-4, rtol=1e-3)


def test_levels_of_converters_are_not_looked_for_behind_the_matched_filter():
    _, seen = Simulation(AIR.replace(adc_bits=1), 1).frames(0, 2)
    with pytest.raises(ConfigError, match="jcedd"):
        create("onebit")(seen)
    assert create("jcedd")(seen).symbols is not None


def test_symbols_that_are_known_stay_as_they_are():
    frame, seen = Simulation(AIR, 1).frames(0, 4)
    first = frame.active.int().argmax(1)
    told = torch.full_like(frame.symbols, torch.nan)
    told[torch.arange(4), :, first] = frame.symbols[torch.arange(4), :, first]
    answer = create("learned-ep")(known(frame, seen), active=frame.active, told=told)
    torch.testing.assert_close(answer.symbols[torch.arange(4), :, first], frame.symbols[torch.arange(4), :, first])
    assert errors(frame, answer) < 1e-3
