"""``massaccess transmit``: the bursts of some users to a radio, over ZMQ, or into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .. import __version__
from ..errors import ConfigError, MassaccessError
from ._json import json_option, write_json
from ._live import explain, finish, watch
from ._system import ON_AIR, configure, system_options
from .run import blocks


def users_of(text: str, users: int) -> tuple[int, ...]:
    """Users that "3", "0-15" or "1,4,8-11" name; "all" are all; ConfigError for others.

    >>> users_of("1,4,8-11", 128)
    (1, 4, 8, 9, 10, 11)
    """
    if text == "all":
        return tuple(range(users))
    try:
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
        found = tuple(user for end in ends for user in range(end[0], end[-1] + 1))
    except ValueError:
        found = ()
    if not found or max(found) >= users:
        raise ConfigError(f"users to play are {text!r}: pass numbers of 0 to {users - 1}, as 3 or 0-15 or 1,4,8-11, or all")
    return found


@click.command()
@system_options(default=ON_AIR)
@click.option("--play", default="0", show_default=True, help="Users that are played: 3, or 0-15, or 1,4,8-11, or all.")
@click.option("--combine", is_flag=True, help="One stream with the sum of all users that are played.")
@click.option(
    "--sink", type=click.Choice(("uhd", "zmq", "file", "sigmf")), required=True, help="USRP, ZMQ REP sockets (a virtual air), or files."
)
@click.option("--to", default="", help="Endpoint or path; {user} in it becomes the user's number.  [default: free local ports]")
@click.option(
    "--slotted",
    type=click.Choice(("time", "count")),
    default=None,
    help="Slot n at a time of the clock, or after n slots of samples.  [default: time with uhd, else count]",
)
@click.option("--epoch", type=float, default=None, help="When slot 0 begins, in seconds of the clock; with slots by time.")
@click.option("--frames", type=click.IntRange(0), default=0, help="Slots to send; 0: until Ctrl-C.")
@click.option("--first-slot", type=click.IntRange(0), default=0, help="Number of the first slot.")
@click.option("--amplitude", type=float, default=1.0, show_default=True, help="Of a symbol; users that are combined add up.")
@click.option(
    "--full-scale", type=click.FloatRange(0), default=1.0, show_default=True, help="Of the converter; what exceeds it is counted."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of activity and payloads: frames are those of a simulation with it.")
@click.option("--address", "addresses", default="192.168.10.2", show_default=True, help="USRP: addresses or serial numbers, with commas.")
@click.option("--gain-db", type=float, default=10.0, show_default=True, help="USRP: transmit gain.")
@click.option("--reference", default="external", show_default=True, help="USRP: source of clock and time.")
@click.option("--driver", type=click.Choice(("uhd", "sim")), default="uhd", show_default=True, help="USRP: real, or simulated.")
@click.option("--overwrite", is_flag=True, help="Let files be replaced.")
@click.option("--traceback", is_flag=True, help="When a block fails, show where.")
@json_option
def command(config_path: Path | None, json_path: Path | None, traceback: bool, **options: Any) -> None:
    """Send the bursts of users: preamble, pilots and data, with random access or payloads as `massaccess run` has them.

    Slot n of a seed carries frame n of `massaccess run --seed`. Exit code 1 when a block fails, 130 after Ctrl-C (with the counters so
    far)."""
    config = configure(config_path, options, ON_AIR)
    played = users_of(options.pop("play"), config.users)
    names = ("addresses", "gain_db", "reference", "driver")
    addresses, gain, reference, driver = (options.pop(name) for name in names)
    radio = {"addresses": addresses, "gain": gain, "reference": reference, "driver": driver}
    sink, slotted, expected = options.pop("sink"), options.pop("slotted"), options["frames"]
    module = blocks()
    try:
        tb = module.transmission(
            config, sink, slotted=slotted or ("time" if sink == "uhd" else "count"), radio=radio, user_list=played, **options
        )
    except ConfigError:
        raise
    except MassaccessError as error:
        twin = "; or send into a virtual air: --sink zmq" if sink == "uhd" else ""
        raise MassaccessError(f"{error}{twin}") from error
    for name, endpoint in tb.endpoints:
        click.echo(f"user {name}: {endpoint}", err=True)
    tb.wait_for_epoch()
    title = f"{len(played)} of {config.users} users to {sink}"
    try:
        outcome = watch(module.run, tb, title, lambda seconds: progress(tb, expected, seconds))
    except MassaccessError as error:
        raise explain(error, traceback) from error
    facts = {**tb.source.stats(), "seconds": outcome.seconds, "interrupted": outcome.interrupted}
    if json_path is None or str(json_path) != "-":
        Console().print(f"{title}: {', '.join(f'{value} {name}' for name, value in tb.source.stats().items())}")
    if json_path is not None:
        known = {"config": config.to_dict(), "version": __version__, "seed": options["seed"], "users": list(played)}
        write_json(json_path, {**known, "endpoints": [endpoint for _, endpoint in tb.endpoints], "flowgraph": facts})
    finish(outcome)


def progress(tb: Any, expected: int, seconds: float) -> dict[str, Any]:
    """What the display shows while the flowgraph runs."""
    stats = tb.source.stats()
    slots = f"{stats['slots']} of {expected}" if expected else str(stats["slots"])
    return {**stats, "slots": slots, "slots per second": stats["slots"] / max(seconds, 1e-3)}
