"""The real model behind complex samples, and soft symbols whose amplitude nobody knows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.likelihoods.real_form import joined, parts, stacked
from massaccess.priors.constellation import ConstellationPrior
from massaccess.receivers.selection import Selection
from massaccess.receivers.signs import Signs, decided, to_power, turned, unbiased
from massaccess.rng import complex_normal, generator


def draw(*shape: int) -> torch.Tensor:
    return complex_normal(*shape, generator=generator(1, *shape))


def test_the_real_model_is_the_complex_one() -> None:
    design, unknown = draw(2, 7, 3), draw(2, 3, 5)
    torch.testing.assert_close(joined(stacked(design) @ parts(unknown)), design @ unknown)
    torch.testing.assert_close(turned(parts(unknown)), parts(unknown.mT))


def test_signs_are_those_of_the_converter() -> None:
    """With an offset, of what the converter saw: samples plus offset."""
    config = SystemConfig(users=3, active_users=3, pilot_len=4, data_len=5, rows=2, columns=2, adc_bits=1, channel="rayleigh")
    _, obs = Simulation(config).frames(0, 2)
    slots = Selection.of(torch.ones(2, 3, dtype=torch.bool))
    plain = Signs.of(obs, slots)
    assert plain.pilot_shift is None and plain.both_shifts is None
    torch.testing.assert_close(joined(plain.both)[:, :4].real, obs.pilot_rx.real.sign())
    offset = draw(9, 4)
    moved = dataclasses.replace(
        obs,
        pilot_rx=obs.pilot_rx - offset[:4],
        data_rx=obs.data_rx - offset[4:],
        front_end=dataclasses.replace(obs.front_end, offset=offset),
    )
    shifted = Signs.of(moved, slots)
    torch.testing.assert_close(shifted.both, plain.both)
    torch.testing.assert_close(joined(shifted.both_shifts)[0], offset)


def test_every_antenna_gets_its_mean_power() -> None:
    gain = torch.tensor([[1.0, 2.0, 0.0]])
    channel = draw(1, 3, 4) * (gain[..., None] > 0)
    torch.testing.assert_close((channel * to_power(channel, gain)).abs().square().sum(1), torch.full((1, 4), 3.0))


@pytest.mark.parametrize(("modulation", "var"), [("qpsk", 0.02), ("qpsk", 0.3), ("16qam", 0.02)])
def test_unknown_amplitudes_are_found(modulation: str, var: float) -> None:
    points = constellation(modulation).points
    sent = points[torch.randint(len(points), (3, 400, 2))]
    gain = torch.tensor([0.2, 3.0])
    soft = gain * (sent + var**0.5 * draw(3, 400, 2))
    symbols, symbol_var = unbiased(soft, ConstellationPrior(modulation))
    torch.testing.assert_close(symbols, soft / gain, rtol=0.08, atol=0.01)
    assert bool(((symbol_var / var - 1).abs() < 0.25).all())


def test_empty_slots_stay_zero() -> None:
    soft = torch.cat([draw(2, 9, 1), torch.zeros(2, 9, 1)], 2)
    symbols, symbol_var = unbiased(soft, ConstellationPrior("qpsk"))
    assert not bool(symbols[..., 1].any())
    assert bool(torch.isfinite(symbol_var).all())


def test_decisions_are_points() -> None:
    points = constellation("16qam").points
    config = SystemConfig(users=3, active_users=3, pilot_len=4, data_len=5, modulation="16qam", channel="rayleigh")
    _, obs = Simulation(config).frames(0, 1)
    sent = points[torch.randint(16, (1, 5, 3))]
    present = torch.tensor([[True, True, False]])
    torch.testing.assert_close(decided(sent + 0.05, present, obs), sent * present[:, None])
