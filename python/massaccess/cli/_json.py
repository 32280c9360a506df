"""``--json FILE``, the same for every verb."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


def _writable(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Says before the work, and not after it, that the result cannot be written."""
    if path is not None and str(path) != "-" and not path.parent.is_dir():
        raise click.BadParameter(f"{path.parent} is no folder: make it first, or choose another name", ctx, param)
    return path


json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="FILE",
    callback=_writable,
    help="Write the result as JSON ('-' is standard output).",
)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes ``document`` with two spaces of indent and a final newline."""
    with click.open_file(str(path), "w") as stream:
        json.dump(document, stream, indent=2)
        stream.write("\n")
