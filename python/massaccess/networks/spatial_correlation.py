"""The spatial correlation module of P1: a residual network over the planar array, for any number of antennas."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SpatialCorrelation(nn.Module):
    """Received pilots, real and imaginary parts [B L M 2], to samples of the same shape, before their covariance is taken (P1 Fig. 2).

    The array [rows columns] is an image of two channels, the real and the imaginary part; every pilot symbol is an image of its own.
    Convolutions have no bias, so symbols that are zero (padding) stay zero. The paper gives neither widths nor the number of blocks.

    >>> import torch
    >>> SpatialCorrelation(width=4)(torch.ones(2, 3, 6, 2), (2, 3)).shape
    torch.Size([2, 3, 6, 2])
    """

    def __init__(self, width: int = 32, blocks: int = 2, kernel: int = 3) -> None:
        super().__init__()
        self.first = _convolution(2, width, kernel)
        self.blocks = nn.ModuleList(
            nn.Sequential(_convolution(width, width, kernel), nn.ReLU(), _convolution(width, width, kernel)) for _ in range(blocks)
        )
        self.last = _convolution(width, 2, kernel)

    def forward(self, parts: Tensor, grid: tuple[int, int]) -> Tensor:
        """parts [B L M 2] of antennas that count row by row over ``grid`` = (rows, columns)."""
        plain = parts.flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)
        image = self.first(plain)
        for block in self.blocks:
            image = image + block(functional.relu(image))
        found = plain + self.last(functional.relu(image)).to(plain.dtype)
        return found.permute(0, 2, 3, 1).reshape(parts.shape)


def _convolution(inside: int, outside: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
