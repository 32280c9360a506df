"""Trainings in phases: which one a step belongs to."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass

from .recipe import Optimiser


@dataclass(frozen=True)
class Phase:
    """Number ``index`` of a training: ``steps`` steps from step ``first``, with learning rate ``rate``."""

    index: int
    first: int
    steps: int
    rate: float


def phase_at(settings: Optimiser, step: int) -> Phase:
    """The phase of step ``step``; steps are shared out as ``settings.phases`` says.

    >>> settings = Optimiser(steps=12, phases=((2, 1e-3), (1, 1e-4)))
    >>> [phase_at(settings, step).index for step in (0, 7, 8, 11)], phase_at(settings, 9).first
    ([0, 0, 1, 1], 8)
    """
    whole = sum(share for share, _ in settings.phases)
    ends = [round(settings.steps * part / whole) for part in itertools.accumulate(share for share, _ in settings.phases)]
    index = min(bisect.bisect_right(ends, step), len(ends) - 1)
    first = ends[index - 1] if index else 0
    return Phase(index, first, max(ends[index] - first, 1), settings.phases[index][1])
