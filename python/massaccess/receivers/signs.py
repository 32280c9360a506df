"""What receivers that see nothing but signs share: what there is of a frame, amplitudes, and soft symbols made unbiased."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Observation
from ..likelihoods.real_form import after, parts, signs
from ..priors.constellation import ConstellationPrior
from .selection import Selection

EM_STEPS = 20
POOL = 16  # symbols that the variance of all users of a frame counts for beside a user's own
LEAST = 1e-3  # smallest share of noise in a soft symbol that a frame can show


@dataclass(frozen=True)
class Signs:
    """The signs of real and imaginary parts, pilots [B 2L M] and data [B 2D M], as +-1; what the converter added, in the same layout
    (``None``: nothing); pilots of the taken slots sent [B L K], their mean power gain [B K], present [B K]."""

    pilots: Tensor
    data: Tensor
    pilot_shift: Tensor | None
    data_shift: Tensor | None
    sent: Tensor
    gain: Tensor
    present: Tensor

    @staticmethod
    def of(obs: Observation, slots: Selection) -> Signs:
        known, offset = (slots.pilots(obs), slots.gain(obs), slots.present), obs.front_end.offset
        if offset is None:
            return Signs(signs(parts(obs.pilot_rx)), signs(parts(obs.data_rx)), None, None, *known)
        before, behind = offset.to(obs.pilot_rx).split([obs.pilot_len, obs.data_len])
        shifts = [parts(moved).expand(obs.frames, -1, -1) for moved in (before, behind)]
        return Signs(signs(parts(obs.pilot_rx + before)), signs(parts(obs.data_rx + behind)), shifts[0], shifts[1], *known)

    @property
    def both(self) -> Tensor:
        """Signs of pilots and data [B 2(L+D) M]."""
        return after(self.pilots, self.data)

    @property
    def both_shifts(self) -> Tensor | None:
        if self.pilot_shift is None or self.data_shift is None:
            return None
        return after(self.pilot_shift, self.data_shift)


def turned(halves: Tensor) -> Tensor:
    """[B 2D M] of samples to [B 2M D]: antennas become the rows of the model."""
    real, imag = halves.chunk(2, -2)
    return torch.cat([real.mT, imag.mT], -2)


def to_power(channel: Tensor, gain: Tensor) -> Tensor:
    """Factors [B 1 M] that bring every antenna of channel [B K M] to the power that it has on average, the sum of gain [B K]: signs leave
    it open (P4 eq. 10, without the square that Algorithm 2 prints)."""
    power = channel.abs().square().sum(1, keepdim=True)
    return torch.where(power > 0, gain.sum(1)[:, None, None] / power, 1).sqrt()


def unbiased(soft: Tensor, prior: ConstellationPrior) -> tuple[Tensor, Tensor]:
    """symbols and symbol_var [B D K] from soft outputs of unknown gain [B D K], no truth needed.

    soft = g x + CN(0, v) with g > 0 and v of each user and frame, x of the constellation: maximum likelihood by EM over the frame. The
    variance is drawn towards that of all users of the frame, as if by `POOL` more symbols; empty slots hold zeros and come out as such.
    """
    taken = (soft != 0).any(1)
    power = torch.where(taken, soft.abs().square().mean(1), 1)
    level = torch.where(taken, torch.view_as_real(soft).abs().mean((1, 3)) / prior.amplitudes.abs().mean().to(power), 1)
    gain, var = level, (power - level.square()).maximum(0.1 * power)
    for _ in range(EM_STEPS):
        mean, spread = prior.moments(soft / gain[:, None], (var.sqrt() / gain)[:, None])
        square = (mean.abs().square() + spread).mean(1)
        along = (soft * mean.conj()).real.mean(1)
        gain = (along / square).maximum(1e-3 * level)
        var = (power - 2 * gain * along + gain.square() * square).maximum(LEAST * power)
    noise = var / gain.square()
    pool = (noise * taken).sum(1, keepdim=True) / taken.sum(1, keepdim=True).clamp_min(1)
    times = soft.shape[1]
    noise = (times * noise + POOL * pool) / (times + POOL)
    return soft / gain[:, None], noise[:, None].expand(soft.shape)


def decided(symbols: Tensor, present: Tensor, obs: Observation) -> Tensor:
    """The points of the constellation nearest to symbols [B D K], zero in empty slots."""
    levels = ConstellationPrior(obs.modulation).amplitudes.to(symbols.real)
    halves = torch.view_as_real(symbols.contiguous())
    return torch.view_as_complex(levels[(halves[..., None] - levels).abs().argmin(-1)]) * present[:, None, :]
