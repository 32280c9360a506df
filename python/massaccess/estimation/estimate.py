"""What channel estimators return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ChannelEstimate:
    """mean [B K M] complex and error [B K M] real, its variance, both in beams."""

    mean: Tensor
    error: Tensor

    def take(self, rows: Tensor) -> ChannelEstimate:
        """The frames that ``rows`` (indices or a mask) picks."""
        return ChannelEstimate(self.mean[rows], self.error[rows])
