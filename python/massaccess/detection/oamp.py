"""Orthogonal approximate message passing data detection."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..priors.constellation import ConstellationPrior
from .linear import MatchedFilter, Symbols, finish


@dataclass(frozen=True)
class Oamp:
    """OAMP with the LMMSE linear stage and the constellation's posterior mean (Ma, Ping, IEEE Access 2017, eq. 12-17; P1's baseline [18]).

    Works on the whitened model, so the noise variance is 1. Error variances are averaged over the users and symbols of a frame, so that one
    inverse serves a whole frame; that average is what EP improves on. ``damping`` is the share of the new extrinsic message.
    """

    rounds: int = 10
    damping: float = 0.5
    floor: float = 1e-6

    def __call__(self, filtered: MatchedFilter, prior: ConstellationPrior) -> Symbols:
        """Detects all symbols of ``filtered``."""
        gram, match = filtered.gram, filtered.match
        here = filtered.present[:, None, :].expand(match.shape)
        users = filtered.present.sum(1).clamp_min(1)[:, None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        x, var = torch.zeros_like(match), match.real.new_ones(len(match), 1, 1)
        for _ in range(self.rounds):
            inverse = torch.linalg.inv(gram + eye / var)
            gained = inverse @ gram
            scale = users / _trace(gained).clamp_min(1e-9)
            error = x + scale * ((match - x @ gram.mT) @ inverse.mT)
            left = eye * filtered.present[:, None, :] - scale * gained
            noise = scale.square() * _trace(gained @ inverse)
            tau = ((left.abs().square().sum((1, 2), keepdim=True) * var + noise) / users).clamp_min(self.floor)
            mean, spread = prior.moments(error, tau.sqrt())
            post = (torch.where(here, spread, 0).sum((1, 2), keepdim=True) / (users * max(match.shape[1], 1))).clamp_min(self.floor)
            extrinsic = 1 / (1 / post - 1 / tau).clamp_min(1e-9)
            fresh = extrinsic * (mean / post - error / tau)
            x = self.damping * torch.where(here, fresh, 0) + (1 - self.damping) * x
            var = (self.damping * extrinsic + (1 - self.damping) * var).clamp(self.floor, 1.0)
        return finish(error, tau.expand(error.shape), filtered.present, prior)


def _trace(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)[:, None, None]
