"""What `massaccess receivers` and docs/activity.md tell of the activity detectors, from the results of run.sh.

``python benchmarks/activity/measured.py [FOLDER]`` reads the points below in FOLDER (this one), and writes
python/massaccess/evaluate/measured.json and the table of docs/activity.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from massaccess.registry import RECEIVERS

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "python/massaccess/evaluate/measured.json"
TEXT = HERE.parents[1] / "docs/activity.md"
MARKS = ("<!-- measured -->", "<!-- end of measured -->")
POINTS = ("activity-rayleigh-L12", "activity-uma-L14")
KEPT = ("receiver", "channel", "pilots", "snr_db", "users", "antennas", "activity", "aep", "aep_ci95", "frames", "device", "threads")
BATCH = 128  # frames at once, of the times
KEPT += ("aep_overloaded", "calibration_slope")


def main(folder: Path) -> None:
    """Writes the file; points that are not in the folder yet are an error."""
    timed = json.loads((folder / "latency.json").read_text())["latency"]  # on a machine that does nothing else
    alone = {(shown(one["detector"]), one["channel"], one["pilots"]): one["ms_per_frame"] for one in timed if one["batch"] == BATCH}
    documents = [json.loads((folder / f"{name}.json").read_text()) for name in POINTS]
    rows = [kept(row, document) for document in documents for row in document["results"]]
    rows = [{**row, "ms_per_frame": alone.get((row["receiver"], row["channel"], row["pilots"]), row["ms_per_frame"])} for row in rows]
    single = {(row["receiver"], row["channel"], row["pilots"]): row for row in rows}  # a role and what it stands for are one
    about = {"version": documents[0]["version"], "seed": documents[0]["seed"]}
    others = [row for row in json.loads(TARGET.read_text())["rows"] if "ser_devices" in row]  # of non-coherent detectors
    TARGET.write_text(json.dumps({**about, "rows": [*single.values(), *others]}, indent=2) + "\n")
    before, _, rest = TEXT.read_text().partition(MARKS[0])
    TEXT.write_text("\n".join([before + MARKS[0], *table(list(single.values())), MARKS[1]]) + rest.partition(MARKS[1])[2])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown lines: a row a detector, the same columns for each point."""
    places = list(dict.fromkeys((row["channel"], row["pilots"]) for row in rows))
    heads = [f"AEP, {channel}, {pilots} pilots | more active users than pilots | slope | ms/frame" for channel, pilots in places]
    lines = [f"| detector | {' | '.join(heads)} |", "|" + "---|" * (1 + 4 * len(places))]
    for name in dict.fromkeys(row["receiver"] for row in rows):
        mine = {(row["channel"], row["pilots"]): row for row in rows if row["receiver"] == name}
        lines.append(f"| `{name}` | " + " | ".join(cell(mine.get(place)) for place in places) + " |")
    first = rows[0]
    counts = ", ".join(f"{count:,}" for count in sorted({row["frames"] for row in rows}))
    told = f"{first['users']} users, a tenth active, {first['antennas']} antennas, {first['snr_db']:g} dB, {counts} frames"
    return [*lines, "", f"{told}, batches of {first['batch']}, {first['device']}, {first['threads']} thread(s); brackets: 95 %."]


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return " | | | "
    low, high = row["aep_ci95"]
    over, slope = row["aep_overloaded"], row["calibration_slope"]
    told = ["" if over is None else f"{over:.1e}", "" if slope is None else f"{slope:.2f}", f"{row['ms_per_frame']:.2g}"]
    return f"{row['aep']:.1e} [{low:.1e}, {high:.1e}] | " + " | ".join(told)


def shown(name: str) -> str:
    """The receiver that a role stands for."""
    target = RECEIVERS[name].target
    return name if ":" in target else target


def kept(row: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """What is told of a result, under the name of the receiver that a role stood for."""
    facts = {name: row[name] for name in KEPT} | {"receiver": shown(row["receiver"])}
    return {**facts, "ms_per_frame": 1e3 * row["seconds_per_frame"], "batch": document["batch"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
