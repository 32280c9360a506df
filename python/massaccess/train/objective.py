"""Denoising score matching, written as a denoiser's squared error.

Score matching with lambda(sigma) = sigma^2 is E |sigma s + z|^2 = E |D(x) - h|^2 / sigma^2 for x = h + sigma z and s = (D - x) / sigma^2
(Song et al. 2021, eq. 7; P0 eq. 5), which is the weighting "dsm".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..priors.beams import Beams
from .recipe import Noise

OUTLIER = 50.0  # of a row's weighted error, which is about 1: what a receiver that went astray made teaches nothing


def noise_levels(noise: Noise, count: int, *, generator: torch.Generator) -> Tensor:
    """Noise variances sigma^2 [count]; with "log-uniform" this is sigma(t) of P1 with t uniform."""
    low, high = 2 * math.log(noise.least), 2 * math.log(noise.greatest)
    if noise.kind == "log-uniform":
        return torch.exp(low + (high - low) * torch.rand(count, generator=generator, device=generator.device))
    nepers = math.log(10) / 10
    level = nepers * (noise.centre_db + noise.spread_db * torch.randn(count, generator=generator, device=generator.device))
    return torch.exp(level.clamp(low, high))


def level_weights(noise: Noise, noise_var: Tensor, power: Tensor) -> Tensor:
    """Weight [R] of a squared error at noise_var [R M] or [R 1]; ``power`` [M]: of each beam (of an entry, for matrices)."""
    if noise.weighting == "dsm":
        return 1 / noise_var.mean(-1)
    return 1 / (power / (power + noise_var) * noise_var).mean(-1)


def loss(
    network: Callable[..., tuple[Tensor, Tensor | None]],
    clean: Tensor,
    white: Tensor,
    noise_var: Tensor,
    *,
    noise: Noise,
    beams: Beams,
    nll: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss in white noise of variance noise_var [R], and its parts; see `weigh`."""
    deviation = noise_var.sqrt().reshape(-1, *[1] * (clean.ndim - 1))
    mean, head = network(clean + deviation * white, noise_var)
    return weigh(mean - clean, head, noise_var[:, None], noise=noise, beams=beams, nll=nll)


def weigh(
    miss: Tensor, head: Tensor | None, noise_var: Tensor, *, noise: Noise, beams: Beams, nll: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of errors ``miss``, and its parts: ``error``, the weighted squared error of an entry, and ``nll``, the Gaussian negative
    log-likelihood of the detached error in beams under the network's error head (``nll`` is its share; zero without a head)."""
    squared = (miss.real.square() + miss.imag.square()).flatten(1).mean(1)
    error = (level_weights(noise, noise_var, beams.power) * squared).clamp_max(OUTLIER).mean()
    if head is None or not nll:
        return error, {"error": error.detach()}
    found = beams.into(miss.detach()).abs().square()
    surprise = (found / head + head.log() - noise_var.log()).mean()
    return error + nll * surprise, {"error": error.detach(), "nll": surprise.detach()}
