"""Cuts slots out of stretches: whole ones, and an account of those that gaps cut or swallowed."""

from __future__ import annotations

import math
from typing import NamedTuple

from .grid import Stretch, Stretches
from .tracking import Grid


class Cut(NamedTuple):
    """A whole slot: ``first`` sample of a stretch (may be a few before it), and by how many samples the slot begins later."""

    part: Stretch
    first: int
    fraction: float


class Cutter:
    """Looks for the slot that a grid is at. Up to ``slack`` samples of its guard may be missing at either end, where a gap begins or ends:
    the grid is known to a fraction of a sample only. ``counters`` are those of `frames`."""

    def __init__(self, slot_samples: int, slack: int, counters: dict[str, int]) -> None:
        self._length, self.slack, self._counters = slot_samples, slack, counters
        self._touched = False

    def next(self, samples: Stretches, grid: Grid) -> Cut | None:
        """The first whole slot from that of the grid on, to which the grid moves; ``None``: wait for more samples."""
        while samples.parts:
            part = samples.parts[0]
            first = part.index(grid.start)
            if first + self._length <= 0:
                self._skip(part, grid)
            elif first >= -self.slack and first + self._length - (self.slack if part.closed else 0) <= len(part):
                return Cut(part, first, part.fraction(grid.start))
            elif first < -self.slack and first + self._length <= len(part):
                self._touched = True
                self.leave(grid)
            elif not part.closed:
                return None
            else:
                self._touched |= first < len(part) > 0
                samples.parts.popleft()
        return None

    def whole(self, samples: Stretches, grid: Grid, until: float) -> list[Cut]:
        """All whole slots of the grid before a coordinate, at the first centre frequency; moves nothing."""
        found = []
        for number, part in enumerate(samples.parts):
            if number and part.changed:
                break
            slot = math.floor((part.start - self.slack - grid.start) / grid.step)
            while (start := grid.start + slot * grid.step) < min(until, part.end):
                first = part.index(start)
                if first >= -self.slack and first + self._length - (self.slack if part.closed else 0) <= len(part):
                    found.append(Cut(part, first, part.fraction(start)))
                slot += 1
        return found

    def leave(self, grid: Grid, *, whole: bool = False) -> None:
        """Goes on to the next slot; this one was ``whole``, or counts as cut or missing."""
        if not whole:
            self._counters["partial" if self._touched else "missing"] += 1
        self._touched = False
        grid.advance()

    def _skip(self, part: Stretch, grid: Grid) -> None:
        """Leaves slots that lie before a stretch."""
        self.leave(grid)
        swallowed = max(math.floor((part.start - grid.start) / grid.step) - 1, 0)
        self._counters["missing"] += swallowed
        grid.advance(swallowed)
