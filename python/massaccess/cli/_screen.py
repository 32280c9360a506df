"""What ``massaccess listen`` shows in a terminal: who was active, symbols, users, antennas, counters. Made of text alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..calibration.health import VERDICTS
from ..link.archive import active
from ..link.monitor import FIELDS, UserTrack, array_line, counter_line

FRAMES = 24  # rows of the raster: two in a line of text
COLUMNS = 64  # of the raster; more users share columns
SIDE = 1.6  # of either axis, either way; symbols have unit power
PLOT = (33, 15)  # columns and lines
LARGEST = 1e3  # symbols of unit power that are larger, or not numbers, are none
DENSITY = " .:oO@"
POINTS = 1500  # latest symbols in the plot
WORST = 12  # users in the table
HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
COLOURS = {"ok": "green", "saturated": "magenta", "dead": "red", "noisy": "yellow", "swapped": "cyan", "drifting": "blue"}


class Screen:
    """Takes the arrays of messages as `massaccess.link.archive.results` gives them, and renders what they say. Arrays that are not there,
    or not of the shape that they should have, are left out: what comes over a socket is not to be trusted."""

    def __init__(self, modulation: str = "qpsk") -> None:
        self._modulation = modulation
        self._raster = np.zeros((0, 0), bool)
        self._points = np.zeros(0, np.complex64)
        self._track = UserTrack(0, modulation)
        self._told: dict[str, np.ndarray] = {}

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes in the frames of a message."""
        if "activity" not in arrays or not len(arrays["frame"]):
            return
        found = active(arrays)
        users = found.shape[1]
        if self._raster.shape[1] != users:
            self._raster, self._track, self._told = np.zeros((0, users), bool), UserTrack(users, self._modulation), {}
        self._raster = np.concatenate([self._raster, found])[-FRAMES:]
        symbols = arrays.get("symbols")
        if symbols is not None and symbols.ndim == 3 and symbols.shape[2] == users and symbols.dtype.kind == "c":
            self._hear(found, symbols)
        for name, row in FIELDS.items():
            if name in arrays and arrays[name].ndim == 2 and arrays[name].dtype.name == row.dtype:
                self._told[name] = arrays[name][-1]

    def _hear(self, found: np.ndarray, symbols: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            clean = np.where(np.abs(symbols) < LARGEST, symbols, 0)
        self._track.hear(found, clean)
        self._points = np.concatenate([self._points, clean.swapaxes(1, 2)[found].ravel()])[-POINTS:]

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._raster.size:
            parts.append(Panel(raster(self._raster), title="active: users across, the latest frame below", expand=False))
        below = [Panel(plot(self._points), title="symbols", expand=False)] if len(self._points) else []
        table = self._users()
        if table.row_count:
            below.append(Panel(table, title="users, worst first", expand=False))
        parts += [Columns(below)] if below else []
        return Group(*parts, *self._array(), *self._counters())

    def _users(self) -> Table:
        """Those that were heard, with the largest share of failures and the largest error first."""
        track, shown = self._track, Table("user", "frames", "error/dB", "turn/deg", "failed", box=None)
        failed = self._told.get("user_fer", track.failed)
        failed = failed if failed.shape == track.heard.shape else track.failed
        error, turn = track.error_db, track.drift_deg
        order = sorted(np.flatnonzero(track.heard).tolist(), key=lambda user: (-_low(failed[user], 0.0), -_low(error[user], -99.0)))
        for user in order[:WORST]:
            cells = (_cell(error[user], ".1f"), _cell(turn[user], "+.1f"), _cell(failed[user], ".0%"))
            shown.add_row(str(user), str(track.heard[user]), *cells)
        return shown

    def _array(self) -> list[RenderableType]:
        verdicts = self._told.get("antenna_verdict")
        if verdicts is None or not len(verdicts):
            return []
        marks = Text(array_line(verdicts) + "  ")
        for verdict in verdicts[:256]:
            name = VERDICTS[verdict] if verdict < len(VERDICTS) else ""
            marks.append("■" if name else "·", style=COLOURS.get(name, "dim"))
        return [marks]

    def _counters(self) -> list[RenderableType]:
        counters = self._told.get("counters")
        line = counter_line(counters) if counters is not None else ""
        return [Text(line)] if line else []


def raster(found: np.ndarray) -> Text:
    """Decisions [frames users] bool as blocks of text, two frames a line, the last one at the bottom; many users share a column."""
    group = -(-found.shape[1] // COLUMNS)
    padded = np.pad(found, ((len(found) % 2, 0), (0, -found.shape[1] % group)))
    cells = padded.reshape(len(padded), -1, group).any(2)
    pairs = cells.reshape(-1, 2, cells.shape[1])
    lines = ["".join(HALVES[bool(top), bool(bottom)] for top, bottom in zip(*pair, strict=True)) for pair in pairs]
    return Text("\n".join(lines), style="bright_green", no_wrap=True)


def plot(points: np.ndarray) -> Text:
    """Symbols as characters, the denser the darker, with the axes."""
    columns, lines = PLOT
    span = (-SIDE, SIDE)
    counts = np.histogram2d(points.real, points.imag, bins=PLOT, range=(span, span))[0].T[::-1]
    level = np.ceil(counts / max(counts.max(), 1) * (len(DENSITY) - 1)).astype(int)
    canvas = np.array([[DENSITY[cell] for cell in row] for row in level])
    canvas[lines // 2][canvas[lines // 2] == " "] = "-"
    canvas[:, columns // 2][canvas[:, columns // 2] == " "] = "|"
    return Text("\n".join("".join(row) for row in canvas), style="bright_cyan", no_wrap=True)


def _low(value: Any, instead: float) -> float:
    return float(value) if np.isfinite(value) else instead


def _cell(value: Any, form: str) -> str:
    return format(float(value), form) if np.isfinite(value) else "-"
