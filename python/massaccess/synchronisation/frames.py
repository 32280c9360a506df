"""What leaves the synchroniser: frames, and counters that account for every slot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Time = tuple[int, float]

COUNTERS = {
    "samples": "samples of one antenna that came in",
    "frames": "slots that left as frames",
    "active": "frames in which a preamble was found",
    "partial": "slots that a gap cut: some of their samples came, and were dropped",
    "missing": "slots of which no sample came",
    "unlocked": "complete slots that passed before lock was found, too long ago to be kept",
    "gaps": "times that samples were lost, by rx_time",
    "lost_samples": "samples of one antenna that the gaps lost",
    "restarts": "times that rx_time went back: the slots are sought anew",
    "retunes": "times that rx_freq changed: the carrier offset is estimated anew",
    "foreign_samples": "samples that came at a rate which is not the system's, and were dropped",
    "locks": "times that the slots were found",
    "lock_lost": "times that they were lost",
    "false_locks": "times that they were found, and no slot confirmed it",
    "clipped": "samples of all antennas at or above full scale, real or imaginary part",
}


class SlotFrame(NamedTuple):
    """One slot. ``frame``: its index; ``rows`` [rows, antennas] complex64, two a symbol, in step with the slots and without the common
    carrier offset (see `forward.waveform.to_rows`); ``time``: rx_time of the slot's first sample, whole seconds and fraction; ``told``:
    whether that time has to be told, because it does not follow from the frame before; ``noise_var``: variance of a complex noise entry;
    ``freq``: centre frequency [Hz], where it is known; ``active``: whether a preamble was found; ``cfo`` [cycles per symbol], the carrier
    offset taken away."""

    frame: int
    rows: np.ndarray
    time: Time
    told: bool
    noise_var: float
    freq: float | None
    active: bool
    cfo: float
