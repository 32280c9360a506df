"""Linear Gaussian observations y = a x + w in the scores and denoisers of the unknown x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .few_step import Denoised
from .langevin import Score

Moments = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""(x [B K C], sigma) -> mean [B K C] and variance of its entries, broadcasting to [B K C]."""


@dataclass(frozen=True)
class LinearGaussian:
    """y [B T C] = a [B T K] x [B K C] + CN(0, noise_var), the C columns alike, through the singular value decomposition of a.

    basis [B K R]: right singular vectors, R = min(T, K); energy [B R 1]: squared singular values; matched [B R C] = basis^H a^H y.
    """

    basis: Tensor
    energy: Tensor
    matched: Tensor
    noise_var: float

    @staticmethod
    def of(y: Tensor, a: Tensor, *, noise_var: float, row_noise: Tensor | None = None, squared: bool = False) -> LinearGaussian:
        """``row_noise`` [B T]: further variance of each row's noise, on top of ``noise_var``. ``squared`` decomposes a^H a instead: several
        times faster with half the digits, for an ``a`` that serves one step only."""
        if row_noise is not None:
            weight = (noise_var / (noise_var + row_noise)).sqrt()[..., None]
            y, a = y * weight, a * weight
        if squared:
            energy, basis = torch.linalg.eigh(a.mH @ a)
            return LinearGaussian(basis, energy.clamp_min(0)[..., None], basis.mH @ (a.mH @ y), noise_var)
        left, singular, right = torch.linalg.svd(a, full_matrices=False)
        matched = singular[..., None] * (left.mH @ y)
        return LinearGaussian(right.mH, singular.square()[..., None], matched, noise_var)

    def pull(self, x: Tensor, var: Tensor | float) -> Tensor:
        """a^H (noise_var I + var a a^H)^-1 (y - a x): the gradient of log p(y | x) when x itself is known up to CN(0, var).

        With var = sigma^2 it is P1 eq. (20) and (23b). ``var`` may differ from column to column, [B 1 C], and is the same for all rows.
        """
        return self.basis @ ((self.matched - self.energy * (self.basis.mH @ x)) / (self.noise_var + var * self.energy))

    def affine(self, var: float, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """matrix [B K K] and offset [B K C] with weight * pull(x, var) = offset - matrix @ x: for many steps at one level."""
        scaled = self.basis * (weight / (self.noise_var + var * self.energy)).mT
        return scaled @ (self.energy * self.basis.mH), scaled @ self.matched

    def posterior(self, mean: Tensor, var: Tensor | float) -> Tensor:
        """E[x | y] for x ~ CN(mean, var I), var as in `pull`."""
        return mean + var * self.pull(mean, var)


def flat(moments: Moments, seen: LinearGaussian, *, weight: float = 1.0) -> Score:
    """The posterior score of P1 eq. (23c): the prior's plus ``weight`` (lambda) times the likelihood's, which takes x0 given x_t as
    CN(x_t, sigma^2 I), as if the prior were flat. Too timid where the prior is sharper than sigma: hence the papers' weight of 2.5.
    """

    def score(x: Tensor, sigma: float) -> Tensor:
        return (moments(x, sigma)[0] - x) / sigma**2 + weight * seen.pull(x, sigma**2)

    return score


def guided(moments: Moments, seen: LinearGaussian, *, weight: float = 1.0) -> Score:
    """The posterior score that takes x0 given x_t as CN(mean, var I) with the prior's own moments (Song et al. 2023, "PiGDM", eq. 8, with
    the Jacobian var / sigma^2 that Tweedie's second formula gives), variances averaged over rows: exact for Gaussian priors that treat all
    rows alike and have uncorrelated columns.
    """
    return score_of(denoiser(moments, seen, weight=weight))


def denoiser(moments: Moments, seen: LinearGaussian, *, weight: float = 1.0) -> Denoised:
    """E[x0 | x_t, y] under the same assumption: what few-step solvers take, and the last word of a sampler that was cut short."""

    def mean_of(x: Tensor, sigma: float) -> Tensor:
        mean, var = moments(x, sigma)
        var = var.mean(1, keepdim=True) if var.ndim == 3 else var
        return mean + weight * var * seen.pull(mean, var)

    return mean_of


def denoised(score: Score) -> Denoised:
    """The posterior mean that belongs to a score, by Tweedie's formula."""

    def mean_of(x: Tensor, sigma: float) -> Tensor:
        return x + sigma**2 * score(x, sigma)

    return mean_of


def row_denoiser(moments: Moments, y: Tensor, a: Tensor, *, noise_var: float, weight: float = 1.0) -> Denoised:
    """As `denoiser`, with a variance for each row of x [B K C], ``var`` [B K 1] or [B K C]: for priors under which rows differ, such as
    silent ones among active ones. One T x T system a call, for y [B T C] = a [B T K] x + CN(0, noise_var)."""
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)

    def mean_of(x: Tensor, sigma: float) -> Tensor:
        mean, var = moments(x, sigma)
        spread = a * var.mean(2)[:, None, :]
        return mean + weight * spread.mH @ torch.linalg.solve(noise_var * eye + spread @ a.mH, y - a @ mean)

    return mean_of


def score_of(denoised: Denoised) -> Score:
    """The score that belongs to a posterior mean, by Tweedie's formula."""

    def score(x: Tensor, sigma: float) -> Tensor:
        return (denoised(x, sigma) - x) / sigma**2

    return score
