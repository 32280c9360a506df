"""Channel estimators against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.estimation import lmmse
from massaccess.estimation.lmmse import Lmmse
from massaccess.estimation.ls import LeastSquares
from massaccess.forward.simulate import Simulation
from massaccess.priors.beams import Beams
from massaccess.registry import create
from massaccess.rng import complex_normal, generator


def problem(frames=3, times=9, users=5, antennas=6, coloured=True):
    draw = generator(1, "estimation")
    mix = complex_normal(antennas, antennas, generator=draw, dtype=torch.complex128)
    cov = mix @ mix.mH / antennas
    sent = complex_normal(frames, times, users, generator=draw, dtype=torch.complex128)
    rx = complex_normal(frames, times, antennas, generator=draw, dtype=torch.complex128)
    noise = 0.1 + torch.rand(frames, times, antennas if coloured else 1, generator=draw, dtype=torch.float64)
    gain = 0.2 + torch.rand(frames, users, generator=draw, dtype=torch.float64)
    present = torch.ones(frames, users, dtype=torch.bool)
    return rx, sent, noise, gain, present, cov


def test_lmmse_is_the_mean_of_the_joint_gaussian():
    """Against the MK x MK formula of P1 eq. (32), with the covariance of vec(H^T) built by Kronecker products."""
    rx, sent, noise, gain, present, cov = problem(coloured=False)
    beams = Beams.of(cov, antennas=6, like=rx)
    estimate = Lmmse()(beams.into(rx), sent, noise_var=noise, gain=gain, present=present, beams=beams)
    mean = beams.back(estimate.mean)
    for frame in range(len(rx)):
        prior = torch.kron(torch.diag(gain[frame]).to(cov.dtype), cov)  # of [h_1; h_2; ...]
        mixing = torch.kron(sent[frame], torch.eye(6, dtype=cov.dtype))
        noisy = torch.kron(torch.diag(noise[frame, :, 0]).to(cov.dtype), torch.eye(6, dtype=cov.dtype))
        gram = mixing @ prior @ mixing.mH + noisy
        gainm = torch.linalg.solve(gram, mixing @ prior).mH
        expected = (gainm @ rx[frame].reshape(-1)).reshape(5, 6)
        torch.testing.assert_close(mean[frame], expected, rtol=1e-6, atol=1e-8)
        posterior = (prior - gainm @ mixing @ prior).diagonal().real.reshape(5, 6)
        torch.testing.assert_close(estimate.error[frame].sum(-1), posterior.sum(-1), rtol=1e-6, atol=1e-8)


def test_beams_keep_energy_and_diagonalise():
    *_, cov = problem()
    rows = complex_normal(200000, 6, generator=generator(2), dtype=torch.complex128) @ torch.linalg.cholesky(cov).mT
    beams = Beams.of(cov, antennas=6, like=rows)
    turned = beams.into(rows)
    torch.testing.assert_close(beams.back(turned), rows)
    sample = turned.mH @ turned / len(rows)
    torch.testing.assert_close(sample.diagonal().real, beams.power, rtol=0.03, atol=0.01)
    assert float((sample - torch.diag(sample.diagonal())).abs().max()) < 0.02 * float(beams.power.max())


def test_compiled_lmmse_equals_batched():
    rx, sent, noise, gain, present, _ = problem()
    present[1, 3:] = False
    gain[1, 3:] = 0
    sent[1, :, 3:] = 0
    prec = torch.rand(*present.shape, 6, dtype=torch.float64, generator=generator(2)) + 0.5
    shift = complex_normal(*present.shape, 6, generator=generator(3), dtype=torch.complex128)
    left = lmmse._compiled(rx, sent, 1 / noise, prec, shift, present)
    right = lmmse._batched(rx, sent, 1 / noise, prec, shift, present)
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_least_squares_is_unbiased_with_the_error_it_claims():
    draw = generator(3)
    sent = complex_normal(1, 9, 4, generator=draw, dtype=torch.complex128).expand(20000, -1, -1)
    channel = complex_normal(20000, 4, 2, generator=draw, dtype=torch.complex128)
    rx = sent @ channel + math.sqrt(0.3) * complex_normal(20000, 9, 2, generator=draw, dtype=torch.complex128)
    noise = torch.full((20000, 9, 1), 0.3, dtype=torch.float64)
    ones = torch.ones(20000, 4)
    estimate = LeastSquares()(rx, sent, noise_var=noise, gain=ones, present=ones.bool(), beams=Beams.of(None, antennas=2, like=rx))
    error = estimate.mean - channel
    torch.testing.assert_close(error.abs().square().mean((0, 2)), estimate.error[0, :, 0], rtol=0.03, atol=0)


@pytest.mark.parametrize("snr_db", [5.0, 10.0])
def test_perfect_data_ls_has_the_closed_form_nmse(snr_db):
    """K / (snr (T - K)) for Gaussian pilots: the anchor of P1 Fig. 10; QPSK symbols are within 0.1 dB of it."""
    config = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=snr_db, channel="rayleigh")
    frame, obs = Simulation(config, 1).frames(0, 128)
    estimate = create("perfect-data-ls")(obs, truth=frame)
    nmse = float((estimate.channel - frame.channel).abs().square().sum() / frame.channel.abs().square().sum())
    assert 10 * math.log10(nmse) == pytest.approx(10 * math.log10(12 / (65 - 12)) - snr_db, abs=0.1)
