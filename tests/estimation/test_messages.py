"""Messages between samples and prior: what one division takes away the other puts back."""

from __future__ import annotations

import pytest
import torch

from massaccess.estimation.estimate import ChannelEstimate
from massaccess.estimation.lmmse import combine
from massaccess.estimation.messages import EMPTY, LEAST_NEWS, cavity, damped, first_message, next_message
from massaccess.rng import complex_normal, generator

SHAPE = (5, 3, 8)


def gaussian(seed: int, low: float = 0.1, high: float = 2.0) -> ChannelEstimate:
    draw = generator(seed, "messages")
    mean = complex_normal(*SHAPE, generator=draw, dtype=torch.complex128)
    return ChannelEstimate(mean, low + (high - low) * torch.rand(SHAPE, generator=draw, dtype=torch.float64))


def product(first: ChannelEstimate, second: ChannelEstimate) -> ChannelEstimate:
    error = 1 / (1 / first.error + 1 / second.error)
    return ChannelEstimate(error * (first.mean / first.error + second.mean / second.error), error)


def assert_same(left: ChannelEstimate, right: ChannelEstimate) -> None:
    torch.testing.assert_close(left.mean, right.mean)
    torch.testing.assert_close(left.error, right.error)


def test_the_cavity_is_what_the_samples_said():
    message, heard = gaussian(1), gaussian(2)
    assert_same(cavity(product(heard, message), message), heard)


def test_the_message_of_a_gaussian_prior_is_the_prior():
    prior, seen = gaussian(1), gaussian(2)
    assert_same(next_message(product(prior, seen), seen), prior)


def test_prior_and_samples_in_turns_stay_at_the_posterior():
    """Cavity and message undo one another: any number of rounds with a Gaussian prior leaves the posterior where it is."""
    draw = generator(3)
    sent = complex_normal(5, 6, 3, generator=draw, dtype=torch.complex128)
    rx = complex_normal(5, 6, 8, generator=draw, dtype=torch.complex128)
    noise_var, present = torch.full((5, 6, 1), 0.4, dtype=torch.float64), torch.ones(5, 3, dtype=torch.bool)
    prior = gaussian(1, low=0.5)
    message = prior
    first = combine(rx, sent, noise_var=noise_var, known=prior, present=present)
    for _ in range(3):
        posterior = combine(rx, sent, noise_var=noise_var, known=message, present=present)
        seen = cavity(posterior, message)
        message = next_message(product(prior, seen), seen)
    assert_same(posterior, first)
    assert_same(message, prior)


def test_a_prior_that_knows_nothing_sends_next_to_nothing():
    seen = gaussian(1)
    for error in (seen.error, 1.5 * seen.error, seen.error * (1 - 1e-3)):
        message = next_message(ChannelEstimate(seen.mean + 0.1, error), seen)
        assert bool((message.error >= EMPTY * seen.error * (1 - 1e-3)).all())
        torch.testing.assert_close(message.mean, seen.mean + 0.1)
    again = product(message, seen)
    torch.testing.assert_close(again.error, seen.error, rtol=0.03, atol=0)


def test_samples_that_say_nothing_leave_a_wide_cavity():
    message = gaussian(1)
    seen = cavity(message, message)
    torch.testing.assert_close(seen.error, message.error / LEAST_NEWS)
    worse = cavity(ChannelEstimate(message.mean, 2 * message.error), message)
    assert bool((worse.error > 0).all() and torch.isfinite(torch.view_as_real(worse.mean)).all())


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_damping_mixes_precisions(share):
    new, old = gaussian(1), gaussian(2)
    mixed = damped(new, old, share)
    torch.testing.assert_close(1 / mixed.error, share / new.error + (1 - share) / old.error)
    torch.testing.assert_close(mixed.mean / mixed.error, share * new.mean / new.error + (1 - share) * old.mean / old.error)


def test_damping_ends():
    new, old = gaussian(1), gaussian(2)
    assert damped(new, old, 1.0) is new
    assert_same(damped(new, new, 0.3), new)
    unchanged = damped(new, old, 0.0)
    assert_same(unchanged, old)


def test_the_first_message_is_the_power():
    like = torch.zeros(SHAPE, dtype=torch.complex64)
    start = first_message(torch.arange(1.0, 9.0), like)
    assert start.mean.shape == start.error.shape == SHAPE and start.mean.dtype == torch.complex64
    assert torch.equal(start.error[3, 2], torch.arange(1.0, 9.0)) and not bool(start.mean.any())
