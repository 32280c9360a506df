"""Runs a published figure's experiment, point by point; what is finished is on disk at once, and is not run again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...core import SystemConfig
from ...errors import ConfigError, FormatError
from ...registry import create
from ..montecarlo import Campaign, evaluate
from .claims import judge
from .definition import FIELDS, SNR_USERS, STEPS, TRAINING, Curve, PublishedFigure


@dataclass(frozen=True)
class Extent:
    """How much of a figure to run; what is ``None`` is as the figure's quick or full settings say. ``only``: keys or receivers."""

    full: bool = False
    frames: int | None = None
    points: tuple[float, ...] | None = None
    only: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class Job:
    """One point of one curve; x is ``None`` for a curve that is flat."""

    curve: Curve
    x: float | None
    campaign: Campaign

    @property
    def fingerprint(self) -> str:
        """Equal for equal work: what tells a finished point from one of other settings."""
        c = self.campaign
        facts = [c.points[0].to_dict(), list(c.receivers), c.options, c.frames, c.seed, c.steps, __version__]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def jobs(figure: PublishedFigure, extent: Extent) -> list[Job]:
    """All points of all curves that ``extent`` asks for; ConfigError when nothing is left. Unknown receivers and options fail here."""
    kept = [curve for curve in figure.curves if _wanted(curve, extent)]
    if not kept:
        keys = ", ".join(f"{curve.key} ({curve.receiver})" for curve in figure.curves)
        raise ConfigError(f"no curve of {figure.id} is left: choose among {keys}; --full runs those that the quick settings leave out")
    found = [Job(curve, x, _campaign(figure, curve, x, extent)) for curve in kept for x in _places(figure, curve, extent)]
    for job in found:
        create(job.curve.receiver, **job.campaign.options.get(job.curve.receiver, {}))
    return found


def run(
    figure: PublishedFigure,
    extent: Extent,
    *,
    path: Path | None = None,
    resume: bool = False,
    on_job: Callable[[int, int, Job], None] | None = None,
) -> dict[str, Any]:
    """The figure's document. With ``path`` it is written after every point; with ``resume`` the finished points of that file are kept.

    ``on_job`` is called with (done, all, job) before each point. Raises ConfigError, UnknownNameError, and FormatError for a file that
    is no result of this figure.
    """
    if figure.x == TRAINING:
        raise ConfigError(f"{figure.id} shows a training: run `massaccess train`, and pass its curves with --curves FILE")
    todo = jobs(figure, extent)
    known = _finished(path, figure) if path is not None and resume else {}
    rows: list[dict[str, Any]] = []
    result = document(figure, extent, rows)
    for index, job in enumerate(todo):
        if on_job is not None:
            on_job(index, len(todo), job)
        rows.append(known.get((job.curve.key, job.fingerprint)) or _row(job))
        result = document(figure, extent, rows)
        if path is not None:
            write(path, result)
    return result


def document(figure: PublishedFigure, extent: Extent, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Result file: the figure, how it was run, a row a point (as `massaccess evaluate` writes it), and what became of the claims."""
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
        "claims": [{"says": claim.says, "verdict": verdict, "measured": told} for claim, (verdict, told) in claims],
        "results": list(rows),
    }


def _extent(figure: PublishedFigure, extent: Extent) -> str:
    """How much was run, in words: frames, and what was cut down."""
    settings = figure.settings(full=extent.full)
    slow = f", {settings.slow_frames} for the samplers" if settings.slow_frames and not extent.frames else ""
    frames = "" if figure.x == TRAINING else f"{extent.frames or settings.frames} frames a point{slow}"
    return "; ".join(part for part in (frames, settings.note) if part)


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
    points = figure.settings(full=extent.full).points if extent.points is None else extent.points
    return iter((None,) if curve.flat else points)


def _campaign(figure: PublishedFigure, curve: Curve, x: float | None, extent: Extent) -> Campaign:
    settings = figure.settings(full=extent.full)
    config = SystemConfig.from_dict({**figure.system, **curve.system})
    options, steps = curve.chosen(full=extent.full), 0
    if x is not None and figure.x == SNR_USERS:
        config = config.replace(snr_db=x - 10 * math.log10(config.users), snr_convention="per-user")
    elif x is not None and figure.x in FIELDS:
        config = config.replace(**{figure.x: type(getattr(config, figure.x))(x)})
    elif x is not None and figure.x == STEPS:
        steps = round(x * (1 + options["n_x"] / options["n_update"] if "n_update" in options else 1))
    elif x is not None:
        options[figure.x] = int(x)
    frames = extent.frames or (settings.slow_frames if curve.slow and settings.slow_frames else settings.frames)
    return Campaign(
        [config],
        [curve.receiver],
        frames,
        seed=extent.seed,
        batch=settings.batch,
        device=extent.device,
        steps=steps,
        options={curve.receiver: options} if options else {},
    )


def _row(job: Job) -> dict[str, Any]:
    (measured,) = evaluate(job.campaign)["results"]
    row = {"curve": job.curve.key, "label": job.curve.label, "x": job.x, "job": job.fingerprint, **measured}
    if row["aep"] is not None:
        row |= {"accuracy": 1 - row["aep"], "accuracy_ci95": [1 - end for end in reversed(row["aep_ci95"])]}
    return row


def _finished(path: Path, figure: PublishedFigure) -> dict[tuple[str, str], dict[str, Any]]:
    """The points of a result file, by curve and fingerprint."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored["figure"] != figure.id:
            raise FormatError(f"{path} holds {stored['figure']}, not {figure.id}: choose another folder")
        return {(row["curve"], row["job"]): row for row in stored["results"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no result of a figure ({error!s:.80}): leave out --resume, or choose another folder") from error


def check_receivers(figure: PublishedFigure) -> list[str]:
    """What the registry does not know of a figure's receivers and options, one sentence each."""
    told = []
    for curve in figure.curves if figure.x != TRAINING else ():
        option = {figure.x: 10} if figure.x not in (*FIELDS, SNR_USERS, STEPS) and not curve.flat else {}
        for full in (False, True):
            try:
                create(curve.receiver, **{**curve.chosen(full=full), **option})
            except (KeyError, ValueError) as error:
                told.append(f"{figure.id}, {curve.key}: {error}")
    return sorted(set(told))
