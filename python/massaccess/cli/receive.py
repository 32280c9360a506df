"""``massaccess receive``: samples or frames from wherever they come through the receiver block."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from ..calibration.health import VERDICTS
from ..core import SystemConfig
from ..errors import ConfigError, MassaccessError
from ..link.monitor import array_line
from ..link.recording import Recording, open_recording
from ._json import write_json
from ._live import counters, explain, final_table, finish, labelled, payload_facts, streaming_facts, watch
from ._system import ON_AIR, SYSTEM, configure, system_options
from .run import blocks, document, headline, parameters, streaming_options

SOURCES = ("sigmf", "zmq", "sim", "uhd")
ENDPOINT = "tcp://127.0.0.1:5570"
SYNCHRONIZED = ("partial", "missing", "unlocked", "gaps", "lost_samples", "locks", "lock_lost")


@click.command()
@click.argument("capture", type=click.Path(path_type=Path), required=False)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    default="sigmf",
    show_default=True,
    help="Where samples come from: CAPTURE; the broker of a virtual air; a simulation in this flowgraph; USRPs.",
)
@click.option("--endpoint", default=ENDPOINT, show_default=True, help="Where `massaccess air broker` is, with --source zmq.")
@click.option("--frames", type=click.IntRange(0), default=0, show_default=True, help="Slots of --source sim; 0: until Ctrl-C.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the source's block: of air_simulator, air_source, array_replay or usrp_array_source. Repeat for more; a name that "
    "there is not lists them.",
)
@click.option("--carrier-hz", type=float, default=None, help="Centre frequency [Hz].  [default: 3.5e9]")
@click.option("--calibration", metavar="FILE", default="", help="Calibrations of the array, applied to what comes from the source.")
@click.option(
    "--mask/--no-mask",
    default=None,
    help="Fill in for antennas that do not work, as the traffic shows them, from that sample on.  [default: off in simulations and their "
    "recordings, on elsewhere]",
)
@click.option(
    "--level-db",
    type=float,
    default=0.0,
    show_default=True,
    help="Power of a user's symbol at an antenna, in the samples of the source, against 1 (full scale of USRPs); receivers are given 1.",
)
@click.option(
    "--epoch", type=float, default=None, help="When slot 0 began [s]; -1: the first slot that is found.  [default: 0 in simulations]"
)
@click.option("--record", metavar="PATH", default="", help="Record the samples that come from the source, as SigMF.")
@click.option("--overwrite", is_flag=True, help="Let --record replace a recording of that name.")
@click.option(
    "--seed", type=int, default=None, help="Seed of receivers that draw, and of --source sim; that of the recording unless given."
)
@click.option("--no-hash", is_flag=True, help="Do not check the hash of the samples before decoding.")
@click.option("--salvage", is_flag=True, help="Decode what is left of a damaged recording.")
@system_options(default=ON_AIR)
@streaming_options
def command(
    capture: Path | None,
    source: str,
    config_path: Path | None,
    no_hash: bool,
    salvage: bool,
    json_path: Path | None,
    traceback: bool,
    **options: Any,
) -> None:
    """Decode a SigMF recording CAPTURE, of frames or of an array's samples, or what comes from --source.

    The receiver is the same for all sources. With the same receiver, --weights, --gains, --max-batch and --threads, the digest of a
    recording is that of the run that was recorded. Options that describe the system are not for recordings, which say it themselves. Exit
    codes are those of `run`.
    """
    if (capture is None) == (source == "sigmf"):
        raise ConfigError("pass the name of a recording, or --source zmq, sim or uhd")
    recording = None if capture is None else open_recording(capture, check_hash=not no_hash, salvage=salvage)
    config = _config(recording, config_path, options)
    radio = blocks()
    seed = options.pop("seed")
    seed = seed if seed is not None else (recording.seed if recording else 0) or 0
    frames = options.pop("frames")
    where = _where(radio, source, options.pop("settings"), options.pop("endpoint"), frames)
    if recording is not None:
        where = {"path": str(capture), "check_hash": False, "salvage": salvage, **where}
    if recording is not None and not config.burst:
        tb, expected = _frames(radio, where, seed, options), len(recording)
    else:
        tb, expected = radio.station(source, config, where=where, seed=seed, **options), frames
    name = tb.receiver.stats()["receiver"]
    title = f"{name}, {capture.name if capture else source}"
    try:
        outcome = watch(radio.run, tb, title, lambda seconds: counters(tb.receiver.stats(), expected, seconds))
    except MassaccessError as error:
        raise explain(error, traceback) from error
    facts = streaming_facts(tb.receiver.stats(), outcome, tb.receiver.digest(), expected or None) | payload_facts(tb, outcome)
    shown = labelled(facts)
    if config.burst:
        facts |= tb.stats()
        shown |= _antennas(facts.get("health"))
        shown |= {name.replace("_", " "): facts["synchronizer"][name] for name in SYNCHRONIZED if facts["synchronizer"][name]}
    if json_path is None or str(json_path) != "-":
        Console().print(final_table(headline(config), shown, {}))
    if json_path is not None:
        write_json(json_path, document(config, seed, plain(facts), {}))
    finish(outcome)


def _config(recording: Recording | None, path: Path | None, options: dict[str, Any]) -> SystemConfig:
    """What the recording says, or else what the options do; these are taken out of ``options``."""
    carrier = options.pop("carrier_hz")
    if recording is None:
        config = configure(path, options, ON_AIR)
        return config if carrier is None else config.replace(carrier_hz=carrier)
    given = [flag.split("/")[0] for flag, name, *_ in SYSTEM if options.pop(name) is not None]
    given += ["--config"] * (path is not None) + ["--carrier-hz"] * (carrier is not None)
    if given:
        raise ConfigError(f"{', '.join(given)} and a recording, which says itself what system it is of: leave the options out")
    return recording.config


def _where(radio: Any, source: str, settings: Iterable[str], endpoint: str, frames: int) -> dict[str, Any]:
    """Parameters of the source's block."""
    found: dict[str, Any] = {"endpoint": endpoint} if source == "zmq" else {"frames": frames} if source == "sim" else {}
    return found | parameters(settings, radio.source_options(source), f"source {source}")


def _frames(radio: Any, where: dict[str, Any], seed: int, options: dict[str, Any]) -> Any:
    """The flowgraph for a recording of frames."""
    refused = [
        name
        for name in ("record", "calibration", "overwrite", "epoch", "mask", "level_db")
        if options.pop(name) not in ("", False, None, 0.0)
    ]
    if refused:
        raise ConfigError(f"--{refused[0]} is for samples of an array, and this is a recording of frames: leave it out")
    return radio.capture(**where, seed=seed, **options)


def _antennas(health: dict[str, Any] | None) -> dict[str, str]:
    """Which antennas work, for the table; nothing where nobody looks."""
    if health is None:
        return {}
    if not health["looks"]:
        return {"antennas": "too few samples to look at"}
    return {"antennas": array_line(np.array([VERDICTS.index(word) for word in health["verdicts"]])).removeprefix("antennas: ")}


def plain(facts: Any) -> Any:
    """The facts with arrays as lists, for JSON."""
    if isinstance(facts, dict):
        return {name: plain(value) for name, value in facts.items()}
    return facts.tolist() if hasattr(facts, "tolist") else facts
