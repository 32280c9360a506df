"""Channel models: who draws the rows of ``channel`` [frame user antenna].

Every model is a frozen dataclass with one method, ``draw``, and one attribute, ``covariance``. `CHANNELS` is the one list of names;
`make_channel` turns the name in a `SystemConfig` into a model.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core import LOSS_AT_1_KM_DB, SystemConfig
from ..errors import ConfigError, ShapeError, unknown
from ..rng import complex_normal
from ..rng import generator as seeded
from .banks import read_bank

DATA = Path(__file__).resolve().parent.parent / "data"
SPLITS = ("train", "test")
SPREADS = ("area", "distance")  # what users are spread evenly over
SHIPPED = {  # banks by name and by rows and columns of the array
    "uma": {(8, 8): "uma_nlos_8x8", (12, 12): "uma_nlos_12x12"},
    "florence": {(8, 8): "florence_8x8"},
}


class ChannelModel(Protocol):
    """A distribution of channels over the users of a cell.

    ``covariance`` [M M] complex64 is the long-term E[h h^H] over the user ensemble (over the training half, for a bank); ``None`` when it
    is the identity or must not be known.
    """

    @property
    def covariance(self) -> Tensor | None: ...

    def draw(self, frames: int, users: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Channels [frames users M] complex64 on the generator's device; each user's mean power gain [frames users], ``None``: all 1."""
        ...


@dataclass(frozen=True)
class Rayleigh:
    """Independent Rayleigh fading: every entry CN(0, 1).

    >>> channel, gain = Rayleigh(antennas=4).draw(2, 3, generator=torch.Generator().manual_seed(0))
    >>> channel.shape, gain
    (torch.Size([2, 3, 4]), None)
    """

    antennas: int

    @property
    def covariance(self) -> Tensor | None:
        return None

    def draw(self, frames: int, users: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return complex_normal(frames, users, self.antennas, generator=generator), None


@dataclass(frozen=True)
class PathLoss:
    """Rayleigh fading times the path loss of users around the array, between ``min_km`` and ``max_km`` from it.

    The loss is 128.1 + ``slope_db`` log10(d / km) dB without shadowing: 37.6 in 3GPP TR 36.942 (urban macro cell at 2 GHz) and P0, which
    leaves both distances out; 36.7 in P3. Users are spread evenly over the "area" of the disc, or over the "distance" (P3). With
    ``power_control`` every user inverts its loss, and what is left is plain Rayleigh fading. Without, gains are returned, relative to
    their mean over the users, or to that of a user 1 km away (``absolute``). Users stand elsewhere in every frame, or, with a
    ``placement_seed``, where it puts them.

    >>> channel, gain = PathLoss(antennas=4, power_control=False).draw(2, 3, generator=torch.Generator().manual_seed(0))
    >>> channel.shape, gain.shape
    (torch.Size([2, 3, 4]), torch.Size([2, 3]))
    """

    antennas: int
    power_control: bool = True
    min_km: float = 0.05
    max_km: float = 1.0
    slope_db: float = 37.6
    spread: str = "area"
    absolute: bool = False
    placement_seed: int | None = None

    def __post_init__(self) -> None:
        if self.spread not in SPREADS:
            raise unknown("spread", self.spread, SPREADS)
        if not 0 < self.min_km < self.max_km:
            raise ConfigError(f"users between {self.min_km} and {self.max_km} km: pass 0 < min_km < max_km")

    @property
    def covariance(self) -> Tensor | None:
        return None

    def draw(self, frames: int, users: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        fading = complex_normal(frames, users, self.antennas, generator=generator)
        if self.power_control:
            return fading, None
        if self.placement_seed is None:
            share = torch.rand(frames, users, generator=generator, device=generator.device)
        else:
            fixed = torch.rand(users, generator=seeded(self.placement_seed, "placement"))
            share = fixed.to(generator.device).expand(frames, -1)
        order = 1 if self.spread == "distance" else 2
        distance_km = (self.min_km**order + share * (self.max_km**order - self.min_km**order)) ** (1 / order)
        relative_db = path_loss_db(distance_km, self.slope_db) - LOSS_AT_1_KM_DB
        gain = torch.pow(10.0, -relative_db / 10) * (1 if self.absolute else 1 / self.mean_gain())
        return fading * gain.sqrt().unsqueeze(-1), gain

    @property
    def gain_range_db(self) -> tuple[float, float]:
        """Gains [dB] of users on the edge and nearest to the array."""
        shift = 0.0 if self.absolute else 10 * math.log10(self.mean_gain())
        return -self.slope_db * math.log10(self.max_km) - shift, -self.slope_db * math.log10(self.min_km) - shift

    def mean_gain(self) -> float:
        """Mean power gain over the users, that of a user 1 km away being 1: distances have density k d^(k-1) / (max^k - min^k) on
        [min, max], with k = 2 over the area and 1 over the distance.

        >>> round(10 * math.log10(PathLoss(antennas=1).mean_gain()), 2)
        23.44
        """
        slope, order = self.slope_db / 10, 1 if self.spread == "distance" else 2
        whole = self.max_km**order - self.min_km**order
        return order / whole * (self.min_km ** (order - slope) - self.max_km ** (order - slope)) / (slope - order)


def path_loss_db(distance_km: Tensor, slope_db: float = 37.6) -> Tensor:
    """Path loss 128.1 + slope_db log10(d / km) [dB].

    >>> path_loss_db(torch.tensor([1.0, 0.1]))
    tensor([128.1000,  90.5000])
    """
    return LOSS_AT_1_KM_DB + slope_db * torch.log10(distance_km)


@dataclass(frozen=True)
class Kronecker:
    """Rayleigh fading that neighbouring antennas share: covariance R_row (x) R_col with exponential correlation.

    Entry (i, j) of either factor is ``correlation ** |i - j|`` (Loyka 2001, "Channel capacity of MIMO architecture using the exponential
    correlation matrix"); the antenna index is row * columns + column, so the row factor comes first in the Kronecker product.

    >>> Kronecker(rows=2, columns=2, correlation=0.5).covariance.real
    tensor([[1.0000, 0.5000, 0.5000, 0.2500],
            [0.5000, 1.0000, 0.2500, 0.5000],
            [0.5000, 0.2500, 1.0000, 0.5000],
            [0.2500, 0.5000, 0.5000, 1.0000]])
    """

    rows: int
    columns: int
    correlation: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.correlation < 1:
            raise ConfigError(f"correlation is {self.correlation}: pass 0 (independent antennas) up to, but not including, 1")

    @property
    def covariance(self) -> Tensor | None:
        return torch.kron(self._factor(self.rows), self._factor(self.columns)).to(torch.complex64)

    def draw(self, frames: int, users: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        root = torch.kron(torch.linalg.cholesky(self._factor(self.rows)), torch.linalg.cholesky(self._factor(self.columns)))
        white = complex_normal(frames, users, self.rows * self.columns, generator=generator)
        return white @ root.T.to(white), None

    def _factor(self, size: int) -> Tensor:
        index = torch.arange(size, dtype=torch.float64)
        return self.correlation ** (index[:, None] - index[None, :]).abs()


@dataclass(frozen=True, eq=False)
class Bank:
    """Channels from a list, for instance a file of simulated or measured ones.

    h [n M] complex64, gain_db [n] (each user's own gain before normalisation, for reference). The first ``train`` rows are the training
    half, the others the test half, and only the half that ``split`` names is ever drawn. ``covariance`` is the mean of h h^H over the
    training half, whichever is drawn: what a base station learns beforehand. Without a training half it is ``assumed``, or ``None``.

    >>> bank = Bank(torch.eye(6, dtype=torch.complex64), torch.zeros(6), train=3)
    >>> channel, _ = bank.draw(1, 3, generator=torch.Generator().manual_seed(0))
    >>> channel[0].abs().sum(0)
    tensor([0., 0., 0., 1., 1., 1.])
    """

    h: Tensor = field(repr=False)
    gain_db: Tensor = field(repr=False)
    train: int = 0
    split: str = "test"
    name: str = "bank"
    assumed: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.h.ndim != 2 or not self.h.is_complex() or self.gain_db.shape != self.h.shape[:1]:
            raise ShapeError(
                f"h is {self.h.dtype} {list(self.h.shape)} and gain_db {list(self.gain_db.shape)}: pass complex [n, antennas] and real [n]"
            )
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        if not 0 <= self.train <= len(self.h):
            raise ConfigError(f"train is {self.train} but {self.name} has {len(self.h)} channels: pass the length of the training half")
        if len(self.rows) == 0:
            other = "test" if self.split == "train" else "train"
            raise ConfigError(
                f"{self.name} has no {self.split} half (train={self.train} of {len(self.h)}): pass split='{other}' or make a new bank"
            )

    @classmethod
    def load(cls, path: str | Path, *, split: str = "test") -> Bank:
        """One half of the file that `read_bank` reads, with its errors."""
        stored = read_bank(path)
        known = None if stored["covariance"] is None else torch.from_numpy(stored["covariance"])
        return cls(torch.from_numpy(stored["h"]), torch.from_numpy(stored["gain_db"]), stored["train"], split, str(path), known)

    @property
    def antennas(self) -> int:
        return self.h.shape[1]

    @property
    def rows(self) -> Tensor:
        """The half that is drawn, [n' M]."""
        return self.h[self.train :] if self.split == "test" else self.h[: self.train]

    @functools.cached_property
    def covariance(self) -> Tensor | None:
        half = self.h[: self.train]
        return half.T @ half.conj() / self.train if self.train else self.assumed

    def draw(self, frames: int, users: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Distinct channels within a frame, each turned by a random phase of its own; gains are normalised away, so ``None``."""
        rows, device = self.rows, generator.device
        if users > len(rows):
            raise ConfigError(
                f"{self.name} has {len(rows)} {self.split} channels for {users} users a frame: pass users={len(rows)} or make a larger bank"
            )
        index = torch.stack([torch.randperm(len(rows), generator=generator, device=device)[:users] for _ in range(frames)])
        turn = 2 * math.pi * torch.rand(frames, users, 1, generator=generator, device=device)
        return rows.to(device)[index] * torch.polar(torch.ones_like(turn), turn), None


@dataclass(frozen=True)
class Entry:
    """One line of `CHANNELS`: what a name stands for, where it comes from, and how it is made from (config, split)."""

    description: str
    source: str
    make: Callable[[SystemConfig, str], Any] = field(repr=False)


def _shipped(name: str, *, assumed: str = "") -> Callable[[SystemConfig, str], ChannelModel]:
    def make(config: SystemConfig, split: str) -> ChannelModel:
        grid, grids = (config.rows, config.columns), SHIPPED[name]
        if grid not in grids:
            raise ShapeError(
                f"the shipped bank {name} is for {' and '.join(f'{rows}x{columns}' for rows, columns in grids)} arrays but this one is "
                f"{config.rows}x{config.columns}: pass rows=8, columns=8, "
                "or make a bank with `massaccess channels generate --rows R --columns C`"
            )
        bank = _load_bank(DATA / f"{grids[grid]}.npz", split)
        return replace(bank, assumed=_load_bank(DATA / f"{SHIPPED[assumed][grid]}.npz", split).covariance) if assumed else bank

    return make


def _path_loss(config: SystemConfig, **law: Any) -> PathLoss:
    return PathLoss(config.antennas, config.power_control, absolute=config.link_budget, placement_seed=config.placement_seed, **law)


CHANNELS: dict[str, Entry] = {
    "rayleigh": Entry("independent Rayleigh fading, CN(0, 1)", "textbook", lambda config, split: Rayleigh(config.antennas)),
    "pathloss": Entry(
        "Rayleigh fading and the path loss of users 50 m to 1 km away, undone by power control",
        "3GPP TR 36.942, 128.1 + 37.6 log10(d/km) dB",
        lambda config, split: _path_loss(config),
    ),
    "pathloss-20db": Entry(
        "the same with users 294 m to 1 km away: 20 dB between the nearest and the farthest",
        "3GPP TR 36.942, 128.1 + 37.6 log10(d/km) dB",
        lambda config, split: _path_loss(config, min_km=10 ** (-20 / 37.6)),
    ),
    "pathloss-uniform": Entry(
        "Rayleigh fading and the path loss of users at distances evenly spread from 50 m to 1 km",
        "P3, 128.1 + 36.7 log10(d/km) dB",
        lambda config, split: _path_loss(config, slope_db=36.7, spread="distance"),
    ),
    "kronecker": Entry(
        "Rayleigh fading with exponential correlation 0.7 along rows and columns",
        "Loyka 2001",
        lambda config, split: Kronecker(config.rows, config.columns),
    ),
    "uma": Entry(
        "shipped bank: urban macro cell without line of sight, 8x8 array (12x12: for tests only), 3.5 GHz",
        "3GPP TR 38.901 v16.1, made with Sionna",
        _shipped("uma"),
    ),
    "florence": Entry(
        "shipped bank: ray-traced old town, 8x8 array, 3.5 GHz; receivers know the covariance of uma, not of this city",
        "Sionna RT, scene Florence",
        _shipped("florence", assumed="uma"),
    ),
}


def make_channel(config: SystemConfig, *, split: str = "test") -> ChannelModel:
    """The channel model that ``config.channel`` names: a key of `CHANNELS`, or the path of an ``.npz`` channel bank.

    ``split`` picks the half of a bank ("train" for whatever is fitted or tuned); the other models have no halves.
    Raises UnknownNameError, and ShapeError when a bank is for another number of antennas.

    >>> make_channel(SystemConfig(channel="rayleigh", rows=2, columns=3))
    Rayleigh(antennas=6)
    """
    if config.channel in CHANNELS:
        return CHANNELS[config.channel].make(config, split)
    if not config.channel.endswith(".npz"):
        raise unknown("channel", config.channel, [*CHANNELS, "FILE.npz"])
    bank = _load_bank(Path(config.channel), split)
    if bank.antennas != config.antennas:
        raise ShapeError(
            f"{config.channel} has {bank.antennas} antennas but the array has {config.antennas}: "
            f"pass rows and columns whose product is {bank.antennas}"
        )
    return bank


def received_power(config: SystemConfig) -> float:
    """E|y|^2 of one antenna sample, signal plus noise: what a slow gain control settles on."""
    absolute = config.link_budget and not config.power_control and config.channel in CHANNELS  # a bank, which may be elsewhere, has mean 1
    model = make_channel(config) if absolute else None
    gain = model.mean_gain() if isinstance(model, PathLoss) else 1.0
    energy = 1.0 if config.pilot_energy == "symbol" or config.data_len else 1 / config.pilot_len
    return config.activity_prior * config.users * gain * energy + config.noise_var


def _load_bank(path: Path, split: str) -> Bank:
    state = os.stat(path) if path.is_file() else None
    return _cached_bank(str(path), split, *((state.st_mtime_ns, state.st_size) if state else (0, 0)))


@functools.lru_cache(maxsize=8)
def _cached_bank(path: str, split: str, mtime_ns: int, size: int) -> Bank:  # a file that changed is another key
    return Bank.load(path, split=split)
