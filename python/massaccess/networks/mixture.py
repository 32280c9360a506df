"""Holder of a fitted Gaussian mixture, so that its file is a weights file like any other; receivers use `priors.mixture` on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError, NotFiniteError

ROUNDING = 1e-5  # of single precision: of the sum of the weights, and of a covariance relative to its mean power


class Mixture(nn.Module):
    """Rows h^T with h ~ sum_k weight_k CN(0, C_k): weight [K], covariance [K M M 2], real and imaginary parts of C_k in antenna order.

    structure: what the fit kept the covariances to, a key of `priors.mixture_fit.STRUCTURES`; it changes nothing here.

    >>> mean, error = Mixture(2, 2, components=3)(torch.ones(5, 4) + 0j, torch.ones(5))
    >>> mean[0, 0].item(), error
    ((0.5+0j), None)
    """

    def __init__(self, rows: int, columns: int, components: int, *, structure: str = "full") -> None:
        super().__init__()
        self.rows, self.columns, self.structure = rows, columns, structure
        antennas = rows * columns
        white = torch.view_as_real(torch.eye(antennas, dtype=torch.complex64)).expand(components, -1, -1, -1)
        self.weight = nn.Parameter(torch.full((components,), 1 / max(components, 1)), requires_grad=False)
        self.covariance = nn.Parameter(white.clone(), requires_grad=False)

    def verify(self) -> None:
        """NotFiniteError or ConfigError unless these are probabilities, and covariances: Hermitian, positive up to rounding."""
        if not all(bool(torch.isfinite(value).all()) for value in (self.weight, self.covariance)):
            raise NotFiniteError("the mixture holds NaN or infinity")
        total = float(self.weight.double().sum())
        if not bool((self.weight >= 0).all()) or abs(total - 1) > ROUNDING:
            raise ConfigError(f"the weights of a mixture are probabilities, and these sum to {total:.6g}, none below 0 allowed")
        matrix = torch.view_as_complex(self.covariance.double())
        slack = ROUNDING * matrix.diagonal(dim1=1, dim2=2).real.mean(-1)
        if not bool((slack > 0).all()):
            raise ConfigError("a covariance of the mixture has no power")
        if not bool(((matrix - matrix.mH).abs().amax((1, 2)) <= slack).all()):
            raise ConfigError("a covariance of the mixture is not Hermitian")
        lifted = matrix + slack[:, None, None] * torch.eye(matrix.shape[1], dtype=matrix.dtype)
        if bool(torch.linalg.cholesky_ex((lifted + lifted.mH) / 2).info.any()):
            raise ConfigError("a covariance of the mixture has negative eigenvalues")

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, None]:
        """E[h | x] [R M] for x [R M] = h + noise of variance noise_var [R], in plain sight: `priors.mixture.GaussianMixture` is the quick
        one, and knows its error."""
        power, basis = torch.linalg.eigh(torch.view_as_complex(self.covariance))
        inner, total = x @ basis.conj(), power.clamp_min(0)[:, None] + noise_var[:, None]
        joint = self.weight.log()[:, None] - (inner.abs().square() / total + total.log()).sum(-1)
        share = torch.softmax(joint, 0)[..., None]
        return (share * ((1 - noise_var[:, None] / total) * inner @ basis.mT)).sum(0), None
