"""Beams of a planar array that users share as little as possible: eigenvectors over its rows, the DFT over its columns.

Users are narrow in azimuth and alike in elevation, so a beam that holds one user holds few others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def vertical_basis(covariance: Tensor, rows: int, columns: int) -> Tensor:
    """Eigenvectors of the row covariance [rows rows] complex128, from E[h h^H] [M M] of the array."""
    blocks = covariance.to(torch.complex128).reshape(rows, columns, rows, columns)
    vectors: Tensor = torch.linalg.eigh(torch.einsum("acbc->ab", blocks) / columns)[1]
    return vectors.contiguous()


def with_columns(vertical: Tensor, columns: int) -> Tensor:
    """Rows of channels turn into beams with this [M M] complex64: conjugate ``vertical`` [rows rows] times the DFT over the columns."""
    k = torch.arange(columns, dtype=torch.float64, device=vertical.device)
    horizontal = torch.exp(-2j * math.pi * k[:, None] * k / columns) / math.sqrt(columns)
    return torch.kron(vertical.to(torch.complex128).contiguous(), horizontal).conj().to(torch.complex64)


def separable_basis(covariance: Tensor, rows: int, columns: int) -> Tensor:
    """Both in one: rows of channels with E[h h^H] = ``covariance`` [M M] turn into beams with this [M M] complex64."""
    return with_columns(vertical_basis(covariance, rows, columns), columns)
