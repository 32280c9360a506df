"""The table of results from the JSON files beside this script: what unknown offsets cost, in decibels at a frame error rate of 1e-2."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = 1e-2
DRAWS = 4000
CELLS = ((64, "uma"), (32, "rayleigh"), (16, "rayleigh"))


def rows(name: str) -> list[dict]:
    return json.loads((HERE / f"{name}.json").read_text())["results"]


def stream(antennas: int, known: list[dict]) -> list[dict]:
    return [row for point in known for row in rows(f"stream-m{antennas}-{point['snr_db']:g}dB")]


def needed(snr: np.ndarray, errors: np.ndarray, trials: float) -> np.ndarray:
    """The SNR [dB] at `TARGET`, on the line through two logarithms of rates, for each draw of errors [draws 2]."""
    rate = np.log10((errors + 0.5) / trials)
    slope = (rate[:, 1] - rate[:, 0]) / (snr[1] - snr[0])
    return snr[0] + (math.log10(TARGET) - rate[:, 0]) / slope


def curve(points: list[dict], draw: np.random.Generator) -> tuple[float, np.ndarray]:
    """SNR needed, and draws of it from the errors' distribution."""
    snr = np.array([point["snr_db"] for point in points])
    errors = np.array([point["fer_errors"] for point in points], float)
    trials = float(np.mean([point["fer_errors"] / point["fer"] for point in points]))
    return float(needed(snr, errors[None], trials)[0]), needed(snr, draw.poisson(errors, (DRAWS, 2)).astype(float), trials)


def shown(point: dict) -> str:
    return f"{point['fer']:.2e} ({point['fer_errors']})"


def main() -> None:
    draw = np.random.default_rng(0)
    print("| antennas, channel | SNR [dB] | offsets known | unknown, slot known | in the stream | missed, in the stream |")
    print("|---|---|---|---|---|---|")
    losses = []
    for antennas, channel in CELLS:
        known, unknown = rows(f"offsets-known-m{antennas}"), rows(f"offsets-unknown-m{antennas}")
        live = stream(antennas, known)
        for told, found, met in zip(known, unknown, live, strict=True):
            missed = f"{met['p_md']:.1e} ({met['p_md_errors']})"
            print(f"| {antennas}, {channel} | {told['snr_db']:g} | {shown(told)} | {shown(found)} | {shown(met)} | {missed} |")
        lower = HERE / f"lower-known-m{antennas}.json"  # a point below the others, where these do not enclose the target
        base, base_draws = curve([*rows(lower.stem), known[0]] if lower.exists() else known, draw)
        for name, points in (("unknown, slot known", unknown), ("in the stream", live)):
            need, draws = curve(points, draw)
            low, high = np.percentile(draws - base_draws, [2.5, 97.5])
            losses.append(f"| {antennas}, {channel} | {name} | {base:.2f} | {need:.2f} | {need - base:.2f} ({low:.2f} to {high:.2f}) |")
    print("\n| antennas, channel | offsets | SNR at 1e-2, known [dB] | SNR at 1e-2 [dB] | loss [dB], 95 % |")
    print("|---|---|---|---|---|")
    print("\n".join(losses))


if __name__ == "__main__":
    main()
