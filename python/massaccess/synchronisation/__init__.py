"""From the samples of an array to frames: where slots begin, how far the oscillators are apart, and what is lost in gaps.

`Synchronizer` takes the stream in chunks of any size and gives `SlotFrame` after `SlotFrame`; its parts are `grid` (samples in time),
`acquisition` (finds the slots), `preamble_meter` (what one slot tells) and `tracking` (what all slots together tell).
"""

from .frames import COUNTERS, SlotFrame
from .synchronizer import Synchronizer

__all__ = ["COUNTERS", "SlotFrame", "Synchronizer"]
