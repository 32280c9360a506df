"""A thousand gaps: every slot that came whole is found, none is misplaced, and the counts are those of the gaps."""

from __future__ import annotations

import itertools

import numpy as np

from massaccess.synchronisation import Synchronizer

SHIFT = 100


def pieces_of(length: int, gaps: int, slot: int, seed: int, mean_kept: float) -> list[tuple[int, int]]:
    """What is left of samples 0 .. length between so many gaps: short ones, ones in the preamble, back-to-back ones, and those of many
    slots."""
    rng = np.random.default_rng(seed)
    pieces, at = [], 0
    for number in range(gaps):
        kept = 1 + int(rng.integers(3)) if number % 10 == 0 else 1 + int(rng.exponential(mean_kept))
        if number % 7 == 0:  # the gap begins in a preamble
            kept += (SHIFT + 20 + int(rng.integers(50)) - at - kept) % slot
        lost = int(rng.choice([1 + rng.integers(8), rng.integers(1, slot), rng.integers(1, 8 * slot)], p=[0.5, 0.3, 0.2]))
        pieces.append((at, at + kept))
        at += kept + lost
    assert at < length, "make more slots"
    return [*pieces, (at, length)]


def fates(pieces, slot, last):
    """Slots that came whole, and those of which some samples came."""
    whole, touched = set(), set()
    for first, end in pieces:
        numbers = range(max((first - SHIFT) // slot, 0), min((end - 1 - SHIFT) // slot, last) + 1)
        touched |= set(numbers)
        whole |= {n for n in numbers if first <= SHIFT + n * slot and SHIFT + (n + 1) * slot <= end}
    return whole, touched - whole


def test_a_thousand_gaps(air):
    slots, chunk = 4200, 700
    seen = air(slots, users=2, antennas=2, snr_db=18, spread=0.1, shift=SHIFT, cfo=0.011)
    slot = seen.burst.slot_samples
    pieces = pieces_of(len(seen.samples), 1000, slot, 3, 1.8 * slot)
    sync = Synchronizer(seen.burst, 2, sample_rate_hz=1e6)
    frames = []
    for first, end in pieces:
        time = (12, 0.5 + first / 1e6)
        for start in range(first, end, chunk):
            frames += sync.push(seen.samples[start : min(start + chunk, end)], time=time if start == first else None)
    frames += sync.flush()

    assert sync.counters["gaps"] == 1000
    assert sync.counters["lost_samples"] == sum(b[0] - a[1] for a, b in itertools.pairwise(pieces))
    assert sync.counters["locks"] == 1
    assert sync.counters["lock_lost"] == 0
    places = [seen.place((frame.time[0] - 12, frame.time[1] - 0.5)) for frame in frames]
    found = [round(place) for place in places]
    assert np.abs(np.array(places) - found).max() < 0.125 / seen.burst.slot_len  # half a sample: counts are exact
    whole, cut = fates(pieces, slot, slots - 1)
    assert whole <= set(found)
    likeness = [seen.likeness(number, frame.rows) for number, frame in zip(found, frames, strict=True)]
    assert min(likeness) > 0.7
    assert np.median(likeness) > 0.97
    offset = found[0] - frames[0].frame
    assert [frame.frame + offset for frame in frames] == found

    grazed = set(found) - whole  # a gap took a sample or two of their guard
    assert grazed <= cut
    assert all(_missing(pieces, SHIFT + n * slot, slot) <= 4 for n in grazed)
    assert offset == 0
    assert sync.counters["frames"] == len(found)
    assert sync.counters["partial"] == len(cut - grazed)
    assert sync.counters["missing"] == slots - len(whole) - len(cut)


def _missing(pieces, start, slot):
    return slot - sum(max(0, min(end, start + slot) - max(first, start)) for first, end in pieces)
