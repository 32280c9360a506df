"""Complex linear models as real ones twice as large, real above imaginary parts: what receivers that see signs alone work with."""

from __future__ import annotations

import torch
from torch import Tensor


def parts(samples: Tensor) -> Tensor:
    """Real above imaginary parts: [... T P] complex to [... 2T P]."""
    return torch.cat([samples.real, samples.imag], -2)


def joined(rows: Tensor) -> Tensor:
    """The inverse of `parts`."""
    real, imag = rows.chunk(2, -2)
    return torch.complex(real, imag)


def after(first: Tensor, second: Tensor) -> Tensor:
    """One layout of real above imaginary parts behind the other, in time: [... 2L P] and [... 2D P] to [... 2(L+D) P]."""
    return parts(torch.cat([joined(first), joined(second)], -2))


def stacked(matrix: Tensor) -> Tensor:
    """The real matrix [... 2T 2K] with ``parts(matrix @ u) = stacked(matrix) @ parts(u)`` (P4 eq. 5 and 13).

    >>> stacked(torch.tensor([[1 + 2j]])).tolist()
    [[1.0, -2.0], [2.0, 1.0]]
    """
    return torch.cat([torch.cat([matrix.real, -matrix.imag], -1), torch.cat([matrix.imag, matrix.real], -1)], -2)


def signs(values: Tensor) -> Tensor:
    """+-1 of real values, any shape; zero counts as plus, as in the converter."""
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)
