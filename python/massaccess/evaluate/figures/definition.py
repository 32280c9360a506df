"""What a figure file says.

    id, paper, figure, title, note       names; note: what the paper leaves open, and what stands here instead
    x                                    a field of SystemConfig, "antennas" (in the system's number of rows), "snr_users_db"
                                         (users / noise_var), "steps" (time is up after so many
                                         steps of a receiver; where it has options n_x and n_update, of its channel sampler), "step"
                                         (of a training), "p_fa" (rates of false alarms, any of `roc.LEVELS`: one run a curve, over
                                         its thresholds), "row" (inside a network, in one frame: see `inside`), or the name of an option
                                         of the receivers
    y                                    one panel each: measures of `metrics`, "accuracy" (1 - aep), "multiplications" (of
                                         `operations`), "loss", or "strength"
    [system]                             SystemConfig, without x
    [quick], [full]                      points, frames, slow_frames, batch, books (pilot books that share the frames); note: what was
                                         cut down
    [[curve]]                            key, label (the paper's), receiver; options; system (changes); y (panels, default: all);
                                         slow (takes slow_frames); quick_frames (of the quick run, instead of either); flat (does not
                                         depend on x: run once); quick (options of the quick run, or false: left out of it); trained
                                         (option "weights" is a file that does not ship: left out without one, `--weights KEY=FILE`);
                                         books (instead of the settings', where weights know one book)
    [[claim]]                            says: a sentence of the paper; kind and terms of `claims`, where a machine can check it
    grouped                              the curves of a receiver share a colour in the picture
    like                                 id of a figure from which everything comes that is not said here, but for the claims

>>> figure = load("p1-fig10")
>>> figure.title, figure.x, figure.settings(full=False).frames > 0
('NMSE and BER over SNR, 38.901 UMa channels', 'snr_db', True)
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ...core import SystemConfig
from ...errors import ConfigError, unknown
from ..roc import LEVELS

FOLDER = Path(__file__).resolve().parent
FIELDS = tuple(item.name for item in dataclasses.fields(SystemConfig))
SNR_USERS, STEPS, TRAINING, FALSE_ALARMS = "snr_users_db", "steps", "step", "p_fa"
ANTENNAS, ROW = "antennas", "row"
MEASURES = {
    "nmse_db": "NMSE [dB]",
    "nmse_rows_db": "NMSE, antennas' rows normalised [dB]",
    "nmse_scaled_db": "NMSE, best scale a frame [dB]",
    "ber": "bit error rate",
    "ser_devices": "symbol error rate of devices, silence a symbol",
    "aep": "activity error probability",
    "accuracy": "activity accuracy",
    "p_md": "missed detections",
    "seconds_per_frame": "time per frame [s]",
    "multiplications": "real multiplications per frame",
    "loss": "training loss",
    "strength": "magnitude, relative to the largest",
    "wrong": "wrong decisions",
}
AXES = {
    "snr_db": "received SNR [dB]",
    SNR_USERS: "SNR, users / noise variance [dB]",
    "pilot_len": "pilot symbols",
    "data_len": "data symbols",
    STEPS: "steps until the receiver is stopped",
    TRAINING: "training step",
    ROW: "row",
    "n_h": "channel sampling steps",
    "activity": "probability that a user is active",
    "active_users": "active users",
    FALSE_ALARMS: "false alarms",
    ANTENNAS: "antennas",
}


@dataclass(frozen=True)
class Curve:
    """One line of a figure: a receiver with options, in the system with ``system`` changed."""

    key: str
    label: str
    receiver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    y: tuple[str, ...] = ()
    slow: bool = False
    flat: bool = False
    quick: Mapping[str, Any] | bool = True
    quick_frames: int = 0
    trained: bool = False
    books: int = 0

    def chosen(self, *, full: bool) -> dict[str, Any]:
        """The options of the full or of the quick run."""
        cut = self.quick if not full and isinstance(self.quick, Mapping) else {}
        return {**self.options, **cut}


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper; ``kind`` and ``terms`` say how to check it ("" where only a reader can)."""

    says: str
    kind: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How much is run: x values, frames a point, frames for slow curves, frames at once, pilot books that share the frames."""

    points: tuple[float, ...]
    frames: int
    slow_frames: int = 0
    batch: int = 32
    books: int = 1
    note: str = ""


@dataclass(frozen=True)
class PublishedFigure:
    """A figure file; see the module's text."""

    id: str
    paper: str
    figure: str
    title: str
    x: str
    y: tuple[str, ...]
    system: Mapping[str, Any]
    curves: tuple[Curve, ...]
    claims: tuple[Claim, ...]
    quick: Settings
    full: Settings
    note: str = ""
    grouped: bool = False

    def settings(self, *, full: bool) -> Settings:
        return self.full if full else self.quick

    @property
    def axis(self) -> str:
        """What stands below the x axis."""
        per_user = self.x == "snr_db" and self.system.get("snr_convention") == "per-user"
        return "SNR of a user, 1 / noise variance [dB]" if per_user else AXES.get(self.x, self.x)

    def panels(self, curve: Curve) -> tuple[str, ...]:
        """The measures that ``curve`` is drawn in."""
        return curve.y or self.y


@cache
def names() -> tuple[str, ...]:
    """Ids of all figures, by paper and number."""
    return tuple(sorted((path.stem for path in FOLDER.glob("*.toml")), key=_natural))


def load(name: str) -> PublishedFigure:
    """The figure called ``name``; UnknownNameError lists the others, ConfigError says what is wrong with a file."""
    if name.lower() not in names():
        raise unknown("figure", name, names())
    return read(FOLDER / f"{name.lower()}.toml")


def read(path: Path) -> PublishedFigure:
    """The figure of a file."""
    try:
        table = _table(path)
        curves = tuple(Curve(**{**one, "y": tuple(one.get("y", ()))}) for one in table.pop("curve"))
        claims = tuple(_claim(one) for one in table.pop("claim"))
        quick, full = (_settings(table.pop(name)) for name in ("quick", "full"))
        figure = PublishedFigure(**{**table, "y": tuple(table["y"])}, curves=curves, claims=claims, quick=quick, full=full)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is no figure file ({error}): see the text of evaluate.figures.definition") from error
    _check(figure, path)
    return figure


def _table(path: Path) -> dict[str, Any]:
    """The file's table, laid over that of the figure that it is like."""
    own = tomllib.loads(path.read_text("utf-8"))
    if "like" not in own:
        return own
    base = _table(path.with_name(f"{own.pop('like')}.toml"))
    return {**base, **own, "system": {**base["system"], **own.get("system", {})}}


def _settings(table: Mapping[str, Any]) -> Settings:
    return Settings(**{**table, "points": tuple(table["points"])})


def _claim(table: Mapping[str, Any]) -> Claim:
    terms = {name: value for name, value in table.items() if name not in ("says", "kind")}
    return Claim(table["says"], table.get("kind", ""), terms)


def _check(figure: PublishedFigure, path: Path) -> None:
    keys = [curve.key for curve in figure.curves]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"{path}: two curves share a key: give each its own")
    for measure in (*figure.y, *(name for curve in figure.curves for name in curve.y)):
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
    for claim in figure.claims:
        for name in ("curve", "over", "than", "than_over"):
            if name in claim.terms and claim.terms[name] not in keys:
                raise unknown("curve", claim.terms[name], keys)
    for level in (*figure.quick.points, *figure.full.points) if figure.x == FALSE_ALARMS else ():
        if level not in LEVELS:
            raise ConfigError(f"{path}: {level:g} is no rate of false alarms that is told: choose among {', '.join(map(str, LEVELS))}")
    if path.stem != figure.id:
        raise ConfigError(f"{path} calls itself {figure.id}: name the file like the figure")
    for curve in figure.curves:
        SystemConfig.from_dict({**figure.system, **curve.system})


def _natural(name: str) -> tuple[str, str, int, str]:
    paper, _, rest = name.partition("-")
    letters = rest.partition("-")[0].rstrip("abcdefgh").rstrip("0123456789")
    digits = "".join(filter(str.isdigit, rest))
    return paper, letters, int(digits or 0), name
