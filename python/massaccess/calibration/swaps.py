"""Channels that changed places: a permutation that explains what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def find_swaps(phase_deg: np.ndarray, expected_deg: np.ndarray, moved: Sequence[int], tolerance_deg: float) -> dict[int, int]:
    """``{channel: whose signal it carries}`` for channels among ``moved`` whose phases [degrees] are those expected of one another.

    All of ``moved`` as one permutation is tried first, then pairs. A channel never carries its own signal here; where nothing fits, the
    answer is empty. Expected phases that are as close as ``tolerance_deg`` cannot be told apart.

    >>> find_swaps(np.array([0.0, 80.0, 40.0, -9.0]), np.array([0.0, 40.0, 80.0, -9.0]), [1, 2], 5.0)
    {1: 2, 2: 1}
    """
    rows = list(moved)
    away = (phase_deg[rows, None] - expected_deg[None, rows] + 180) % 360 - 180
    near = (np.abs(away) < tolerance_deg) & ~np.eye(len(rows), dtype=bool)
    whole = _permutation(near)
    if whole:
        return {rows[i]: rows[j] for i, j in enumerate(whole)}
    found: dict[int, int] = {}
    for i, j in zip(*np.nonzero(near & near.T), strict=True):
        if i < j and rows[i] not in found and rows[j] not in found:
            found |= {rows[i]: rows[j], rows[j]: rows[i]}
    return found


def chance(channels: int, tolerance_deg: float) -> float:
    """Probability that some pair of ``channels`` with new, random phases passes for swapped.

    >>> round(chance(2, 5.0), 5)
    0.00077
    """
    each = (2 * tolerance_deg / 360) ** 2
    return 1 - (1 - each) ** math.comb(channels, 2)


def _permutation(near: np.ndarray) -> list[int]:
    """One column for each row so that ``near`` holds in all; empty if there is none. Rows with least choice come first."""
    order = np.argsort(near.sum(1))
    taken = [-1] * len(near)

    def place(depth: int) -> bool:
        if depth == len(order):
            return True
        for column in np.nonzero(near[order[depth]])[0]:
            if column not in taken:
                taken[order[depth]] = int(column)
                if place(depth + 1):
                    return True
                taken[order[depth]] = -1
        return False

    return taken if 2 <= len(near) <= MOST and place(0) else []


MOST = 8  # channels of one permutation: more than that have lost their phases, not their places
