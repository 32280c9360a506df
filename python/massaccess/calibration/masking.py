"""What takes the place of antennas that do not work.

Of the cheap ways, the one that loses nothing is to fill in what the others say that a masked antenna receives: its conditional mean under
the array's covariance. The receiver then does as well as one whose array never had the antenna, and keeps its prior; zeros, or noise,
tell it that the channels are zero there (benchmarks/calibration/RESULTS.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError

LEAST_ALIVE = 1


def filling(mask: Tensor, covariance: Tensor | None, noise: float = 0.03) -> Tensor:
    """Weights [masked, used] that make masked antennas out of those that ``mask`` [M] bool says to use.

    ``covariance`` [M M] is E[h h^H] of the users' channels, ``None`` where it is not known: then the weights are zero. ``noise`` is the
    variance of the noise over the power of all users together, as an antenna receives them. Raises ShapeError and ConfigError.

    >>> filling(torch.tensor([True, False]), torch.tensor([[1, 0.5], [0.5, 1]]).cfloat(), 0.25).real
    tensor([[0.4000]])
    """
    used = int(mask.sum())
    if used < LEAST_ALIVE:
        raise ConfigError("no antenna is left: the mask leaves none to receive with")
    if covariance is None:
        return torch.zeros(len(mask) - used, used, dtype=torch.complex64, device=mask.device)
    if covariance.shape != (len(mask), len(mask)):
        raise ShapeError(f"covariance is {list(covariance.shape)} and the mask has {len(mask)} antennas: pass [antennas, antennas]")
    if not noise > 0:
        raise ConfigError(f"noise is {noise}: pass the noise variance over the users' power, above 0")
    level = covariance.diagonal().real.mean()
    inside = covariance[mask][:, mask] + noise * level * torch.eye(used, dtype=covariance.dtype, device=mask.device)
    return torch.linalg.solve(inside, covariance[mask][:, ~mask]).mH.resolve_conj()


def fill(samples: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """``samples`` [... M] with the masked antennas made out of the others by `filling`."""
    filled = samples.clone()
    filled[..., ~mask] = samples[..., mask] @ weights.to(samples.dtype).mT
    return filled
