"""A lock made firm: what all slots that were kept tell together, before the first of them leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .cutting import Cut
from .preamble_meter import PreambleMeter, SlotMeasure
from .tracking import Carrier, Powers

PASSES = 3  # the first corrects what the search could not see, the last only rounding

Rows = Callable[[Cut, float, float], np.ndarray]


class Settled(NamedTuple):
    """``late`` [samples]: by how much the grid has to move; of ``slots`` with a preamble. ``sure``: most slots with power in them have
    one."""

    late: float
    slots: int
    sure: bool
    carrier: Carrier
    powers: Powers


def settle(cuts: Sequence[Cut], rows: Rows, meter: PreambleMeter, cfo: float, noise_var: float | None) -> Settled:
    """From slots ``cuts``, whose rows are ``rows(cut, late, cfo)``, with ``late`` in samples and ``cfo`` in cycles per symbol."""
    late, carrier, powers, found, strange = 0.0, Carrier(meter.span, cfo), Powers(meter, noise_var), 0, 0
    for _ in range(PASSES):
        taken = carrier.cfo
        seen = [one for cut in cuts if math.isfinite((one := meter(rows(cut, late, taken))).whole)]
        carrier, powers = Carrier(meter.span, taken), Powers(meter, noise_var)
        for one in seen:
            powers.update(one)
        awake = [one for one in seen if meter.found(one, powers.noise_var)]
        found = len(awake)
        strange = sum(meter.crowded(one, powers.noise_var) and not meter.found(one, powers.noise_var) for one in seen)
        if not found:
            break
        for one in awake:
            carrier.update(one.turn, taken)
        late += _mean_late(awake) * meter.burst.samples_per_symbol
    return Settled(late, found, found > strange, carrier, powers)


def _mean_late(seen: Sequence[SlotMeasure]) -> float:
    return sum(one.late for one in seen) / len(seen)
