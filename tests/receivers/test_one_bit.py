"""The receiver for coarse converters: what must not change its answers, what it equals at its limits, and how good it is."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from massaccess.core import Estimate, Frame, Observation, SystemConfig
from massaccess.errors import ConfigError, ShapeError
from massaccess.evaluate.metrics import Tally
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.receivers.one_bit import QuantizedEp
from massaccess.registry import create

PAPER = SystemConfig(  # P4 Fig. 1
    users=20,
    active_users=20,
    rows=8,
    columns=16,
    pilot_len=80,
    data_len=200,
    snr_db=10.0,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
SMALL = PAPER.replace(users=6, active_users=6, rows=4, columns=8, pilot_len=16, data_len=40)
SPARSE = PAPER.replace(users=20, active_users=5, rows=4, columns=8, pilot_len=20, data_len=40)


def frames(config: SystemConfig, count: int = 8) -> tuple[Frame, Observation]:
    return Simulation(config, 3).frames(0, count)


def receive(obs: Observation, active: Tensor | None = None, **options: object) -> Estimate:
    receiver = create("onebit-ep", **options)
    return receiver(obs) if active is None else receiver(obs, active=active)


def score(config: SystemConfig, frame: Frame, estimate: Estimate) -> dict[str, float]:
    tally = Tally()
    tally.add(config, frame, estimate)
    return tally.summary()


def error(frame: Frame, estimate: Estimate) -> float:
    """Mean square error of all active users' symbols."""
    wrong = (estimate.symbols - frame.symbols).abs().square() * frame.active[:, None]
    return float(wrong.sum() / frame.active.sum() / frame.symbols.shape[1])


def nmse(frame: Frame, estimate: Estimate) -> float:
    """Of the channels of active users [dB]."""
    truth = frame.channel * frame.active[..., None]
    return 10 * math.log10(float((truth - estimate.channel).abs().square().sum() / truth.abs().square().sum()))


def part(obs: Observation, rows: Tensor) -> Observation:
    return dataclasses.replace(obs, pilot_rx=obs.pilot_rx[rows], data_rx=obs.data_rx[rows])


@pytest.fixture(scope="module")
def paper() -> tuple[Frame, Estimate]:
    """Eight frames of P4's Fig. 1 at 10 dB."""
    frame, obs = frames(PAPER)
    return frame, receive(obs)


def test_as_good_as_it_is_on_the_papers_system(paper: tuple[Frame, Estimate]) -> None:
    found = score(PAPER, *paper)
    assert found["nmse_db"] < -15 and found["nmse_rows_db"] < -15
    assert found["ber"] < 5e-4


def test_the_variance_is_that_of_the_symbols(paper: tuple[Frame, Estimate]) -> None:
    frame, estimate = paper
    assert 1 / 1.5 < error(frame, estimate) / float(estimate.symbol_var.mean()) < 1.5
    clear = estimate.symbol_var < estimate.symbol_var.median()
    wrong = (estimate.symbols - frame.symbols).abs().square()
    assert float(wrong[clear].mean()) < float(wrong[~clear].mean())


def test_likelihood_ratios_have_the_sign_of_the_bits(paper: tuple[Frame, Estimate]) -> None:
    frame, estimate = paper
    llr = constellation("qpsk").llr(estimate.symbols.mT, estimate.symbol_var.mT)
    agree = (llr < 0) == frame.bits.bool()
    assert float(agree.float().mean()) > 0.999
    weak = llr.abs() < llr.abs().median()
    assert bool(agree[~weak].all())


def test_many_errors_are_told_by_the_likelihood_ratios() -> None:
    """At low SNR the mean of the chances that ratios give to wrong decisions is nearly the bit error rate; they promise somewhat much."""
    frame, obs = frames(SMALL.replace(snr_db=-6.0), 16)
    estimate = receive(obs)
    llr = constellation("qpsk").llr(estimate.symbols.mT, estimate.symbol_var.mT)
    wrong = float(((llr < 0) != frame.bits.bool()).float().mean())
    assert 0.01 < wrong < 0.3
    assert 1 / 1.5 < wrong / float(torch.sigmoid(-llr.abs()).mean()) < 3
    assert 1 / 1.5 < error(frame, estimate) / float(estimate.symbol_var.mean()) < 1.5


def test_permuting_users_permutes_the_answer() -> None:
    frame, obs = frames(SPARSE, 3)
    order = torch.randperm(obs.users)
    one = receive(obs, frame.active)
    other = receive(dataclasses.replace(obs, pilots=obs.pilots[:, order]), frame.active[:, order])
    torch.testing.assert_close(other.symbols, one.symbols[..., order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.channel, one.channel[:, order], rtol=1e-3, atol=1e-3)


def test_a_frame_does_not_see_its_batch() -> None:
    _, obs = frames(SMALL, 5)
    together = receive(obs)
    for rows in ([3], [4, 0]):
        alone = receive(part(obs, torch.tensor(rows)))
        torch.testing.assert_close(alone.symbols, together.symbols[rows], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(alone.channel, together.channel[rows], rtol=1e-3, atol=1e-3)


def test_silent_users_stay_empty() -> None:
    frame, obs = frames(SPARSE, 4)
    estimate = receive(obs, frame.active)
    silent = ~frame.active
    assert torch.equal(estimate.active, frame.active)
    assert bool((estimate.channel[silent] == 0).all()) and bool((estimate.symbols.mT[silent] == 0).all())
    assert bool(estimate.symbol_var.mT[silent].isposinf().all()) and bool(estimate.symbol_var.mT[frame.active].isfinite().all())
    assert score(SPARSE, frame, estimate)["ber"] < 0.02


@pytest.mark.parametrize("config", [SMALL, SPARSE])
def test_an_ideal_converter_leaves_the_linear_receiver(config: SystemConfig) -> None:
    """What differs is how symbols that are not sure count; what they are worth is the same."""
    config = config.replace(adc_bits=None, snr_db=3.0)
    frame, obs = frames(config, 12)
    ours, linear = receive(obs, frame.active), create("learned-ep")(obs, active=frame.active)
    assert score(config, frame, ours)["nmse_db"] < score(config, frame, linear)["nmse_db"] + 0.5
    assert error(frame, ours) < 1.1 * error(frame, linear)


def test_more_bits_are_better() -> None:
    config = SMALL.replace(snr_db=15.0)
    nmse = [score(config.replace(adc_bits=bits), *answered(config.replace(adc_bits=bits)))["nmse_db"] for bits in (1, 2, 3, None)]
    assert nmse == sorted(nmse, reverse=True)


def answered(config: SystemConfig) -> tuple[Frame, Estimate]:
    frame, obs = frames(config)
    return frame, receive(obs)


def test_hurry_cuts_and_says_so() -> None:
    frame, obs = frames(SMALL, 4)
    hasty = receive(dataclasses.replace(obs, hurry=lambda: True))
    assert hasty.info["cut"] and not receive(obs).info["cut"]
    assert bool(torch.isfinite(torch.view_as_real(hasty.symbols)).all()) and bool(torch.isfinite(hasty.symbol_var).all())
    assert score(SMALL, frame, hasty)["ber"] < 0.3  # pilots alone


def test_pilots_alone() -> None:
    frame, obs = frames(SMALL.replace(data_len=0, pilot_len=40))
    estimate = receive(obs)
    assert estimate.symbols.shape == (8, 0, 6) and estimate.symbol_var.shape == (8, 0, 6)
    assert score(SMALL.replace(data_len=0), frame, estimate)["nmse_db"] < -7


@pytest.mark.parametrize("adc", [{"adc_dither": 0.8}, {"adc_offset": 0.6}])
def test_known_offsets_are_used(adc: dict[str, float]) -> None:
    """One who takes the same signs for those of comparators at zero does worse."""
    config = SMALL.replace(snr_db=15.0, **adc)
    frame, obs = frames(config)
    known = receive(obs)
    signs = {name: getattr(obs, name) for name in ("pilot_rx", "data_rx")}
    offset = dict(zip(signs, obs.front_end.offset.split([obs.pilot_len, obs.data_len]), strict=True))
    blind = {name: signs[name] + offset[name] for name in signs}
    ignorant = receive(dataclasses.replace(obs, front_end=dataclasses.replace(obs.front_end, offset=None), **blind))
    assert score(config, frame, known)["nmse_db"] < score(config, frame, ignorant)["nmse_db"] - 1
    assert score(config, frame, known)["ber"] <= score(config, frame, ignorant)["ber"]


@pytest.mark.parametrize("users", [1, 2, 3])
@pytest.mark.parametrize("data_len", [0, 20])
def test_few_users_without_noise_do_not_run_away(users: int, data_len: int) -> None:
    """All samples of an antenna tell the same of a user, and none of them the amplitude."""
    config = SMALL.replace(users=users, active_users=users, pilot_len=40, data_len=data_len, snr_db=30.0)
    frame, estimate = answered(config)
    found = score(config, frame, estimate)
    assert found["nmse_db"] < 3 and found["nmse_scaled_db"] < -1.5 and (found["ber"] or 0) < 0.05


def test_dither_tells_amplitudes() -> None:
    """With one user and little noise, signs around zero do not say how strong it is; those around known levels do."""
    config = SMALL.replace(users=1, active_users=1, pilot_len=40, data_len=0, snr_db=30.0, rows=4, columns=16)

    def spread(config: SystemConfig) -> float:
        frame, obs = frames(config, 32)
        truth, found = (rows.abs().square().sum((1, 2)).sqrt() for rows in (frame.channel, receive(obs).channel))
        return float((found / truth).log().std())

    assert spread(config.replace(adc_dither=0.7)) < 0.8 * spread(config)


def test_probabilities_come_back_as_probabilities() -> None:
    frame, obs = frames(SPARSE)
    chance = torch.where(frame.active, 0.7, 0.0)
    doubtful = (~frame.active).int().argmax(1)  # a silent user of each frame that might speak
    chance[torch.arange(len(chance)), doubtful] = 0.3
    estimate = receive(obs, chance)
    assert bool(((estimate.activity >= 0) & (estimate.activity <= 1)).all())
    assert bool((estimate.activity[chance == 0] == 0).all())
    assert float((estimate.active ^ frame.active).float().mean()) < 0.01
    assert score(SPARSE, frame, estimate)["ber"] < 0.02


def test_the_logistic_link_is_close_to_the_probit() -> None:
    frame, obs = frames(SMALL.replace(pilot_len=12, data_len=16), 4)
    one, other = (score(SMALL, frame, receive(obs, link=link))["nmse_db"] for link in ("probit", "logistic"))
    assert other == pytest.approx(one, abs=0.5)
    assert not math.isnan(one)


def test_errors_say_what_to_do() -> None:
    frame, obs = frames(SPARSE, 2)
    with pytest.raises(ShapeError, match="booleans or probabilities"):
        receive(obs, frame.active[:1])
    with pytest.raises(ConfigError):
        receive(obs)
    assert isinstance(create("onebit-ep"), QuantizedEp)


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_an_unknown_noise_variance_is_found(factor: float) -> None:
    """In units of the channel power that the prior expects, from a first guess that is off by a factor."""
    frame, obs = frames(PAPER.replace(snr_db=0), 4)
    guess = dataclasses.replace(obs, noise_var=factor * obs.noise_var)
    known, found, believed = receive(obs), receive(guess, noise="estimated"), receive(guess)
    assert torch.all((found.info["noise_var"] / obs.noise_var).log().abs() < 0.15)
    assert nmse(frame, found) - 0.1 < nmse(frame, known) < nmse(frame, believed) - 0.3


def test_a_noise_variance_that_is_an_estimate_is_taken_for_a_guess() -> None:
    from massaccess.forward.noise import with_estimated_noise

    _, obs = frames(SMALL)
    guess = with_estimated_noise(obs)
    assert torch.equal(receive(guess).symbols, receive(guess, noise="estimated").symbols)
    assert torch.all(receive(guess, noise="known").info["noise_var"] == guess.noise_var)


def test_channels_of_another_kind_fall_back() -> None:
    """Rayleigh channels in front of a prior made for an urban macro cell: frames go to a Gaussian prior, and gain by it."""
    config = SystemConfig(users=8, active_users=8, pilot_len=16, data_len=30, snr_db=10, adc_bits=1)
    _, told = frames(config, 1)
    frame, obs = frames(config.replace(channel="rayleigh"), 16)
    obs = dataclasses.replace(obs, channel_cov=told.channel_cov)
    learned, gaussian = receive(obs), receive(obs, weights="gaussian")
    assert learned.info["fallback"].any()
    assert nmse(frame, learned) < nmse(frame, gaussian) - 1
    own, seen = frames(config, 16)
    assert receive(seen).info["fallback"].float().mean() < 0.1
    assert nmse(own, receive(seen)) < nmse(own, receive(seen, weights="gaussian")) - 2
