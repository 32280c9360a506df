"""What was measured of receivers, for lists that help to choose; `benchmarks/activity/measured.py` and `benchmarks/noncoherent/report.py`
make the file beside this one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_suffix(".json")


@cache
def measured() -> dict[str, list[dict[str, Any]]]:
    """Receiver -> one row a situation: channel, pilots, snr_db, users, antennas, aep, aep_ci95, frames, ms_per_frame, batch, device,
    threads; of non-coherent detectors also ser_devices."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(PATH.read_text("utf-8"))["rows"]:
        found.setdefault(row["receiver"], []).append(row)
    return found


def in_words(rows: list[dict[str, Any]]) -> str:
    """A short line for a list; empty where nothing was measured.

    >>> in_words([{"channel": "uma", "pilots": 14, "aep": 0.0149, "ms_per_frame": 1.23, "aep_ci95": [0.013, 0.017]}])
    'AEP 1.5e-02 (uma, 14 pilots); 1.2 ms'
    """
    if not rows:
        return ""
    errors = ", ".join(f"{_rate(row)} ({row['channel']}, {row['pilots']} pilots)" for row in rows)
    times = [row["ms_per_frame"] for row in rows]
    return f"{'SER' if 'ser_devices' in rows[0] else 'AEP'} {errors}; {_span(min(times), max(times))} ms"


def _rate(row: dict[str, Any]) -> str:
    rate = row.get("ser_devices", row["aep"])
    return f"{rate:.1e}" if rate else f"below {row['aep_ci95'][1]:.0e}"


def _span(low: float, high: float) -> str:
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
