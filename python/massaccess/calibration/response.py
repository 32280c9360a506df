"""What a calibration signal tells of the receive chains, and how two such answers compare.

A common phase of all chains says nothing (nobody knows the phase of the signal), so answers are compared after it is turned away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ShapeError

FAR = 60.0  # degrees: beyond it, a chain is no witness of the common phase
LEAST_NEAR = 1.0  # degrees
REFINEMENTS = 3


@dataclass(frozen=True)
class Response:
    """Complex gain of each chain, [B M] complex, for a calibration signal of unit power; delay [B M] real, in samples, against the mean of
    the chains; noise_var [B M] real, total variance of what the signal does not explain, per sample; frequency [B] real, of the common
    carrier offset that was found [cycles per sample]; samples: how many went into it.
    """

    gain: Tensor
    delay: Tensor
    noise_var: Tensor
    frequency: Tensor
    samples: int

    @property
    def snr(self) -> Tensor:
        """Power of the signal over that of the noise, per sample and chain [B M]."""
        return self.gain.abs().square() / self.noise_var.clamp_min(torch.finfo(self.noise_var.dtype).tiny)

    @property
    def phase_std(self) -> Tensor:
        """Standard deviation of each phase [B M], in radians, that noise leaves: the Cramér-Rao bound 1 / sqrt(2 T snr)."""
        return (2 * self.samples * self.snr).clamp_min(1e-12).rsqrt().clamp_max(math.pi / math.sqrt(3))

    def relative(self, reference: int = 0) -> Tensor:
        """Gains over that of chain ``reference`` [B M]; ShapeError for a chain that is not there."""
        chains = self.gain.shape[-1]
        if not 0 <= reference < chains:
            raise ShapeError(f"reference is {reference}: choose one of the {chains} channels, counted from 0")
        other = self.gain[..., reference : reference + 1]
        return self.gain / torch.where(other == 0, torch.ones_like(other), other)

    def take(self, rows: slice | Tensor) -> Response:
        """Some captures of the batch."""
        parts = {name: getattr(self, name)[rows] for name in ("gain", "delay", "noise_var", "frequency")}
        return replace(self, **parts)

    def mean(self) -> Response:
        """All captures of the batch as one, [1 M]: gains are averaged after each capture's own phase is turned away."""
        common = turned(self.gain, self.gain[:1])
        gain, frequency = common.mean(0, keepdim=True), self.frequency.mean(0, keepdim=True)
        weight = self.gain.abs().square()
        delay = ((weight * self.delay).sum(0) / weight.sum(0).clamp_min(1e-30))[None]
        return Response(gain, delay, self.noise_var.mean(0, keepdim=True), frequency, self.samples * len(self.gain))


def turned(gain: Tensor, like: Tensor) -> Tensor:
    """``gain`` [B M], turned by one phase a row so that as many chains as can be agree with ``like`` [B M] or [1 M].

    The phase is first that of the chain which most others agree with, to within 60 degrees, and then twice the mean over those that are
    within three standard deviations of it, as their median tells: chains that have changed do not pull at it.

    >>> gain = torch.tensor([[1.0 + 0j, 1.0, 1.0, -1.0]])
    >>> turned(1j * gain, torch.ones(1, 4, dtype=gain.dtype)).real
    tensor([[ 1.,  1.,  1., -1.]])
    """
    ratio = gain * like.conj()
    phase = ratio / ratio.abs().clamp_min(1e-30)
    heard = (ratio.abs() > 0).to(ratio.real.dtype)
    near = (phase[..., :, None] * phase.conj()[..., None, :]).real
    agree = near.clamp_min(math.cos(math.radians(FAR))) - math.cos(math.radians(FAR))
    votes = torch.einsum("...ij,...j->...i", agree, heard) * heard
    best = votes.argmax(-1, keepdim=True)
    chosen = phase.gather(-1, best)
    common, near = chosen, torch.full_like(chosen.real, FAR)
    for _ in range(REFINEMENTS):
        away = torch.rad2deg(torch.angle(phase * common.conj())).abs()
        counted = heard * (away <= near)
        total = (phase * counted).sum(-1, keepdim=True)
        common = torch.where(total.abs() > 0, total / total.abs().clamp_min(1e-30), torch.ones_like(total))
        away = torch.rad2deg(torch.angle(phase * common.conj())).abs()
        typical = away.masked_fill(heard == 0, torch.nan).nanmedian(-1, keepdim=True).values.nan_to_num(0)
        near = (3 * 1.48 * typical).clamp(LEAST_NEAR, FAR)
    return gain * common.conj()


def compare(gain: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """How far ``gain`` [B M] has moved from ``like`` [B M] or [1 M], up to one common phase a row and one common level: phases [degrees]
    and levels [dB] of each chain, both [B M]. Levels are against the median chain."""
    ratio = turned(gain, like) * like.conj()
    phase_deg = torch.rad2deg(torch.angle(ratio))
    floor = torch.finfo(ratio.real.dtype).tiny ** 0.5
    level = 20 * (gain.abs().clamp_min(floor) / like.abs().clamp_min(floor)).log10()
    return phase_deg, level - level.median(-1, keepdim=True).values


def rms_deg(phase_deg: Tensor) -> float:
    """Root mean square of phases [degrees]."""
    return float(phase_deg.square().mean().sqrt())
