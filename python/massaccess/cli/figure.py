"""``massaccess figure``: published figures, rerun and checked against the papers' sentences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..evaluate.figures.definition import TRAINING, PublishedFigure, load, names
from ._json import json_option, write_json
from ._system import MAX_THREADS
from .evaluate import Numbers

PART_JOB = 5  # columns of the progress line's counter


class Words(click.ParamType):
    """Comma-separated words."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


class Files(click.ParamType):
    """Comma-separated files, each with KEY= before it, or one without; as {key: file}."""

    name = "files"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        if not isinstance(value, str):
            return dict(value)
        parts = [word.rpartition("=") for word in value.split(",") if word.strip()]
        return {key.strip(): path.strip() for key, _, path in parts}


@click.command()
@click.argument("name", metavar="[ID]", default="")
@click.option("--full", is_flag=True, help="At the paper's scale (a GPU, hours), not the quick settings (two cores).")
@click.option("--frames", type=click.IntRange(1), help="Frames per point, instead of the figure's.")
@click.option("--points", type=Numbers(float), help="Values of the x axis, joined by commas, instead of the figure's.")
@click.option("--only", type=Words(), default="", help="Only these curves: keys or receivers, joined by commas.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the frames.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=".", help="Folder for ID.json and ID.png.")
@click.option("--resume", is_flag=True, help="Keep the points that ID.json holds, or a like figure's beside it.")
@click.option("--curves", type=click.Path(dir_okay=False, path_type=Path), help="Curves of a training, for a figure that shows one.")
@click.option(
    "--weights",
    type=Files(),
    default="",
    metavar="[KEY=]FILE,...",
    help="Weights files for the curves that need one, else left out: one for all, or by the curve's key.",
)
@click.option("--books", type=click.IntRange(1), help="Pilot books that share the frames, instead of the figure's; 1: the fixed book.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--threads", type=click.IntRange(0, MAX_THREADS), default=0, show_default=True, help="Threads; 0: all cores.")
@json_option
def command(name: str, out: Path, resume: bool, curves: Path | None, threads: int, json_path: Path | None, **asked: Any) -> None:
    """Reruns the experiment of a published figure: ID.json after every point, ID.png, and which of the paper's sentences hold.

    Without ID: lists the figures.
    """
    if not name:
        _list(json_path)
        return
    figure = load(name)
    if threads:
        import torch

        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    result = _result(figure, out / f"{figure.id}.json", resume, curves, asked)

    from ..evaluate.figures.picture import draw

    picture = draw(figure, result, out / f"{figure.id}.png")
    if json_path is not None:
        write_json(json_path, result)
    if json_path is None or str(json_path) != "-":
        _report(figure, result)
        click.echo(f"\n{out / f'{figure.id}.json'}\n{picture}")


def _result(figure: PublishedFigure, path: Path, resume: bool, curves: Path | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    from ..evaluate.figures.experiment import Extent, document, run, training_rows, write

    points = None if asked["points"] is None else tuple(asked["points"])
    extent = Extent(points=points, **{key: value for key, value in asked.items() if key != "points"})
    if figure.x != TRAINING or curves is None:
        return run(figure, extent, path=path, resume=resume, on_job=_progress)
    result = document(figure, extent, training_rows(figure.curves[0], curves))
    write(path, result)
    return result


def _progress(done: int, count: int, job: Any) -> None:
    place = "" if job.x is None else f" at {job.x:g}"
    click.echo(f"{done + 1:>{PART_JOB}}/{count} {job.curve.label}{place}, {job.campaign.frames} frames", err=True)


def _list(json_path: Path | None) -> None:
    figures = [load(name) for name in names()]
    if json_path is not None:
        facts = ("id", "paper", "figure", "title")
        write_json(json_path, {"figures": [{name: getattr(one, name) for name in facts} for one in figures]})
    if json_path is None or str(json_path) != "-":
        shown = Table(box=SIMPLE)
        for column in ("ID", "paper", "shows"):
            shown.add_column(column, no_wrap=column != "shows")
        for one in figures:
            shown.add_row(one.id, f"{one.paper} {one.figure}", one.title)
        Console().print(shown)


def _report(figure: PublishedFigure, result: Mapping[str, Any]) -> None:
    """Tables of the measured values, and the paper's sentences with what became of them."""
    for measure in figure.y:
        shown, console = _table(figure, result["results"], measure), Console()
        Console(width=max(console.width, console.measure(shown, options=console.options.update(width=400)).maximum)).print(shown)
    for claim in result["claims"]:
        measured = f" ({claim['measured']})" if claim["measured"] else ""
        click.echo(f"{claim['verdict']}{measured}: {claim['says']}")
    for key, why in result["left_out"].items():
        click.echo(f"left out: {key}, {why}")
    click.echo(f"{result['mode']} run: {result['extent']}\n{result['note']}".rstrip())


def _table(figure: PublishedFigure, rows: list[dict[str, Any]], measure: str) -> Table:
    shown = Table(title=measure, title_justify="left", box=SIMPLE)
    places = sorted({row["x"] for row in rows if row["x"] is not None})
    places = places if len(places) < 20 else places[:: -(-len(places) // 10)]
    shown.add_column(figure.x, no_wrap=True)
    for place in places or [0]:
        shown.add_column(f"{place:g}", justify="right", no_wrap=True)
    for curve in figure.curves:
        mine = {row["x"]: row.get(measure) for row in rows if row["curve"] == curve.key}
        if mine and measure in figure.panels(curve):
            cells = [mine.get(place, mine.get(None)) for place in places or [0]]
            shown.add_row(curve.label, *("" if value is None else f"{value:.3g}" for value in cells))
    return shown
