"""Renders a folder of published figures as Markdown, what holds and what does not: ``python benchmarks/figures.py benchmarks/papers``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Writes RESULTS.md into ``folder``, from the ``ID/ID.json`` in it."""
    lines = [
        "# Published figures",
        "",
        "Made by `figures.py` from the JSON files in the folders beside it; `run.sh` makes those with `massaccess figure`. Measured: as",
        "the kind of check says (`massaccess/evaluate/figures/claims.py`); differences and gains in dB.",
        "",
    ]
    for path in sorted(folder.glob("*/*.json")):
        lines += section(json.loads(path.read_text()), path)
    (folder / "RESULTS.md").write_text("\n".join(lines))


def section(document: dict[str, Any], path: Path) -> list[str]:
    """Heading, how it was run, the picture, and the paper's sentences with what became of them."""
    hosts = sorted({f"{row['device']}, {row['threads']} threads" for row in document["results"] if "device" in row})
    how = f"{document['mode'].capitalize()} run, seed {document['seed']}: {document['extent']}. {'; '.join(hosts)}."
    head = [f"## {path.stem}: {document['title']}", "", how, "", *([document["note"], ""] if document["note"] else [])]
    picture = f"![{document['title']}]({path.parent.name}/{path.stem}.png)"
    return [*head, picture, "", "| verdict | measured | the paper says |", "|---|---|---|", *map(claim, document["claims"]), ""]


def claim(one: dict[str, str]) -> str:
    return f"| {one['verdict']} | {one['measured']} | {one['says']} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
