"""Runs a published figure's experiment, point by point; what is finished is on disk at once, and is not run again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...core import EMPTY, SystemConfig
from ...errors import ConfigError, FormatError
from ...registry import GENIE_ACTIVITY, RECEIVERS, create
from ..montecarlo import Campaign, evaluate
from ..operations import multiplications
from . import inside
from .claims import judge
from .definition import ANTENNAS, FALSE_ALARMS, FIELDS, ROW, SNR_USERS, STEPS, TRAINING, Curve, PublishedFigure, Settings, load, names

NEWER = frozenset(
    (
        *("adc_offset", "adc_dither", "tx_power_dbm", "noise_figure_db", "bandwidth_hz", "pilot_energy", "index_bits", "placement_seed"),
        *("samples_per_symbol", "preamble_len", "guard_len", "roll_off", "timing_offset", "common_cfo_hz", "code"),
    )
)
"""Fields of SystemConfig that older results lack: all of them have the default."""


@dataclass(frozen=True)
class Extent:
    """How much of a figure to run; what is ``None`` is as the figure's quick or full settings say. ``only``: keys or receivers;
    ``weights``: files for curves that need one, by the curve's key, or by "" for all of them."""

    full: bool = False
    frames: int | None = None
    points: tuple[float, ...] | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    weights: Mapping[str, str] = field(default_factory=dict)
    books: int | None = None

    def weights_of(self, curve: Curve) -> str:
        """The file for a curve; empty where there is none."""
        return self.weights.get(curve.key, self.weights.get("", ""))


@dataclass(frozen=True)
class Job:
    """One point of one curve, or of a curve over false alarms all its ``levels``; x is ``None`` for a curve that is flat, and for these."""

    curve: Curve
    x: float | None
    campaign: Campaign
    levels: tuple[float, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Equal for equal work: what tells a finished point from one of other settings."""
        c = self.campaign
        plain = SystemConfig()
        config = {name: value for name, value in c.points[0].to_dict().items() if name not in NEWER or value != getattr(plain, name)}
        facts: list[Any] = [config, list(c.receivers), c.options, c.frames, c.seed, c.steps, __version__]
        facts += [["books", c.books]] if c.books > 1 else []
        facts += [["levels", *self.levels]] if self.levels else []
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def jobs(figure: PublishedFigure, extent: Extent) -> list[Job]:
    """All points of all curves that ``extent`` asks for, but for those of `left_out`; ConfigError when nothing is left. Unknown options
    fail here."""
    missing = left_out(figure, extent)
    kept = [curve for curve in figure.curves if _wanted(curve, extent) and curve.key not in missing]
    if not kept:
        keys = ", ".join(f"{curve.key} ({curve.receiver})" for curve in figure.curves)
        why = "".join(f"; {key}: {reason}" for key, reason in missing.items())
        raise ConfigError(f"no curve of {figure.id} is left: choose among {keys}; --full runs those that the quick settings leave out{why}")
    levels = _points(figure, extent) if figure.x == FALSE_ALARMS else ()
    found = [Job(curve, x, _campaign(figure, curve, x, extent), levels) for curve in kept for x in _places(figure, curve, extent)]
    for job in found:
        create(job.curve.receiver, **job.campaign.options.get(job.curve.receiver, {}))
    return found


def left_out(figure: PublishedFigure, extent: Extent) -> dict[str, str]:
    """Key of each curve that ``extent`` asks for and that cannot be run here -> why."""
    reasons: dict[str, str] = {}
    for curve in figure.curves if figure.x != TRAINING else ():
        if not _wanted(curve, extent):
            continue
        if not set(curve.receiver.split("+")) <= {*RECEIVERS, GENIE_ACTIVITY}:
            reasons[curve.key] = f"this version has no receiver {curve.receiver}"
        elif curve.trained and not extent.weights_of(curve):
            reasons[curve.key] = f"its network does not ship: train it, and pass --weights {curve.key}=FILE"
    return reasons


def run(
    figure: PublishedFigure,
    extent: Extent,
    *,
    path: Path | None = None,
    resume: bool = False,
    on_job: Callable[[int, int, Job], None] | None = None,
) -> dict[str, Any]:
    """The figure's document. With ``path`` it is written after every point; with ``resume`` the finished points of that file are kept.

    The same work in results of other figures beside that file is taken over too: figures that are alike cost one run.
    ``on_job`` is called with (done, all, job) before each point. A point that its receiver refuses (no weights for it, say) is left out,
    and the document says why. Raises ConfigError, when all are, UnknownNameError, and FormatError for a file that is no result of this
    figure.
    """
    if figure.x == TRAINING:
        raise ConfigError(f"{figure.id} shows a training: run `massaccess train`, and pass its curves with --curves FILE")
    if figure.x == ROW:
        shown = document(figure, extent, inside.rows(figure, seed=extent.seed))
        if path is not None:
            write(path, shown)
        return shown
    todo = jobs(figure, extent)
    known = _known(path, figure) if path is not None and resume else {}
    rows: list[dict[str, Any]] = []
    refused: dict[str, list[tuple[float | None, ConfigError]]] = {}
    result = document(figure, extent, rows)
    for index, job in enumerate(todo):
        if on_job is not None:
            on_job(index, len(todo), job)
        try:
            rows += _named(job, known.get(job.fingerprint, [])) or _rows(job)
        except ConfigError as error:
            refused.setdefault(job.curve.key, []).append((job.x, error))
        result = document(figure, extent, rows, {key: _why(places) for key, places in refused.items()})
        if path is not None:
            write(path, result)
    if not rows and refused:
        raise next(iter(refused.values()))[0][1]
    return result


def _why(places: Sequence[tuple[float | None, ConfigError]]) -> str:
    """Where a curve was left out, and what its receiver said there at first."""
    where = ", ".join(f"{x:g}" for x, _ in places if x is not None)
    return f"{f'at {where}: ' if where else ''}{str(places[0][1]).partition(': pass')[0]}"


def document(
    figure: PublishedFigure, extent: Extent, rows: Sequence[Mapping[str, Any]], refused: Mapping[str, str] = EMPTY
) -> dict[str, Any]:
    """Result file: the figure, how it was run, a row a point (as `massaccess evaluate` writes it), and what became of the claims.
    ``refused``: why a curve lacks points."""
    claims = [(claim, judge(claim, rows, full=extent.full)) for claim in figure.claims]
    return {
        "figure": figure.id,
        "paper": figure.paper,
        "title": figure.title,
        "mode": "full" if extent.full else "quick",
        "extent": _extent(figure, extent),
        "note": figure.note,
        "seed": extent.seed,
        "version": __version__,
        "left_out": {**left_out(figure, extent), **refused},
        "claims": [{"says": claim.says, "verdict": verdict, "measured": told} for claim, (verdict, told) in claims],
        "results": list(rows),
    }


def _extent(figure: PublishedFigure, extent: Extent) -> str:
    """How much was run, in words: frames, and what was cut down."""
    settings = figure.settings(full=extent.full)
    slow = f", {settings.slow_frames} for the slow receivers" if settings.slow_frames and not extent.frames else ""
    fewer = "" if extent.full or extent.frames else "".join(f", {one.quick_frames} for {one.key}" for one in _special(figure, extent))
    count, books = extent.frames or settings.frames, min(extent.books or settings.books, extent.frames or settings.frames)
    shared = f" of {books} pilot books" if books > 1 else ""
    frames = "" if figure.x in (TRAINING, ROW) else f"{count} frames a point{shared}{slow}{fewer}"
    return "; ".join(part for part in (frames, settings.note) if part)


def _special(figure: PublishedFigure, extent: Extent) -> list[Curve]:
    missing = left_out(figure, extent)
    return [curve for curve in figure.curves if curve.quick_frames and _wanted(curve, extent) and curve.key not in missing]


def training_rows(curve: Curve, path: Path) -> list[dict[str, Any]]:
    """The losses of a training's curve file, ``{"loss": [{"step", "loss"}, ...]}``."""
    try:
        losses = json.loads(path.read_text("utf-8"))["loss"]
        return [{"curve": curve.key, "label": curve.label, "x": one["step"], "loss": one["loss"]} for one in losses]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} holds no training curves ({error!s:.80}): pass the .curves.json of `massaccess train`") from error


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the document; the file is whole at any time."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    os.replace(part, path)


def _wanted(curve: Curve, extent: Extent) -> bool:
    if extent.only and not {curve.key, curve.receiver} & set(extent.only):
        return False
    return extent.full or curve.quick is not False


def _places(figure: PublishedFigure, curve: Curve, extent: Extent) -> Iterator[float | None]:
    return iter((None,) if curve.flat or figure.x == FALSE_ALARMS else _points(figure, extent))


def _points(figure: PublishedFigure, extent: Extent) -> tuple[float, ...]:
    return figure.settings(full=extent.full).points if extent.points is None else extent.points


def _campaign(figure: PublishedFigure, curve: Curve, x: float | None, extent: Extent) -> Campaign:
    settings = figure.settings(full=extent.full)
    config = SystemConfig.from_dict({**figure.system, **curve.system})
    options, steps = curve.chosen(full=extent.full), 0
    if x is not None and figure.x == SNR_USERS:
        config = config.replace(snr_db=x - 10 * math.log10(config.users), snr_convention="per-user")
    elif x is not None and figure.x == ANTENNAS:
        config = config.replace(columns=_columns(config, x))
    elif x is not None and figure.x in FIELDS:
        config = config.replace(**{figure.x: type(getattr(config, figure.x))(x)})
    elif x is not None and figure.x == STEPS:
        steps = round(x * (1 + options["n_x"] / options["n_update"] if "n_update" in options else 1))
    elif x is not None:
        options[figure.x] = int(x)
    if curve.trained:
        options["weights"] = extent.weights_of(curve)
    frames = _frames(settings, curve, extent)
    return Campaign(
        [config],
        [curve.receiver],
        frames,
        seed=extent.seed,
        batch=settings.batch,
        books=min(curve.books or extent.books or settings.books, frames),
        device=extent.device,
        steps=steps,
        options={curve.receiver: options} if options else {},
    )


def _columns(config: SystemConfig, antennas: float) -> int:
    columns, rest = divmod(antennas, config.rows)
    if rest:
        raise ConfigError(f"{antennas:g} antennas do not fill {config.rows} rows: pass a multiple")
    return int(columns)


def _frames(settings: Settings, curve: Curve, extent: Extent) -> int:
    """Frames a point of the curve."""
    if extent.frames is not None:
        return extent.frames
    if curve.quick_frames and not extent.full:
        return curve.quick_frames
    return settings.slow_frames if curve.slow and settings.slow_frames else settings.frames


def _rows(job: Job) -> list[dict[str, Any]]:
    """What was measured at the job's point, or at each of its levels that stands for enough false alarms."""
    (measured,) = evaluate(job.campaign)["results"]
    curve = measured.pop("roc")
    measured.pop("reliability")
    row = {"curve": job.curve.key, "label": job.curve.label, "x": job.x, "job": job.fingerprint, **measured}
    if row["aep"] is not None:
        row |= {"accuracy": 1 - row["aep"], "accuracy_ci95": [1 - end for end in reversed(row["aep_ci95"])]}
    row["multiplications"] = multiplications(job.curve.receiver, job.campaign.points[0], row["iterations"])
    if not job.levels:
        return [row]
    decided = {f"{name}_decided": row[name] for name in ("p_fa", "p_md")}
    found = [level for level in curve["p_md_at"] if level["p_fa"] in job.levels] if curve else []
    return [{**row, **decided, "x": level["p_fa"], "p_fa_ci95": None, "p_fa_errors": None, **level} for level in found]


def _known(path: Path, figure: PublishedFigure) -> dict[str, list[dict[str, Any]]]:
    """The finished points by fingerprint: those of figures in the same folder, as far as they can be read, and of the figure's own file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names():
        beside = path.with_name(f"{name}.json")
        with contextlib.suppress(FormatError):
            found |= _finished(beside, load(name)) if name != figure.id else {}
    return found | _finished(path, figure)


def _named(job: Job, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of finished work under the name, and at the place, that the job has."""
    place = {} if job.levels else {"x": job.x}
    return [{**row, "curve": job.curve.key, "label": job.curve.label, **place} for row in rows]


def _finished(path: Path, figure: PublishedFigure) -> dict[str, list[dict[str, Any]]]:
    """The points of a result file, by fingerprint."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["figure"] != figure.id:
            raise FormatError(f"{path} holds {stored['figure']}, not {figure.id}: choose another folder")
        jobs_done = [row for row in stored["results"] if "job" in row]  # those of a training, or of one frame, have none
        first = {row["job"]: row["curve"] for row in reversed(jobs_done)}
        found: dict[str, list[dict[str, Any]]] = {}
        for row in jobs_done:
            if row["curve"] == first[row["job"]]:  # curves of equal work tell the same rows
                found.setdefault(row["job"], []).append(row)
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no result of a figure ({error!s:.80}): leave out --resume, or choose another folder") from error


def check_receivers(figure: PublishedFigure) -> list[str]:
    """What the registry does not know of a figure's receivers and options, one sentence each."""
    told = []
    for curve in figure.curves if figure.x != TRAINING else ():
        axes = (*FIELDS, SNR_USERS, STEPS, FALSE_ALARMS, ANTENNAS, ROW)
        option = {figure.x: 10} if figure.x not in axes and not curve.flat else {}
        for full in (False, True):
            try:
                create(curve.receiver, **{**curve.chosen(full=full), **option})
            except (KeyError, ValueError) as error:
                told.append(f"{figure.id}, {curve.key}: {error}")
    return sorted(set(told))
