"""``massaccess train``: a recipe into a weights file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from ..errors import ConfigError
from ._json import json_option, write_json
from ._system import MAX_THREADS


@click.command()
@click.argument("recipe")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="Channel bank in place of the recipe's first source; its training half is used.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Weights file to write.  [default: RECIPE.safetensors]")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out, exactly as if there had been no break.")
@click.option(
    "--time-limit", "limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Stop then, and write what there is."
)
@click.option("--by-clock", is_flag=True, help="Let the learning rate fall to its end at --time-limit rather than at the last step.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--threads", type=click.IntRange(0, MAX_THREADS), default=0, show_default=True, help="Threads; 0: all cores.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps (of a mixture: iterations), in place of the recipe's.")
@click.option("--seed", type=int, help="Seed of the first weights and of all data, in place of the recipe's.")
@json_option
def command(
    recipe: str,
    data: Path | None,
    out: Path | None,
    resume: bool,
    limit: float | None,
    by_clock: bool,
    device: str,
    threads: int,
    steps: int | None,
    seed: int | None,
    json_path: Path | None,
) -> None:
    """Train a channel prior or an activity detector: RECIPE is the name of one that ships, or a .toml file.

    Beside the weights file lie its checkpoint (every minute, and when interrupted) and the curves as JSON and PNG.
    """
    import torch

    from ..train import recipe as recipes
    from ..train.loop import Training

    if threads:
        torch.set_num_threads(threads)
    found = recipes.read(recipe)
    changes = {name: value for name, value in {"steps": steps, "seed": seed}.items() if value is not None}
    found = found.replace(**changes) if data is None else found.with_bank(str(data)).replace(**changes)
    training = Training(
        found,
        out or Path(f"{found.name}.safetensors"),
        device=_device(device),
        time_limit_s=limit or math.inf,
        by_clock=by_clock,
    )
    with _progress() as bar:
        task = bar.add_task(found.name, total=found.steps, loss="")
        measure = "log-likelihood" if found.fitted else "loss"
        result = dataclasses.replace(
            training, on_step=lambda step, loss: bar.update(task, completed=step, loss=f"{measure} {loss:.4f}")
        ).run(resume=resume)
    if json_path is None or str(json_path) != "-":
        _show(result)
    if json_path is not None:
        write_json(json_path, result)


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Denoising NMSE beside LMMSE, a column per SNR; of activity detectors: error probability, a column per pilot length; of detectors of
    sequences: symbol error rate."""
    if "ser" in metrics:
        shown = Table("SER of all users", "nobody", "log loss [nat a sequence]", "frames", box=SIMPLE)
        shown.add_row(f"{metrics['ser']:.2e}", f"{metrics['prior_ser']:.2e}", f"{metrics['log_loss']:.4f}", str(metrics["frames"]))
        return shown
    if "aep" in metrics:
        shown = Table("AEP at pilots", *(Column(str(length), justify="right") for length in metrics["pilots"]), box=SIMPLE)
        for name, row in metrics["aep"].items():
            shown.add_row(name, *(f"{value:.2e}" for value in row))
        shown.add_row("nobody", *(f"{metrics['prior_aep']:.2e}" for _ in metrics["pilots"]))
        return shown
    shown = Table("NMSE/dB at SNR", box=SIMPLE)
    for snr_db in metrics["snr_db"]:
        shown.add_column(f"{snr_db:g} dB", justify="right")
    for name, row in (("weights", "nmse_db"), ("LMMSE", "lmmse_db")):
        shown.add_row(name, *(f"{value:.2f}" for value in metrics[row]))
    return shown


def _show(result: dict[str, Any]) -> None:
    console = Console(width=max(Console().width, 110))
    console.print(metrics_table(result["metrics"]))
    state = "" if result["finished"] else " (stopped by the time limit; --resume goes on)"
    click.echo(f"{result['steps']} steps in {result['seconds']:.0f} s on {result['device']}{state}: {result['files']['weights']}")


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"no device {name!r} here ({str(error).splitlines()[0]:.80}): pass cpu, cuda or auto") from error
    return device


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
