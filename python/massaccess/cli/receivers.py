"""``massaccess receivers``: what the registry holds, with sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..evaluate.measured import in_words, measured
from ..registry import KINDS, RECEIVERS, takes
from ._json import json_option, write_json

CAPTION = (
    "* genie: knows the truth, or part of it; for bounds only. † takes weights: see `massaccess weights`\n"
    "measured: 128 users, a tenth of them active, 64 antennas, 10 dB; AEP: activity errors per user; time per frame in batches\n"
    "SER: symbol errors per device; 100 devices of two sequences, in P3's cell (16 antennas, 23 dBm) and as above"
)


@click.command()
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@json_option
def command(kind: str | None, json_path: Path | None) -> None:
    """List the receivers that `run`, `evaluate` and the GNU Radio blocks know by name."""
    rows = describe(kind)
    if json_path is None:
        Console().print(table(rows))
    else:
        write_json(json_path, {"version": __version__, "receivers": rows})


def describe(kind: str | None = None) -> list[dict[str, Any]]:
    """Name, kind, summary, source, whether it is a genie and takes weights, and what was measured, of every receiver or of one kind."""
    return [
        {
            "name": name,
            "kind": entry.kind,
            "summary": entry.summary,
            "source": entry.source,
            "genie": entry.genie,
            "weights": takes(name, "weights"),
            "measured": measured().get(entry.target if ":" not in entry.target else name, []),
        }
        for name, entry in RECEIVERS.items()
        if kind in (None, entry.kind)
    ]


def table(rows: list[dict[str, Any]]) -> Table:
    """The list for people; genies carry a star, receivers with a trained prior a dagger."""
    known = any(row["measured"] for row in rows)
    shown = Table("name", "kind", "what", "source", *(["measured"] if known else []), caption=CAPTION, row_styles=["", "dim"])
    shown.columns[0].no_wrap = True
    shown.columns[2].overflow = "fold"
    for row in rows:
        cells = [row["name"] + "*" * row["genie"] + "†" * row["weights"], row["kind"], row["summary"], row["source"]]
        shown.add_row(*cells, *([in_words(row["measured"])] if known else []))
    return shown
