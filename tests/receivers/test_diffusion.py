"""Diffusion receivers: what sampling from a known posterior must give, and how the parts of P1 and P2 act together."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.estimation.lmmse import Lmmse
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.receivers.diffusion import Jcedd
from massaccess.receivers.sampling import Scene, complex_of, data_score
from massaccess.registry import create, entry, takes
from massaccess.rng import complex_normal, generator

PAPER = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=10.0, channel="uma")
SHORT = {"n_h": 240, "n_x": 80, "n_update": 10}


@pytest.fixture(scope="module")
def sixteen():
    return Simulation(PAPER, 1).frames(0, 16)


def nmse_db(frame, estimate):
    truth = frame.channel * frame.active[..., None]
    return 10 * math.log10(float((estimate.channel - truth).abs().square().sum() / truth.abs().square().sum()))


def ber(frame, estimate, modulation="qpsk"):
    wrong = constellation(modulation).decide(estimate.symbols.mT) != frame.bits
    return float(wrong[frame.active].double().mean())


def receive(name, frame, obs, **options):
    """With the closed-form prior, whose posterior is known."""
    options = {"weights": "gaussian", **options} if takes(name, "weights") else options
    truth = {"truth": frame} if entry(name).genie else {}
    return create(name, **options)(obs, generator=generator(3, name), **truth)


@pytest.mark.parametrize(("guidance", "method"), [("prior", "pc"), ("flat", "pc"), ("prior", "ald")])
def test_a_sample_is_3_db_worse_than_the_mean(sixteen, guidance, method):
    """Gaussian prior, weight 1, known data: error of a posterior sample = twice that of the posterior mean."""
    frame, obs = sixteen
    mean = nmse_db(frame, receive("perfect-data-lmmse", frame, obs))
    options = {"n_h": 200 if method == "pc" else 600, "channel_weight": 1.0, "guidance": guidance, "method": method}
    sample = nmse_db(frame, receive("perfect-data-pc", frame, obs, **options))
    assert sample - mean == pytest.approx(3.0, abs=0.35)


def test_a_larger_weight_sharpens_the_sample(sixteen):
    frame, obs = sixteen
    errors = [nmse_db(frame, receive("perfect-data-pc", frame, obs, n_h=200, channel_weight=weight)) for weight in (1.0, 2.5)]
    assert errors[1] < errors[0] - 0.8


def test_algorithm_2_lands_where_a_sampler_with_a_gaussian_prior_must(sixteen):
    """One to three decibels behind iterative LMMSE, far ahead of the pilots alone; Langevin alone is no better."""
    frame, obs = sixteen
    pilots, bound = (nmse_db(frame, receive(name, frame, obs)) for name in ("lmmse-lmmse", "iterative-lmmse-ep"))
    found = receive("pc-jcedd", frame, obs, **SHORT)
    assert bound + 1 < nmse_db(frame, found) < bound + 3 < pilots - 3
    assert ber(frame, found) < 0.3 * ber(frame, receive("lmmse-lmmse", frame, obs))
    assert found.info["nfe"] == 4 * float(found.info["steps"].double().mean())
    langevin = receive("ald-jcedd-async", frame, obs, **{**SHORT, "n_h": 600, "n_x": 240, "n_update": 25})
    assert bound < nmse_db(frame, langevin) < bound + 4


def test_synchronous_chain_needs_what_it_knows_of_the_other(sixteen):
    """Soft feedback lets the synchronous chain work; on raw states the data lock on a channel that is noise still (P2 Fig. 4)."""
    frame, obs = sixteen
    soft, raw = (nmse_db(frame, receive("ald-jcedd-sync", frame, obs, n_h=500, feedback=kind)) for kind in ("soft", "raw"))
    assert soft < -12 < raw


def test_perfect_csi_samplers_detect(sixteen):
    frame, obs = sixteen
    for name, steps in (("perfect-csi-pc", 100), ("perfect-csi-ald", 400)):
        found = receive(name, frame, obs, n_x=steps)
        assert ber(frame, found) < 0.5 * ber(frame, receive("perfect-csi-zf", frame, obs)) + 1e-3
        torch.testing.assert_close(found.channel, frame.channel, rtol=1e-4, atol=1e-4)


def test_cleaned_symbols_have_fewer_errors_than_the_sample():
    frame, obs = Simulation(PAPER.replace(snr_db=6.0), 1).frames(0, 16)
    cleaned, sampled = (ber(frame, receive("perfect-csi-pc", frame, obs, n_x=80, clean=clean)) for clean in (True, False))
    assert cleaned < 0.8 * sampled


def test_start_matches_the_error_of_the_first_estimate(sixteen):
    """sigma_start^2 is the mean LMMSE error (P1 eq. 31 prints sigma), frame by frame."""
    frame, obs = sixteen
    receiver = Jcedd(**SHORT)
    active = torch.ones(16, 12, dtype=torch.bool)
    active[3, 4:] = False
    scene = Scene.of(obs, active, "auto")
    first = scene.link.estimate(Lmmse())
    start = receiver._start(scene, first)
    for index, users in ((0, 12), (3, 4)):
        level = float(receiver.sigmas[receiver.n_h - int(start[index])])
        assert level**2 == pytest.approx(float(first.error[index, :users].mean()), rel=0.05)
    assert int(start[3]) < int(start[0])
    found = receiver(obs, active=active, generator=generator(0, "x"))
    assert torch.equal(found.info["steps"], found.info["start"])
    assert not bool(found.channel[3, 4:].any())
    measured = float((first.mean - scene.link.beams.into(scene.slots.take(frame.channel)))[0].abs().square().mean())
    assert float(first.error[0].mean()) == pytest.approx(measured, rel=0.5)


def test_data_score_is_equation_30(sixteen):
    """The affine form on real parts equals prior score plus weighted likelihood score on complex symbols."""
    _, obs = sixteen
    link = Scene.of(obs, None, "auto").link
    channel = complex_normal(16, 12, 64, generator=generator(0, "h"))
    parts = torch.randn(16, 24, 50, generator=generator(0, "x"))
    tau, x = 0.4, complex_of(parts)
    a = channel.mT
    total = link.noise_var * torch.eye(64) + tau**2 * a @ a.mH
    likelihood = (a.mH @ torch.linalg.solve(total, link.data_rx.mT - a @ x.mT)).mT
    wanted = 2.5 * likelihood + (link.prior.moments(x, torch.tensor(tau))[0] - x) / tau**2
    for squared in (False, True):
        torch.testing.assert_close(complex_of(data_score(link, channel, 2.5, squared=squared)(parts, tau)), wanted, rtol=2e-3, atol=2e-3)


def test_symbol_variance_is_about_what_it_is(sixteen):
    frame, obs = sixteen
    found = receive("perfect-csi-pc", frame, obs, n_x=100)
    error = (found.symbols - frame.symbols).abs().square()
    right = error < 1.0
    ratio = float(error[right].mean() / found.symbol_var[right].mean())
    assert 0.6 < ratio < 1.6


def test_late_answers_with_the_best_so_far(sixteen):
    """Called off after ten steps, and in the middle of a data sampler: the mean at the level reached, finite, no worse than the start."""
    frame, obs = sixteen
    pilots = nmse_db(frame, receive("lmmse-lmmse", frame, obs))
    for patience in (10, 25):
        polls = []
        late = dataclasses.replace(obs, hurry=lambda polls=polls, patience=patience: polls.append(1) or len(polls) > patience)
        found = receive("pc-jcedd", frame, late, **SHORT)
        assert found.info["cut"]
        assert len(polls) <= patience + 2
        assert nmse_db(frame, found) < pilots + 1
        assert bool(torch.isfinite(found.symbols.abs()).all())
    for name in ("ald-jcedd-sync", "perfect-data-pc"):
        late = dataclasses.replace(obs, hurry=lambda: True)
        assert receive(name, frame, late).info["cut"]


def test_late_frames_that_have_not_joined_keep_their_first_estimate(sixteen):
    """Frames of few users join at a lower level; if time is up before, LMMSE on the pilots answers."""
    _, obs = sixteen
    few = torch.ones(16, 12, dtype=torch.bool)
    few[8:, 3:] = False
    polls = []
    late = dataclasses.replace(obs, hurry=lambda: polls.append(1) or len(polls) > 4)
    found = create("pc-jcedd", weights="gaussian", **SHORT)(late, active=few, generator=generator(3, "x"))
    waiting = found.info["steps"] == 0
    assert found.info["cut"]
    assert bool(waiting[8:].all())
    assert not bool(waiting[:8].all())
    first = create("lmmse-lmmse")(obs, active=few)
    torch.testing.assert_close(found.channel[waiting], first.channel[waiting], rtol=1e-3, atol=1e-3)


def test_late_in_a_data_sampler_leaves_no_noise_of_the_level(sixteen):
    """Called off while the first data sampler runs, the channel is a posterior mean, not the state of the chain."""
    frame, obs = sixteen
    one = dataclasses.replace(obs, pilot_rx=obs.pilot_rx[:1], data_rx=obs.data_rx[:1])
    truth = dataclasses.replace(frame, active=frame.active[:1], channel=frame.channel[:1])
    polls = []
    late = dataclasses.replace(one, hurry=lambda: polls.append(1) or len(polls) > 40)
    found = receive("pc-jcedd", truth, late, **{**SHORT, "n_x": 200})
    assert found.info["cut"]
    assert found.info["updates"] == 0
    assert nmse_db(truth, found) < nmse_db(truth, receive("lmmse-lmmse", truth, one)) - 1


def test_start_from_noise_takes_all_steps_and_needs_loses_nothing(sixteen):
    frame, obs = sixteen
    found = receive("pc-jcedd", frame, obs, **SHORT, start="noise")
    assert found.info["steps"].tolist() == [SHORT["n_h"]] * 16
    assert found.info["nfe"] == 4 * SHORT["n_h"] + found.info["updates"]
    assert nmse_db(frame, found) < nmse_db(frame, receive("pc-jcedd", frame, obs, **SHORT)) + 1
    cut = receive("pc-jcedd", frame, dataclasses.replace(obs, hurry=lambda: True), **SHORT, start="noise")
    assert nmse_db(frame, cut) < 0


def test_feedback_and_other_alphabets(sixteen):
    frame, obs = sixteen
    for feedback in ("hard", "raw"):
        assert nmse_db(frame, receive("pc-jcedd", frame, obs, **SHORT, feedback=feedback)) < -14
    config = PAPER.replace(modulation="16qam", snr_db=22.0)
    frame, obs = Simulation(config, 1).frames(0, 4)
    assert ber(frame, receive("perfect-csi-pc", frame, obs, n_x=150), "16qam") < 0.02


def test_options_that_make_no_sense(sixteen):
    _, obs = sixteen
    for options in ({"method": "sde"}, {"guidance": "none"}, {"feedback": "loud"}, {"start": "zero"}, {"step_rule": "large"}):
        with pytest.raises(UnknownNameError, match="choose one of"):
            create("pc-jcedd", **options)
    for options in ({"n_update": 0}, {"n_h": 0}, {"r": 0.0}, {"corrections": -1}, {"sigma_min": 50.0}):
        with pytest.raises(ConfigError, match="pass"):
            create("pc-jcedd", **options)
    with pytest.raises(ShapeError, match="booleans"):
        create("pc-jcedd", **SHORT)(obs, active=torch.ones(1, 1, dtype=torch.bool))
