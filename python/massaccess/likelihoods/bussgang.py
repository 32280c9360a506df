"""The one-bit converter made linear: Bussgang's theorem and the arcsine law.

For Gaussian input z, complex signs are a linear function of z plus a distortion that is uncorrelated with it; its covariance is known
exactly (Van Vleck and Middleton, Proc. IEEE 1966; Li, Tao, Seco-Granados, Mezghani, Swindlehurst, Liu, "Channel estimation and
performance analysis of one-bit massive MIMO systems", IEEE Trans. Signal Process. 2017, eq. 11-17).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .real_form import signs


def linearized(samples: Tensor, cov: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(y, noise_cov): y = z + CN(0, noise_cov - noise) to second order, for samples [B n P] (complex, of which only the signs count) of
    z ~ CN(0, cov), columns alike. cov [B n n]: of z, noise included; noise [B n n]: the part of it that is no signal.

    y is scaled to a Bussgang gain of 1, with D the diagonal of cov and rho the coefficients of correlation:
    noise_cov = noise + sqrt(D) (asin(Re rho) + i asin(Im rho) - rho) sqrt(D).
    """
    scale = cov.diagonal(dim1=-2, dim2=-1).real.sqrt()
    outer = scale[..., :, None] * scale[..., None, :]
    rho = cov / outer
    arcs = torch.complex(rho.real.clamp(-1, 1).asin(), rho.imag.clamp(-1, 1).asin())
    seen = torch.complex(signs(samples.real), signs(samples.imag))
    return seen * (0.5 * math.sqrt(math.pi) * scale[..., None]), noise + outer * (arcs - rho)


def whitened(noise_cov: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """L^-1 columns for each of columns [B n ...], L the Cholesky factor of noise_cov [B n n]: their noise becomes CN(0, I)."""
    root = torch.linalg.cholesky(noise_cov)
    return tuple(torch.linalg.solve_triangular(root, column, upper=False) for column in columns)
