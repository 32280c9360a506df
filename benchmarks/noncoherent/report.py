"""Renders the results of run.sh: RESULTS.md here, and the rows that `massaccess receivers` tells of non-coherent detectors.

``python benchmarks/noncoherent/report.py [FOLDER]`` reads the JSON files of FOLDER (this one).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LISTED = HERE.parents[1] / "python/massaccess/evaluate/measured.json"
POINT = re.compile(r"(?P<kind>[a-z-]+)-j(?P<bits>\d+)(-m(?P<antennas>\d+))?-l(?P<pilots>\d+)")
SHORT = {
    "noncoherent": "`noncoherent`",
    "noncoherent-covariance": "covariance, MAP",
    "noncoherent-covariance-lr": "covariance, ratio",
    "noncoherent-covariance-fixed": "covariance, half the gain",
    "noncoherent-amp-sections": "AMP, sections",
    "noncoherent-amp": "AMP, MAP",
    "noncoherent-amp-threshold": "AMP, paper's threshold",
    "dl-mampnet": "DL-mAMPnet",
}
KEPT = ("receiver", "channel", "pilots", "snr_db", "users", "antennas", "activity", "aep", "aep_ci95", "ser_devices", "frames")
KEPT += ("device", "threads")
TOLD = ("known-j1-m16-l20", "uma-j1-l14")  # points that the list of receivers has, where there are frames enough
ENOUGH = 1000  # frames, for that list
CELL = """Gains known. P3's cell: 100 devices, a tenth awake, 50 m to 1 km away (128.1 + 36.7 log10 d dB), **23 dBm per sequence**, noise
figure 5 dB, 1 MHz; devices stand elsewhere in every frame, ten pilot books."""
UNKNOWN = """Gains not known, and devices elsewhere in every frame, so that nothing can be learned of them. In the last columns the best of
the closed-form detectors that know the gains, on the same frames."""
PLACED = """Devices that stay where they are, at ten sets of places: gains known, not known, and learned from earlier frames (512 that are
not counted, then all)."""
CORRELATED = """Correlated antennas, 8x8, gains 1, 10 dB: 38.901 UMa, and two channels that the profiles of `noncoherent` were not made
for."""
SYMBOLS = """Symbol errors of all devices (`ser_devices`; 0.1: nobody found), half of the 95 % interval, in brackets how many were counted.
Receivers of a row see the same frames, of seed 0."""
TEXT = {"known": CELL, "unknown": UNKNOWN, "placed": PLACED, "correlated": CORRELATED}
TIME = """Milliseconds a frame in batches of 64, one thread, each column in one run: J = 1, M = 16, one cell whose devices stay, gains
known. Errors of these frames are in the JSON."""


def main(folder: Path) -> None:
    """Writes RESULTS.md and updates the list."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if POINT.fullmatch(path.stem)}
    points = {name: POINT.fullmatch(name) for name in found}
    lines = ["# Results", "", "Made by `report.py` from the JSON files beside it; `run.sh` makes those.", ""]
    lines += [SYMBOLS, ""]
    for kind, text in TEXT.items():
        mine = [name for name, point in points.items() if point and kind_of(point) == kind]
        lines += [f"## {kind.capitalize()}", "", text, "", *TABLES[kind](mine, points, found), ""]
    lines += [
        "## Time",
        "",
        TIME,
        "",
        *times({path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("time*.json"), reverse=True)}),
        "",
    ]
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    listed(found)


def kind_of(point: re.Match[str]) -> str:
    return point["kind"].partition("-")[0] if point["antennas"] else "correlated"


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["receiver"]: row for row in document["results"]}


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row["ser_devices_ci95"]
    return f"{row['ser_devices']:.2e} ±{50 * (high - low) / row['ser_devices']:.0f}% ({row['ser_devices_errors']:,})"


def place(point: re.Match[str]) -> str:
    return f"{point['bits']} | {point['antennas'] or 64} | {point['pilots']}"


def ordered(names: list[str], points: dict[str, Any]) -> list[str]:
    return sorted(names, key=lambda name: tuple(int(points[name][key] or 64) for key in ("bits", "antennas", "pilots")))


def known(names: list[str], points: dict[str, Any], found: dict[str, Any]) -> list[str]:
    shown = [name for name in SHORT if any(name in rows(found[one]) for one in names)]
    lines = [f"| J | M | L | frames | {' | '.join(SHORT[name] for name in shown)} |", "|" + "---|" * (4 + len(shown))]
    for one in ordered(names, points):
        mine = rows(found[one])
        lines.append(f"| {place(points[one])} | {found[one]['frames']:,} | {' | '.join(cell(mine.get(name)) for name in shown)} |")
    return lines


def unknown(names: list[str], points: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = ["| J | M | L | frames | `noncoherent` | covariance, MAP | best with known gains | ratio |", "|" + "---|" * 8]
    for one in ordered(names, points):
        mine, best = rows(found[one]), closed(found.get(one.replace("unknown", "known")))
        ratio = "" if best is None else f"{mine['noncoherent']['ser_devices'] / best['ser_devices']:.2f}"
        cells = [cell(mine["noncoherent"]), cell(mine.get("noncoherent-covariance")), cell(best), ratio]
        lines.append(f"| {place(points[one])} | {found[one]['frames']:,} | {' | '.join(cells)} |")
    return lines


def placed(names: list[str], points: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = ["| J | M | L | frames | gains known | learned | not known | best closed form, known | learned to that |", "|" + "---|" * 9]
    for one in ordered([name for name in names if name.startswith("placed-known")], points):
        each = [
            rows(found.get(one.replace("known", gains), {"results": []})).get("noncoherent") for gains in ("known", "learned", "unknown")
        ]
        best = closed(found[one])
        ratio = f"{each[1]['ser_devices'] / best['ser_devices']:.2f}" if each[1] and best else ""
        lines.append(f"| {place(points[one])} | {found[one]['frames']:,} | {' | '.join(map(cell, [*each, best]))} | {ratio} |")
    return lines


def correlated(names: list[str], points: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = ["| channel | J | L | frames | `noncoherent` | covariance, MAP | ratio |", "|" + "---|" * 7]
    for one in sorted(names):
        mine, point = rows(found[one]), points[one]
        ours, theirs = mine["noncoherent"], mine["noncoherent-covariance"]
        ratio = f"{ours['ser_devices'] / theirs['ser_devices']:.2f}"
        head = f"{ours['channel']} | {point['bits']} | {point['pilots']} | {found[one]['frames']:,}"
        lines.append(f"| {head} | {cell(ours)} | {cell(theirs)} | {ratio} |")
    return lines


TABLES = {"known": known, "unknown": unknown, "placed": placed, "correlated": correlated}


def closed(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The best of AMP-MAP, AMP of sections, covariance with ratio and with MAP."""
    four = ("noncoherent-amp", "noncoherent-amp-sections", "noncoherent-covariance-lr", "noncoherent-covariance")
    mine = [row for name, row in rows(document).items() if name in four] if document else []
    return min(mine, key=lambda row: row["ser_devices"], default=None)


def times(documents: dict[str, dict[str, Any]]) -> list[str]:
    """One row a receiver, one column a document."""
    shown = [name for name in SHORT if any(name in rows(document) for document in documents.values())]
    lengths = [next(iter(rows(document).values()))["pilots"] for document in documents.values()]
    lines = [f"| | {' | '.join(f'L = {length}' for length in lengths)} |", "|" + "---|" * (1 + len(lengths))]
    for name in shown:
        mine = [rows(document).get(name) for document in documents.values()]
        cells = ["" if row is None else f"{1e3 * row['seconds_per_frame']:.1f}" for row in mine]
        lines.append(f"| {SHORT[name]} | {' | '.join(cells)} |")
    return lines


def listed(found: dict[str, Any]) -> None:
    """Puts the points of `TOLD` into the list that `massaccess receivers` reads."""
    document = json.loads(LISTED.read_text())
    others = [row for row in document["rows"] if "ser_devices" not in row]
    fresh = [kept(row, found[name]) for name in TOLD if name in found and found[name]["frames"] >= ENOUGH for row in found[name]["results"]]
    LISTED.write_text(json.dumps({**document, "rows": [*others, *fresh]}, indent=2) + "\n")


def kept(row: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in KEPT} | {"ms_per_frame": 1e3 * row["seconds_per_frame"], "batch": document["batch"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
