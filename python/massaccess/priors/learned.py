"""A trained network as a prior of channel rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .beams import Beams

FLOOR = 0.1  # of the noise: the least power that a row is taken to have


@dataclass(frozen=True, eq=False)
class Learned:
    """``network`` (see `massaccess.networks`) behind a power normalisation: D'(y, s) = a D(y / a, s / a^2), a^2 = estimated power.

    calibration [S 1+M] real: noise variances, rising, and the measured error variance of each beam there; it stands in where the network
    has no error head. ``power_range``: least and greatest a^2; the network was trained around 1.
    """

    network: nn.Module
    beams: Beams
    calibration: Tensor | None = None
    power_range: tuple[float, float] = (0.25, 4.0)

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """As `core.ChannelPrior` says."""
        mean, error = self._denoise(self.beams.back(x), noise_var)
        return self.beams.into(mean), error

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[h | x] [... M] and the mean variance of its entries [...] for rows x [... M] = h + sigma [...] CN(0, I)."""
        mean, error = self._denoise(x, sigma.square())
        return mean, error.mean(-1)

    def _denoise(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        rows, noise = x.reshape(-1, x.shape[-1]), noise_var.expand(x.shape[:-1]).reshape(-1)
        power = (rows.abs().square().mean(-1) - noise).maximum(FLOOR * noise).clamp(*self.power_range)
        mean, error = self.network(rows / power.sqrt()[:, None], noise / power)
        error = self._calibrated(noise / power) if error is None else error
        return (mean * power.sqrt()[:, None]).reshape(x.shape), (error * power[:, None]).reshape(x.shape)

    def _calibrated(self, noise_var: Tensor) -> Tensor:
        """Error variances [R M], interpolated in decibels."""
        if self.calibration is None:
            shrink = self.beams.power / (self.beams.power + noise_var[:, None])
            return shrink * noise_var[:, None]
        table = self.calibration.log()
        place = noise_var.log().clamp(table[0, 0], table[-1, 0])
        index = torch.searchsorted(table[:, 0].contiguous(), place).clamp(1, len(table) - 1)
        low, high = table[index - 1], table[index]
        share = ((place - low[:, 0]) / (high[:, 0] - low[:, 0]))[:, None]
        return torch.lerp(low[:, 1:], high[:, 1:], share).exp()
