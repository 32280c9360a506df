"""Curves of a training, for programs (JSON) and for people (PNG)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from ..weights.stored import Header

MEASURES = {"loss": "loss", "log_likelihood": "log-likelihood of a channel [nat]"}
"""Curve that a training improves -> what its axis says."""


def write_curves(stem: Path, curves: dict[str, list[Any]], header: Header) -> tuple[Path, Path]:
    """``stem``.curves.json and ``stem``.curves.png: loss (of a fit: log-likelihood), and what
    validation says beside what is known without a network, against steps."""
    text, picture = stem.with_name(stem.name + ".curves.json"), stem.with_name(stem.name + ".curves.png")
    text.write_text(
        json.dumps({"recipe": header.recipe, "network": header.network, "metrics": dict(header.metrics), **curves}, indent=1) + "\n"
    )
    _picture(picture, curves, header)
    return text, picture


def _picture(path: Path, curves: dict[str, list[Any]], header: Header) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    name = next(name for name in MEASURES if name in curves)
    left.plot([one["step"] for one in curves[name]], [one[name] for one in curves[name]])
    left.set(xlabel="step", ylabel=MEASURES[name], title=f"{header.recipe}: {header.network}")
    drawer = next((draw for name, draw in (("ser", _sequences), ("aep", _detection)) if name in header.metrics), _denoising)
    drawer(right, curves["validation"], header.metrics)
    right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(path, dpi=110)


def _denoising(axes: Any, checks: list[dict[str, Any]], metrics: Mapping[str, Any]) -> None:
    steps = [one["step"] for one in checks]
    for index, snr_db in enumerate(metrics["snr_db"]):
        (line,) = axes.plot(steps, [one["nmse_db"][index] for one in checks], marker=".", label=f"SNR {snr_db} dB")
        axes.axhline(metrics["lmmse_db"][index], color=line.get_color(), linestyle=":")
    axes.set(xlabel="step", ylabel="NMSE [dB]", title="held-out channels; dotted: LMMSE")


def _detection(axes: Any, checks: list[dict[str, Any]], metrics: Mapping[str, Any]) -> None:
    steps = [one["step"] for one in checks]
    for style, name in zip(cycle(("-", "--", "-.", ":")), metrics["log_loss"]):
        axes.set_prop_cycle(None)
        for index, length in enumerate(metrics["pilots"]):
            axes.plot(steps, [one["log_loss"][name][index] for one in checks], style, marker=".", label=f"{name}, {length} pilots")
    axes.axhline(metrics["prior_log_loss"], color="black", linestyle=":", label="knowing only how many")
    axes.set(xlabel="step", ylabel="log loss [nat a user]", yscale="log", title="held-out channels")


def _sequences(axes: Any, checks: list[dict[str, Any]], metrics: Mapping[str, Any]) -> None:
    axes.plot([one["step"] for one in checks], [one["ser"] for one in checks], marker=".", label="decisions of the network")
    axes.axhline(metrics["prior_ser"], color="black", linestyle=":", label="nobody is active")
    axes.set(xlabel="step", ylabel="symbol error rate of all users", yscale="log", title="held-out frames")
