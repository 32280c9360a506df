"""Local search around the decisions of another detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..lanes import split
from ..parallel import over_frames
from ..priors.constellation import ConstellationPrior
from .linear import MatchedFilter, Symbols, finish


class Detector(Protocol):
    def __call__(self, filtered: MatchedFilter, prior: ConstellationPrior) -> Symbols: ...


@dataclass(frozen=True)
class Searched:
    """The answer of ``detector``, put right where moving one or two real parts to a neighbouring level makes the samples more likely.

    Users whose channels point the same way make errors in pairs: expectation propagation, whose posteriors factorise, is then sure of the
    wrong pair, and no change of a single bit helps. Best moves are taken first, at most ``most`` a symbol time (likelihood ascent search,
    Vardhan, Mohammed, Chockalingam, Rajan, IEEE JSAC 2008, with pairs). A part that moved gets the log-likelihood ratio of the best way
    back; all others keep what ``detector`` said. Constellations with evenly spaced levels.
    """

    detector: Detector
    most: int = 12

    def __call__(self, filtered: MatchedFilter, prior: ConstellationPrior) -> Symbols:
        """Detects all symbols of ``filtered``."""
        before = self.detector(filtered, prior)
        if not before.symbols.shape[1]:
            return before
        levels = prior.amplitudes.to(filtered.match.device)
        parts = torch.view_as_real(before.symbols).double()
        start = torch.bucketize(parts, (levels[1:] + levels[:-1]) / 2)  # [B D K 2]
        run = self._compiled if filtered.match.device.type == "cpu" else self._batched
        found, margin = run(filtered, start, levels)
        moved = found != start
        if not bool(moved.any()):
            return before
        space = levels[1] - levels[0]
        way = torch.sign(found - start)
        edge = levels[found] - way * space / 2  # of the decision region that the part moved into
        reach = (margin * before.symbol_var.double()[..., None] / (2 * space)).clamp_max(space / 2)
        symbols = torch.where(moved, edge + way * reach, parts)
        return finish(torch.view_as_complex(symbols).to(before.symbols.dtype), before.symbol_var, filtered.present, prior)

    def _compiled(self, filtered: MatchedFilter, start: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        from . import _search_kernel as kernel

        found = [start[..., part].contiguous() for part in (0, 1)]
        margin = [torch.zeros(start.shape[:-1], dtype=torch.float64) for _ in (0, 1)]
        fixed = (*split(filtered.gram), *split(filtered.match), filtered.present.sum(1).numpy(), levels.numpy(), self.most)
        over_frames(kernel.descend, len(start), *fixed, *(value.numpy() for value in (*found, *margin)))
        return torch.stack(found, -1), torch.stack(margin, -1)

    def _batched(self, filtered: MatchedFilter, start: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The same in tensor operations: the path for a GPU."""
        gram, match = filtered.gram.to(torch.complex128), filtered.match.to(torch.complex128)
        gram = torch.cat([torch.cat([gram.real, -gram.imag], 2), torch.cat([gram.imag, gram.real], 2)], 1)
        match = torch.cat([match.real, match.imag], 2)
        here = filtered.present.repeat(1, 2)[:, None]
        state, space = torch.cat([start[..., 0], start[..., 1]], 2), levels[1] - levels[0]
        cross = 2 * space**2 * (gram * ~torch.eye(gram.shape[1], dtype=torch.bool, device=gram.device))
        cross = torch.stack([torch.stack([cross, -cross], -1), torch.stack([-cross, cross], -1)], 2)[:, None]  # [B 1 i u j v]
        lone = torch.eye(gram.shape[1], dtype=torch.bool, device=gram.device)[:, None, :, None]
        for turn in range(self.most + 1):
            slope = levels[state] @ gram.mT - match
            single = self._moves(slope, gram, state, len(levels), space).masked_fill(~here[..., None], torch.inf)  # [B D i u]
            both = single[..., :, :, None, None] + single[..., None, None, :, :] + cross
            both = torch.where(lone, single[..., :, :, None, None], both)
            best, spot = both.flatten(2).min(-1)
            going = best < -1e-9
            if turn == self.most or not bool(going.any()):
                break
            width = single.shape[2] * 2
            for pick in (spot // width, torch.where(spot // width // 2 == spot % width // 2, -1, spot % width)):
                step = torch.where(going & (pick >= 0), 2 * (pick % 2) - 1, 0)
                state = state.scatter_add(2, (pick.clamp_min(0) // 2)[..., None], step[..., None])
        margin = both.amin((-3, -2, -1)).clamp_min(0)
        users = start.shape[2]
        ends = [torch.stack([value[..., :users], value[..., users:]], -1) for value in (state, margin)]
        present = filtered.present[:, None, :, None]
        return torch.where(present, ends[0], start), torch.where(present, ends[1], 0)

    @staticmethod
    def _moves(slope: Tensor, gram: Tensor, state: Tensor, count: int, space: Tensor) -> Tensor:
        """Cost of one move down or up [B D 2K 2]; infinite where there is no level."""
        own = space**2 * gram.diagonal(dim1=1, dim2=2)[:, None]
        down = (own - 2 * space * slope).masked_fill(state == 0, torch.inf)
        up = (own + 2 * space * slope).masked_fill(state == count - 1, torch.inf)
        return torch.stack([down, up], -1)
