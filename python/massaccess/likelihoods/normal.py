"""The normal distribution, exact in both tails: masses, slopes, quadrature."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

LOGISTIC = 1.702
"""Slope of the logistic function that is nearest to the normal distribution function."""

ROOT_HALF, ROOT_2_PI = math.sqrt(0.5), math.sqrt(2 / math.pi)
FAR = 10.0  # beyond it the tail is written as a continued fraction: single precision would run out


def mills(z: Tensor) -> Tensor:
    """phi(z) / Phi(z), the inverse Mills ratio; any shape.

    >>> [round(value, 4) for value in mills(torch.tensor([-30.0, 0.0, 9.0])).tolist()]
    [30.0333, 0.7979, 0.0]
    """
    if z.dtype == torch.float64:
        return ROOT_2_PI / torch.special.erfcx(-ROOT_HALF * z)
    near, far = z.clamp_min(-FAR), -z.clamp_max(-FAR)
    ratio = torch.exp(-0.5 * near.square()).mul_(ROOT_2_PI).div_(torch.erfc(-ROOT_HALF * near))
    return torch.where(z > -FAR, ratio, far + 1 / (far + 2 / far))


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)); any shape, one edge may be infinite, and slopes stay finite."""
    flip = low + high > 0  # to the side where Phi is small
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    open_below = low.isinf()
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(torch.where(open_below, high, low))
    fall = torch.where(open_below, -torch.inf, bottom - top)
    return top + torch.log(-torch.expm1(fall.clamp_max(-torch.finfo(top.dtype).tiny)))


@cache
def hermite(nodes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights of Gauss-Hermite quadrature for a standard normal; the weights sum to 1."""
    from numpy.polynomial.hermite_e import hermegauss

    node, weight = hermegauss(nodes)
    return tuple(node.tolist()), tuple((weight / weight.sum()).tolist())
