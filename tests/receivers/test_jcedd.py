"""Expectation propagation with a channel prior: what it equals where the answer is known, and what it does when the prior is wrong."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from massaccess.core import ChannelPrior, Estimate, Frame, Observation, SystemConfig
from massaccess.estimation.estimate import ChannelEstimate
from massaccess.estimation.lmmse import Lmmse
from massaccess.forward.noise import with_estimated_noise
from massaccess.forward.simulate import Simulation
from massaccess.priors.beams import Beams
from massaccess.priors.gaussian import Gaussian
from massaccess.priors.mixture import GaussianMixture
from massaccess.receivers import jcedd
from massaccess.receivers.coherent import Link
from massaccess.receivers.jcedd import distrusted, misfit
from massaccess.receivers.selection import Selection
from massaccess.registry import create
from massaccess.rng import complex_normal, generator

PAPER = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=10.0, channel="rayleigh")
SMALL = SystemConfig(rows=4, columns=4, users=6, active_users=6, pilot_len=8, data_len=16, snr_db=10.0, channel="rayleigh")
choose = jcedd.choose


@dataclasses.dataclass(frozen=True)
class Planted:
    """Any prior, taken for a learned one; ``spoil`` (mean, error, x, noise_var) changes what it says."""

    prior: ChannelPrior
    spoil: object = None

    @property
    def beams(self) -> Beams:
        return self.prior.beams

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        mean, error = self.prior.in_beams(x, noise_var)
        return (mean, error) if self.spoil is None else self.spoil(mean, error, x, noise_var)


@pytest.fixture
def plant(monkeypatch):
    """Makes every receiver take this prior, except where it asks for the Gaussian one."""

    def planted(prior: ChannelPrior) -> None:
        monkeypatch.setattr(jcedd, "choose", lambda name, obs: choose(name, obs) if name == "gaussian" else prior)

    return planted


def flat(power: float = 1.0, antennas: int = 16) -> Gaussian:
    return Gaussian(Beams(None, torch.full((antennas,), power)))


def sectors(antennas: int = 16) -> GaussianMixture:
    """Users light one half of the array or the other; on average all antennas are alike, so that a Gaussian prior knows nothing."""
    half = torch.cat([torch.full((antennas // 2,), 1.98), torch.full((antennas // 2,), 0.02)])
    return GaussianMixture.of(torch.ones(2), torch.diag_embed(torch.stack([half, half.flip(0)])) + 0j, like=torch.zeros(1) + 0j)


def sector_channels(frames: int, users: int, antennas: int = 16) -> Tensor:
    draw = generator(5, "sectors")
    strong = torch.rand(frames, users, 1, generator=draw) < 0.5
    first = torch.arange(antennas) < antennas // 2
    return complex_normal(frames, users, antennas, generator=draw) * torch.where(strong == first, 1.98, 0.02).sqrt()


def received(config: SystemConfig, channel: Tensor, *, gain: Tensor | None = None) -> tuple[Frame, Observation]:
    """Frames of ``config`` with these channels [B N M] in place of its own."""
    frame, obs = Simulation(config, 1).frames(0, len(channel))
    sent = torch.cat([obs.pilots.expand(len(channel), -1, -1), frame.symbols], 1) * frame.active[:, None, :]
    rx = sent @ channel + math.sqrt(config.noise_var) * complex_normal(*sent.shape[:2], channel.shape[2], generator=generator(6, "noise"))
    pilot_rx, data_rx = rx[:, : config.pilot_len], rx[:, config.pilot_len :]
    obs = dataclasses.replace(obs, pilot_rx=pilot_rx, data_rx=data_rx, user_gain=gain, channel_cov=None)
    return dataclasses.replace(frame, channel=channel), obs


def nmse_db(frame: Frame, estimate: Estimate) -> float:
    truth = frame.channel * frame.active[..., None]
    return 10 * math.log10(float((estimate.channel - truth).abs().square().sum() / truth.abs().square().sum()))


def errors(frame: Frame, estimate: Estimate) -> int:
    sent, found = torch.view_as_real(frame.symbols), torch.view_as_real(estimate.symbols)
    return int(((sent * found < 0) & frame.active[:, None, :, None]).sum())


def test_with_the_gaussian_prior_pilots_give_lmmse():
    _, obs = Simulation(SMALL.replace(data_len=0, channel="kronecker"), 1).frames(0, 16)
    slots = Selection.of(torch.ones(16, 6, dtype=torch.bool))
    link = Link.of(obs, slots)
    exact = link.beams.back(link.estimate(Lmmse()).mean)
    found = create("learned-ep", weights="gaussian")(obs)
    torch.testing.assert_close(found.channel, exact, rtol=1e-4, atol=1e-5)
    assert found.info["nfe"] == 0 and not bool(found.info["fallback"].any())


@pytest.mark.parametrize("snr_db", [8.0, 12.0])
def test_with_the_gaussian_prior_decisions_are_as_good_as_knowing_the_data(snr_db):
    frame, obs = Simulation(PAPER.replace(snr_db=snr_db), 1).frames(0, 64)
    bound = nmse_db(frame, create("perfect-data-lmmse")(obs, truth=frame))
    assert nmse_db(frame, create("learned-ep", weights="gaussian")(obs)) < bound + 0.1


@pytest.mark.parametrize("data_len", [0, 16])
def test_messages_of_a_gaussian_prior_change_nothing(data_len, plant):
    """The same prior, once as the closed form and once through messages: the message of a Gaussian is the Gaussian itself."""
    frame, obs = Simulation(SMALL.replace(data_len=data_len, channel="kronecker"), 1).frames(0, 32)
    closed = create("learned-ep", weights="gaussian")(obs)
    plant(Planted(choose("gaussian", obs)))
    found = create("learned-ep")(obs)
    assert found.info["nfe"] >= 3
    assert nmse_db(frame, found) == pytest.approx(nmse_db(frame, closed), abs=0.06)
    assert float(found.info["mismatch"].mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("data_len", "gain_db"), [(0, 3.0), (16, 1.5)])
def test_a_prior_that_knows_more_than_the_covariance_gives_more(data_len, gain_db, plant):
    frame, obs = received(SMALL.replace(data_len=data_len), sector_channels(64, 6))
    plant(sectors())
    knows, blind = create("learned-ep")(obs), create("learned-ep", weights="gaussian")(obs)
    assert nmse_db(frame, knows) < nmse_db(frame, blind) - gain_db
    assert errors(frame, knows) <= errors(frame, blind)
    claimed, true = float(knows.info["error_var"].mean()), float((knows.channel - frame.channel).abs().square().mean())
    assert claimed == pytest.approx(true, rel=0.35)


def test_misfit_is_one_where_the_prior_fits_and_grows_where_it_does_not():
    prior, noise_var = sectors(), torch.full((1, 1), 0.3)
    ratios = []
    for clean in (sector_channels(500, 8), complex_normal(500, 8, 16, generator=generator(2)), 4 * sector_channels(500, 8)):
        x = clean + 0.3**0.5 * complex_normal(*clean.shape, generator=generator(3))
        seen = ChannelEstimate(x, noise_var.expand(x.shape))
        taken, due = misfit(ChannelEstimate(*prior.in_beams(x, noise_var)), seen)
        ratios.append(float(taken.mean() / due.mean()))
    assert ratios[0] == pytest.approx(1, rel=0.05)
    assert ratios[1] > 1.5 and ratios[2] > 1.1, ratios


def test_only_users_that_the_prior_misreads_are_drawn_back():
    draw = generator(4)
    found = ChannelEstimate(complex_normal(1, 3, 16, generator=draw), torch.rand(1, 3, 16) + 0.1)
    seen = ChannelEstimate(complex_normal(1, 3, 16, generator=draw), torch.rand(1, 3, 16) + 1)
    back = distrusted(found, seen, torch.tensor([[1.0, 1.4, 1e6]]))
    assert torch.equal(back.mean[:, :2], found.mean[:, :2]) and torch.equal(back.error[:, :2], found.error[:, :2])
    torch.testing.assert_close(back.mean[:, 2], seen.mean[:, 2], rtol=1e-4, atol=1e-4)
    assert bool((back.error[:, 2] > seen.error[:, 2]).all())


@pytest.mark.parametrize("data_len", [0, 16])
@pytest.mark.parametrize("snr_db", [5.0, 15.0])
@pytest.mark.parametrize("wrong", ["faint", "narrow", "zero", "loud"])
def test_a_wrong_prior_is_never_worse_than_none(wrong, snr_db, data_len, plant):
    frame, obs = received(SMALL.replace(data_len=data_len, snr_db=snr_db), complex_normal(32, 6, 16, generator=generator(7)))
    power = torch.cat([torch.full((4,), 4.0), torch.full((12,), 1e-3)])
    priors = {
        "faint": Planted(flat(0.01)),
        "narrow": Planted(Gaussian(Beams(None, power))),
        "zero": Planted(flat(), lambda mean, error, x, noise: (0 * x, error)),
        "loud": Planted(flat(), lambda mean, error, x, noise: (1e3 * x, error)),
    }
    plant(priors[wrong])
    found = create("learned-ep")(obs)
    assert nmse_db(frame, found) < nmse_db(frame, create("ls-zf")(obs)) + 0.05
    assert float(found.info["mismatch"].median()) > 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prior_that_breaks_down_gives_way_to_the_gaussian_one(value, plant):
    _, obs = Simulation(SMALL, 1).frames(0, 6)
    closed = create("learned-ep", weights="gaussian")(obs)

    plant(Planted(flat(), lambda mean, error, x, noise: (mean * value, error)))
    found = create("learned-ep")(obs)
    assert bool(found.info["fallback"].all()) and found.info["nfe"] > 0
    for name in ("channel", "symbols", "symbol_var"):
        torch.testing.assert_close(getattr(found, name), getattr(closed, name))
    assert bool(torch.isfinite(found.info["residual"]).all())


def test_one_broken_user_gives_its_frame_away_and_no_other(plant):
    """A prior that fails on rows of far too high power, which only the first frame has."""
    channel = complex_normal(6, 6, 16, generator=generator(8))
    channel[0, 2] *= 6
    _, obs = received(SMALL, channel)

    def broken(mean: Tensor, error: Tensor, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        loud = x.abs().square().mean(-1, keepdim=True) > 12
        return torch.where(loud, torch.nan, mean), error

    plant(Planted(flat(), broken))
    found = create("learned-ep")(obs)
    assert found.info["fallback"].tolist() == [True, *[False] * 5]
    assert bool(torch.isfinite(torch.view_as_real(found.channel)).all())
    torch.testing.assert_close(found.channel[0], create("learned-ep", weights="gaussian")(obs).channel[0])


def test_a_prior_that_is_too_sure_leaves_too_much_unexplained(plant):
    """The noise taken for channel, without a doubt: 8 pilots of 6 users fit, and yet the claimed errors explain too little."""
    _, obs = Simulation(SMALL.replace(data_len=0), 1).frames(0, 16)
    plant(Planted(flat(), lambda mean, error, x, noise: (x, 1e-3 * error)))
    found = create("learned-ep")(obs)
    assert bool(found.info["fallback"].all())
    torch.testing.assert_close(found.channel, create("learned-ep", weights="gaussian")(obs).channel)


def test_silent_users_stay_silent_and_disturb_nobody(plant):
    """Frames with different numbers of active users: the answer of each is that of its active users alone."""
    config = SMALL.replace(users=14, active_users=None, activity=0.3)
    frame, obs = received(config, sector_channels(12, 14))
    plant(sectors())
    found = create("learned-ep")(obs, active=frame.active)
    assert len(set(frame.active.sum(1).tolist())) > 2
    assert not bool(found.info["fallback"].any())
    assert not bool(found.channel[~frame.active].any()) and not bool(found.info["error_var"][~frame.active].any())
    for index in range(4):
        users = frame.active[index].nonzero()[:, 0]
        one = slice(index, index + 1)
        alone = dataclasses.replace(obs, pilot_rx=obs.pilot_rx[one], data_rx=obs.data_rx[one], pilots=obs.pilots[:, users], activity=1.0)
        torch.testing.assert_close(found.channel[index, users], create("learned-ep")(alone).channel[0], rtol=1e-3, atol=1e-3)


def test_tensor_operations_give_the_answer_of_the_compiled_kernels(plant, monkeypatch):
    """The path that a GPU takes, with empty slots in most frames."""
    from massaccess.detection.ep import ExpectationPropagation
    from massaccess.detection.search import Searched
    from massaccess.estimation import lmmse

    frame, obs = received(SMALL.replace(users=14, active_users=None, activity=0.3, snr_db=14.0), sector_channels(12, 14))
    plant(sectors())
    compiled = create("learned-ep")(obs, active=frame.active)
    monkeypatch.setattr(lmmse, "_compiled", lmmse._batched)
    for part in (ExpectationPropagation, Searched):
        monkeypatch.setattr(part, "_compiled", part._batched)
    batched = create("learned-ep")(obs, active=frame.active)
    assert torch.equal(compiled.info["evaluations"], batched.info["evaluations"])
    torch.testing.assert_close(batched.channel, compiled.channel, rtol=2e-3, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("prior", ["gaussian", "sectors"])
def test_cuda_gives_the_answer_of_the_cpu(prior, plant):
    frame, obs = received(SMALL.replace(users=14, active_users=None, activity=0.3, snr_db=14.0), sector_channels(12, 14))
    answers = []
    for device in ("cpu", "cuda"):
        like = torch.zeros(1, dtype=torch.complex64, device=device)
        weights = sectors()
        if prior == "sectors":
            plant(GaussianMixture.from_tensors(weights.to_tensors(), like=like))
        name = "gaussian" if prior == "gaussian" else "auto"
        answers.append(create("learned-ep", weights=name)(obs.to(device), active=frame.active.to(device)))
    here, there = answers
    assert there.channel is not None and there.channel.is_cuda
    torch.testing.assert_close(there.channel.cpu(), here.channel, rtol=5e-3, atol=5e-3)
    agree = torch.sign(torch.view_as_real(there.symbols.cpu())) == torch.sign(torch.view_as_real(here.symbols))
    assert float(agree.double().mean()) > 0.999


def test_frames_that_leave_early_change_nothing_for_the_others(plant):
    _, obs = received(SMALL.replace(snr_db=6.0), sector_channels(24, 6))
    plant(sectors())
    whole = create("learned-ep")(obs)
    assert len(whole.info["evaluations"].unique()) > 2
    assert whole.info["nfe"] == pytest.approx(float(whole.info["evaluations"].double().mean()))
    for index in range(24):
        one = slice(index, index + 1)
        alone = create("learned-ep")(dataclasses.replace(obs, pilot_rx=obs.pilot_rx[one], data_rx=obs.data_rx[one]))
        assert int(alone.info["evaluations"]) == int(whole.info["evaluations"][index])
        torch.testing.assert_close(alone.channel[0], whole.channel[index], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("data_len", [0, 16])
def test_evaluations_are_counted(data_len, plant):
    calls = []

    def counted(mean: Tensor, error: Tensor, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(x))
        return mean, error

    _, obs = Simulation(SMALL.replace(data_len=data_len, snr_db=8.0), 1).frames(0, 16)
    plant(Planted(flat(), counted))
    found = create("learned-ep", pilot_evaluations=2, rounds=4)(obs)
    assert found.info["nfe"] == pytest.approx(sum(calls) / 16)
    assert int(found.info["evaluations"].max()) <= 6
    if not data_len:
        assert len(calls) == 6 and found.symbols.shape == (16, 0, 6)


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_time_is_up(patience, plant):
    """The answer comes after the step at hand, however early: the first step always runs."""
    frame, obs = received(SMALL, sector_channels(8, 6))
    plant(sectors())
    polls = iter(range(1000))
    hurried = dataclasses.replace(obs, hurry=lambda: next(polls) >= patience)
    receiver = create("learned-ep", pilot_evaluations=2, rounds=5)
    found, calm = receiver(hurried), receiver(obs)
    assert found.info["cut"] and not calm.info["cut"]
    assert found.info["nfe"] == patience + 1
    assert bool(torch.isfinite(torch.view_as_real(found.channel)).all()) and bool(torch.isfinite(torch.view_as_real(found.symbols)).all())
    assert nmse_db(frame, calm) < nmse_db(frame, found) + (0.05 if patience == 2 else -1)
    assert nmse_db(frame, found) < nmse_db(frame, create("ls-zf")(obs)) - 1
    closed = create("learned-ep", weights="gaussian")(dataclasses.replace(obs, hurry=lambda: True))
    assert closed.info["cut"]
    torch.testing.assert_close(closed.channel, create("lmmse-lmmse")(obs).channel, rtol=1e-3, atol=1e-4)


def test_there_is_no_second_try_when_time_is_up(plant):
    """What the broken prior leaves is what was received, finite."""
    _, obs = Simulation(SMALL, 1).frames(0, 4)
    plant(Planted(flat(), lambda mean, error, x, noise: (mean * math.nan, error)))
    found = create("learned-ep")(dataclasses.replace(obs, hurry=lambda: True))
    assert found.info["cut"] and not bool(found.info["fallback"].any())
    assert bool(torch.isfinite(torch.view_as_real(found.channel)).all()) and bool(torch.isfinite(torch.view_as_real(found.symbols)).all())


def test_known_gains_are_as_good_as_a_scaled_channel(plant):
    """20 dB between users: pilots that are as much louder, and channels of power 1, say the same."""
    gain = torch.logspace(-1, 1, 6)
    base = sector_channels(16, 6)
    plant(sectors())
    _, obs = received(SMALL.replace(data_len=0), base * gain.sqrt()[:, None], gain=gain.expand(16, -1).contiguous())
    told = create("learned-ep")(obs)
    louder = create("learned-ep")(dataclasses.replace(obs, pilots=obs.pilots * gain.sqrt(), user_gain=None))
    torch.testing.assert_close(told.channel, louder.channel * gain.sqrt()[:, None], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(told.info["mismatch"], louder.info["mismatch"], rtol=1e-3, atol=1e-3)


def test_gains_help_with_data_too(plant):
    gain = torch.logspace(-1, 1, 6)
    plant(sectors())
    frame, obs = received(SMALL.replace(snr_db=14.0), sector_channels(32, 6) * gain.sqrt()[:, None], gain=gain.expand(32, -1).contiguous())
    told, untold = (create("learned-ep")(one) for one in (obs, dataclasses.replace(obs, user_gain=None)))
    each = [((one.channel - frame.channel).abs().square().mean((0, 2)) / gain) for one in (told, untold)]
    assert bool((each[0] < each[1] * 1.1).all()) and float(each[0][0]) < 0.8 * float(each[1][0])


def test_nobody_is_active(plant):
    _, obs = Simulation(SMALL, 1).frames(0, 4)
    plant(sectors())
    found = create("learned-ep")(obs, active=torch.zeros(4, 6, dtype=torch.bool))
    assert not bool(found.channel.any()) and not bool(found.symbols.any()) and bool(torch.isinf(found.symbol_var).all())
    assert all(bool(torch.isfinite(found.info[name]).all()) for name in ("mismatch", "residual", "error_var"))


def test_an_estimated_noise_variance_does_as_well():
    frame, obs = Simulation(PAPER, 2).frames(0, 32)
    known, estimated = (create("learned-ep", weights="gaussian")(one) for one in (obs, with_estimated_noise(obs)))
    assert nmse_db(frame, estimated) == pytest.approx(nmse_db(frame, known), abs=0.05)
    off = create("learned-ep", weights="gaussian")(dataclasses.replace(obs, noise_var=20 * obs.noise_var))
    assert nmse_db(frame, off) > nmse_db(frame, known) + 0.3
