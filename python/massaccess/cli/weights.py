"""``massaccess weights``: trained networks, what they are and how good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from .. import __version__
from .. import weights as stored
from ._json import json_option, write_json
from .train import metrics_table

USUAL_LENGTH = 12  # pilots, at which detectors are listed


@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List, show and check trained networks."""
    if context.invoked_subcommand is None:
        context.invoke(list_weights)


@command.command(name="list")
@json_option
def list_weights(json_path: Path | None = None) -> None:
    """List the weights that ship, the default first."""
    rows = [{"name": one.name, "summary": one.summary, **_describe(stored.load(name))} for name, one in stored.available().items()]
    if json_path is not None:
        write_json(json_path, {"version": __version__, "weights": rows})
        return
    heads = (Column("name", no_wrap=True), "network", "array", "channel", Column("measured", justify="right", no_wrap=True))
    shown = Table(*heads, Column("beside", justify="right", no_wrap=True), box=SIMPLE)
    for row in rows:
        array = f"{row['rows']}x{row['columns']}" if row["kind"] == "channel" else str(row["config"].get("antennas", "any"))
        shown.add_row(row["name"], row["network"], array, row["channel"], *_quality(row))
    Console(width=max(Console().width, 115)).print(
        shown if rows else "no weights ship with this version; make some with `massaccess train`"
    )
    for row in rows:
        click.echo(f"{row['name']}: {row['summary']}")


def _quality(row: dict[str, Any]) -> tuple[str, str]:
    """Of a denoiser its NMSE at 10 dB beside that of LMMSE, of a detector its error probability beside that of "nobody"."""
    metrics = row["metrics"]
    if "ser" in metrics:
        return f"SER {metrics['ser']:.1e}, {row['pilots']['longest']} pilots", f"nobody {metrics['prior_ser']:.1e}"
    if "aep" not in metrics:
        ours, linear = (metrics[name][metrics["snr_db"].index(10)] for name in ("nmse_db", "lmmse_db"))
        return f"NMSE {ours:.2f} dB", f"LMMSE {linear:.2f} dB"
    found = dict(zip(metrics["pilots"], metrics["aep"][row["channel"]], strict=True))
    length = min(found, key=lambda one: abs(one - USUAL_LENGTH))
    return f"AEP {found[length]:.1e}, {length} pilots", f"nobody {metrics['prior_aep']:.1e}"


@command.command()
@click.argument("name")
@json_option
def show(name: str, json_path: Path | None) -> None:
    """Show what is known of NAME, weights that ship or a .safetensors file: network, recipe, quality, hash."""
    found = _describe(stored.load(name))
    if json_path is not None:
        write_json(json_path, found)
        return
    metrics = found.pop("metrics")
    for key, value in found.items():
        click.echo(f"{key:16}{value}")
    if {"snr_db", "nmse_db", "lmmse_db"} <= set(metrics) or {"aep", "ser"} & set(metrics):
        Console(width=max(Console().width, 110)).print(metrics_table(metrics))


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, json_path: Path | None) -> None:
    """Read FILE as a receiver would, and say whether it is whole: header, names and shapes of the tensors, finite numbers."""
    found = _describe(stored.read(file))
    if json_path is not None:
        write_json(json_path, {"file": str(file), "whole": True, **found})
        return
    click.echo(f"{file}: whole, {found['network']} of {found['parameters']} parameters for {found['channel']}; sha256 {found['sha256']}")


def check_shipped(name: str) -> dict[str, Any]:
    """What is known of weights that ship, read anew and compared with the sha256 of the index; FormatError when they are damaged."""
    shipped = stored.available()[name]
    return _describe(stored.read(shipped.path, sha256=shipped.sha256))


def _describe(trained: stored.Trained) -> dict[str, Any]:
    header = trained.header
    return {
        "network": header.network,
        "config": dict(header.config),
        "kind": header.kind,
        "rows": header.rows,
        "columns": header.columns,
        "channel": header.channel,
        "recipe": header.recipe,
        "seed": header.seed,
        "pilots": dict(header.pilots),
        "parameters": sum(one.numel() for one in trained.network.parameters()),
        "calibrated": trained.calibration is not None,
        "created_with": header.created_with,
        "sha256": trained.sha256,
        "metrics": dict(header.metrics),
    }
