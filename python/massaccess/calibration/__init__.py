"""Receive chains of an array: what they do to phase, gain and delay, how it is measured, stored and undone, and whether each still works.

`response` holds what was measured, `tone` and `broadband` measure it, `record` stores it per (serial number, channel, frequency, rate,
gain), `correction` undoes it, `health` says which antennas work and `swaps` which ones changed places.
"""

from __future__ import annotations

from .broadband import broadband_response
from .correction import Correction, correction_of, delay_taps
from .health import Health, Limits, examine
from .record import Book, Calibration, Entry, Key
from .response import Response, compare, turned
from .tone import tone_response

__all__ = [
    "Book",
    "Calibration",
    "Correction",
    "Entry",
    "Health",
    "Key",
    "Limits",
    "Response",
    "broadband_response",
    "compare",
    "correction_of",
    "delay_taps",
    "examine",
    "tone_response",
    "turned",
]
