"""Training on the noise that the receiver makes: rows out of its own iterations, with the network as it is at that moment.

What a denoiser sees between pilots and data is no white noise: it is what is left of other users' channels, strong where channels are
strong. A network trained on white noise alone takes that for signal, and claims an error that is two to three times too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..estimation.estimate import ChannelEstimate
from ..estimation.lmmse import combine
from ..estimation.messages import cavity, damped, first_message, next_message
from ..rng import complex_normal
from .recipe import Policy

SURE = 1e-5  # variance of a symbol that is all but known


@dataclass(frozen=True)
class Situation:
    """Some frames of ``users`` active users: rx and sent [B T M or K], noise_var [B T M or 1], channel [B K M], all in beams."""

    rx: Tensor
    sent: Tensor
    noise_var: Tensor
    channel: Tensor


@torch.no_grad()
def rows(network: nn.Module, channels: Tensor, policy: Policy, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x [R M], its noise variance [R M] and the clean channel [R M], all in beams, after a random number of iterations in a random
    situation: users, pilots, SNR, with or without data that are softly known. channels [R' M] in beams are those of the users."""
    users = _integer(policy.users, generator)
    frames = max(len(channels) // users, 1)
    situation = _situation(channels[: frames * users].reshape(frames, users, -1), policy, generator)
    seen = _iterate(network, situation, policy, generator)
    return seen.mean.flatten(0, 1), seen.error.flatten(0, 1), situation.channel.flatten(0, 1)


def _situation(channel: Tensor, policy: Policy, generator: torch.Generator) -> Situation:
    frames, users, beams = channel.shape
    extra = _integer(policy.pilots_beyond_users, generator)
    pilots = _qpsk(frames, max(users + extra, 2), users, generator)
    low, high = policy.snr_db
    snr_db = low + (high - low) * torch.rand(frames, 1, 1, generator=generator, device=channel.device)
    noise_var = users * 10 ** (-snr_db / 10)
    rx = pilots @ channel + noise_var.sqrt() * complex_normal(frames, pilots.shape[1], beams, generator=generator)
    if float(torch.rand((), generator=generator, device=channel.device)) >= policy.with_data:
        return Situation(rx, pilots, noise_var.expand(-1, pilots.shape[1], 1), channel)
    known, unknown_var = _soft_symbols(frames, _integer(policy.data, generator), users, generator)
    symbols = known + unknown_var.sqrt() * complex_normal(*known.shape, generator=generator)
    data = symbols @ channel + noise_var.sqrt() * complex_normal(*known.shape[:2], beams, generator=generator)
    louder = noise_var + unknown_var @ channel.abs().square()
    quiet = noise_var.expand(-1, pilots.shape[1], beams)
    return Situation(torch.cat([rx, data], 1), torch.cat([pilots, known], 1), torch.cat([quiet, louder], 1), channel)


def _soft_symbols(frames: int, times: int, users: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Posterior means [B D K] and variances of unit-power symbols: some frames know nearly all, others little."""
    share = torch.rand(frames, 1, 1, generator=generator, device=generator.device)
    level = torch.where(share < 0.3, math.log10(SURE), -3 + 2.7 * (share - 0.3) / 0.7)
    swing = torch.randn(frames, times, users, generator=generator, device=generator.device)
    var = (10**level * torch.exp(0.7 * swing)).clamp_max(0.95)
    return (1 - var).sqrt() * _qpsk(frames, times, users, generator), var


def _iterate(network: nn.Module, situation: Situation, policy: Policy, generator: torch.Generator) -> ChannelEstimate:
    """The cavity that the prior sees after some iterations of the receiver."""
    channel = situation.channel
    frames, users, beams = channel.shape
    present = torch.ones(frames, users, dtype=torch.bool, device=channel.device)
    message = first_message(network.power, channel)  # type: ignore[arg-type]
    share = 0.6 + 0.4 * float(torch.rand((), generator=generator, device=channel.device))
    for iteration in range(_integer((0, policy.iterations), generator) + 1):
        posterior = combine(situation.rx, situation.sent, noise_var=situation.noise_var, known=message, present=present)
        seen = cavity(posterior, message)
        if iteration:
            found = network.in_beams(seen.mean.reshape(-1, beams), seen.error.reshape(-1, beams))  # type: ignore[operator]
            mean, error = (value.reshape(channel.shape) for value in found)
            message = damped(next_message(ChannelEstimate(mean, error), seen), message, 1.0 if iteration == 1 else share)
    return seen


def _integer(bounds: tuple[int, int], generator: torch.Generator) -> int:
    """Uniform over bounds, both included."""
    low, high = bounds
    return int(torch.randint(low, high + 1, (1,), generator=generator, device=generator.device))


def _qpsk(frames: int, times: int, users: int, generator: torch.Generator) -> Tensor:
    turn = math.pi / 4 * (2 * torch.randint(4, (frames, times, users), generator=generator, device=generator.device) + 1)
    return torch.polar(torch.ones_like(turn), turn)
