"""The spatial correlation module of P1: a residual network over the planar array, for any number of antennas."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SpatialCorrelation(nn.Module):
    """Received pilots [B L M] complex to samples of the same shape, before their covariance is taken (P1 Fig. 2).

    The array [rows columns] is an image of two channels, the real and the imaginary part; every pilot symbol is an image of its own.
    Convolutions have no bias, so symbols that are zero (padding) stay zero. The paper gives neither widths nor the number of blocks.

    >>> SpatialCorrelation(width=4)(torch.ones(2, 3, 6, dtype=torch.complex64), (2, 3)).shape
    torch.Size([2, 3, 6])
    """

    def __init__(self, width: int = 32, blocks: int = 2, kernel: int = 3) -> None:
        super().__init__()
        self.first = _convolution(2, width, kernel)
        self.blocks = nn.ModuleList(
            nn.Sequential(_convolution(width, width, kernel), nn.ReLU(), _convolution(width, width, kernel)) for _ in range(blocks)
        )
        self.last = _convolution(width, 2, kernel)

    def forward(self, rx: Tensor, grid: tuple[int, int]) -> Tensor:
        """rx [B L M] whose antennas count row by row over ``grid`` = (rows, columns)."""
        parts = torch.view_as_real(rx.resolve_conj()).flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)
        image = self.first(parts)
        for block in self.blocks:
            image = image + block(functional.relu(image))
        found = parts + self.last(functional.relu(image)).to(parts.dtype)
        return torch.view_as_complex(found.permute(0, 2, 3, 1).reshape(*rx.shape, 2).contiguous())


def _convolution(inside: int, outside: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
