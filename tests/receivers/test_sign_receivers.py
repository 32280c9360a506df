"""Receivers that see signs: what they decode, that amplitudes mean nothing to them, and what their options do."""

from __future__ import annotations

import dataclasses
import math
import sys

import pytest
import torch

from massaccess.core import Estimate, Frame, Observation, SystemConfig
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

SMALL = SystemConfig(
    users=4,
    active_users=4,
    rows=4,
    columns=8,
    pilot_len=24,
    data_len=60,
    snr_db=10.0,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
ACCESS = SMALL.replace(users=16, active_users=3, pilot_len=20)
NAMES = ("bussgang-lmmse", "svm", "advi")


def ber(frame: Frame, estimate: Estimate) -> float:
    wrong = constellation("qpsk").decide(estimate.symbols.mT) != frame.bits
    return float(wrong[frame.active].double().mean())


def nmse_db(frame: Frame, estimate: Estimate) -> float:
    """Of the best common scale: one bit leaves it open."""
    truth = frame.channel * frame.active[..., None]
    scale = (truth * estimate.channel.conj()).sum() / estimate.channel.abs().square().sum()
    return 10 * math.log10(float((scale * estimate.channel - truth).abs().square().sum() / truth.abs().square().sum()))


@pytest.fixture(scope="module")
def seen() -> tuple[Frame, Observation]:
    return Simulation(SMALL, 1).frames(0, 3)


@pytest.mark.parametrize("name", NAMES)
def test_few_users_come_through(name: str, seen: tuple[Frame, Observation]) -> None:
    frame, obs = seen
    found, start = create(name)(obs), create(name, rounds=0)(obs)
    assert ber(frame, found) < 2e-3
    assert nmse_db(frame, found) < nmse_db(frame, start) - 1
    assert found.info["rounds"].tolist() == [3] * 3


@pytest.mark.parametrize("name", NAMES)
def test_symbol_variance_is_the_error(name: str, seen: tuple[Frame, Observation]) -> None:
    """Of four users, whose sum is not as Gaussian as Bussgang's theorem wants it."""
    frame, obs = seen
    found = create(name)(obs)
    error = (found.symbols - frame.symbols).abs().square()
    assert 0.5 < float(error.mean() / found.symbol_var.mean()) < 1.4


@pytest.mark.parametrize("name", NAMES)
def test_amplitudes_mean_nothing(name: str, seen: tuple[Frame, Observation]) -> None:
    _, obs = seen
    loud = dataclasses.replace(obs, pilot_rx=7 * obs.pilot_rx, data_rx=0.2 * obs.data_rx)
    receiver = create(name, rounds=1)
    torch.testing.assert_close(receiver(loud).symbols, receiver(obs).symbols)


@pytest.mark.parametrize("name", ["svm", "advi"])
def test_every_antenna_has_its_power(name: str, seen: tuple[Frame, Observation]) -> None:
    power = create(name, rounds=0)(seen[1]).channel.abs().square().sum(1)
    torch.testing.assert_close(power, torch.full_like(power, 4.0))


@pytest.mark.parametrize("name", NAMES)
def test_subsets_of_users(name: str, seen: tuple[Frame, Observation]) -> None:
    """Frames with different users: as if each had come alone."""
    _, obs = seen
    active = torch.tensor([[True, True, False, True], [False, True, False, False], [True, True, True, True]])
    receiver = create(name, rounds=1)
    together = receiver(obs, active=active)
    alone = receiver(dataclasses.replace(obs, pilot_rx=obs.pilot_rx[1:2], data_rx=obs.data_rx[1:2]), active=active[1:2])
    torch.testing.assert_close(together.symbols[1:2], alone.symbols, rtol=1e-2, atol=2e-3)
    assert not bool(together.channel[~active].any())


@pytest.mark.parametrize("name", NAMES)
def test_time_is_up(name: str, seen: tuple[Frame, Observation]) -> None:
    late = create(name)(dataclasses.replace(seen[1], hurry=lambda: True))
    assert late.info["cut"].all() and not late.info["rounds"].any()


@pytest.mark.parametrize("name", NAMES)
def test_pilots_alone(name: str, seen: tuple[Frame, Observation]) -> None:
    frame, obs = seen
    found = create(name)(dataclasses.replace(obs, data_rx=obs.data_rx[:, :0]))
    assert nmse_db(frame, found) < -7
    assert found.symbols.shape == (3, 0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shape_is_named(name: str, seen: tuple[Frame, Observation]) -> None:
    with pytest.raises(ShapeError, match="booleans"):
        create(name)(seen[1], active=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ConfigError, match="rounds"):
        create(name, rounds=-1)(seen[1])


@pytest.mark.parametrize("bits", [None, 3])
def test_bussgang_of_better_converters_is_lmmse(bits: int | None) -> None:
    _, obs = Simulation(SMALL.replace(adc_bits=bits), 1).frames(0, 2)
    torch.testing.assert_close(create("bussgang-lmmse", rounds=0)(obs).symbols, create("lmmse-lmmse")(obs).symbols)


def test_bussgang_knows_its_error_and_the_array() -> None:
    """Known covariance: the estimate is better, and its error about what it says (distortion is not white over antennas)."""
    frame, obs = Simulation(SMALL.replace(channel="kronecker", rows=4, columns=4, pilot_len=8), 1).frames(0, 48)
    found, blind = create("bussgang-lmmse", rounds=0)(obs), create("bussgang-lmmse", rounds=0, use_cov=False)(obs)
    error = float((found.channel - frame.channel).abs().square().mean())
    assert 0.8 < error / float(found.info["error_var"].mean()) < 1.35
    assert nmse_db(frame, found) < nmse_db(frame, blind) - 1


def test_svm_is_liblinear(seen: tuple[Frame, Observation]) -> None:
    """One antenna by hand, P4 eq. 9."""
    from sklearn.svm import LinearSVC

    _, obs = seen
    design = torch.cat([torch.cat([obs.pilots.real, -obs.pilots.imag], 1), torch.cat([obs.pilots.imag, obs.pilots.real], 1)])
    signs = torch.cat([obs.pilot_rx[0, :, 5].real, obs.pilot_rx[0, :, 5].imag]).sign()
    machine = LinearSVC(C=0.7, loss="hinge", fit_intercept=False, random_state=0).fit(design.double().numpy(), signs.numpy())
    weights = torch.from_numpy(machine.coef_[0]).float()
    expected = torch.complex(weights[:4], weights[4:])
    found = create("svm", rounds=0, c_channel=0.7)(obs).channel[0, :, 5]
    torch.testing.assert_close(found, expected * (4 / expected.abs().square().sum()).sqrt())


def test_svm_processes_change_nothing(seen: tuple[Frame, Observation]) -> None:
    assert torch.equal(create("svm", rounds=1, jobs=2)(seen[1]).symbols, create("svm", rounds=1)(seen[1]).symbols)


def test_svm_costs_that_do_not_converge_are_silent(seen: tuple[Frame, Observation]) -> None:
    frame, obs = seen
    assert ber(frame, create("svm", c=1e4, rounds=1, steps=20)(obs)) < 0.05
    with pytest.raises(UnknownNameError, match="squared_hinge"):
        create("svm", loss="log")(obs)


def test_svm_says_what_is_missing(seen: tuple[Frame, Observation], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        create("svm")(seen[1])


@pytest.mark.parametrize("likelihood", ["logistic", "logistic-unit"])
def test_advi_with_other_likelihoods(likelihood: str, seen: tuple[Frame, Observation]) -> None:
    frame, obs = seen
    assert ber(frame, create("advi", likelihood=likelihood)(obs)) < 5e-3


def test_advi_by_monte_carlo_is_advi(seen: tuple[Frame, Observation]) -> None:
    _, obs = seen
    drawn = create("advi", samples=4, rounds=0, steps=200)(obs, generator=torch.Generator().manual_seed(0))
    exact = create("advi", rounds=0)(obs)
    assert float((drawn.channel - exact.channel).abs().square().mean()) < 0.1 * float(exact.info["error_var"].mean())


def test_advi_as_printed_refines_with_decisions(seen: tuple[Frame, Observation]) -> None:
    frame, obs = seen
    printed = create("advi", soft=False, count_error=False)
    assert nmse_db(frame, printed(obs)) < nmse_db(frame, dataclasses.replace(printed, rounds=0)(obs)) - 1


def test_advi_names_its_likelihoods(seen: tuple[Frame, Observation]) -> None:
    with pytest.raises(UnknownNameError, match="logistic-unit"):
        create("advi", likelihood="logit")(seen[1])


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_advi_finds_who_is_active(snr_db: float) -> None:
    frame, obs = Simulation(ACCESS.replace(snr_db=snr_db), 2).frames(0, 4)
    found = create("advi", access_steps=300)(obs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.active, frame.active)
    refined = create("advi", access_steps=300, access_rounds=2)(obs, generator=torch.Generator().manual_seed(0))
    assert nmse_db(frame, refined) < nmse_db(frame, found)
    assert ber(frame, refined) < 0.03


def test_advi_hears_nobody_in_noise() -> None:
    _, obs = Simulation(ACCESS, 2).frames(0, 3)
    noise = dataclasses.replace(obs, pilot_rx=torch.randn_like(obs.pilot_rx), data_rx=torch.randn_like(obs.data_rx))
    found = create("advi")(noise, generator=torch.Generator().manual_seed(0))
    assert float(found.active.double().mean()) < 0.05


@pytest.mark.parametrize("name", ["svm", "advi"])
def test_known_offsets_are_used(name: str) -> None:
    """Dither that is as strong as the signal: noise to those who do not know it."""
    config = SMALL.replace(snr_db=15.0)
    simulation = Simulation(config, 1)
    frame, clear = Simulation(config.replace(adc_bits=None), 1).frames(0, 2)
    offset = math.sqrt(2) * torch.randn(config.frame_len, config.antennas, dtype=torch.complex64)
    levels = torch.view_as_complex(torch.view_as_real(torch.cat([clear.pilot_rx, clear.data_rx], 1) + offset).sign())
    front = simulation.front_end
    told = simulation.observe(levels - offset)
    told = dataclasses.replace(told, front_end=dataclasses.replace(front, offset=offset))
    blind = simulation.observe(levels)
    knowing, guessing = create(name)(told), create(name)(blind)
    assert nmse_db(frame, knowing) < nmse_db(frame, guessing) - 1
    assert ber(frame, knowing) < 5e-3
    if name == "advi":  # the offset fixes the scale
        assert float((knowing.channel - frame.channel).abs().square().mean()) < 0.1
