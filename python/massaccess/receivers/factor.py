"""Gaussian factors over the symbols of a frame, in natural parameters: what access points and the fusion centre exchange."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..detection.linear import Symbols
from ..priors.constellation import ConstellationPrior

COVARIANCES = ("diagonal", "shared", "full")
"""Of the 2K real parts of a symbol vector: independent (P4) · one covariance for all symbols of a frame · one for each symbol vector."""
PRECISION = 2.0  # of a real part of a symbol of unit power, before anything is known
SURE, UNSURE = 1e-9, 1e9  # variances of symbols stay between


@dataclass(frozen=True)
class Factor:
    """exp(shift . x - x . precision x / 2) for each symbol vector x of 2K real parts, Re x above Im x.

    shift [B D 2K]; precision [B D 2K] for diagonal factors, otherwise [B D 2K 2K], or [B 1 2K 2K] where all symbols of a frame share it.
    """

    shift: Tensor
    precision: Tensor

    @staticmethod
    def prior(frames: int, data_len: int, slots: int, *, covariance: str, like: Tensor) -> Factor:
        """Independent unit-power symbols of ``slots`` users; ``like`` gives dtype and device."""
        shift = like.new_zeros(frames, data_len, 2 * slots)
        if covariance == "diagonal":
            return Factor(shift, torch.full_like(shift, PRECISION))
        eye = PRECISION * torch.eye(2 * slots, dtype=like.dtype, device=like.device)
        return Factor(shift, eye.expand(frames, 1 if covariance == "shared" else data_len, -1, -1))

    @property
    def diagonal(self) -> bool:
        return self.precision.ndim == 3

    def __add__(self, other: Factor) -> Factor:
        return Factor(self.shift + other.shift, self.precision + other.precision)

    def __sub__(self, other: Factor) -> Factor:
        return Factor(self.shift - other.shift, self.precision - other.precision)

    def nothing(self) -> Factor:
        """The factor 1 of the same shape."""
        return Factor(torch.zeros_like(self.shift), torch.zeros_like(self.precision))

    def towards(self, other: Factor, share: float) -> Factor:
        """``share`` of the way to ``other``: a damped update."""
        return (
            other
            if share == 1
            else Factor(*(torch.lerp(*ends, share) for ends in ((self.shift, other.shift), (self.precision, other.precision))))
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [B D 2K], and the variances [B D 2K] or covariances [B D|1 2K 2K]."""
        if self.diagonal:
            return self.shift / self.precision, 1 / self.precision
        spread = torch.cholesky_inverse(torch.linalg.cholesky(self.precision))
        return apply(spread, self.shift), spread

    def precise(self, vectors: Tensor) -> Tensor:
        """The precision times vectors [B D 2K]."""
        return self.precision * vectors if self.diagonal else apply(self.precision, vectors)

    def symbols(self, prior: ConstellationPrior) -> Symbols:
        """What this posterior says of each symbol [B D K] alone: the shrinkage of the Gaussian prior removed (unbiased), then the moments
        under the constellation."""
        mean, spread = self.moments()
        var = (spread if self.diagonal else spread.diagonal(dim1=-2, dim2=-1)).expand(mean.shape)
        free = 1 / (1 / var - PRECISION).clamp(1 / UNSURE, 1 / SURE)
        unbiased = torch.complex(*(free * mean / var).chunk(2, -1))
        symbol_var = sum(free.chunk(2, -1), torch.zeros_like(unbiased.real))
        found, doubt = prior.moments(unbiased, symbol_var.sqrt())
        return Symbols(unbiased, symbol_var, found, doubt)


def apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """matrix [B D|1 n n] times vectors [B D n]."""
    return vectors @ matrix[:, 0].mT if matrix.shape[1] == 1 else (matrix @ vectors[..., None])[..., 0]
