"""Small Hermitian systems, many side by side ("lanes"), compiled for the CPU: the lanes of one matrix entry are contiguous in memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit


@njit(cache=True, nogil=True, fastmath=True)
def solve(ar, ai, size, xr, xi, var, br, bi):
    """For Hermitian positive A [K K W] (lower triangle, destroyed): x [K W] becomes A^-1 x, var the diagonal of A^-1.

    Only the first ``size`` rows count; br, bi [K W] are scratch. Cholesky A = C C^H, then C^-1 column by column.
    """
    lanes = xr.shape[1]
    for j in range(size):
        for k in range(j):
            for w in range(lanes):
                ar[j, j, w] -= ar[j, k, w] * ar[j, k, w] + ai[j, k, w] * ai[j, k, w]
        for w in range(lanes):
            ar[j, j, w] = 1.0 / math.sqrt(max(ar[j, j, w], 1e-30))  # the diagonal keeps the pivots' reciprocals
        for i in range(j + 1, size):
            for k in range(j):
                for w in range(lanes):
                    ar[i, j, w] -= ar[i, k, w] * ar[j, k, w] + ai[i, k, w] * ai[j, k, w]
                    ai[i, j, w] -= ai[i, k, w] * ar[j, k, w] - ar[i, k, w] * ai[j, k, w]
            for w in range(lanes):
                ar[i, j, w] *= ar[j, j, w]
                ai[i, j, w] *= ar[j, j, w]
    for i in range(size):
        for k in range(i):
            for w in range(lanes):
                xr[i, w] -= ar[i, k, w] * xr[k, w] - ai[i, k, w] * xi[k, w]
                xi[i, w] -= ar[i, k, w] * xi[k, w] + ai[i, k, w] * xr[k, w]
        for w in range(lanes):
            xr[i, w] *= ar[i, i, w]
            xi[i, w] *= ar[i, i, w]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            for w in range(lanes):
                xr[i, w] -= ar[k, i, w] * xr[k, w] + ai[k, i, w] * xi[k, w]
                xi[i, w] -= ar[k, i, w] * xi[k, w] - ai[k, i, w] * xr[k, w]
        for w in range(lanes):
            xr[i, w] *= ar[i, i, w]
            xi[i, w] *= ar[i, i, w]
    for j in range(size):
        for w in range(lanes):
            br[j, w] = ar[j, j, w]
            bi[j, w] = 0.0
            var[j, w] = br[j, w] * br[j, w]
        for i in range(j + 1, size):
            for w in range(lanes):
                br[i, w] = 0.0
                bi[i, w] = 0.0
            for k in range(j, i):
                for w in range(lanes):
                    br[i, w] -= ar[i, k, w] * br[k, w] - ai[i, k, w] * bi[k, w]
                    bi[i, w] -= ar[i, k, w] * bi[k, w] + ai[i, k, w] * br[k, w]
            for w in range(lanes):
                br[i, w] *= ar[i, i, w]
                bi[i, w] *= ar[i, i, w]
                var[j, w] += br[i, w] * br[i, w] + bi[i, w] * bi[i, w]


def split(values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary parts as contiguous float64 arrays."""
    parts = torch.view_as_real(values.resolve_conj()).to(torch.float64)
    return parts[..., 0].contiguous().numpy(), parts[..., 1].contiguous().numpy()
