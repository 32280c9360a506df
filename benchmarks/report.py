"""Renders the result files of a benchmark folder as Markdown and pictures: ``python benchmarks/report.py benchmarks/classical``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CURVES = {  # picture -> (result file, x axis, y axis, title)
    "activity-rayleigh": ("activity-rayleigh", "pilots", "aep", "Activity detection, Rayleigh, 128 users, 64 antennas, 10 dB"),
    "activity-uma": ("activity-uma", "pilots", "aep", "Activity detection, 38.901 UMa NLOS, 128 users, 64 antennas, 10 dB"),
    "activity-load": ("activity-load", "activity", "aep", "Activity detection, 38.901 UMa NLOS, 25 pilots, 10 dB"),
    "activity-florence": ("activity-florence", "pilots", "aep", "Activity detection, ray-traced city, 128 users, 64 antennas, 10 dB"),
    "activity-144": ("activity-144", "pilots", "aep", "Activity detection, 38.901 UMa NLOS, 128 users, 144 antennas, 10 dB"),
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
    "activity": "probability that a user is active",
    "aep": "activity error probability",
    "ber": "bit error rate",
    "nmse_db": "NMSE [dB]",
}
POINT = re.compile(r"-(L\d+|p[\d.]+)$")  # at the end of a file's name: one point of a campaign that is kept point by point
SLOPE = "Slope: what the log odds are best multiplied by; below 1 they are overconfident."
FALSE_ALARMS = 1e-3  # at which missed detections are told
RATES = ("aep", "p_md", "p_fa", "ber", "fer")


def main(folder: Path) -> None:
    """Writes RESULTS.md and the pictures into ``folder``."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    documents = joined(documents)
    denoised = [line for document in documents.values() for line in denoising(document)]
    denoised += [line for document in documents.values() for line in latency(document)]
    documents = {name: streamed(document) for name, document in documents.items() if {"config", "results"} <= document.keys()}
    lines = [
        "# Results",
        "",
        "Made by `report.py` from the JSON files beside it; `run.sh` makes those. Brackets: 95 % confidence interval; (n): errors counted.",
        "",
        *([SLOPE, ""] if any("calibration_slope" in row for one in documents.values() for row in one["results"]) else []),
    ]
    for name, document in documents.items():
        lines += [f"## {name}", "", describe(document), ""]
        lines += [f"![{title}]({picture}.png)\n" for picture, (source, _, _, title) in CURVES.items() if source == name]
        lines += overview(document["results"]) if document.get("points") else []
        lines += [*table(document["results"]), ""]
    (folder / "RESULTS.md").write_text("\n".join([*lines, *denoised]))
    for picture, (source, x, y, title) in CURVES.items():
        if source in documents:
            draw(documents[source]["results"], x, y, title, folder / f"{picture}.png")


def joined(documents: dict[str, Any]) -> dict[str, Any]:
    """Files of single points, NAME-L14 or NAME-p0.1, as one document NAME; others as they are."""
    whole: dict[str, Any] = {}
    for name, document in documents.items():
        stem = POINT.sub("", name)
        if stem == name or stem not in whole:
            whole[stem] = {**document, "results": list(document["results"]), "points": True} if stem != name else document
            continue
        for key in ("seed", "version"):
            if document[key] != whole[stem][key]:
                raise SystemExit(f"{name} has {key} {document[key]}, other points {whole[stem][key]}: run those that differ again")
        whole[stem]["results"] += document["results"]
        if document["frames"] != whole[stem]["frames"]:  # rare errors take more of them
            points = {row["pilots"] for row in whole[stem]["results"]}
            counts = {x: max(row["frames"] for row in whole[stem]["results"] if row["pilots"] == x) for x in points}
            whole[stem]["told"] = " Frames by pilots: " + ", ".join(f"{count:,} ({x})" for x, count in sorted(counts.items())) + "."
    return whole


def overview(rows: list[dict[str, Any]]) -> list[str]:
    """Activity errors, a row a detector, a column a point."""
    x = "activity" if len({row["activity"] for row in rows}) > 1 else "pilots"
    places = sorted({row[x] for row in rows})
    lines = [f"| AEP | {' | '.join(f'{x} {place:g}' for place in places)} | ms/frame |", "|" + "---|" * (2 + len(places))]
    for name in dict.fromkeys(row["receiver"] for row in rows):
        mine = {row[x]: row for row in rows if row["receiver"] == name}
        times = [1e3 * row["seconds_per_frame"] for row in mine.values()]
        cells = [rate(mine[place], "aep") if place in mine else "" for place in places]
        lines.append(f"| {name} | {' | '.join(cells)} | {min(times):.2f} to {max(times):.2f} |")
    return [*lines, ""]


def latency(document: dict[str, Any]) -> list[str]:
    """The tables of `speed/activity.py`: milliseconds a frame, over the pilot length, a row per detector and batch, one table a device."""
    lines = []
    rows = document.get("latency", [])
    for device in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == device]
        lengths = list(dict.fromkeys(row["pilots"] for row in mine))
        repeated = f"medians of {document['repetitions']} or more calls in turns"
        lines += [f"## latency, {device}", "", f"ms/frame (times AMP, times OMP); {repeated}; massaccess {document['version']}.", ""]
        lines += ["| detector | batch | " + " | ".join(f"{length} pilots" for length in lengths) + " |", "|" + "---|" * (2 + len(lengths))]
        for key in dict.fromkeys((row["detector"], row["batch"]) for row in mine):
            found = {row["pilots"]: row for row in mine if (row["detector"], row["batch"]) == key}
            lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(_timed(found.get(length)) for length in lengths) + " |")
        lines.append("")
    return lines


def _timed(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    ratios = [f"{row[name]:.2g}" for name in ("to_amp", "to_omp") if row[name] is not None]
    return f"{row['ms_per_frame']:.2f}" + (f" ({', '.join(ratios)})" if ratios else "")


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
    hidden = "".join(f", {what} {document[what]}" for what in ("noise", "gains") if document.get(what, "known") != "known")
    hidden += f", covariance of {document['covariance']}" if document.get("covariance") else ""
    coarse = f", converters of {config['adc_bits']} bit, SNR {config['snr_convention']}" if config.get("adc_bits") else ""
    tuned = f", thresholds set on {document['calibrate']} other frames" if document["calibrate"] else ""
    return (
        f"{config['users']} users ({active}), {config['rows']}x{config['columns']} antennas, "
        f"{config['pilot_kind']} pilots, {config['channel']}{hidden}{coarse}; "
        f"{document['frames']} frames a point{books}, seed {document['seed']}{tuned}; massaccess {document['version']}."
        f"{document.get('told', '')}"
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown lines: one row per receiver and point, only the columns that were measured."""
    rates = [name for name in RATES if any(row[name] is not None for row in rows)]
    nmse = any(row["nmse_db"] is not None for row in rows)
    more = {"nmse_rows_db": "rows [dB]", "nmse_scaled_db": "scaled [dB]"} if nmse and any(row.get("adc_bits") for row in rows) else {}
    evaluated = any(row.get("nfe") for row in rows)
    activities = len({row.get("activity") for row in rows}) > 1
    ranked = any(_at(row) for row in rows)
    heads = [
        "receiver",
        "SNR [dB]",
        "pilots",
        *(["activity"] if activities else []),
        *rates,
        *([f"P_md at P_fa {FALSE_ALARMS:g}", "slope"] if ranked else []),
        *(["NMSE [dB]"] if nmse else []),
        *more.values(),
        *(["evaluations"] if evaluated else []),
        "ms/frame",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [row["receiver"], f"{row['snr_db']:g}", str(row["pilots"]), *([f"{row['activity']:g}"] if activities else [])]
        cells += [rate(row, name) for name in rates]
        cells += _worth(row) if ranked else []
        cells += [_decibels(row)] if nmse else []
        cells += ["" if row.get(name) is None else f"{row[name]:.2f}" for name in more]
        cells += [f"{row.get('nfe', 0):.1f}"] if evaluated else []
        lines.append("| " + " | ".join([*cells, f"{1e3 * row['seconds_per_frame']:.2f}"]) + " |")
    return lines


def _at(row: dict[str, Any]) -> dict[str, Any] | None:
    """Missed detections at `FALSE_ALARMS`, where they were measured."""
    return next((one for one in (row.get("roc") or {}).get("p_md_at", ()) if one["p_fa"] == FALSE_ALARMS), None)


def _worth(row: dict[str, Any]) -> list[str]:
    found, slope = _at(row), row.get("calibration_slope")
    return ["" if found is None else rate(found, "p_md"), "" if slope is None else f"{slope:.2f}"]


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


def _sorted(rows: list[dict[str, Any]], x: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row[x])


def draw(rows: list[dict[str, Any]], x: str, y: str, title: str, path: Path) -> None:
    """One curve per receiver with its confidence band; zero errors are left out of logarithmic axes."""
    figure, axes = plt.subplots(figsize=(7.5, 5), constrained_layout=True)
    for index, name in enumerate(dict.fromkeys(row["receiver"] for row in rows)):
        mine = [
            row
            for row in _sorted(rows, x)
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
