"""Partitioned variational inference: the modes agree, the partition does not matter, and the error rates of P4 are reached."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.core import FrontEnd, SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.priors.constellation import ConstellationPrior
from massaccess.receivers.access_point import AccessPoint, Settings
from massaccess.receivers.factor import Factor
from massaccess.receivers.fusion import Fusion
from massaccess.receivers.pvi import Pvi, share
from massaccess.receivers.selection import Selection
from massaccess.registry import create
from massaccess.rng import generator

CONFIG = SystemConfig(
    users=5,
    active_users=5,
    rows=4,
    columns=8,
    pilot_len=20,
    data_len=24,
    snr_db=5,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
P4 = CONFIG.replace(users=20, active_users=20, rows=8, columns=16, pilot_len=80, data_len=200, snr_db=10)


@pytest.mark.parametrize("covariance", ["diagonal", "shared", "full"])
def test_all_modes_end_in_the_same_posterior(covariance: str) -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 2)
    obs = dataclasses.replace(obs, pilot_rx=obs.pilot_rx.to(torch.complex128), data_rx=obs.data_rx.to(torch.complex128))
    obs = dataclasses.replace(obs, pilots=obs.pilots.to(torch.complex128))
    options = {"refinements": 0, "covariance": covariance, "sweeps": 60}
    first, *others = (create(f"pvi-{mode}", **options)(obs) for mode in ("sequential", "synchronous", "asynchronous"))
    for other in others:
        torch.testing.assert_close(other.symbols, first.symbols, rtol=1e-4, atol=1e-4)


def test_the_number_of_access_points_does_not_matter_when_channels_are_known_alike() -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 2)
    options = {"refinements": 0, "sweeps": 40, "channel_covariance": "diagonal", "covariance": "full", "channel_steps": 60}
    alone, many = Pvi(clients=1, **options)(obs), Pvi(clients=8, **options)(obs)
    torch.testing.assert_close(many.channel, alone.channel, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(many.symbols, alone.symbols, rtol=5e-2, atol=2e-2)


@pytest.mark.parametrize(("mode", "bar"), [("sequential", 7.2e-4), ("synchronous", 8.0e-4)])
def test_error_rate_of_the_paper_is_reached(mode: str, bar: float) -> None:
    frame, obs = Simulation(P4, 5).frames(0, 4)
    estimate = create(f"pvi-{mode}")(obs)
    wrong = constellation("qpsk").decide(estimate.symbols.mT) != frame.bits
    assert float(wrong.float().mean()) < bar
    error = (estimate.channel - frame.channel).abs().square().sum() / frame.channel.abs().square().sum()
    assert float(error) < 0.04  # -14 dB; the paper has -10


def test_rows_are_normalised_since_signs_have_no_scale() -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 2)
    heard = create("pvi-sequential")(obs).channel.abs().square().sum(1)
    torch.testing.assert_close(heard, torch.full_like(heard, CONFIG.users))


def test_only_signs_matter() -> None:
    _, obs = Simulation(CONFIG.replace(adc_bits=None), 1).frames(0, 2)
    louder = dataclasses.replace(obs, pilot_rx=7 * obs.pilot_rx, data_rx=0.1 * obs.data_rx)
    torch.testing.assert_close(create("pvi-sequential")(louder).symbols, create("pvi-sequential")(obs).symbols)


def test_symbol_variances_are_those_of_the_errors() -> None:
    frame, obs = Simulation(CONFIG.replace(snr_db=0), 2).frames(0, 16)
    for covariance in ("diagonal", "shared"):
        estimate = Pvi(covariance=covariance)(obs)
        ratio = (estimate.symbols - frame.symbols).abs().square() / estimate.symbol_var
        assert 0.5 < float(ratio.mean()) < 2.0


def test_known_offsets_tell_the_scale() -> None:
    frame, obs = Simulation(CONFIG.replace(adc_bits=None, snr_db=10, pilot_len=200), 1).frames(0, 2)
    offset = 2 * torch.view_as_complex(torch.randn(CONFIG.data_len + 200, CONFIG.antennas, 2, generator=generator(0, "offset")))

    def signs(samples: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        seen = samples + added
        return torch.complex(seen.real.sign(), seen.imag.sign()) - added

    pilot, data = signs(obs.pilot_rx, offset[:200]), signs(obs.data_rx, offset[200:])
    obs = dataclasses.replace(obs, pilot_rx=pilot, data_rx=data, front_end=FrontEnd(bits=1, offset=offset))
    found = Pvi()(obs).channel
    assert float((found - frame.channel).abs().square().mean()) < 0.05
    heard = found.abs().square().sum(1)
    assert float((heard - CONFIG.users).abs().max()) > 0.1


def test_time_that_is_up_ends_the_refinements() -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 1)
    answers = iter([False, True])
    estimate = Pvi()(dataclasses.replace(obs, hurry=lambda: next(answers)))
    assert (estimate.info["refinements"], estimate.info["cut"]) == (1, True)


def test_an_access_point_hears_its_own_antennas() -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 1)
    parts = [share(obs, index, 3) for index in range(3)]
    assert [part.antennas for part in parts] == [10, 11, 11]
    assert torch.equal(torch.cat([part.data_rx for part in parts], 2), obs.data_rx)
    with pytest.raises(ConfigError, match="pass 0 to 2"):
        share(obs, 3, 3)


def test_a_factor_does_not_depend_on_where_the_search_began() -> None:
    _, obs = Simulation(CONFIG, 1).frames(0, 1)
    slots = Selection.of(torch.ones(1, CONFIG.users, dtype=torch.bool))
    prior = Factor.prior(1, CONFIG.data_len, CONFIG.users, covariance="full", like=obs.pilot_rx.real)
    once, often = (AccessPoint(obs, slots, Settings(steps=steps)) for steps in (20, 4))
    for point in (once, often):
        point.estimate()
    for _ in range(8):
        factor = often.update(prior)
    torch.testing.assert_close((factor + prior).moments()[0], (once.update(prior) + prior).moments()[0], rtol=1e-3, atol=1e-3)


def test_unbiased_symbols_of_a_factor() -> None:
    """A factor that is one noisy look at each symbol gives that look back."""
    look, var = torch.tensor([[[0.9 - 0.3j, -0.2 + 0.1j]]]), 0.5
    for covariance in ("diagonal", "shared", "full"):
        prior = Factor.prior(1, 1, 2, covariance=covariance, like=look.real)
        likelihood = 2 / var * torch.ones(4)
        precision = prior.precision + (likelihood if covariance == "diagonal" else torch.diag(likelihood))
        posterior = Factor(torch.cat([look.real, look.imag], -1) * 2 / var, precision)
        found = posterior.symbols(ConstellationPrior("qpsk"))
        torch.testing.assert_close(found.symbols, look)
        torch.testing.assert_close(found.symbol_var, torch.full((1, 1, 2), var))


def some(value: float) -> Factor:
    return Factor(torch.full((1, 2, 4), value), torch.full((1, 2, 4), abs(value)))


PRIOR = Factor.prior(1, 2, 2, covariance="diagonal", like=torch.zeros(()))


def test_turns_of_the_modes() -> None:
    order = {}
    for mode in ("sequential", "synchronous", "asynchronous"):
        fusion = Fusion(PRIOR, 3, mode=mode, sweeps=2)
        fusion.begin()
        order[mode] = []
        while not fusion.done:
            asked = fusion.ready()
            order[mode].append(asked)
            for client in asked:
                fusion.take(client, some(1.0))
    assert order["sequential"] == [[0], [1], [2], [0], [1], [2]]
    assert order["synchronous"] == [[0, 1, 2], [0, 1, 2]]
    assert order["asynchronous"] == [[0, 1, 2], [0, 1, 2]]


def test_synchronous_factors_count_together_and_damped() -> None:
    fusion = Fusion(PRIOR, 2, mode="synchronous", sweeps=1, damping=0.5)
    fusion.begin()
    assert fusion.ready() == [0, 1]
    fusion.take(1, some(4.0))
    assert torch.equal(fusion.posterior.shift, PRIOR.shift)
    fusion.take(0, some(2.0))
    assert torch.equal(fusion.posterior.shift, PRIOR.shift + 3.0)
    assert torch.equal(fusion.rest(0).shift, PRIOR.shift + 2.0)


def test_who_is_late_keeps_a_factor_and_who_is_lost_does_not() -> None:
    fusion = Fusion(PRIOR, 2, sweeps=3)
    fusion.begin()
    for client in (0, 1):
        assert fusion.ready() == [client]
        fusion.take(client, some(1.0 + client))
    assert fusion.ready() == [0]
    fusion.pause(0)
    assert fusion.ready() == [1]
    assert float(fusion.posterior.shift[0, 0, 0]) == 3.0
    fusion.take(1, some(2.0))
    fusion.resume(0, some(5.0))
    assert float(fusion.posterior.shift[0, 0, 0]) == 7.0
    fusion.drop(1)
    assert float(fusion.posterior.shift[0, 0, 0]) == 5.0
    assert fusion.ready() == [0]


def test_options_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="synchronous"):
        Pvi(mode="parallel")
    with pytest.raises(UnknownNameError, match="diagonal"):
        Pvi(covariance="none")
    with pytest.raises(ConfigError, match="damping"):
        Fusion(PRIOR, 2, damping=0.0)
