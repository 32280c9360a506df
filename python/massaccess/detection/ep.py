"""Expectation propagation data detection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..lanes import split
from ..parallel import over_frames
from ..priors.constellation import ConstellationPrior
from .linear import MatchedFilter, Symbols, finish


@dataclass(frozen=True)
class ExpectationPropagation:
    """EP with Gaussian sites, moments matched in parallel (Cespedes, Olmos, Sanchez-Fernandez, Perez-Cruz, IEEE Trans. Commun. 2014).

    Each round is an exact LMMSE step under the sites' precisions, one small inverse per symbol time. Sites whose precision would turn
    negative keep their old value. ``rounds`` counts LMMSE steps; ``damping`` is the share of the new site; ``floor`` the least variance a
    site may claim. The answer is the last cavity: unbiased symbols.
    """

    rounds: int = 6
    damping: float = 0.7
    floor: float = 1e-4

    def __call__(self, filtered: MatchedFilter, prior: ConstellationPrior) -> Symbols:
        """Detects all symbols of ``filtered``."""
        run = self._compiled if filtered.match.device.type == "cpu" else self._batched
        symbols, symbol_var = run(filtered, prior)
        return finish(symbols.to(filtered.match.dtype), symbol_var.to(filtered.match.real.dtype), filtered.present, prior)

    def _compiled(self, filtered: MatchedFilter, prior: ConstellationPrior) -> tuple[Tensor, Tensor]:
        from . import _ep_kernel as kernel

        out = torch.zeros(3, *filtered.match.shape, dtype=torch.float64)
        mean, var = _first(filtered.gram.to(torch.complex128), filtered.match.to(torch.complex128))
        known = (*split(filtered.gram), *split(filtered.match), *split(mean), var.contiguous().numpy())
        users = filtered.present.sum(1).numpy()
        options = (prior.amplitudes.numpy(), self.rounds, self.damping, self.floor)
        over_frames(kernel.propagate, len(filtered.match), *known, users, *options, *out.numpy())
        return torch.complex(out[0], out[1]), out[2]

    def _batched(self, filtered: MatchedFilter, prior: ConstellationPrior) -> tuple[Tensor, Tensor]:
        """The same in tensor operations: the path for a GPU."""
        gram, match = filtered.gram.to(torch.complex128)[:, None], filtered.match.to(torch.complex128)
        prec = torch.ones(match.shape, dtype=torch.float64, device=match.device)
        shift = torch.zeros_like(match)
        for step in range(self.rounds):
            inverse = torch.linalg.inv(gram + torch.diag_embed(prec).to(gram.dtype))
            var = inverse.diagonal(dim1=-2, dim2=-1).real
            mean = (inverse @ (match + shift)[..., None])[..., 0]
            spread = 1 / (1 / var - prec).clamp_min(1e-9)
            cavity = spread * (mean / var - shift)
            if step == self.rounds - 1:
                break
            tilted, tight = prior.moments(cavity, spread.sqrt())
            tight = tight.clamp_min(self.floor)
            site = 1 / tight - 1 / spread
            gate = self.damping * (site > 0)
            prec = prec + gate * (site - prec)
            shift = shift + gate * (tilted / tight - cavity / spread - shift)
        return cavity, spread


def _first(gram: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B D K] and variance [B K] of the symbols before there are sites, from gram [B K K] and match [B D K]."""
    inverse = torch.linalg.inv_ex(gram + torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)).inverse
    return match @ inverse.mT, inverse.diagonal(dim1=-2, dim2=-1).real
