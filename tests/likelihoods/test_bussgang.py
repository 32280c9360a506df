"""The one-bit converter made linear: gain 1 and the covariance of the arcsine law, both as counted."""

from __future__ import annotations

import torch

from massaccess.likelihoods.bussgang import linearized, whitened
from massaccess.rng import complex_normal, generator


def correlated(size: int = 4) -> torch.Tensor:
    root = complex_normal(size, size, generator=generator(3, "root"), dtype=torch.complex128)
    return root @ root.mH + 0.3 * torch.eye(size)


def test_gain_and_covariance_are_as_counted() -> None:
    cov = correlated()
    noise = 0.3 * torch.eye(4, dtype=cov.dtype)
    draws = complex_normal(4, 400_000, generator=generator(3, "draws"), dtype=torch.complex128)
    z = torch.linalg.cholesky(cov) @ draws
    y, noise_cov = linearized(z[None], cov[None], noise[None])
    size = cov.abs().max()
    counted = y[0] @ z.mH / draws.shape[1]
    assert (counted - cov).abs().max() < 0.01 * size
    counted = y[0] @ y[0].mH / draws.shape[1]
    assert (counted - (cov - noise + noise_cov[0])).abs().max() < 0.02 * size


def test_distortion_is_a_covariance() -> None:
    cov = correlated(12)[None]
    _, noise_cov = linearized(torch.zeros(1, 12, 1, dtype=cov.dtype), cov, torch.zeros_like(cov))
    assert torch.linalg.eigvalsh(noise_cov).min() > 0


def test_whitening() -> None:
    cov = correlated()[None]
    (root,) = whitened(cov, torch.linalg.cholesky(cov))
    torch.testing.assert_close(root, torch.eye(4, dtype=cov.dtype)[None])
