"""Denoising score matching, written as a denoiser's squared error.

Score matching with lambda(sigma) = sigma^2 is E |sigma s + z|^2 = E |D(x) - h|^2 / sigma^2 for x = h + sigma z and s = (D - x) / sigma^2
(Song et al. 2021, eq. 7; P0 eq. 5), which is the weighting "dsm".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .recipe import Noise


def noise_levels(noise: Noise, count: int, *, generator: torch.Generator) -> Tensor:
    """Noise variances sigma^2 [count]; with "log-uniform" this is sigma(t) of P1 with t uniform."""
    low, high = 2 * math.log(noise.least), 2 * math.log(noise.greatest)
    if noise.kind == "log-uniform":
        return torch.exp(low + (high - low) * torch.rand(count, generator=generator, device=generator.device))
    nepers = math.log(10) / 10
    level = nepers * (noise.centre_db + noise.spread_db * torch.randn(count, generator=generator, device=generator.device))
    return torch.exp(level.clamp(low, high))


def profiles(noise: Noise, level: Tensor, power: Tensor, *, generator: torch.Generator) -> Tensor:
    """Noise variances of beams [R M] with mean level [R]; a share ``noise.coloured`` of them not white.

    Those are white noise plus what other users leave behind: the error of a linear estimate at some other noise level s, power * s / (power
    + s), which runs from flat to the spectrum of the channel itself, with a ripple of 2 dB; their ratio is uniform.
    """
    count, device = len(level), level.device
    spread = power.mean() * 10 ** (4 * torch.rand(count, 1, generator=generator, device=device) - 2)
    ripple = 10 ** (0.2 * torch.randn(count, len(power), generator=generator, device=device))
    left = power * spread / (power + spread) * ripple
    share = torch.rand(count, 1, generator=generator, device=device)
    share = share * (torch.rand(count, 1, generator=generator, device=device) < noise.coloured)
    shape = 1 - share + share * left / left.mean(1, keepdim=True)
    return level[:, None] * shape


def level_weights(noise: Noise, noise_var: Tensor, power: Tensor) -> Tensor:
    """Weight [R] of a squared error at noise_var [R M] or [R 1]; ``power`` [M]: of each beam (of an entry, for matrices)."""
    if noise.weighting == "dsm":
        return 1 / noise_var.mean(-1)
    return 1 / (power / (power + noise_var) * noise_var).mean(-1)


def loss(
    denoiser: Callable[..., tuple[Tensor, Tensor | None]], clean: Tensor, noisy: Tensor, noise_var: Tensor, *, noise: Noise, power: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted squared error of ``denoiser`` and the likelihood of its error head, two numbers.

    clean, noisy [R M] in beams with noise_var [R M], for a denoiser of coloured noise; else in antennas (or matrices) with noise_var [R 1].
    The second is the Gaussian negative log-likelihood of the detached error, entry by entry, so clean must be in beams for it to count; it
    is zero without a head.
    """
    mean, head = denoiser(noisy, noise_var if noise_var.shape[1] > 1 else noise_var[:, 0])
    miss = mean - clean
    squared = (miss.real.square() + miss.imag.square()).flatten(1)
    error = (level_weights(noise, noise_var, power) * squared.mean(1)).mean()
    if head is None:
        return error, torch.zeros_like(error)
    return error, (squared.detach() / head + head.log() - noise_var.log()).mean()
