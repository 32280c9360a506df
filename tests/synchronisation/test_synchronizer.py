"""Slots are found where they are, tracked as clocks drift, and left alone by silence; noise and tones are no slots."""

from __future__ import annotations

import math

import numpy as np
import pytest

from massaccess.errors import ConfigError, ShapeError
from massaccess.synchronisation import Synchronizer


def synchronizer(air, **options):
    return Synchronizer(air.burst, air.samples.shape[1], sample_rate_hz=1e6, **options)


def run(sync, samples, chunk=5000, **first):
    frames = []
    for start in range(0, len(samples), chunk):
        frames += sync.push(samples[start : start + chunk], **(first if start == 0 else {}))
    return frames + sync.flush()


def errors(air, frames):
    """Timing [symbols] of all frames against the grid, once the loops have settled."""
    places = np.array([air.place(frame.time) for frame in frames])
    return (places - np.round(places)) * air.burst.slot_len


@pytest.mark.parametrize(
    ("snr_db", "users", "timing", "cfo"), [(0, 16, 0.06, 5e-4), (10, 16, 0.05, 2e-4), (20, 16, 0.05, 1.5e-4), (15, 1, 0.1, 3e-4)]
)
@pytest.mark.parametrize("common", [-0.02, 0.013])
def test_estimates_are_near_the_truth(air, snr_db, users, timing, cfo, common):
    """Users half a symbol and a per mille apart: the grid and the common offset are found, not theirs."""
    seen = air(150, users=users, snr_db=snr_db, cfo=common, shift=123)
    sync = synchronizer(seen)
    frames = run(sync, seen.samples)
    assert [round(seen.place(frame.time)) for frame in frames] == list(range(150))
    assert [frame.frame for frame in frames] == list(range(150))
    assert np.sqrt(np.mean(errors(seen, frames) ** 2)) < timing
    assert np.sqrt(np.mean([(frame.cfo - common) ** 2 for frame in frames])) < cfo
    assert sync.counters["active"] > 140
    assert sync.counters["locks"] == 1
    assert 10 * math.log10(frames[-1].noise_var / seen.noise_var) == pytest.approx(0, abs=0.5)
    assert sync.report()["snr_db"] == pytest.approx(snr_db, abs=1.5)


def test_frames_have_what_was_sent(air):
    seen = air(60, users=4, snr_db=20, cfo=0.01, shift=77, spread=0.1)
    for frame in run(synchronizer(seen), seen.samples):
        assert seen.likeness(round(seen.place(frame.time)), frame.rows) > 0.97


def test_chunks_change_nothing(air):
    seen = air(120, antennas=4, users=3, shift=50, cfo=0.004)
    whole = run(synchronizer(seen), seen.samples, len(seen.samples))
    for chunk in (100, 1777):
        pieces = run(synchronizer(seen), seen.samples, chunk)
        assert [frame._replace(rows=0) for frame in pieces] == [frame._replace(rows=0) for frame in whole]
        assert all(np.array_equal(a.rows, b.rows) for a, b in zip(pieces, whole, strict=True))


@pytest.mark.parametrize("antennas", [2, 16])
def test_noise_is_no_slot(antennas):
    rng = np.random.default_rng(1)
    sync = None
    for tone in (0.0, 3.0):  # a steady tone is alike half a preamble later everywhere
        samples = (rng.standard_normal((60_000, antennas, 2)) @ [1, 1j]).astype(np.complex64)
        samples += tone * np.exp(0.3j * np.arange(len(samples)))[:, None].astype(np.complex64)
        sync = Synchronizer(burst(), antennas, sample_rate_hz=1e6)
        assert run(sync, samples) == []
        assert sync.counters["locks"] == sync.counters["false_locks"] == 0
        assert not sync.locked


def burst():
    from massaccess.burst import Burst

    return Burst(pilot_len=16, data_len=24, preamble_len=16, guard_len=8, samples_per_symbol=4)


def test_silence_pulls_nothing(air):
    seen = air(400, users=8, silent=range(100, 400), shift=31, cfo=0.007)
    sync = synchronizer(seen)
    frames = run(sync, seen.samples)
    assert [frame.frame for frame in frames] == list(range(400))
    assert np.abs(errors(seen, frames[100:])).max() < 0.1
    assert np.ptp(errors(seen, frames[110:])) < 0.02
    assert np.ptp([frame.cfo for frame in frames[100:]]) < 1e-5
    assert sync.counters["active"] <= 105
    assert sync.counters["lock_lost"] == 0


def test_clocks_that_drift_are_followed(air):
    seen = air(900, users=8, antennas=8, drift=20e-6)  # a whole symbol in 780 slots
    sync = synchronizer(seen)
    frames = run(sync, seen.samples)
    late = np.array([seen.place(frame.time) for frame in frames]) * seen.burst.slot_len - np.arange(900) * seen.burst.slot_len * (1 + 20e-6)
    assert len(frames) == 900
    assert np.abs(late[-300:]).max() < 0.12
    assert sync.report()["drift_ppm"] == pytest.approx(20, abs=8)


def test_lost_lock_is_noticed_and_found_again(air):
    """Half a slot vanishes, and rx_time does not tell."""
    seen = air(150, users=4, antennas=8)
    cut = 80 * seen.burst.slot_samples
    sync = synchronizer(seen)
    frames = run(sync, np.delete(seen.samples, slice(cut, cut + 99), 0))
    assert sync.counters["lock_lost"] == 1
    assert sync.counters["locks"] == 2
    after = [frame for frame in frames if frame.frame > 95]
    places = np.array([seen.place(frame.time) * seen.burst.slot_samples + 99 for frame in after]) / seen.burst.slot_samples
    assert len(after) > 40
    assert np.abs(places - np.round(places)).max() < 0.2 / seen.burst.slot_len
    assert len({frame.frame for frame in frames}) == len(frames)
    numbers = [frame.frame for frame in frames]
    assert numbers == sorted(numbers)


def test_a_retune_asks_for_the_offset_anew(air):
    """The new carrier is off by something else; no frame leaves with the old offset, and the slots are not sought again."""
    one, two = air(60, users=8, cfo=0.015), air(60, users=8, cfo=-0.012, seed=1)
    length = 60 * one.burst.slot_samples
    sync = synchronizer(one)
    frames = sync.push(one.samples[:length], freq=3.5e9) + sync.push(two.samples[:length], freq=3.6e9) + sync.flush()
    assert [frame.frame for frame in frames] == list(range(120))
    wanted = np.repeat([0.015, -0.012], 60)
    assert np.abs(np.array([frame.cfo for frame in frames]) - wanted).max() < 5e-4
    assert {frame.freq for frame in frames[:60]} == {3.5e9}
    assert {frame.freq for frame in frames[60:]} == {3.6e9}
    assert (sync.counters["retunes"], sync.counters["locks"], sync.counters["gaps"]) == (1, 1, 0)


def test_samples_at_another_rate_are_dropped(air):
    seen = air(90, users=8, shift=10)
    length = seen.burst.slot_samples
    first, last = 10 + 40 * length, 10 + 50 * length
    sync = synchronizer(seen)
    frames = sync.push(seen.samples[:first], time=(7, 0.0), rate=1e6)
    frames += sync.push(seen.samples[:3333], time=(7, first / 1e6), rate=2e6)
    frames += sync.push(seen.samples[last:], time=(7, last / 1e6), rate=1e6) + sync.flush()
    assert [frame.frame for frame in frames] == [*range(40), *range(50, 90)]
    assert [frame.frame for frame in frames if frame.told] == [0, 50]
    assert sync.counters["foreign_samples"] == 3333
    assert sync.counters["missing"] == 10


def test_time_that_goes_back_is_a_new_beginning(air):
    seen = air(60, users=8)
    sync = synchronizer(seen)
    frames = sync.push(seen.samples, time=(9, 0.0)) + sync.push(seen.samples, time=(4, 0.5)) + sync.flush()
    assert [frame.frame for frame in frames] == list(range(120))
    assert sync.counters["restarts"] == 1
    assert frames[60].told
    assert frames[60].time[0] == 4


def test_slots_by_time_are_numbered_by_the_epoch(air):
    seen = air(60, users=8, shift=200)
    slot = seen.burst.slot_samples
    sync = synchronizer(seen, epoch=(100, 0.25))
    time = 100.25 + (1000 * slot - 200) / 1e6
    frames = run(sync, seen.samples, time=(int(time), time % 1))
    assert [frame.frame for frame in frames] == list(range(1000, 1060))


def test_what_is_not_finite_harms_its_frames_alone(air):
    seen = air(80, users=8)
    samples = seen.samples.copy()
    samples[40 * seen.burst.slot_samples + 7, 3] = np.nan
    frames = run(synchronizer(seen), samples)
    bad = [frame.frame for frame in frames if not np.isfinite(frame.rows).all()]
    assert bad == [40]
    assert [frame.frame for frame in frames] == list(range(80))
    assert np.abs(errors(seen, frames)).max() < 0.1


def test_clipped_samples_are_counted(air):
    seen = air(30, users=2, antennas=4)
    samples = seen.samples / 100
    samples[100, 2] = samples[5000, 2] = 1.0
    samples[77, 0] = -1j
    sync = synchronizer(seen, full_scale=1.0)
    run(sync, samples)
    assert sync.clipped.tolist() == [1, 0, 2, 0]
    assert sync.counters["clipped"] == 3


def test_noise_variance_may_be_given(air):
    seen = air(40, users=4)
    frames = run(synchronizer(seen, noise_var=0.25), seen.samples)
    assert {frame.noise_var for frame in frames} == {0.25}


def test_errors_name_the_cure(air):
    seen = air(1)
    with pytest.raises(ConfigError, match="preamble of 8 symbols"):
        Synchronizer(seen.burst.__class__(pilot_len=4, data_len=4, preamble_len=4), 4, sample_rate_hz=1e6)
    with pytest.raises(ShapeError, match="one column an antenna"):
        synchronizer(seen).push(seen.samples[:, :3])
