"""Recipes: what to train, on what, and how; one TOML file each.

>>> recipe = read("uma-gate")
>>> recipe.network, recipe.data.sources[0].channel
('gate', 'uma')
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import SystemConfig
from ..errors import ConfigError, unknown
from ..networks import DETECTORS, NONCOHERENT
from ..weights import KINDS

FOLDER = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Source:
    """Where a share of the channels comes from. channel: a name of `forward.channels.CHANNELS`, an .npz bank, or "paths" (plane waves,
    see `data.PlaneWaves`); weight: its share; limit: at most so many of a bank's channels; activity, power_control: of matrices."""

    channel: str
    weight: float = 1.0
    limit: int = 0
    activity: float = 0.1
    power_control: bool = True


@dataclass(frozen=True)
class Data:
    """Sources, the first of which is validated on; power_jitter_db: uniform spread to either side of every sample's power; sizes: of
    matrices, [users, antennas], one of them a step."""

    sources: tuple[Source, ...]
    power_jitter_db: float = 0.0
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Frames:
    """What frames of kind "activity" are like. Drawn for every batch: pilot length, within ``pilots`` (inclusive); users, one of ``users``;
    the part of the array that is seen, one of ``arrays`` (none: all of it). Drawn for every frame: prior activity and received SNR, within
    their bounds; the spread of the users' known gains, up to ``gain_db`` to either side of 0 dB.

    book "redrawn": QPSK pilots of every frame are new, so that the network learns no book; "fixed": it knows the QPSK book of seed
    ``book_seed``, which is cut to the pilot length, and no other.
    """

    pilots: tuple[int, int] = (8, 28)
    users: tuple[int, ...] = (128,)
    arrays: tuple[tuple[int, int], ...] = ()
    activity: tuple[float, float] = (0.1, 0.1)
    snr_db: tuple[float, float] = (10.0, 10.0)
    gain_db: float = 0.0
    book: str = "redrawn"
    book_seed: int = 0

    @property
    def longest(self) -> int:
        return self.pilots[1]

    @property
    def knows(self) -> dict[str, Any]:
        """What a weights file says of the pilots that its network was trained with."""
        book = {"kind": "qpsk", "seed": self.book_seed, "users": max(self.users)} if self.book == "fixed" else {}
        return {"book": self.book, "shortest": self.pilots[0], "longest": self.pilots[1], **book}


@dataclass(frozen=True)
class Cell:
    """Of kind "noncoherent": the one situation that a network is trained for, fields of SystemConfig, its pilot book and, with a
    ``placement_seed``, its users' distances included. start: what the network takes for the users' mean powers at first: "devices", those
    in so many first ``frames``, each user's own; "mean", the same for all, what frames are received with."""

    system: Mapping[str, Any] = field(default_factory=dict)
    start: str = "devices"
    frames: int = 2048

    @property
    def config(self) -> SystemConfig:
        return SystemConfig.from_dict(self.system)


@dataclass(frozen=True)
class Noise:
    """Noise levels sigma of training (total deviation of a complex entry). kind "log-uniform": between least and greatest; "log-normal":
    around ``centre_db`` (of sigma^2) with a standard deviation of ``spread_db``, cut at least and greatest.

    weighting "dsm": |error|^2 / sigma^2, which is score matching with lambda = sigma^2; "relative": |error|^2 over the error of LMMSE at
    that level, which is the same at high SNR and does not drown in what no prior can tell at low SNR.
    """

    kind: str = "log-uniform"
    least: float = 0.01
    greatest: float = 30.0
    centre_db: float = -5.0
    spread_db: float = 8.0
    weighting: str = "dsm"


@dataclass(frozen=True)
class Optimiser:
    """AdamW and what goes with it. schedule: "constant", "cosine" (to 1 % of the rate at the last step) or "step" (a tenth after every
    ``decay`` steps), after ``warmup`` steps; ema: decay of the average that is validated and kept; clip: greatest gradient norm; nll: share
    of the Gaussian negative log-likelihood that trains an error head on the detached error; early: share of the loss of what an unrolled
    detector says before its last stage; autocast: bfloat16 on CUDA; compile: torch.compile. phases: [share of the steps, rate] of each
    phase of a network that is trained part by part, in place of ``rate``; warm-up and schedule are those of each phase."""

    steps: int = 10_000
    batch: int = 128
    rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    weight_decay: float = 0.0
    beta2: float = 0.999
    ema: float = 0.999
    clip: float = 1.0
    nll: float = 0.1
    decay: int = 10_000
    early: float = 0.0
    autocast: bool = False
    compile: bool = False
    phases: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Em:
    """What takes the optimiser's place in fitting a mixture: at most so many iterations, until a channel's log-likelihood gains less than
    ``tolerance`` nats, on so many channels (0: all of the bank)."""

    iterations: int = 60
    tolerance: float = 1e-3
    channels: int = 30_000


@dataclass(frozen=True)
class Policy:
    """Rows of a step that come out of the receiver's own iterations (`policy.rows`), for networks that take coloured noise; ``rows`` = 0:
    none. Bounds are inclusive: users; pilots_beyond_users; data symbols, where there are any (a share ``with_data`` of the steps);
    received snr_db; ``iterations``: evaluations of the network before the one that is trained, at most."""

    rows: int = 0
    users: tuple[int, int] = (4, 16)
    pilots_beyond_users: tuple[int, int] = (-4, 18)
    data: tuple[int, int] = (10, 60)
    with_data: float = 0.5
    snr_db: tuple[float, float] = (-2.0, 20.0)
    iterations: int = 3


@dataclass(frozen=True)
class Validation:
    """``channels`` of the first source's training half that training never sees (for models without halves: of a seed of its own),
    looked at every ``every`` steps. Of kind "activity": so many frames of each source, at each length of ``pilots``, at this ``activity``
    and received ``snr_db``, with channels of banks that training never sees."""

    channels: int = 1024
    every: int = 1000
    pilots: tuple[int, ...] = (8, 12, 16)
    activity: float = 0.1
    snr_db: float = 10.0


@dataclass(frozen=True)
class Recipe:
    """name, summary; network: key of `networks.NETWORKS` with constructor arguments ``config`` (rows and columns are added for kind
    "channel"); what the tables of the file say."""

    name: str
    network: str
    data: Data
    summary: str = ""
    kind: str = "channel"
    rows: int = 8
    columns: int = 8
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise = Noise()
    frames: Frames = Frames()
    cell: Cell = Cell()
    policy: Policy = Policy()
    optimiser: Optimiser = Optimiser()
    em: Em = Em()
    validation: Validation = Validation()

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        for kind, networks in (("activity", DETECTORS), ("noncoherent", NONCOHERENT)):
            _require(
                (self.kind == kind) == (self.network in networks),
                f"kind {self.kind!r} does not go with network {self.network!r}: {kind!r} goes with {' or '.join(networks)}",
            )
        _one_of("kind of noise levels", self.noise.kind, ("log-uniform", "log-normal"))
        _one_of("weighting", self.noise.weighting, ("dsm", "relative"))
        _one_of("schedule", self.optimiser.schedule, ("constant", "cosine", "step"))
        _one_of("book of frames", self.frames.book, ("fixed", "redrawn"))
        for what, value in (
            ("steps", self.optimiser.steps),
            ("batch", self.optimiser.batch),
            ("iterations of EM", self.em.iterations),
            ("validation channels", self.validation.channels),
        ):
            _require(value >= 1, f"{what} is {value}: pass 1 or more")
        _require(self.validation.every >= 1, f"validation.every is {self.validation.every}: pass steps, 1 or more")
        _require(0 < self.noise.least < self.noise.greatest, "noise levels: pass 0 < least < greatest")
        _require(len(self.data.sources) > 0 or self.kind == "noncoherent", "the recipe has no [[data.sources]]: name one channel or more")
        _require(all(source.weight > 0 for source in self.data.sources), "weights of sources are shares: pass numbers above 0")
        _require(
            (self.kind == "matrix") == bool(self.data.sizes), "data.sizes: pass [users, antennas] pairs for kind matrix, otherwise none"
        )
        _require(self.policy.rows >= 0 and 2 <= self.policy.users[0] <= self.policy.users[1], "policy: pass rows >= 0, 2 or more users")
        _require(self.optimiser.rate > 0 and 0 <= self.optimiser.ema < 1, "optimiser: pass a rate above 0 and an ema in [0, 1)")

        _require(self.optimiser.decay >= 1, f"optimiser.decay is {self.optimiser.decay}: pass steps, 1 or more")
        if self.kind == "activity":
            _check_frames(self)
        if self.kind == "noncoherent":
            _check_cell(self)
        rates = all(len(one) == 2 and min(one) > 0 for one in self.optimiser.phases)
        _require(rates, "optimiser.phases: pass [share of the steps, rate] pairs above 0")
        _require(self.em.channels >= 0, f"em.channels is {self.em.channels}: pass 1 or more, or 0 for all of the bank")
        _require(
            not self.fitted or (self.kind == "channel" and not self.policy.rows),
            f"{self.network} is fitted to rows of channels: make its kind 'channel', and leave out the table [policy]",
        )

    @property
    def fitted(self) -> bool:
        """By EM rather than by gradients: [noise] and [optimiser] do not matter then, [em] does."""
        return self.network in ("mixture", "angles")

    @property
    def steps(self) -> int:
        """Of the optimiser, or of EM."""
        return self.em.iterations if self.fitted else self.optimiser.steps

    @property
    def network_config(self) -> dict[str, Any]:
        """All constructor arguments of the network."""
        if self.kind == "noncoherent":
            cell = self.cell.config
            return {name: getattr(cell, name) for name in ("users", "sequences", "pilot_len", "antennas")} | dict(self.config)
        array = {"rows": self.rows, "columns": self.columns} if self.kind == "channel" else {}
        return {**array, **self.config}

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; ``steps`` are the optimiser's, or EM's."""
        if "steps" in changes and self.fitted:
            changes["em"] = dataclasses.replace(self.em, iterations=changes.pop("steps"))
        elif "steps" in changes:
            changes["optimiser"] = dataclasses.replace(self.optimiser, steps=changes.pop("steps"))
        return dataclasses.replace(self, **changes)

    def with_bank(self, path: str) -> Recipe:
        """A copy whose first source, or cell, is the bank at ``path``."""
        if self.kind == "noncoherent":
            return self.replace(cell=dataclasses.replace(self.cell, system={**self.cell.system, "channel": path}))
        first = dataclasses.replace(self.data.sources[0], channel=path)
        return self.replace(data=dataclasses.replace(self.data, sources=(first, *self.data.sources[1:])))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return dataclasses.asdict(self)


def available() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Recipe:
    """A recipe that ships, by name, or one's own, by the path of its .toml file.

    A file that says like = "NAME" begins with that recipe, and changes what it names.
    Raises UnknownNameError (also for unknown fields: it lists the known), and ConfigError when the file or a value is off.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise ConfigError(f"no recipe at {name}: check the path")
        raise unknown("recipe", name, [*available(), "FILE.toml"])
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    document.setdefault("name", path.stem)
    return from_dict(_merged(read(str(document.pop("like"))).to_dict(), document) if "like" in document else document)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, table by table; lists are replaced."""
    both = {name: _merged(base[name], value) for name, value in changes.items() if isinstance(value, Mapping) and name in base}
    return {**base, **changes, **both}


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`."""
    values = dict(values)
    for table, kind in _TABLES.items():
        if table in values:
            values[table] = _fields(kind, values[table], table)
    if values.get("kind") == "noncoherent":
        values.setdefault("data", Data(()))
    for needed in ("network", "data"):
        _require(needed in values, f"the recipe has no {needed}: see those that ship for an example")
    made: Recipe = _fields(Recipe, values, "recipe")
    return made


def _check_frames(recipe: Recipe) -> None:
    frames, wanted = recipe.frames, recipe.validation
    inside = all(1 <= rows <= recipe.rows and 1 <= columns <= recipe.columns for rows, columns in frames.arrays)
    _require(inside, f"frames.arrays are parts of the array: pass [rows, columns] up to [{recipe.rows}, {recipe.columns}]")
    _require(1 <= frames.pilots[0] <= frames.pilots[1], "frames.pilots: pass the shortest length, 1 or more, and the longest")
    _require(recipe.data.power_jitter_db == 0, "data.power_jitter_db is of denoisers: pass frames.gain_db, the spread of known gains")
    _require(len(frames.users) > 0 and min(frames.users) >= 1, "frames.users: pass one number of users or more, each 1 or more")
    _require(0 < frames.activity[0] <= frames.activity[1] < 1, "frames.activity: pass 0 < least <= greatest < 1")
    _require(frames.snr_db[0] <= frames.snr_db[1] and frames.gain_db >= 0, "frames: pass rising bounds of snr_db, and gain_db of 0 or more")
    _require(0 < wanted.activity < 1 and len(wanted.pilots) > 0, "validation: pass an activity between 0 and 1, and lengths of pilots")
    longest = max(wanted.pilots)
    _require(frames.book == "redrawn" or longest <= frames.longest, f"validation.pilots of {longest}: the fixed book ends before")


def _check_cell(recipe: Recipe) -> None:
    cell = recipe.cell.config
    _one_of("start of a cell", recipe.cell.start, ("devices", "mean"))
    _require(recipe.cell.frames >= 1, f"cell.frames is {recipe.cell.frames}: pass 1 or more")
    _require(cell.data_len == 0 and cell.adc_bits is None, "cell.system: pass data_len=0, and no adc_bits")
    _require(not recipe.data.sources, "a cell has one channel, cell.system.channel: leave out [[data.sources]]")


def _data(values: Mapping[str, Any]) -> Data:
    values = dict(values)
    values["sources"] = tuple(_fields(Source, one, "data.sources") for one in values.get("sources", ()))
    values["sizes"] = tuple((int(users), int(antennas)) for users, antennas in values.get("sizes", ()))
    return Data(**values)


def _fields(kind: Any, values: Any, where: str) -> Any:
    _require(isinstance(values, Mapping), f"{where} of the recipe is {values!r:.40}: make it a table")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise unknown(f"field of {where}", name, known)
        default = known[name].default
        if isinstance(default, int | float) and (isinstance(value, str) or isinstance(value, bool) != isinstance(default, bool)):
            raise ConfigError(f"{name} of {where} is {value!r}: pass a value like {default!r}")
    if kind is Data:
        return _data(values)
    if kind is Optimiser and "phases" in values:
        values = {**values, "phases": [(float(share), float(rate)) for share, rate in values["phases"]]}
    if kind is Frames and "arrays" in values:
        values = {**values, "arrays": [(int(rows), int(columns)) for rows, columns in values["arrays"]]}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(what, value, known)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


_TABLES = {
    "data": Data,
    "noise": Noise,
    "frames": Frames,
    "cell": Cell,
    "policy": Policy,
    "optimiser": Optimiser,
    "em": Em,
    "validation": Validation,
}
