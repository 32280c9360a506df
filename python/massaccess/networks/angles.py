"""Holder of a mixture of angular profiles, so that its file is a weights file like any other; `priors.profiles` is what works with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError, NotFiniteError
from .separable import with_columns

ROUNDING = 1e-4  # of single precision: of the sum of the weights, and of the vertical basis


class Angles(nn.Module):
    """Rows h^T of channels that are, in beams, independent Gaussians of the variances of one of ``components`` profiles.

    Beams are ``vertical`` [rows rows 2] (orthonormal columns, real and imaginary parts) over the rows of the array, times the DFT over its
    columns; weight [K], power [K M] of each profile in each beam.

    >>> mean, error = Angles(2, 2, components=3)(torch.ones(5, 4) + 0j, torch.ones(5))
    >>> round(mean[0, 0].real.item(), 3), error.shape
    (0.5, torch.Size([5, 4]))
    """

    def __init__(self, rows: int, columns: int, components: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.weight = nn.Parameter(torch.full((components,), 1 / max(components, 1)), requires_grad=False)
        self.power = nn.Parameter(torch.ones(components, rows * columns), requires_grad=False)
        self.vertical = nn.Parameter(torch.view_as_real(torch.eye(rows, dtype=torch.complex64)).clone(), requires_grad=False)

    @property
    def basis(self) -> Tensor:
        """Antenna rows [R M] turn into beams with this [M M] complex."""
        return with_columns(torch.view_as_complex(self.vertical), self.columns)

    @property
    def covariance(self) -> Tensor:
        """E[h h^H] of each component in antenna order [K M M] complex."""
        outward = self.basis.conj()
        return (outward * self.power[:, None, :]) @ outward.mH

    def verify(self) -> None:
        """NotFiniteError or ConfigError unless these are probabilities, powers, and an orthonormal basis."""
        if not all(bool(torch.isfinite(value).all()) for value in self.parameters()):
            raise NotFiniteError("the angular profiles hold NaN or infinity")
        total = float(self.weight.double().sum())
        if not bool((self.weight >= 0).all()) or abs(total - 1) > ROUNDING:
            raise ConfigError(f"the weights of profiles are probabilities, and these sum to {total:.6g}, none below 0 allowed")
        if not bool((self.power > 0).all()):
            raise ConfigError("an angular profile has a beam without power: leave a little everywhere")
        vertical = torch.view_as_complex(self.vertical)
        if not torch.allclose(vertical.mH @ vertical, torch.eye(self.rows, dtype=vertical.dtype), atol=ROUNDING):
            raise ConfigError("the vertical basis of the profiles is not orthonormal")

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """E[h | x] [R M] for x [R M] = h + noise of variance noise_var [R], and the error's variance in beams [R M]."""
        inner, noise = x @ self.basis, noise_var[:, None]
        total = self.power[:, None] + noise  # [K R M]
        joint = self.weight.log()[:, None] - (inner.abs().square() / total + total.log()).sum(-1)
        share = torch.softmax(joint, 0)[..., None]
        shrink = self.power[:, None] / total
        mean = (share * shrink).sum(0) * inner
        second = (share * (shrink.square() * inner.abs().square() + shrink * noise)).sum(0)
        return mean @ self.basis.mH, (second - mean.abs().square()).clamp_min(0)
