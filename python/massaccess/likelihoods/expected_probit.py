"""The probit log-likelihood of signs, averaged over a Gaussian: its slope and curvature, as variational inference asks for them.

For y = sign(z + noise), noise N(0, noise_var), and z ~ N(mean, var), natural gradients of E[log Phi(y z / sigma)] consist of E[d/dz] and
-E[d^2/dz^2] (Opper, Archambeau, Neural Computation 2009). The derivative of log Phi, the inverse Mills ratio, is convex and falls with a
slope from -1 to 0, so that its second derivative is a probability density; with a mixture of four normal densities in its place (`MIXTURE`,
fitted to the ratio within 7e-3 and to its slope within 2.1e-3, everywhere) the averages over z are closed forms, equally good for any var.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIXTURE = (  # weight, centre, deviation
    (0.410097, 0.017558, 1.191602),
    (0.135199, -2.357692, 2.228967),
    (0.020199, -10.570685, 6.888803),
    (0.434506, 1.299863, 0.846851),
)


def slopes(sign: Tensor, mean: Tensor, var: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
    """E[d/dz log Phi(sign z / sigma)] and -E[d^2/dz^2 ...] for z ~ N(mean, var), all real and of shapes that broadcast to sign's.

    >>> one = torch.ones(1)
    >>> slope, curvature = slopes(one, 0 * one, 0 * one, one)  # at z = 0 without doubt: 2 phi(0) and its square
    >>> [round(float(value), 2) for value in (slope, curvature)]
    [0.8, 0.64]
    """
    precision = 1 / noise_var
    scale = sign * precision.sqrt()
    centre, doubt = mean * scale, var * precision
    first, second = torch.zeros_like(centre), torch.zeros_like(centre)
    for weight, place, spread in MIXTURE:
        reach = (doubt + spread**2).sqrt_()
        edge = (place - centre).div_(reach)
        below = torch.erf((edge * math.sqrt(0.5)).clamp_(-5, 5)).add_(1).mul_(weight / 2)
        second.add_(below)
        density = (edge.square() * -0.5).clamp_min_(-60).exp_().mul_(weight / math.sqrt(2 * math.pi))
        first.add_(below.mul_(edge).add_(density).mul_(reach))
    return first.mul_(scale), second.mul_(precision)
