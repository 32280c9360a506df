"""Where access points have their frames from: a share of a simulation, or whatever is pushed into a buffer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from ..core import Observation, SystemConfig
from ..errors import ConfigError, ShapeError
from ..forward.modulation import constellation
from ..forward.pilots import book_id
from ..forward.simulate import Simulation, observe
from ..receivers.pvi import share

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

    def span(self) -> tuple[int, int]:
        """First frame that is at hand, and the first that is not yet."""
        ...

    def frames(self, start: int, count: int) -> Observation | None:
        """What its antennas received; None when these frames are not at hand (any more)."""
        ...


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

    @cached_property
    def simulation(self) -> Simulation:
        return Simulation(self.config, self.seed)

    @cached_property
    def air(self) -> Air:
        return Air.of(self.config, self.simulation.population.pilots)

    @cached_property
    def antennas(self) -> int:
        return self.frames(0, 1).antennas

    def span(self) -> tuple[int, int]:
        return 0, FOREVER

    def frames(self, start: int, count: int) -> Observation:
        return share(self.simulation.frames(start, count)[1], self.index, self.of)


class FrameBuffer:
    """Frames of a stream, the last ``capacity`` of them: `push` what the antennas received, in any thread; the rest is `Source`.

    ``known`` are the fields of `Observation` beside the samples: noise_var, modulation, front_end. ``dropped`` counts frames that were
    never asked for before newer ones took their room.
    """

    def __init__(self, pilots: torch.Tensor, data_len: int, antennas: int, *, capacity: int = 64, **known: object) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity is {capacity}: pass how many frames to keep, 1 or more")
        self.pilots, self.antennas, self.capacity, self.known = pilots, antennas, capacity, {"activity": 1.0, **known}
        self.air = Air(pilots.shape[1], pilots.shape[0], data_len, str(known.get("modulation", "qpsk")), book_id(pilots))
        self.dropped = self.asked = 0
        self._kept: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._next = 0
        self._lock = threading.Lock()

    def push(self, rx: torch.Tensor, first: int | None = None) -> None:
        """Frames rx [B L+D M] complex, numbered from ``first`` on (default: after the last)."""
        if rx.shape[1:] != (self.air.pilot_len + self.air.data_len, self.antennas):
            raise ShapeError(f"rx is {list(rx.shape)}: pass [frames, {self.air.pilot_len + self.air.data_len}, {self.antennas}]")
        with self._lock:
            self._next = self._next if first is None else first
            for frame in rx.clone():
                self._kept[self._next] = frame
                self._next += 1
            while len(self._kept) > self.capacity:
                self.dropped += self._kept.popitem(last=False)[0] >= self.asked

    @property
    def room(self) -> int:
        """Frames that can be pushed before one is lost that was not asked for yet."""
        with self._lock:
            return self.capacity - sum(1 for index in self._kept if index >= self.asked)

    def span(self) -> tuple[int, int]:
        with self._lock:
            return next(iter(self._kept), self._next), self._next

    def frames(self, start: int, count: int) -> Observation | None:
        with self._lock:
            self.asked = max(self.asked, start + count)
            rows = [self._kept.get(index) for index in range(start, start + count)]
        found = [row for row in rows if row is not None]
        return observe(torch.stack(found), self.pilots, **self.known) if len(found) == count else None
