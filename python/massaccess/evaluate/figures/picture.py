"""The picture of a figure's result: one panel a measure, the paper's labels, 95 % bands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .definition import FALSE_ALARMS, MEASURES, ROW, Curve, PublishedFigure

LOGARITHMIC = ("ber", "ser_devices", "aep", "p_md", "seconds_per_frame", "multiplications", "loss")
ENOUGH = 100  # errors, from which a rate's marker is filled
MARKERS = "osv^D<>Ph*X"
STYLES = ("-", "--", ":", "-.")
OURS = {
    "jcedd": ("black", "-"),
    "iterative-lmmse-ep": ("dimgray", (0, (5, 2))),
    "activity": ("black", "-"),
    "covariance": ("dimgray", (0, (5, 2))),
    "onebit": ("black", "-"),
    "onebit-ep": ("black", "-."),
    "noncoherent": ("black", "-"),
}
"""The toolkit's defaults and the classical ones beside them: broad, and under the others, which they often coincide with."""

Rows = Sequence[Mapping[str, Any]]


def draw(figure: PublishedFigure, result: Mapping[str, Any], path: Path) -> Path:
    """Writes the picture of ``result``, the document of `experiment.run`, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if figure.x == ROW:
        return _images(Figure(figsize=(1.5 * len(figure.curves) + 1, 8), layout="constrained"), figure, result, path)
    size = (8.6 * len(figure.y), 7.8) if figure.grouped else (max(6.2 * len(figure.y), 6.8), 6.4)
    canvas = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(1, len(figure.y), squeeze=False)[0]
    for panel, measure in zip(panels, figure.y, strict=True):
        _panel(panel, figure, measure, result["results"])
    rates = {"ber", "ser_devices", "aep", "p_md"} & {*figure.y}
    counts = f"\nerror rates: filled from {ENOUGH} errors on; arrow: no error, 95 % limit" if rates else ""
    head = f"{figure.paper} {figure.figure}: {figure.title}\n{result['mode']} run: {result['extent']}{counts}"
    canvas.suptitle(head, fontsize="small" if len(figure.y) > 1 else "x-small", wrap=True)
    canvas.savefig(path, dpi=110)
    return path


def _images(canvas: Any, figure: PublishedFigure, result: Mapping[str, Any], path: Path) -> Path:
    """One image a curve, rows from top to bottom, antennas from left to right; the largest entry is black."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(canvas)
    for panel, curve in zip(canvas.subplots(1, len(figure.curves)), figure.curves, strict=True):
        values = [row["values"] for row in result["results"] if row["curve"] == curve.key]
        panel.imshow(values, cmap="gray_r", vmin=0, vmax=1, aspect="auto", extent=(0, len(values[0]), len(values) + 0.5, 0.5))
        panel.set_title(curve.label.replace(" ", "\n", 1), fontsize="x-small")
        panel.set_xticks([])
        panel.yaxis.get_major_locator().set_params(integer=True)
        panel.tick_params(labelsize="x-small")
    canvas.suptitle(f"{figure.paper} {figure.figure}: {figure.title}", fontsize="small", wrap=True)
    canvas.savefig(path, dpi=110)
    return path


def _panel(panel: Any, figure: PublishedFigure, measure: str, rows: Rows) -> None:
    for index, curve in enumerate(figure.curves):
        mine = [row for row in rows if row["curve"] == curve.key]
        if measure in figure.panels(curve):
            look = _by_receiver(figure, curve) if figure.grouped else _look(index, curve)
            _curve(panel, measure, sorted(mine, key=lambda row: row["x"] or 0), look)
    if measure in LOGARITHMIC:
        panel.set_yscale("log")
    if figure.x == FALSE_ALARMS:
        panel.set_xscale("log")
    panel.set(xlabel=figure.axis, ylabel=MEASURES[measure])
    panel.grid(True, which="both", alpha=0.3)
    if panel.get_legend_handles_labels()[0]:
        columns = 2 if figure.grouped or len(figure.y) > 1 else 1
        panel.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=columns)


def _look(index: int, curve: Curve) -> dict[str, Any]:
    ours = OURS.get(curve.receiver.rpartition("+")[2])
    look = {"marker": MARKERS[index % len(MARKERS)], "markerfacecolor": "none", "label": curve.label}
    if ours:
        style = (0, (1, 1)) if curve.system else ours[1]
        return {"color": ours[0], "linestyle": style, "linewidth": 3.0, "alpha": 0.6, "zorder": 1.5, **look}
    return {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--", "linewidth": 1.3, **look}


def _by_receiver(figure: PublishedFigure, curve: Curve) -> dict[str, Any]:
    """One colour and marker for all curves of a receiver, one kind of line for all in the same system."""
    receivers = list(dict.fromkeys(one.receiver for one in figure.curves))
    systems = [dict(curve.system) for curve in figure.curves]
    systems = [one for index, one in enumerate(systems) if one not in systems[:index]]
    colour, marker = receivers.index(curve.receiver), MARKERS[receivers.index(curve.receiver) % len(MARKERS)]
    ours = {"color": "black", "linewidth": 2.0} if curve.receiver in OURS else {"color": f"C{colour % 10}", "linewidth": 1.3}
    style = STYLES[systems.index(dict(curve.system)) % len(STYLES)]
    return {"marker": marker, "markerfacecolor": "none", "label": curve.label, "linestyle": style, **ours}


def _curve(panel: Any, measure: str, rows: Rows, look: Mapping[str, Any]) -> None:
    """Points, with the upper end of the interval where no error was counted on a logarithmic axis; a flat curve is a level line."""
    shown = [row for row in rows if row.get(measure) is not None]
    if measure in LOGARITHMIC:
        silent = [row for row in shown if row[measure] == 0 and row["x"] is not None]
        panel.plot(
            [row["x"] for row in silent],
            [row[f"{measure}_ci95"][1] for row in silent],
            color=look["color"],
            marker=r"$\downarrow$",
            linestyle="",
            label=look["label"] if silent and len(silent) == len(shown) else None,
        )
        shown = [row for row in shown if row[measure] > 0]
    if not shown:
        return
    band = [row.get(f"{measure}_ci95") or [row[measure]] * 2 for row in shown]
    if shown[0]["x"] is None:
        panel.axhline(shown[0][measure], **{**look, "marker": None, "linestyle": ":"})
        panel.axhspan(*_above_zero(measure, [band[0]])[0], color=look["color"], alpha=0.1, linewidth=0)
        return
    x = [row["x"] for row in shown]
    dense = {"marker": None} if len(x) > 40 else {"markersize": 4}
    panel.plot(x, [row[measure] for row in shown], **{**look, **dense})
    counted = [row for row in shown if row.get(f"{measure}_errors", 0) >= ENOUGH]
    if counted and measure in LOGARITHMIC:
        dots = {"color": look["color"], "marker": look["marker"], "markersize": 4, "linestyle": ""}
        panel.plot([row["x"] for row in counted], [row[measure] for row in counted], **dots)
    low, high = zip(*_above_zero(measure, band), strict=True)
    panel.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _above_zero(measure: str, band: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Intervals that a logarithmic axis can show."""
    floor = min((high for _, high in band), default=1.0) / 20 if measure in LOGARITHMIC else -math.inf
    return [(max(low, floor), high) for low, high in band]
