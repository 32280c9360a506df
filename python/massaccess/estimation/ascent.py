"""How far to follow Newton steps whose curvature is only shared, not exact."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST, LEAST = 0.8, 0.1  # shares of a full step


class Ascent:
    """The share of a Newton step that is taken: what the last one should have been, judged by the gradients before and after it (a secant,
    Barzilai, Borwein 1988), each problem along ``dim`` for itself. Where one curvature serves many problems, full steps overshoot in the
    sharper ones."""

    def __init__(self, *, dim: int) -> None:
        self.dim = dim
        self._share: Tensor | float = FIRST
        self._last: tuple[Tensor, Tensor] | None = None

    def step(self, newton: Tensor, gradient: Tensor) -> Tensor:
        """The step to take where the full one would be ``newton``, given the gradient here."""
        if self._last is not None:
            step, before = self._last
            promised, kept = ((step * slope).sum(self.dim, keepdim=True) for slope in (before, gradient))
            fall = promised - kept
            share = torch.where(fall > 0, self._share * promised / fall, 1.0)
            self._share = share.nan_to_num(1.0).clamp(LEAST, 1.0)
        self._last = self._share * newton, gradient
        return self._last[0]
