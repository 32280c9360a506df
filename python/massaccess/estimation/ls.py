"""Least-squares channel estimation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.beams import Beams
from .estimate import ChannelEstimate


@dataclass(frozen=True)
class LeastSquares:
    """(S^H W S)^-1 S^H W y: no prior; W = 1 / row noise variance. With fewer symbols than users, the minimum-norm solution.

    P1's pilot-only baseline. Its error per user is [(S^H W S)^-1]_kk in every antenna.
    """

    def __call__(self, rx: Tensor, sent: Tensor, *, noise_var: Tensor, gain: Tensor, present: Tensor, beams: Beams) -> ChannelEstimate:
        """Channel of rx [B T M] = sent [B T K] channel [B K M] + noise of variance noise_var [B T M] or [B T 1], averaged over beams here;
        present [B K] bool: slots that are taken. Gains and the basis make no difference."""
        root = noise_var.mean(-1, keepdim=True).rsqrt()
        whitened = sent * root * present[:, None, :]
        inverse = torch.linalg.pinv(whitened.mH @ whitened, hermitian=True)
        error = inverse.diagonal(dim1=-2, dim2=-1).real * present
        return ChannelEstimate(inverse @ (whitened.mH @ (rx * root)), error[..., None].expand(-1, -1, rx.shape[2]))
