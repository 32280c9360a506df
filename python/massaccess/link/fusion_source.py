"""Where access points have their frames from: a share of a simulation, a recording, or whatever is pushed into a buffer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from ..core import Observation, SystemConfig
from ..errors import ConfigError, ShapeError
from ..forward.modulation import constellation
from ..forward.pilots import book_id
from ..forward.simulate import Population, Simulation, observe
from ..receivers.pvi import part_of, share
from .metadata import converter_of
from .recording import Recording

FOREVER = 2**53


@dataclass(frozen=True)
class Air:
    """What access points and the centre have to agree on."""

    users: int
    pilot_len: int
    data_len: int
    modulation: str
    pilot_book: str

    @staticmethod
    def of(config: SystemConfig, pilots: torch.Tensor) -> Air:
        return Air(config.users, config.pilot_len, config.data_len, config.modulation, book_id(pilots))

    @property
    def numbers(self) -> dict[str, int]:
        """As they stand in a hello."""
        bits = constellation(self.modulation).bits_per_symbol
        return {"users": self.users, "pilot_len": self.pilot_len, "data_len": self.data_len, "bits_per_symbol": bits}


class Source(Protocol):
    """Where an access point has its frames from."""

    @property
    def air(self) -> Air: ...

    @property
    def antennas(self) -> int: ...

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        ...

    def span(self) -> tuple[int, int]:
        """First frame that is at hand, and the first that is not yet."""
        ...

    def frames(self, start: int, count: int) -> Observation | None:
        """What its antennas received; None when these frames are not at hand (any more)."""
        ...


def check_coherent(config: SystemConfig) -> None:
    """Raises ConfigError for index-modulated frames: they have no symbols to agree on."""
    if config.index_bits:
        raise ConfigError(f"index_bits is {config.index_bits}: access points need data symbols, pass --index-bits 0 and --data 1")


@dataclass(frozen=True)
class SimulatedShare:
    """The antennas that access point ``index`` of ``of`` holds of a simulated array; all access points of a seed hear the same users."""

    config: SystemConfig
    seed: int
    index: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of <= self.config.antennas:
            raise ConfigError(f"access point {self.index} of {self.of} with {self.config.antennas} antennas: count from 0, an antenna each")
        if self.config.activity_prior != 1:
            raise ConfigError(f"activity is {self.config.activity_prior}: access points have to know who is active, pass --active-users")
        check_coherent(self.config)

    @cached_property
    def simulation(self) -> Simulation:
        return Simulation(self.config, self.seed)

    @cached_property
    def air(self) -> Air:
        return Air.of(self.config, self.simulation.population.pilots)

    @cached_property
    def antennas(self) -> int:
        return len(range(self.config.antennas)[part_of(self.config.antennas, self.index, self.of)])

    @property
    def ended(self) -> bool:
        return False

    def span(self) -> tuple[int, int]:
        return 0, FOREVER

    def frames(self, start: int, count: int) -> Observation:
        return share(self.simulation.frames(start, count)[1], self.index, self.of)


@dataclass(frozen=True)
class RecordedShare:
    """A recording of an access point's own antennas or, with ``index`` and ``of``, its share of a recording of the whole array."""

    recording: Recording
    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if self.recording.config.activity_prior != 1:
            raise ConfigError(
                f"{self.recording.path} has unknown activity: access points have to know who is active, record all users active"
            )
        check_coherent(self.recording.config)
        if self.recording.metadata.noise_var is None:
            raise ConfigError(f"{self.recording.path} does not say its noise variance: record it with the metadata noise_var")

    @cached_property
    def pilots(self) -> torch.Tensor:
        return Population(self.recording.config).pilots

    @cached_property
    def air(self) -> Air:
        return Air.of(self.recording.config, self.pilots)

    @property
    def antennas(self) -> int:
        return len(range(self.recording.config.antennas)[part_of(self.recording.config.antennas, self.index, self.of)])

    @property
    def ended(self) -> bool:
        return True

    def span(self) -> tuple[int, int]:
        first, last = self.recording.runs[0], self.recording.runs[-1]
        return first.metadata.frame or 0, (last.metadata.frame or 0) + last.count

    def frames(self, start: int, count: int) -> Observation | None:
        """None also for frames between which the recording has a gap."""
        config = self.recording.config
        for run in self.recording.runs:
            offset = start - (run.metadata.frame or 0)
            if offset >= 0 and offset + count <= run.count:
                rx = torch.from_numpy(np.array(self.recording.read(run, offset, count), np.complex64))
                known = run.metadata
                assert known.noise_var is not None
                end = converter_of(known, (config.frame_len, config.antennas))
                facts: dict[str, Any] = {"noise_var": known.noise_var, "activity": 1.0, "modulation": config.modulation, "front_end": end}
                return share(observe(rx, self.pilots, **facts), self.index, self.of)
        return None


class FrameBuffer:
    """Frames of a stream, the last ``capacity`` of them: `push` what the antennas received, in any thread; the rest is `Source`.

    ``known`` are the fields of `Observation` beside the samples, those that are known from the start: noise_var, modulation, front_end.
    ``dropped`` counts frames that were never asked for before newer ones took their room.
    """

    def __init__(self, pilots: torch.Tensor, data_len: int, antennas: int, *, capacity: int = 64, **known: Any) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity is {capacity}: pass how many frames to keep, 1 or more")
        self.pilots, self.antennas, self.capacity, self.known = pilots, antennas, capacity, {"activity": 1.0, **known}
        self.air = Air(pilots.shape[1], pilots.shape[0], data_len, str(known.get("modulation", "qpsk")), book_id(pilots))
        self.dropped = self.asked = 0
        self.ended = False
        self._kept: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._next = 0
        self._changed = threading.Condition()

    def push(self, rx: torch.Tensor, first: int | None = None, **known: Any) -> None:
        """Frames rx [B L+D M] complex, numbered from ``first`` on (default: after the last); ``known`` holds from now on."""
        if rx.shape[1:] != (self.air.pilot_len + self.air.data_len, self.antennas):
            raise ShapeError(f"rx is {list(rx.shape)}: pass [frames, {self.air.pilot_len + self.air.data_len}, {self.antennas}]")
        with self._changed:
            self.known |= known
            self._next = self._next if first is None else first
            for frame in rx.clone():
                self._kept[self._next] = frame
                self._next += 1
            while len(self._kept) > self.capacity:
                self.dropped += self._kept.popitem(last=False)[0] >= self.asked

    def end(self) -> None:
        """No more frames will come."""
        self.ended = True

    def room(self, timeout_s: float = 0.0) -> int:
        """Frames that can be pushed before one is lost that was not asked for yet; waits for the first up to ``timeout_s``."""
        with self._changed:
            if not (room := self._room()) and timeout_s and self._changed.wait(timeout_s):
                room = self._room()
            return room

    def _room(self) -> int:
        return self.capacity - sum(1 for index in self._kept if index >= self.asked)

    def span(self) -> tuple[int, int]:
        with self._changed:
            return next(iter(self._kept), self._next), self._next

    def frames(self, start: int, count: int) -> Observation | None:
        with self._changed:
            self.asked = max(self.asked, start + count)
            self._changed.notify_all()
            rows = [self._kept.get(index) for index in range(start, start + count)]
        found = [row for row in rows if row is not None]
        return observe(torch.stack(found), self.pilots, **self.known) if len(found) == count else None
