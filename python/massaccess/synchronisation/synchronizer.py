"""The stream of an array in, frames out, whatever the sizes of the chunks: the same frames, bit for bit.

It seeks slots (`acquisition`), settles on what the slots around tell (`settling`), and then tracks them (`tracking`). While it seeks and
settles it keeps the samples, so that frames begin with the first slot that could be kept. Everything goes by coordinates, that is by
rx_time: after a gap the grid stands where it would have stood, and slots are never counted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..burst import Burst
from ..errors import ConfigError, ShapeError
from ..forward.waveform import to_rows
from .acquisition import Acquisition, Found
from .cutting import Cut, Cutter
from .frames import COUNTERS, SlotFrame, Time
from .grid import Clock, Stretches
from .placing import Placing
from .preamble_meter import PreambleMeter, SlotMeasure
from .settling import settle
from .tracking import Carrier, Grid, Powers, Timing

LEAST_PREAMBLE = 8  # symbols
SETTLED = 32  # slots after the lock, or a retune, that are waited for
DOUBTS = 8  # slots with power and without preamble, less those with one: the lock is lost
COAST = 4096  # slots of a gap after which they are sought anew: clocks drift meanwhile
RETOLD = 0.5  # samples that slots may stray before their time is told anew
LEVEL_GAIN = 1 / 64


class Synchronizer:
    """Frames from the samples of an array.

    ``burst``: what users send; ``sample_rate_hz`` of the system; ``epoch`` (whole seconds, fraction): when slot 0 began, in networks that
    are slotted by time, otherwise the first slot found is slot 0; ``noise_var``: total variance of a complex noise entry, ``None`` to
    estimate it from the guard; ``full_scale``: of the converters, to count clipped samples, 0 not to.

    ``counters`` account for all slots (see `frames.COUNTERS`); ``clipped`` [antennas] counts samples. Raises ConfigError for a burst
    without a preamble of 8 symbols or more.
    """

    def __init__(
        self,
        burst: Burst,
        antennas: int,
        *,
        sample_rate_hz: float,
        epoch: Time | None = None,
        noise_var: float | None = None,
        full_scale: float = 0.0,
    ) -> None:
        if burst.preamble_len < LEAST_PREAMBLE:
            raise ConfigError(f"preamble_len is {burst.preamble_len}: slots are found by a preamble of {LEAST_PREAMBLE} symbols or more")
        if antennas < 1:
            raise ConfigError(f"antennas is {antennas}: it counts antennas, pass 1 or more")
        self.burst, self.antennas, self.sample_rate_hz = burst, antennas, sample_rate_hz
        self._epoch, self.noise_var, self._full_scale = epoch, noise_var, full_scale
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.clipped = np.zeros(antennas, np.int64)
        self._meter = PreambleMeter(burst, antennas)
        self._placing = Placing(sample_rate_hz, self.counters)
        self._cutter = Cutter(burst.slot_samples, burst.samples_per_symbol // 2, self.counters)
        self._power = np.zeros(antennas)
        self._following = 0  # the index that comes next
        self._reset()

    def push(
        self, samples: np.ndarray, *, time: Time | None = None, rate: float | None = None, freq: float | None = None
    ) -> list[SlotFrame]:
        """The frames that are complete with samples [n antennas] complex64. ``time``, ``rate`` [Hz] and ``freq`` [Hz] are what tags
        say of the first of them; without ``time`` they follow those before. Raises ShapeError for other antennas."""
        if samples.ndim != 2 or samples.shape[1] != self.antennas:
            raise ShapeError(f"samples are {list(samples.shape)}: pass [n, {self.antennas}], one column an antenna")
        self.counters["samples"] += len(samples)
        self._placing.take_rate(rate)
        if self._placing.foreign:
            self.counters["foreign_samples"] += len(samples)
            return []
        frames: list[SlotFrame] = []
        if self._placing.steps_back(time):
            frames = self.flush()
            self.forget()
        self._placing.place(self._samples, len(samples), time, freq)
        self._samples.append(samples)
        self._count_clipped(samples)
        self._run(frames)
        return frames

    def flush(self) -> list[SlotFrame]:
        """The frames that the end of the stream completes. Samples may still come after it, with their time."""
        frames: list[SlotFrame] = []
        self._samples.close()
        self._run(frames, over=True)
        return frames

    def forget(self) -> None:
        """Samples to come have nothing to do with those so far: slots are sought anew, and counted on unless there is an epoch."""
        self._placing.restart()
        self._reset()
        self._following = 0 if self._epoch is not None else self._following

    def set_noise_var(self, noise_var: float | None) -> None:
        """Total variance of a complex noise entry from now on; ``None`` estimates it."""
        self.noise_var = noise_var
        self._powers.given = noise_var

    @property
    def rate(self) -> float:
        """Samples per second, as tags told it."""
        return self._placing.rate

    @property
    def locked(self) -> bool:
        return self._grid is not None and self._settling is None

    def report(self) -> dict[str, Any]:
        """What a monitor wants: locked, cfo_hz, drift_ppm (of the users' clocks against this one's), late_symbols (of the last active
        slot), noise_var, snr_db (all users together, 0 where nobody was heard); rms [antennas] of the samples."""
        cfo, snr = self._carrier.cfo * self.sample_rate_hz / self.burst.samples_per_symbol, self._powers.snr if self.locked else 0.0
        return {
            "locked": self.locked,
            "cfo_hz": cfo,
            "drift_ppm": 1e6 * self._grid.drift if self._grid else 0.0,
            "late_symbols": self._late,
            "noise_var": self._powers.told if self.locked else 0.0,
            "snr_db": 10 * math.log10(snr) if snr > 0 else 0.0,
            "rms": np.sqrt(self._power),
        }

    # --- states -----------------------------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """Nothing is known of where slots are; the last index is."""
        self._samples = Stretches(self.antennas)
        self._grid: Grid | None = None
        self._acquisition: Acquisition | None = None
        self._settling: float | None = None  # until this coordinate
        self._carrier, self._powers, self._timing = Carrier(self._meter.span), Powers(self._meter, self.noise_var), Timing()
        self._doubts, self._late = 0, 0.0
        self._due: float | None = None  # the coordinate at which the next frame begins, as far as was told
        self._mark: tuple[float, int] | None = None  # coordinate and index of a slot, of the lock before

    @property
    def _clock(self) -> Clock:
        assert self._placing.clock is not None
        return self._placing.clock

    @property
    def _period(self) -> float:
        """Samples of a slot, at the rate that they come at."""
        return self.burst.slot_samples * self._placing.rate / self.sample_rate_hz

    def _run(self, frames: list[SlotFrame], *, over: bool = False) -> None:
        """Goes from state to state as far as the samples allow."""
        more = True
        while more:
            if self._settling is not None:
                more = self._settle(over)
            elif self._grid is None:
                more = self._seek()
            else:
                more = self._track(frames)

    def _seek(self) -> bool:
        if self._acquisition is None:
            if not self._samples.parts:
                return False
            self._acquisition = Acquisition(self.burst, self._samples.parts[0].start, self._period)
        found = self._acquisition.seek(self._samples)
        self._samples.trim(self._acquisition.kept)
        if found is None:
            return False
        self._found, self._settling = found, found.begun + SETTLED * self._period
        return True

    def _settle(self, over: bool) -> bool:
        """Makes a lock, or the one after a retune, firm once enough samples are there."""
        assert self._settling is not None
        until = self._settling
        if self._samples.end < until + self._period + self.burst.samples_per_symbol and not over:
            return False
        self._settling = None
        grid = self._grid or Grid(self._found.start, 0, self._period)
        cuts = self._cutter.whole(self._samples, grid, until)
        settled = settle(cuts, self._rows, self._meter, self._found.cfo, self.noise_var)
        if self._grid is None and not settled.sure:
            self.counters["false_locks"] += 1
            return True
        self._carrier, self._powers = settled.carrier, settled.powers
        if self._grid is None:
            grid.start += settled.late
            self._enter(grid, settled.slots)
        return True

    def _enter(self, grid: Grid, slots: int) -> None:
        """Begins to track at the first slot of the grid that was kept, with its index."""
        self._acquisition, self._timing, self._doubts = None, Timing(slots), 0
        first = self._samples.parts[0].start - self._cutter.slack
        grid.advance(math.ceil((first - grid.start) / grid.step))
        grid.index = self._index(grid)
        late = max(self._following - grid.index, 0)
        grid.advance(late)
        if self.counters["locks"]:
            self.counters["unlocked"] += grid.index - self._following
        self.counters["locks"] += 1
        self._grid = grid

    def _index(self, grid: Grid) -> int:
        """Of the slot at which a new grid is: by the epoch, by the lock before, or the next one."""
        if self._epoch is not None:
            since = self._clock.coordinate(self._epoch)
            return math.floor((grid.start - since) / self._period + 0.5)
        if self._mark is not None:
            start, index = self._mark
            return index + round((grid.start - start) / self._period)
        return self._following

    def _lose(self, begin: float) -> None:
        """Seeks the slots anew, from a coordinate on."""
        assert self._grid is not None
        self._mark = (self._grid.start, self._grid.index)
        self._following = self._grid.index
        self._grid = None
        self._acquisition = Acquisition(self.burst, begin, self._period)

    def _track(self, frames: list[SlotFrame]) -> bool:
        """One slot; whether there may be more."""
        grid = self._grid
        assert grid is not None
        cut = self._cutter.next(self._samples, grid)
        if cut is None:
            self._samples.trim(grid.start - self.burst.slot_samples)
            return False
        if cut.part.changed:
            cut.part.changed = False
            self._found = Found(grid.start, self._carrier.cfo, grid.start)
            self._settling = grid.start + SETTLED * self._period
            return True
        if self._due is not None and grid.start - self._due > COAST * grid.step:
            self._lose(grid.start)
            return True
        frames.append(self._frame(cut, grid))
        self._cutter.leave(grid, whole=True)
        self._following = grid.index
        if self._doubts >= DOUBTS:
            self.counters["lock_lost"] += 1
            self._lose(grid.start)
        return True

    # --- one slot ---------------------------------------------------------------------------------------------------------------------

    def _rows(self, cut: Cut, late: float, cfo: float) -> np.ndarray:
        """[rows antennas] of a slot that begins ``late`` samples later than cut, turning by ``cfo`` cycles per symbol."""
        whole = math.floor(cut.fraction + late + 0.5)
        window = torch.from_numpy(cut.part.window(cut.first + whole, self.burst.slot_samples))
        delay = (cut.fraction + late - whole) / self.burst.samples_per_symbol
        return np.ascontiguousarray(to_rows(window[None], self.burst, delay=delay, cfo=cfo)[0].numpy())

    def _frame(self, cut: Cut, grid: Grid) -> SlotFrame:
        start, cfo = grid.start, self._carrier.cfo
        rows = self._rows(cut, 0.0, cfo)
        seen = self._meter(rows)
        active = self._learn(seen, cfo, grid)
        told = self._due is None or abs(start - self._due) > RETOLD
        self._due = (start if told or self._due is None else self._due) + self._period
        self.counters["frames"] += 1
        self.counters["active"] += active
        parts = rows.view(np.float32)
        power = np.einsum("tm,tm->m", parts, parts).reshape(-1, 2).sum(1)
        self._power += max(1 / self.counters["frames"], LEVEL_GAIN) * (power / len(rows) - self._power)
        return SlotFrame(grid.index, rows, self._clock.time(start), told, self._powers.told, cut.part.freq, active, cfo)

    def _learn(self, seen: SlotMeasure, cfo: float, grid: Grid) -> bool:
        """Moves the loops by what a slot told, unless nobody was awake; whether somebody was."""
        if not math.isfinite(seen.whole):
            return False
        active = self._meter.found(seen, self._powers.noise_var)
        doubtful = not active and self._meter.crowded(seen, self._powers.noise_var)
        self._doubts = self._doubts + 1 if doubtful else max(self._doubts - active, 0)
        if not doubtful:
            self._powers.update(seen)
        if active:
            self._late = seen.late
            self._carrier.update(seen.turn, cfo)
            self._timing.update(grid, seen.late, self.burst.samples_per_symbol)
        return active

    def _count_clipped(self, samples: np.ndarray) -> None:
        if self._full_scale and len(samples):
            parts = np.abs(np.ascontiguousarray(samples).view(np.float32)) >= self._full_scale
            count = parts.reshape(len(samples), -1, 2).any(2).sum(0)
            self.clipped += count
            self.counters["clipped"] += int(count.sum())
