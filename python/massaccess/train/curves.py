"""Curves of a training, for programs (JSON) and for people (PNG)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..weights.stored import Header

MEASURES = {"loss": "weighted squared error", "log_likelihood": "log-likelihood of a channel [nat]"}
"""Curve that a training improves -> what its axis says."""


def write_curves(stem: Path, curves: dict[str, list[Any]], header: Header) -> tuple[Path, Path]:
    """``stem``.curves.json and ``stem``.curves.png: loss (of a fit: log-likelihood), and validation NMSE beside LMMSE, against steps."""
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
    steps = [one["step"] for one in curves["validation"]]
    for index, snr_db in enumerate(header.metrics["snr_db"]):
        (line,) = right.plot(steps, [one["nmse_db"][index] for one in curves["validation"]], marker=".", label=f"{snr_db} dB")
        right.axhline(header.metrics["lmmse_db"][index], color=line.get_color(), linestyle=":")
    right.set(xlabel="step", ylabel="NMSE [dB]", title="held-out channels; dotted: LMMSE")
    right.legend(title="SNR", fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(path, dpi=110)
