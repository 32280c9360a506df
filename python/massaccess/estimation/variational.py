"""Channels from signs: a Gaussian posterior of each antenna's row under the probit likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import unknown
from ..likelihoods.expected_probit import slopes
from .ascent import Ascent

COVARIANCES = ("shared", "diagonal")
PRECISION = 2.0  # of a real part of a channel entry of unit power, before anything is known


@dataclass(frozen=True)
class SignChannel:
    """mean [B 2K M]: real parts above imaginary parts of channels of unit prior power; spread: their covariance [B 2K 2K], the same for all
    antennas, or ``diagonal``, their variances [B 2K M]."""

    mean: Tensor
    spread: Tensor
    diagonal: bool = False

    @property
    def rows(self) -> Tensor:
        """Complex means [B K M]."""
        return torch.complex(*self.mean.chunk(2, 1))

    @property
    def error(self) -> Tensor:
        """Total variance of the complex entries [B K M]."""
        var = self.spread if self.diagonal else self.spread.diagonal(dim1=-2, dim2=-1)[..., None]
        real, imaginary = var.chunk(2, 1)
        return (real + imaginary).expand(-1, -1, self.mean.shape[2])


@dataclass(frozen=True)
class SignVariational:
    """argmax_q E_q[log p(signs | channel)] - KL(q || prior), q Gaussian, antenna by antenna (P4 sections 1.3.3 and 1.4.2), by natural
    gradients (Khan, Lin, AISTATS 2017), which need no step size and no samples.

    ``covariance="shared"``: q has one full covariance for all antennas that are estimated together, so one small inverse a frame;
    "diagonal" is P4's mean field. Departures from P4: slope and prior variance follow noise and channel power; ``slopes`` are closed forms.
    """

    steps: int = 10
    covariance: str = "shared"

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise unknown("covariance", self.covariance, COVARIANCES)

    def __call__(self, signs: Tensor, sent: Tensor, *, offset: Tensor, noise_var: Tensor, start: SignChannel | None = None) -> SignChannel:
        """signs [B 2T M] = sign(sent [B 2T 2K] (`likelihoods.real_form.stacked`) @ channel + offset [2T M] + noise), the noise of variance
        noise_var (broadcasts) per real part; start: an estimate to begin with."""
        eye = torch.eye(sent.shape[2], dtype=sent.dtype, device=sent.device)
        mean, spread = self._silence(signs, sent, eye) if start is None else (start.mean, start.spread)
        ascent = Ascent(dim=1)
        for _ in range(self.steps):
            var = sent.square() @ spread if self.diagonal else ((sent @ spread) * sent).sum(-1, keepdim=True)
            slope, curvature = slopes(signs, sent @ mean + offset, var, noise_var)
            gram = (sent * curvature.mean(-1, keepdim=True)).mT @ sent
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram + PRECISION * eye))
            gradient = sent.mT @ slope - PRECISION * mean
            mean = mean + ascent.step(inverse @ gradient, gradient)
            spread = 1 / (PRECISION + sent.square().mT @ curvature) if self.diagonal else inverse
        return SignChannel(mean, spread, self.diagonal)

    @property
    def diagonal(self) -> bool:
        return self.covariance == "diagonal"

    def _silence(self, signs: Tensor, sent: Tensor, eye: Tensor) -> tuple[Tensor, Tensor]:
        """The moments before anything was heard."""
        mean = sent.new_zeros(len(sent), sent.shape[2], signs.shape[2])
        return mean, torch.full_like(mean, 1 / PRECISION) if self.diagonal else (eye / PRECISION).expand(len(sent), -1, -1)
