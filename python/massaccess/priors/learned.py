"""A channel prior that a network learned: its denoiser, made safe for powers that training did not see."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .beams import Beams

POWER_RANGE = (0.05, 3.0)
"""Mean power of a channel, per antenna, that networks are trained for."""


@dataclass(frozen=True, eq=False)
class Learned:
    """``network(x [R M], noise_var [R]) -> (mean [R M], error [R M] in beams or None)``; ``beams``: the basis of its errors.

    Channels whose estimated power lies outside ``power_range`` are scaled into it: D'(x, s^2) = a D(x / a, s^2 / a^2), with a = 1 inside,
    so nothing is lost where the network was trained. (Normalising always costs up to 0.15 dB: the power itself is information.)
    ``calibration`` [S 1+M] (noise variances, rising, and the error variance of each beam there) stands in where the network predicts no
    error of its own.
    """

    network: nn.Module = field(repr=False)
    beams: Beams = field(repr=False)
    calibration: Tensor | None = field(default=None, repr=False)
    power_range: tuple[float, float] = POWER_RANGE

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[h | x] [... M] and the mean variance of its entries [...] for rows x [... M] = h + sigma [...] CN(0, I)."""
        mean, error = self.in_beams(self.beams.into(x), sigma.square()[..., None])
        return self.beams.back(mean), error.mean(-1)

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """As `core.ChannelPrior` says."""
        rows = x.reshape(-1, x.shape[-1])
        noise = noise_var.to(x.real.dtype).expand(x.shape).reshape(rows.shape)
        scale = self._scale(rows, noise)[:, None]
        mean, error = self._denoise(rows / scale, noise / scale.square())
        return (mean * scale).reshape(x.shape), (error * scale.square()).reshape(x.shape)

    def _scale(self, x: Tensor, noise: Tensor) -> Tensor:
        """Root of the power outside of the trained range, [R]; 1 inside."""
        low, high = self.power_range
        power = (x.abs().square() - noise).mean(1)
        faint = power.maximum(0.1 * noise.mean(1))
        return torch.where(power > high, power / high, (faint / low).clamp_max(1)).sqrt()

    def _denoise(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if getattr(self.network, "coloured", False):
            return self.network.in_beams(x, noise)  # type: ignore[operator]
        level = noise.mean(1)
        mean, error = self.network(self.beams.back(x), level)
        return self.beams.into(mean), self._error(level) if error is None else error

    def _error(self, level: Tensor) -> Tensor:
        """Error variances [R M] at the noise variances ``level`` [R]: from the table, linear between logarithms, constant beyond."""
        if self.calibration is None:
            return self.beams.power * level[:, None] / (self.beams.power + level[:, None])
        table = self.calibration.log()
        spot = level.log().clamp(table[0, 0], table[-1, 0])
        upper = torch.searchsorted(table[:, 0].contiguous(), spot).clamp(1, len(table) - 1)
        low, high = table[upper - 1], table[upper]
        share = ((spot - low[:, 0]) / (high[:, 0] - low[:, 0]))[:, None]
        return torch.lerp(low[:, 1:], high[:, 1:], share).exp()
