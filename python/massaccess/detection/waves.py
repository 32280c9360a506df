"""Detection of users whose symbols do not coincide in time: expectation propagation, bin by bin of a Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..lanes import split
from ..parallel import over_frames
from ..priors.constellation import ConstellationPrior
from .linear import Symbols, finish


@dataclass(frozen=True)
class WaveFilter:
    """Sufficient statistics of users with delays of their own, in the W bins of a window of W symbols.

    gram [B W K K]: channels, pulses and delays of two users multiplied, the two aliases of a bin added up; match [B W K]: rx through each
    user's own matched filter; turn [B D K]: phasors of the users' carriers at their D symbols, which start ``edge`` symbols into the
    window; blur [B D K]: variance of symbols for want of knowing the carriers better; present [B K] bool: slots that are taken, the first
    ones of each frame. What lies beside the D symbols is silence.
    """

    gram: Tensor
    match: Tensor
    turn: Tensor
    blur: Tensor
    edge: int
    present: Tensor

    @cached_property
    def lanes(self) -> tuple[np.ndarray, np.ndarray]:
        """`gram` as `_wave_kernel` wants it, bins last."""
        return split(self.gram.permute(0, 2, 3, 1))

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        """Symbols [B D K], turning with the carrier, before anything is decided, unbiased, and their variance [B K]."""
        mean, var = _posterior(self, torch.ones_like(self.match[:, 0].real), torch.zeros_like(self.match))
        spread = 1 / (1 / var - 1).clamp_min(LEAST)
        return spread[:, None] * mean / var[:, None], spread


LEAST = 1e-9
"""Precision that a cavity has at least."""


@dataclass(frozen=True)
class WaveEp:
    """`ep.ExpectationPropagation` with one variance a user: each round is an exact LMMSE step, a small inverse per bin, and
    decisions symbol by symbol in time, each user's at its own instants.

    Averaging a user's variances over its symbols keeps the steps diagonal in frequency (as in frequency-domain equalisers; Santos, Labeau,
    Visoz, Berthet, IEEE Trans. Wireless Commun. 2018). ``rounds``, ``damping`` and ``floor`` as there.
    """

    rounds: int = 8
    damping: float = 0.7
    floor: float = 1e-4

    def __call__(self, filtered: WaveFilter, prior: ConstellationPrior) -> Symbols:
        """Detects all symbols of ``filtered``."""
        match, turn = filtered.match, filtered.turn
        prec = torch.ones_like(match[:, 0].real)
        shift = torch.zeros_like(turn)
        for step in range(self.rounds):
            mean, var = _posterior(filtered, prec, _bins(shift * turn, filtered))
            spread = 1 / (1 / var - prec).clamp_min(LEAST)
            cavity = spread[:, None] * (mean * turn.conj() / var[:, None] - shift)
            if step == self.rounds - 1:
                break
            tilted, each = prior.moments(cavity, (spread[:, None] + filtered.blur).sqrt())
            tight = each.mean(1).clamp_min(self.floor)
            site = 1 / tight - 1 / spread
            gate = self.damping * (site > 0)
            prec = prec + gate * (site - prec)
            shift = shift + gate[:, None] * (tilted / tight[:, None] - cavity / spread[:, None] - shift)
        return finish(cavity, spread[:, None] + filtered.blur, filtered.present, prior)


def _posterior(filtered: WaveFilter, prec: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B D K] of the symbols, turning, and variance [B K] under sites of precision prec [B K] and shift [B W K] in bins."""
    run = _compiled if filtered.match.device.type == "cpu" else _batched
    bins, var = run(filtered, prec, filtered.match + shift)
    times = filtered.turn.shape[1]
    return torch.fft.ifft(bins, dim=1, norm="ortho")[:, filtered.edge : filtered.edge + times], var


def _compiled(filtered: WaveFilter, prec: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    from . import _wave_kernel as kernel

    out = torch.zeros(2, *match.mT.shape, dtype=torch.float64)
    var = torch.zeros(prec.shape, dtype=torch.float64)
    parts = (*split(match.mT), prec.double().contiguous().numpy(), filtered.present.sum(1).numpy())
    over_frames(kernel.posterior, len(match), *filtered.lanes, *parts, *out.numpy(), var.numpy())
    var = torch.where(filtered.present, var.to(prec.dtype), 1 / prec)
    return torch.complex(out[0], out[1]).mT.to(match.dtype), var


def _batched(filtered: WaveFilter, prec: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """The same in tensor operations: the path for a GPU."""
    inverse = torch.linalg.inv(filtered.gram + torch.diag_embed(prec).to(filtered.gram.dtype)[:, None])
    return (inverse @ match[..., None])[..., 0], inverse.diagonal(dim1=-2, dim2=-1).real.mean(1)


def _bins(symbols: Tensor, filtered: WaveFilter) -> Tensor:
    """Bins [B W K] of symbols [B D K] in the window."""
    after = filtered.match.shape[1] - symbols.shape[1] - filtered.edge
    return torch.fft.fft(torch.nn.functional.pad(symbols, (0, 0, filtered.edge, after)), dim=1, norm="ortho")
