"""Receive chains of an array: what they do to phase, gain and delay, how it is measured, stored and undone, and whether each still works.

`response` holds what was measured, `tone` and `broadband` measure it, `measure` says how good it is, `record` stores it per (serial number,
channel, frequency, rate, gain), `correction` undoes it, `masking` fills in for antennas that do not work, `health` says which ones work,
and `swaps` which ones changed places.
"""

from __future__ import annotations

from .broadband import broadband_response
from .correction import Correction, correction_of, delay_taps
from .health import Health, Limits, examine
from .masking import fill, filling
from .measure import Measurement, measure
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
    "Measurement",
    "Response",
    "broadband_response",
    "compare",
    "correction_of",
    "delay_taps",
    "examine",
    "fill",
    "filling",
    "measure",
    "tone_response",
    "turned",
]
