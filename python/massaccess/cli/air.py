"""``massaccess air``: a virtual air on one machine, all of it or one of its parts."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..core import SystemConfig
from ..errors import ConfigError
from ..forward.impairments import Impairments
from ._json import json_option, write_json
from ._processes import orphaned
from ._system import ON_AIR, configure, system_options

USERS = "tcp://127.0.0.1:{port}"
FIRST_PORT = 5600
BASE = "tcp://127.0.0.1:5570"
TEXTS = {
    "phase_noise_hz": "Linewidth of the users' oscillators [Hz].",
    "path_loss_db": "Each user loses 0 to so much, the same all the time [dB].",
    "clock_ppm": "By how much the array's sample clock is fast [ppm].",
    "chain_gain_db": "Standard deviation of the receive chains' gains [dB].",
    "iq_gain_db": "Standard deviation of the chains' imbalance of real and imaginary part [dB].",
    "iq_phase_deg": "Standard deviation of the angle by which these are not at right angles [degrees].",
    "dc_offset": "Root mean square of the chains' offsets, as a fraction of that of the samples.",
    "converter_bits": "Bits per real part of the converters; 0: ideal.",
    "full_scale": "Largest part that converters resolve; 0: four times the root mean square.",
}


def impairment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each field of `Impairments`."""
    for item in reversed(dataclasses.fields(Impairments)):
        flag, kind = "--" + item.name.replace("_", "-"), type(item.default)
        command = click.option(flag, type=kind, default=item.default, show_default=True, help=TEXTS[item.name])(command)
    return command


def broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the broker and whoever starts one have in common."""
    for option in (
        click.option("--chunk", type=click.IntRange(1), default=4, show_default=True, help="Slots that are worked on at a time."),
        click.option(
            "--patience", type=click.FloatRange(0.01), default=1.0, show_default=True, metavar="S", help="A user is silent after S seconds."
        ),
        click.option(
            "--join", type=click.FloatRange(0), default=30.0, show_default=True, metavar="S", help="How long users are waited for at first."
        ),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@system_options(default=ON_AIR)
@impairment_options
@click.option("--slots", type=click.IntRange(0), default=0, show_default=True, help="Slots to go through; 0: until Ctrl-C.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of users and air.")
@click.option("--processes", type=click.IntRange(1), default=4, show_default=True, help="User processes, which share the users.")
@click.option("--receiver", default="", help="Of the base station; see `massaccess receivers`.  [default: jcedd]")
@click.option(
    "--max-batch", type=click.IntRange(1), default=8, show_default=True, help="Most slots that the base station decodes in one go."
)
@click.option("--threads", type=click.IntRange(0), default=1, show_default=True, help="Threads of the base station; 0: all cores.")
@click.option("--record", metavar="PATH", default="", help="Record the samples of the array, as SigMF.")
@click.option("--overwrite", is_flag=True, help="Let --record replace a recording of that name.")
@click.option("--restart", is_flag=True, help="Start processes again that die.")
@broker_options
@json_option
@click.pass_context
def command(ctx: click.Context, config_path: Path | None, json_path: Path | None, **options: Any) -> None:
    """Start users, broker, base station and monitor on this machine, show how it goes, and end them all: after --slots, or by Ctrl-C.

    The monitor compares what the base station finds with what users sent. A user process that dies is reported and the others go on; when
    broker or base station die, all is ended, unless --restart. Exit code 1 when a process failed, 130 after Ctrl-C.

    `massaccess air broker` and `massaccess air user` start one part alone, `massaccess receive --source zmq` the base station.
    """
    if ctx.invoked_subcommand is not None:
        return
    from ._air import Launcher

    config = configure(config_path, options, ON_AIR)
    folder = Path(tempfile.mkdtemp(prefix="massaccess-air-"))
    try:
        launcher = Launcher(config, folder, options)
        interrupted = launcher.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = launcher.report()
    if json_path is not None:
        write_json(json_path, report)
    if json_path is None or str(json_path) != "-":
        launcher.show(report)
    if report["failures"]:  # they were told when they happened
        sys.exit(1)
    if interrupted:
        sys.exit(130)


@command.command()
@system_options(default=ON_AIR)
@impairment_options
@click.option("--who", default="", metavar="A-B,C", help="Users that there are.  [default: all]")
@click.option(
    "--users-at", default=USERS, show_default=True, metavar="PATTERN", help="Where users are: {user}, and {port} for 5600 + user."
)
@click.option("--user", "others", multiple=True, metavar="N=ENDPOINT", help="A user that is elsewhere. Repeat for more.")
@click.option("--bind", default=BASE, show_default=True, metavar="ENDPOINT", help="Where the base station asks.")
@click.option("--monitor", default="", metavar="ENDPOINT", help="Publish what was sent, and all counters.")
@click.option("--slots", type=click.IntRange(0), default=0, show_default=True, help="Slots to go through; 0: until Ctrl-C.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the air.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect; nothing is encrypted.")
@click.option("--quiet", is_flag=True, help="Show nothing but errors.")
@broker_options
@json_option
def broker(config_path: Path | None, json_path: Path | None, quiet: bool, **options: Any) -> None:
    """The air itself: asks users for samples, and gives a base station those of its array, as fast as it asks for them."""
    import torch

    from ..link.air_broker import Broker

    torch.set_num_threads(1)
    config = configure(config_path, options, ON_AIR)
    impairments = Impairments(**{item.name: options[item.name] for item in dataclasses.fields(Impairments)})
    there = {user: where(options["users_at"], user) for user in numbers(options["who"], config)} | dict(map(elsewhere, options["others"]))
    names = {"slots": "slots", "chunk": "chunk", "patience_s": "patience", "join_s": "join", "seed": "seed", "allow_remote": "allow_remote"}
    known = {name: options[option] for name, option in names.items()}
    hear = None if quiet else lambda event: click.echo(f"massaccess: {event}", err=True)
    air = Broker(config, there, options["bind"], impairments=impairments, monitor=options["monitor"], on_event=hear, **known)
    with air, stoppable() as stopped:
        if not quiet:
            click.echo(f"broker of {len(there)} users at {air.endpoint}", err=True)
        air.run(stopped)
    if json_path is not None:
        write_json(json_path, air.counters())


@command.command()
@system_options(default=ON_AIR)
@click.option("--who", default="", metavar="A-B,C", help="Users that this process plays.  [default: all]")
@click.option(
    "--bind", default=USERS, show_default=True, metavar="PATTERN", help="Where each of them answers: {user}, and {port} for 5600 + user."
)
@click.option("--slots", type=click.IntRange(0), default=0, show_default=True, help="Slots in which they send; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the population: who is awake in which slot, and what it sends.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect; nothing is encrypted.")
def user(config_path: Path | None, **options: Any) -> None:
    """Users of the air: what each of them sends, whenever a broker asks for it. Ends by Ctrl-C."""
    import torch

    from ..link.air_user import MOST_SLOTS, Transmitters, Waves

    torch.set_num_threads(1)
    config = configure(config_path, options, ON_AIR)
    who = numbers(options["who"], config)
    waves = Waves(config, options["seed"], who, slots=options["slots"])
    places = {number: where(options["bind"], number) for number in who}
    most = MOST_SLOTS * waves.slot_samples
    with Transmitters(waves, places, most=most, allow_remote=options["allow_remote"]) as these, stoppable() as stopped:
        click.echo(f"users {options['who'] or 'all'} answer", err=True)
        while not stopped():
            these.serve(0.1)


def numbers(text: str, config: SystemConfig) -> list[int]:
    """Users in a list such as 0-3,7; all for none.

    >>> numbers("0-2,5", SystemConfig())
    [0, 1, 2, 5]
    """
    if not text:
        return list(range(config.users))
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            found += range(int(first), int(last or first) + 1)
        except ValueError:
            raise ConfigError(f"users {text!r}: pass numbers and ranges, such as 0-3,7") from None
    return found


def where(pattern: str, user: int) -> str:
    """The address of a user.

    >>> where("tcp://127.0.0.1:{port}", 3)
    'tcp://127.0.0.1:5603'
    """
    return pattern.replace("{user}", str(user)).replace("{port}", str(FIRST_PORT + user))


def elsewhere(text: str) -> tuple[int, str]:
    """User and address of N=ENDPOINT."""
    number, equals, endpoint = text.partition("=")
    if not equals or not number.isdecimal():
        raise ConfigError(f"--user {text}: pass the number of a user and its address, such as 5=tcp://127.0.0.1:2001")
    return int(number), endpoint


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """A question that is answered with yes after Ctrl-C, SIGTERM, or the end of the process that started this one."""
    stop = False

    def note(number: int, frame: object) -> None:
        nonlocal stop
        stop = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stop or orphaned()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
