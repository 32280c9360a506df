"""What detectors share: the matched filter they start from, and what they return; and the two linear detectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symbols:
    """symbols [B D K] = x + CN(0, symbol_var [B D K]), unbiased; mean and var [B D K]: posterior moments under the constellation."""

    symbols: Tensor
    symbol_var: Tensor
    mean: Tensor
    var: Tensor

    def take(self, rows: Tensor) -> Symbols:
        """The frames that ``rows`` (indices or a mask) picks."""
        return Symbols(self.symbols[rows], self.symbol_var[rows], self.mean[rows], self.var[rows])


@dataclass(frozen=True)
class MatchedFilter:
    """Sufficient statistics of rx [B D M] = x [B D K] channel [B K M] + noise of variance beam_noise [B M].

    gram [B K K] = channel* W channel^T and match [B D K] = channel* W rx, W = 1 / beam_noise; present [B K] bool: slots that are taken,
    the first ones of each frame.
    """

    gram: Tensor
    match: Tensor
    present: Tensor

    @staticmethod
    def of(rx: Tensor, channel: Tensor, beam_noise: Tensor, present: Tensor) -> MatchedFilter:
        weighted = channel / beam_noise[:, None, :]
        return MatchedFilter(weighted.conj() @ channel.mT, rx @ weighted.mH, present)


@dataclass(frozen=True)
class ZeroForcing:
    """(H^H W H)^-1 H^H W y; error variance from the diagonal of the inverse. More users than antennas: the minimum-norm answer."""

    def __call__(self, filtered: MatchedFilter, prior: object) -> Symbols:
        """Detects all symbols of ``filtered``; ``prior`` gives the posterior moments."""
        inverse = torch.linalg.pinv(filtered.gram, hermitian=True)
        var = inverse.diagonal(dim1=-2, dim2=-1).real
        return finish(filtered.match @ inverse.mT, var[:, None, :], filtered.present, prior)


@dataclass(frozen=True)
class LmmseDetector:
    """(H^H W H + I)^-1 H^H W y for unit-power symbols, divided by its bias; variance from the same inverse."""

    def __call__(self, filtered: MatchedFilter, prior: object) -> Symbols:
        """Detects all symbols of ``filtered``; ``prior`` gives the posterior moments."""
        eye = torch.eye(filtered.gram.shape[-1], dtype=filtered.gram.dtype, device=filtered.gram.device)
        inverse = torch.linalg.inv(filtered.gram + eye)
        bias = (1 - inverse.diagonal(dim1=-2, dim2=-1).real).clamp_min(1e-9)[:, None, :]
        return finish(filtered.match @ inverse.mT / bias, (1 - bias) / bias, filtered.present, prior)


def finish(symbols: Tensor, symbol_var: Tensor, present: Tensor, prior: object) -> Symbols:
    """Blanks absent users (symbol 0, infinite variance, posterior mean 0 of variance 0) and adds the posterior moments."""
    here = present[:, None, :]
    symbols = torch.where(here, symbols, 0)
    symbol_var = symbol_var.expand(symbols.shape).masked_fill(~here, torch.inf)
    mean, var = prior.moments(symbols, symbol_var.clamp(1e-12, 1e12).sqrt())  # type: ignore[attr-defined]
    return Symbols(symbols, symbol_var, torch.where(here, mean, 0), torch.where(here, var, 0))
