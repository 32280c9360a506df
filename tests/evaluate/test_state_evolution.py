"""What state evolution predicts against what message passing does in a large system."""

from __future__ import annotations

import pytest
import torch

from massaccess.activity.index_amp import IndexAmp
from massaccess.core import SystemConfig
from massaccess.evaluate.metrics import Tally
from massaccess.evaluate.state_evolution import errors, state_evolution
from massaccess.forward.simulate import Simulation

LARGE = SystemConfig(
    users=1000,
    rows=1,
    columns=4,
    pilot_len=300,
    data_len=0,
    index_bits=1,
    pilot_kind="gaussian",
    channel="pathloss-20db",
    power_control=False,
    snr_db=10.0,
)


@pytest.mark.parametrize("sections", [False, True])
@pytest.mark.parametrize("changes", [{}, {"index_bits": 2, "channel": "rayleigh", "snr_db": 0.0}])
def test_levels_and_errors_are_those_predicted(changes, sections):
    config = LARGE.replace(**changes)
    told = state_evolution(config, sections=sections, steps=10, generator=torch.Generator().manual_seed(0))
    frame, obs = Simulation(config, 1).frames(0, 8)
    amp = IndexAmp(sections=sections, iterations=10, damping=1.0, tolerance=0.0)
    levels = amp.messages(obs, traced=True).levels.double().mean(1)
    torch.testing.assert_close(levels, told.levels.double(), rtol=0.06, atol=0)
    tally = Tally()
    tally.add(config, frame, amp(obs))
    assert tally.summary()["ser_devices"] == pytest.approx(told.ser, rel=0.15)


@pytest.mark.parametrize("decision", ["map", "paper"])
def test_errors_are_those_of_rows_in_noise(decision):
    """The quadrature against 200,000 sections drawn and decided."""
    config, gain, level = LARGE.replace(index_bits=2), torch.full((1,), 3.0), 1.3
    expected = errors(config, gain.numpy(), level, decision)
    draws, many = torch.Generator().manual_seed(1), 200_000
    active = torch.rand(many, generator=draws) < config.activity
    var = torch.full((many, 4), level)
    var[:, 0] += active * gain
    energy = torch.distributions.Gamma(torch.tensor(4.0), torch.tensor(1.0)).sample((many, 4)) * var
    odds = energy * (1 / level - 1 / (level + gain)) - 4 * torch.log1p(gain / level)
    odds = odds + (torch.tensor(config.activity / 4 / (1 - config.activity)).log() if decision == "map" else 0)
    found = torch.where((odds > 0).any(1), odds.argmax(1), -1)
    wrong = (found != torch.where(active, 0, -1)).double().mean()
    assert float(wrong) == pytest.approx(expected, rel=0.03)


def test_sections_are_never_worse_than_rows():
    for bits in (0, 1, 3):
        config = LARGE.replace(index_bits=bits, pilot_len=120)
        row, section = (_levels(config, sections=kind) for kind in (False, True))
        assert float(section[-1]) <= float(row[-1]) * (1 + 1e-6)
        if not bits:
            torch.testing.assert_close(section, row)


def _levels(config: SystemConfig, *, sections: bool) -> torch.Tensor:
    return state_evolution(config, sections=sections, steps=30, generator=torch.Generator().manual_seed(0)).levels
