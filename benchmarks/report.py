"""Renders the result files of a benchmark folder as Markdown and pictures: ``python benchmarks/report.py benchmarks/classical``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CURVES = {  # picture -> (result file, x axis, y axis, title)
    "activity-rayleigh": ("activity-rayleigh", "pilots", "aep", "Activity detection, Rayleigh, 128 users, 64 antennas, 10 dB"),
    "activity-uma": ("activity-uma", "pilots", "aep", "Activity detection, 38.901 UMa NLOS, 128 users, 64 antennas, 10 dB"),
    "coherent-rayleigh-nmse": ("coherent-rayleigh", "snr_db", "nmse_db", "Channel estimation, Rayleigh, 12 users, 15 + 50 symbols"),
    "coherent-uma-nmse": ("coherent-uma", "snr_db", "nmse_db", "Channel estimation, 38.901 UMa NLOS, 12 users, 15 + 50 symbols"),
    "coherent-uma-ber": ("coherent-uma", "snr_db", "ber", "Data detection, 38.901 UMa NLOS, 12 users, 15 + 50 symbols"),
    "snr-nmse": ("snr", "snr_db", "nmse_db", "Channel estimation, 38.901 UMa NLOS, 12 users, 15 + 50 symbols"),
    "snr-ber": ("snr", "snr_db", "ber", "Data detection, 38.901 UMa NLOS, 12 users, 15 + 50 symbols"),
    "perfect-data": ("perfect-data", "snr_db", "nmse_db", "Channel estimation, all 65 symbols known, 38.901 UMa NLOS, 12 users"),
}
LABELS = {
    "pilots": "pilot symbols",
    "snr_db": "received SNR [dB]",
    "aep": "activity error probability",
    "ber": "bit error rate",
    "nmse_db": "NMSE [dB]",
}
RATES = ("aep", "p_md", "p_fa", "ber", "fer")


def main(folder: Path) -> None:
    """Writes RESULTS.md and the pictures into ``folder``."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    denoised = [line for document in documents.values() for line in denoising(document)]
    documents = {name: streamed(document) for name, document in documents.items() if {"config", "results"} <= document.keys()}
    lines = [
        "# Results",
        "",
        "Made by `report.py` from the JSON files beside it; `run.sh` makes those. Brackets: 95 % confidence interval; (n): errors counted.",
        "",
    ]
    for name, document in documents.items():
        lines += [f"## {name}", "", describe(document), ""]
        lines += [f"![{title}]({picture}.png)\n" for picture, (source, _, _, title) in CURVES.items() if source == name]
        lines += [*table(document["results"]), ""]
    (folder / "RESULTS.md").write_text("\n".join([*lines, *denoised]))
    for picture, (source, x, y, title) in CURVES.items():
        if source in documents:
            draw(documents[source]["results"], x, y, title, folder / f"{picture}.png")


def denoising(document: dict[str, Any]) -> list[str]:
    """The table of `jcedd/denoising.py`: NMSE in dB, a row per prior and channel, a column per SNR."""
    rows = document.get("denoising", [])
    levels = list(dict.fromkeys(row["snr_db"] for row in rows))
    lines = ["## denoising", "", f"NMSE [dB] in white noise, seed {document.get('seed')}, at SNR:", ""] if rows else []
    lines += ["| prior | channel | channels | " + " | ".join(f"{level:g} dB" for level in levels) + " | ms/row |"] if rows else []
    lines += ["|" + "---|" * (4 + len(levels))] if rows else []
    for key in dict.fromkeys((row["prior"], row["channel"]) for row in rows):
        mine = [row for row in rows if (row["prior"], row["channel"]) == key]
        cells = [*key, str(mine[0]["channels"]), *(f"{row['nmse_db']:.2f}" for row in mine), f"{mine[-1]['ms_per_row']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""] if rows else []


def streamed(document: dict[str, Any]) -> dict[str, Any]:
    """A document of `massaccess run` in the form of `massaccess evaluate`; others as they are."""
    if "flowgraph" not in document:
        return document
    facts = document["flowgraph"]
    rows = [{**row, "seconds_per_frame": facts["receiver_seconds"] / facts["frames"]} for row in document["results"]]
    told = (
        f" Streamed: {facts['frames_per_second']:.0f} frames/s, {facts['dropped']} dropped, {facts['rejected']} rejected, "
        f"{facts['lost']} lost, peak memory {facts['peak_memory_mib']:.0f} MiB, digest {facts['digest'][:16]}."
    )
    return {**document, "frames": facts["frames"], "books": 1, "calibrate": 0, "results": rows, "told": told}


def describe(document: dict[str, Any]) -> str:
    """The situation, the frames and the seed, in a sentence."""
    config = document["config"]
    active = (
        f"{config['active_users']} known to be active"
        if config.get("active_users") == config["users"]
        else f"activity {config['activity']:g}"
    )
    books = f" over {document['books']} pilot books" if document["books"] > 1 else ""
    tuned = f", thresholds set on {document['calibrate']} other frames" if document["calibrate"] else ""
    return (
        f"{config['users']} users ({active}), {config['rows']}x{config['columns']} antennas, "
        f"{config['pilot_kind']} pilots, {config['channel']}; "
        f"{document['frames']} frames a point{books}, seed {document['seed']}{tuned}; massaccess {document['version']}."
        f"{document.get('told', '')}"
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown lines: one row per receiver and point, only the columns that were measured."""
    rates = [name for name in RATES if any(row[name] is not None for row in rows)]
    nmse = any(row["nmse_db"] is not None for row in rows)
    evaluated = any(row.get("nfe") for row in rows)
    heads = [
        "receiver",
        "SNR [dB]",
        "pilots",
        *rates,
        *(["NMSE [dB]"] if nmse else []),
        *(["evaluations"] if evaluated else []),
        "ms/frame",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [row["receiver"], f"{row['snr_db']:g}", str(row["pilots"]), *(rate(row, name) for name in rates)]
        cells += [_decibels(row)] if nmse else []
        cells += [f"{row.get('nfe', 0):.1f}"] if evaluated else []
        lines.append("| " + " | ".join([*cells, f"{1e3 * row['seconds_per_frame']:.2f}"]) + " |")
    return lines


def rate(row: dict[str, Any], name: str) -> str:
    """A rate with its interval and error count."""
    if row[name] is None:
        return ""
    low, high = row[f"{name}_ci95"]
    return f"{row[name]:.2g} [{low:.2g}, {high:.2g}] ({row[f'{name}_errors']})"


def _decibels(row: dict[str, Any]) -> str:
    if row["nmse_db"] is None or row["nmse_db"] < -100:
        return ""
    low, high = row["nmse_db_ci95"]
    return f"{row['nmse_db']:.2f} [{low:.2f}, {high:.2f}]"


def draw(rows: list[dict[str, Any]], x: str, y: str, title: str, path: Path) -> None:
    """One curve per receiver with its confidence band; zero errors are left out of logarithmic axes."""
    figure, axes = plt.subplots(figsize=(7.5, 5), constrained_layout=True)
    for index, name in enumerate(dict.fromkeys(row["receiver"] for row in rows)):
        mine = [
            row
            for row in rows
            if row["receiver"] == name and row[y] is not None and (y != "nmse_db" or row[y] > -100) and (y == "nmse_db" or row[y] > 0)
        ]
        if not mine:
            continue
        style = {
            "color": f"C{index}",
            "linestyle": "--" if name.startswith("perfect") else "-",
            "marker": "os^vDPX*<"[index % 9],
            "markersize": 4,
        }
        places, values = [row[x] for row in mine], [row[y] for row in mine]
        axes.plot(places, values, label=name, **style)
        axes.fill_between(places, *zip(*(row[f"{y}_ci95"] for row in mine), strict=True), color=f"C{index}", alpha=0.15, linewidth=0)
    if y != "nmse_db":
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-7))
    axes.set(xlabel=LABELS[x], ylabel=LABELS[y], title=title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
