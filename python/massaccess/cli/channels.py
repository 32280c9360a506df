"""``massaccess channels``: makes, inspects and lists channel banks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..forward.banks import describe_bank, save_bank
from ..forward.channels import CHANNELS
from ._json import json_option, write_json


@click.group()
def command() -> None:
    """Make and inspect channel banks."""


@command.command()
@click.option("--count", type=click.IntRange(1), required=True, help="Number of channels, one independent user each.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Rows of the planar array.")
@click.option("--columns", type=click.IntRange(1), default=8, show_default=True, help="Columns of the planar array.")
@click.option("--carrier-hz", type=float, default=3.5e9, show_default=True)
@click.option("--train", type=click.IntRange(0), help="Length of the training half.  [default: half of --count]")
@click.option("--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), required=True, help="The .npz file to write.")
def generate(count: int, seed: int, rows: int, columns: int, carrier_hz: float, train: int | None, out: Path) -> None:
    """Draw urban macro channels of 3GPP TR 38.901 with Sionna, in the environment of `make channels-env`."""
    from ..forward.uma import generate_uma_bank

    if out.suffix != ".npz":
        raise click.BadParameter(f"{out}: a channel bank is an .npz file", param_hint="--out")
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("channels", total=count)
        bank = generate_uma_bank(
            count,
            rows=rows,
            columns=columns,
            carrier_hz=carrier_hz,
            seed=seed,
            train=train,
            on_batch=lambda done, _: progress.update(task, completed=done),
        )
    save_bank(out, **bank)
    click.echo(f"{out}: {count} channels of {rows * columns} antennas")


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect(file: Path, json_path: Path | None) -> None:
    """Show what is in a channel bank: sizes, powers, antenna correlation, recipe, hash."""
    found = describe_bank(file)
    if json_path is not None:
        write_json(json_path, found)
        return
    for name, value in found.items():
        click.echo(f"{name:28}{_text(value)}")


@command.command(name="list")
@json_option
def list_channels(json_path: Path | None) -> None:
    """List the channel models that --channel takes; the path of an .npz file is one more."""
    rows = [{"name": name, "description": entry.description, "source": entry.source} for name, entry in CHANNELS.items()]
    if json_path is not None:
        write_json(json_path, {"channels": rows})
        return
    shown = Table("name", "what", "source")
    for row in rows:
        shown.add_row(row["name"], row["description"], row["source"])
    Console().print(shown)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(_text(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
