"""``massaccess run``: simulated frames through a GNU Radio flowgraph."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .. import __version__
from ..core import SystemConfig
from ..errors import ConfigError, MassaccessError, unknown
from ..priors.gain_memory import GAINS
from ._json import json_option, write_json
from ._live import RATES, counters, explain, final_table, finish, labelled, payload_facts, streaming_facts, watch
from ._system import MAX_THREADS, configure, system_options


def streaming_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the receiver block, the same for `run` and `receive`."""
    for option in reversed(
        (
            click.option(
                "--receiver",
                default="",
                show_default="jcedd; noncoherent with --index-bits",
                help="Name in the registry; see `massaccess receivers`.",
            ),
            click.option(
                "--weights",
                metavar="NAME",
                default="auto",
                show_default=True,
                help="Prior of receivers that learn one: auto, gaussian, a name of `massaccess weights`, or a .safetensors file.",
            ),
            click.option(
                "--gains",
                type=click.Choice(GAINS),
                default="known",
                show_default=True,
                help="Whether the receiver of index-modulated frames is told the users' mean powers, their range alone, or learns them "
                "frame by frame, of devices that stay (--placement-seed).",
            ),
            click.option(
                "--gain-range-db",
                type=(float, float),
                metavar="LOW HIGH",
                default=None,
                help="Range of gains that are not known.  [default: that of the path-loss channel]",
            ),
            click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Most frames decoded in one go."),
            click.option(
                "--overflow",
                type=click.Choice(("block", "drop_oldest")),
                default="block",
                show_default=True,
                help="When the receiver is too slow: let the source wait, or drop frames and count them.",
            ),
            click.option("--queue", "queue_frames", type=click.IntRange(1), default=64, show_default=True, help="Most frames that wait."),
            click.option(
                "--deadline-ms",
                type=click.FloatRange(0),
                default=0.0,
                help="Milliseconds a frame may take before an iterative receiver answers with the best it has; 0: no deadline.",
            ),
            click.option(
                "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="Where to compute."
            ),
            click.option(
                "--threads",
                type=click.IntRange(0, MAX_THREADS),
                default=0,
                show_default=True,
                help="Threads of the receiver; 0: all cores.",
            ),
            click.option("--publish", metavar="ENDPOINT", default="", help="Publish results over ZMQ, e.g. tcp://127.0.0.1:5555."),
            click.option("--traceback", is_flag=True, help="When a block fails, show where."),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@system_options()
@click.option("--frames", type=click.IntRange(0), default=2000, show_default=True, help="Frames to send; 0: until Ctrl-C.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Frames per second that are sent; 0: as fast as it goes.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Equal seeds give equal frames and, with --overflow block, no deadline and equal --threads, equal digests.",
)
@click.option("--record", metavar="PATH", default="", help="Record what the receiver sees, as SigMF.")
@click.option("--packed", is_flag=True, help="Send and record the converters' bits, not samples; needs --adc-bits.")
@click.option("--overwrite", is_flag=True, help="Let --record replace a recording of that name.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Parameter of air_simulator, with a waveform. Repeat for more."
)
@streaming_options
def command(config_path: Path | None, json_path: Path | None, traceback: bool, **options: Any) -> None:
    """Stream simulated frames through a GNU Radio flowgraph and report how well they are received.

    Exit code 1 when a block fails, 130 after Ctrl-C (with the results so far).
    """
    config = configure(config_path, options)
    radio = blocks()
    frames, seed = options["frames"], options["seed"]
    air = parameters(options.pop("settings"), radio.source_options("sim"), "the air")
    if air and not config.burst:
        raise ConfigError(f"{', '.join(air)} is of the air, and frames are symbols: pass --samples-per-symbol 4 (and --guard 8) as well")
    tb = radio.uplink(config, **options, air=air)
    name = tb.receiver.stats()["receiver"]
    try:
        outcome = watch(
            radio.run, tb, f"{name}, {config.users} users, {config.antennas} antennas", lambda seconds: progress(tb, frames, seconds)
        )
    except MassaccessError as error:
        raise explain(error, traceback) from error
    rates = tb.rates()
    facts = streaming_facts(tb.receiver.stats(), outcome, tb.receiver.digest(), frames or None) | payload_facts(tb, outcome)
    if json_path is None or str(json_path) != "-":
        Console().print(final_table(headline(config), labelled(facts), rates))
    if json_path is not None:
        write_json(json_path, document(config, seed, facts, rates))
    finish(outcome)


def parameters(settings: Iterable[str], known: Mapping[str, Any], of: str) -> dict[str, Any]:
    """What NAME=VALUE settings say, as the types of the ``known`` parameters have it."""
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in known:
            raise unknown(f"parameter of {of}", name, known)
        if not equals:
            raise ConfigError(f"--set {setting}: pass NAME=VALUE")
        found[name] = _value(name, text, known[name])
    return found


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name} is {text!r}: pass true or false")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: pass a number such as {default}") from None


def blocks() -> Any:
    """The package `gnuradio.massaccess`, or an error that says how to get it. Its blocks log to standard error: results go to the other."""
    os.environ.setdefault("GR_CONF_LOG_LOG_FILE", "stderr")  # GNU Radio's own default is standard output
    try:
        from gnuradio import massaccess
    except Exception as error:  # another NumPy, a broken installation: GNU Radio fails in many ways
        raise MassaccessError(
            f"GNU Radio cannot be imported ({type(error).__name__}: {error}): install it (apt-get install gnuradio) and use its Python, "
            "/usr/bin/python3 -m venv --system-site-packages; `massaccess doctor` tells more, and `massaccess evaluate` works without it"
        ) from error
    return massaccess


def progress(tb: Any, frames: int, seconds: float) -> dict[str, Any]:
    """What the display shows while the flowgraph runs."""
    summary = tb.rates()
    rates = {name: summary[name] for name in ("aep", "ser_devices", "ser", "fer") if summary.get(name) is not None}
    return {**counters(tb.receiver.stats(), frames, seconds), **{RATES[name]: rate for name, rate in rates.items()}}


def headline(config: SystemConfig) -> str:
    """The configuration in one line."""
    active = f"{config.active_users} active" if config.active_users else f"activity {config.activity:g}"
    converter = f", {config.adc_bits}-bit converters" if config.adc_bits else ""
    symbols = f"{config.pilot_len}+{config.data_len} symbols" + (f", {config.sequences} sequences each" if config.index_bits else "")
    power = f"{config.tx_power_dbm:g} dBm" if config.link_budget else f"{config.snr_db:g} dB"
    return f"{config.users} users ({active}), {config.rows}x{config.columns} antennas, {symbols}, {power}, {config.channel}{converter}"


def document(config: SystemConfig, seed: int | None, facts: dict[str, Any], rates: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` writes; ``results`` has the form of `massaccess evaluate`."""
    power = {"tx_power_dbm": config.tx_power_dbm} if config.link_budget else {"snr_db": config.snr_db}
    known = {"receiver": facts["receiver"], **power, "pilots": config.pilot_len, "gains": facts["gains"]}
    results = [{**known, **rates}] if rates else []
    return {"config": config.to_dict(), "version": __version__, "seed": seed, "results": results, "flowgraph": facts}
