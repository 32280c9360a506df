"""What the covariance says of a user, against models written out."""

from __future__ import annotations

import pytest
import torch

from massaccess.networks.covariance_statistics import evidence, features, statistics, whitened
from massaccess.rng import complex_normal

FRAMES, LENGTH, USERS, ANTENNAS = 3, 6, 9, 32


def situation(generator):
    rx = 2 * complex_normal(FRAMES, LENGTH, ANTENNAS, generator=generator, dtype=torch.complex128)
    book = complex_normal(FRAMES, LENGTH, USERS, generator=generator, dtype=torch.complex128)
    return rx, book, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def test_a_user_is_judged_by_the_model_without_itself(generator):
    rx, book, noise_var = situation(generator)
    power = torch.rand(FRAMES, USERS, dtype=torch.float64)
    found = statistics(whitened(rx, book, noise_var), power)
    frame, user = 1, 4
    others = power[frame].clone()
    others[user] = 0
    model = (book[frame] * others) @ book[frame].mH + noise_var[frame] * torch.eye(LENGTH)
    cov, pilot = rx[frame] @ rx[frame].mH / ANTENNAS, book[frame, :, user]
    image = torch.linalg.solve(model, pilot)
    assert float(found.precision[frame, user]) == pytest.approx(float((pilot.conj() @ image).real))
    assert float(found.energy[frame, user]) == pytest.approx(float((image.conj() @ cov @ image).real))
    whole = (book[frame] * power[frame]) @ book[frame].mH + noise_var[frame] * torch.eye(LENGTH)
    assert float(found.fit[frame]) == pytest.approx(float(torch.linalg.solve(whole, cov).diagonal().real.mean()))


def test_evidence_is_a_difference_of_log_likelihoods(generator):
    rx, book, noise_var = situation(generator)
    found = statistics(whitened(rx, book, noise_var), torch.zeros(FRAMES, USERS, dtype=torch.float64))
    cov, eye = rx[0] @ rx[0].mH / ANTENNAS, noise_var[0] * torch.eye(LENGTH, dtype=torch.complex128)

    def cost(model):
        return float(torch.logdet(model).real + torch.trace(torch.linalg.solve(model, cov)).real)

    alone = eye + 0.7 * book[0, :, 2:3] @ book[0, :, 2:3].mH
    assert float(evidence(found.precision, found.energy, 0.7)[0, 2]) == pytest.approx(cost(eye) - cost(alone))


def test_features_do_not_depend_on_units(generator):
    rx, book, noise_var = situation(generator)
    power = torch.rand(FRAMES, USERS, dtype=torch.float64)
    one = statistics(whitened(rx, book, noise_var), power)
    other = statistics(whitened(100 * rx, 100 * book, 1e4 * noise_var), power)
    one, other = (features(found.precision, found.energy, ANTENNAS) for found in (one, other))
    torch.testing.assert_close(one, other)
    assert one.shape == (FRAMES, USERS, 4)


def test_silence_and_very_high_snr_stay_finite(generator):
    rx, book, noise_var = (one.to(torch.complex64 if one.is_complex() else torch.float32) for one in situation(generator))
    for loud, noise in ((0.0, 1.0), (1.0, 1e-12), (1e-6, 1.0)):
        found = statistics(whitened(loud * rx, book, noise * noise_var), torch.ones(FRAMES, USERS))
        assert bool(torch.isfinite(features(found.precision, found.energy, ANTENNAS)).all())
