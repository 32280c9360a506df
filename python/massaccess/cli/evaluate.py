"""``massaccess evaluate``: Monte Carlo without GNU Radio."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import ConfigError, MassaccessError
from ..evaluate.metrics import RATES
from ..forward.noise import NOISE
from ..forward.waveform import OFFSETS
from ..priors.gain_memory import GAINS
from ..registry import entry, takes
from ._json import json_option, write_json
from ._system import MAX_THREADS, configure, system_options
from .run import blocks

if TYPE_CHECKING:
    from ..evaluate.montecarlo import Campaign, Coder

SHOWN = (1e-1, 1e-2, 1e-3, 1e-4)  # rates of false alarms in the table of --roc
LISTS = {"snr_db": float, "pilot_len": int, "activity": float}  # options of the system that take several values here


class Numbers(click.ParamType):
    """Comma-separated numbers."""

    name = "numbers"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        try:
            return [self.kind(item) for item in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: pass numbers joined by commas, e.g. 0,5,10", param, ctx)


@click.command()
@click.option("--receivers", required=True, help="Registry names joined by commas; see `massaccess receivers`.")
@system_options(lists={name: Numbers(kind) for name, kind in LISTS.items()})
@click.option("--frames", type=click.IntRange(1), default=1000, show_default=True, help="Frames per point, the same for all receivers.")
@click.option("--seed", type=int, default=0, show_default=True, help="Frames of a seed are those of `massaccess run --seed`.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Frames handed to a receiver at once.")
@click.option(
    "--pilot-books", "books", type=click.IntRange(1), default=1, show_default=True, help="Pilot books to share the frames between."
)
@click.option(
    "--calibrate", type=click.IntRange(0), default=0, show_default=True, help="Frames of another seed to set detectors' thresholds on."
)
@click.option(
    "--option", "options", multiple=True, metavar="RECEIVER.NAME=VALUE", help="An option of a receiver, e.g. mmv-amp.damping=0.7."
)
@click.option(
    "--noise", type=click.Choice(NOISE), default="known", show_default=True, help="Whether receivers are told the noise variance."
)
@click.option(
    "--gains",
    type=click.Choice(GAINS),
    default="known",
    show_default=True,
    help="Whether receivers are told the users' mean powers, with path loss and --no-power-control; learned: they find them out, of "
    "devices that stay (--placement-seed).",
)
@click.option(
    "--offsets",
    type=click.Choice(OFFSETS),
    default="unknown",
    show_default=True,
    help="Whether receivers are told each user's delay and carrier in bursts: known is ideal synchronisation, to compare with.",
)
@click.option(
    "--channel-cov", "covariance", default="", metavar="CHANNEL", help="Tell receivers the array covariance of this channel model instead."
)
@click.option(
    "--roc",
    is_flag=True,
    help="Show missed detections at equal false alarms, and how far to believe the posteriors; JSON has both.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--threads", type=click.IntRange(0, MAX_THREADS), default=0, show_default=True, help="Threads; 0: all cores.")
@json_option
def command(
    receivers: str, config_path: Path | None, options: tuple[str, ...], threads: int, roc: bool, json_path: Path | None, **rest: Any
) -> None:
    """Monte Carlo of one or more receivers at one or more points, on the very same frames.

    Several values of --snr-db, --pilots and --activity make a grid of points.
    """
    import torch

    from ..evaluate.montecarlo import Campaign, evaluate

    if threads:
        torch.set_num_threads(threads)
    grid = {name: rest.pop(name) for name in LISTS}
    base = configure(config_path, {**rest, **dict.fromkeys(LISTS)})
    axes = [[(name, value) for value in values] for name, values in grid.items() if values]
    points = [base.replace(**dict(point)) for point in itertools.product(*axes)]
    settings = {
        name: rest[name] for name in ("frames", "seed", "batch", "books", "calibrate", "noise", "gains", "offsets", "covariance", "device")
    }
    campaign = Campaign(points, [name.strip() for name in receivers.split(",")], options=parse_options(options), **settings)
    coder, missing = _coder(campaign)
    for note in [*notes(campaign), *missing]:
        click.echo(f"massaccess: warning: {note}", err=True)
    with _progress() as bar:
        task = bar.add_task("frames", total=len(points) * campaign.frames)
        document = evaluate(campaign, on_frames=lambda count: bar.update(task, advance=count), coder=coder)
    if json_path is None or str(json_path) != "-":
        for shown in (table(document["results"]), *([curves(document["results"])] if roc else [])):
            console = Console()
            Console(width=max(console.width, console.measure(shown, options=console.options.update(width=400)).maximum)).print(shown)
    if json_path is not None:
        write_json(json_path, document)


def _coder(campaign: Campaign) -> tuple[Coder | None, list[str]]:
    """What makes decoders of coded payloads, and why there is none: they are GNU Radio's."""
    if all(point.code == "none" for point in campaign.points):
        return None, []
    try:
        return blocks().fec_decoder, []
    except MassaccessError as error:
        return None, [f"payloads are coded, and their decoders are GNU Radio's: no frame error rate, because {error}"]


def notes(campaign: Campaign) -> list[str]:
    """Why receivers that were told ``weights=auto`` will do without trained ones, each reason once."""
    from ..forward.channels import make_channel
    from ..weights.fit import fit

    priors = [name for name in campaign.receivers if takes(name, "weights") and entry(name).kind != "activity"]
    asked = [campaign.options.get(name, {}).get("weights", "auto") for name in priors]
    if "auto" not in asked:
        return []
    arrays = {(point.rows, point.columns, point.channel): point for point in campaign.points}.values()
    found = [fit("auto", rows=point.rows, columns=point.columns, covariance=make_channel(point).covariance).note for point in arrays]
    return list(dict.fromkeys(note for note in found if note))


def parse_options(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``receiver.name=value`` texts as {receiver: {name: value}}; values are JSON, or words.

    >>> parse_options(("mmv-amp.damping=0.7", "jcedd.rounds=3"))
    {'mmv-amp': {'damping': 0.7}, 'jcedd': {'rounds': 3}}
    """
    result: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        receiver, dot, name = path.rpartition(".")
        if not (equals and dot):
            raise ConfigError(f"--option {text}: write RECEIVER.NAME=VALUE, e.g. mmv-amp.damping=0.7")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        result.setdefault(receiver, {})[name] = parsed
    return result


def table(rows: list[dict[str, Any]]) -> Table:
    """The results as a table for the terminal: rates with half of their 95 % interval, as far as they were measured."""
    nmse = _nmse(rows)
    forgiving = "; rows, scaled: NMSE with every antenna's row, or each frame, brought to the true norm or scale" if len(nmse) > 1 else ""
    caption = f"± half of the 95 % interval; < its upper end where there was no error{forgiving}"
    shown = Table(caption=caption, caption_justify="left", box=SIMPLE)
    rates = [name for name in RATES if any(row[name] is not None for row in rows)]
    places = _places(rows)
    for name in ("receiver", *places, *rates, *nmse, "ms/frame"):
        shown.add_column(name, justify="left" if name == "receiver" else "right", no_wrap=True)
    for row in rows:
        cells = [row["receiver"], *(f"{row[place]:g}" for place in places.values()), *(_rate(row, name) for name in rates)]
        cells += ["" if row[name] is None or row[name] < -100 else f"{row[name]:.2f}" for name in nmse.values()]
        shown.add_row(*cells, f"{1e3 * row['seconds_per_frame']:.2f}")
    return shown


def _nmse(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> key of the channel errors to show: behind coarse converters also those that forgive the amplitude."""
    if all(row["nmse_db"] is None for row in rows):
        return {}
    coarse = any(row["adc_bits"] for row in rows)
    return {"NMSE/dB": "nmse_db", **({"rows/dB": "nmse_rows_db", "scaled/dB": "nmse_scaled_db"} if coarse else {})}


def curves(rows: list[dict[str, Any]]) -> Table:
    """Missed detections at a few rates of false alarms, the area under the curve, and what the posteriors are worth."""
    caption = "P_md at that P_fa, ± as above; a slope below 1: log odds are overconfident; log loss in nats per user"
    shown = Table(caption=caption, caption_justify="left", box=SIMPLE)
    levels = [level for level in SHOWN if any(_found(row, level) for row in rows)]
    places = _places(rows)
    for name in ("receiver", *places, *(f"P_fa {level:g}" for level in levels), "1 - AUC", "slope", "log loss"):
        shown.add_column(name, justify="left" if name == "receiver" else "right", no_wrap=True)
    for row in rows:
        at = [_found(row, level) for level in levels]
        worth = [None if row["auc"] is None else 1 - row["auc"], row["calibration_slope"], row["log_loss"]]
        cells = [*("" if one is None else _rate(one, "p_md") for one in at), *("" if one is None else f"{one:.2g}" for one in worth)]
        shown.add_row(row["receiver"], *(f"{row[place]:g}" for place in places.values()), *cells)
    return shown


def _found(row: dict[str, Any], level: float) -> dict[str, Any] | None:
    """What a row says of missed detections at a rate of false alarms."""
    return next((one for one in (row["roc"] or {}).get("p_md_at", ()) if one["p_fa"] == level), None)


def _places(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> key of what tells the points apart."""
    several = len({row["activity"] for row in rows}) > 1
    level = {"Tx/dBm": "tx_power_dbm"} if all(row.get("tx_power_dbm") is not None for row in rows) else {"SNR/dB": "snr_db"}
    return {**level, "pilots": "pilots", **({"activity": "activity"} if several else {})}


def _rate(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    low, high = row[f"{name}_ci95"]
    return f"{row[name]:.1e} ±{50 * (high - low) / row[name]:.0f}%" if row[name] else f"<{high:.0e}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
