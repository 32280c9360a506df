"""Ideal converters: the sample is the noiseless value plus noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """samples [...] = z + CN(0, noise_var), noise_var broadcasts.

    >>> mean, var = Linear(torch.ones(1) + 0j, torch.ones(1)).moments(torch.zeros(1) + 0j, torch.ones(1))
    >>> mean.real.item(), var.item()
    (0.5, 0.5)
    """

    samples: Tensor
    noise_var: Tensor

    def moments(self, z: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """As `core.Likelihood` says."""
        share = var / (var + self.noise_var)
        return z + share * (self.samples - z), share * self.noise_var

    def take(self, frames: Tensor) -> Linear:
        """The frames [B] that ``frames`` (indices or a mask) picks; the noise variance is one number a frame, [B 1 1]."""
        return Linear(self.samples[frames], self.noise_var[frames])

    def at(self, times: slice) -> Linear:
        """The symbol times ``times`` of all frames."""
        return Linear(self.samples[:, times], self.noise_var)

    def log_evidence(self, z: Tensor, var: Tensor) -> Tensor:
        """log p(y) of each sample [...] under the prior CN(z, var), up to a constant of the samples."""
        total = var + self.noise_var
        return -(self.samples - z).abs().square() / total - torch.log(total)
