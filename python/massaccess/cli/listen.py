"""``massaccess listen``: shows and records what a flowgraph publishes. Needs no GNU Radio."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..errors import FormatError
from ..link.archive import KINDS, Archive, active, open_archive, results
from ..link.listener import Listener, SilentPeerError
from ..link.metadata import Metadata
from ..link.monitor import MODULATIONS
from ..link.publisher import MODES
from ._json import json_option, write_json
from ._screen import Screen

RATE_SECONDS = 2.0  # the shown frame rate is that of the last so many seconds


@dataclass
class Meter:
    """What was heard so far, for the table and the summary."""

    listener: Listener
    frames: int = 0
    active: int = 0
    users: int = 0
    octets: int = 0
    metadata: Metadata = field(default_factory=Metadata)
    began: float | None = None  # when the first frames came
    ended: str = "publisher"
    screen: Screen = field(default_factory=Screen)
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def count(self, arrays: dict[str, np.ndarray], metadata: Metadata) -> None:
        """Adds the frames of a message."""
        self.began = self.began or time.monotonic()
        self.frames += len(arrays["frame"])
        self.octets += sum(array.nbytes for array in arrays.values())
        if "activity" in arrays:
            self.active += int(active(arrays).sum())
            self.users = arrays["activity"].shape[1]
        self.metadata = metadata
        self.screen.take(arrays)

    def frames_per_second(self) -> float:
        """Over the last `RATE_SECONDS`."""
        now = time.monotonic()
        recent = [mark for mark in self._marks if now - mark[0] < RATE_SECONDS] or [(self.began or now, 0)]
        self._marks = [*recent, (now, self.frames)]
        return (self.frames - recent[0][1]) / max(now - recent[0][0], 1e-3)

    def summary(self) -> dict[str, Any]:
        """For ``--json``."""
        seconds = time.monotonic() - self.began if self.began else 0.0
        return {
            "version": __version__,
            "endpoint": self.listener.endpoint,
            "mode": self.listener.mode,
            "ended": self.ended,
            "seconds": seconds,
            "frames": self.frames,
            "frames_per_second": self.frames / seconds if seconds else 0.0,
            "octets_per_frame": self.octets / self.frames if self.frames else None,
            "active_per_frame": self.active / self.frames if self.users else None,
            "users": self.users or None,
            "messages": self.listener.heard,
            "lost": self.listener.lost,
            "bad": self.listener.bad,
            "last_error": str(self.listener.last_error) if self.listener.last_error else None,
            "metadata": self.metadata.to_dict(),
        }

    def table(self) -> Table:
        """For the terminal."""
        shown = Table("frames", "frames/s", "active users", "messages lost", "messages bad", "receiver", title=self.listener.endpoint)
        active = f"{self.active / self.frames:.1f} of {self.users}" if self.users else "-"
        lost, bad = str(self.listener.lost), str(self.listener.bad)
        shown.add_row(str(self.frames), f"{self.frames_per_second():.1f}", active, lost, bad, Text(self.metadata.receiver or "-"))
        return shown

    def show(self) -> Group:
        """Table and screen."""
        return Group(self.table(), self.screen)


@click.command()
@click.argument("endpoint")
@click.option(
    "--mode", type=click.Choice(MODES), default="pub", show_default=True, help="What the publisher does: pub may lose, push waits."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what is heard: .npz, arrays; .jsonl, who was active.",
)
@click.option("--frames", type=click.IntRange(1), metavar="N", help="Stop after N frames.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=10.0, show_default=True, metavar="S", help="Give up after S silent seconds; 0: never."
)
@click.option("--modulation", type=click.Choice(MODULATIONS), default="qpsk", show_default=True, help="Constellation of the data.")
@json_option
@click.option("--quiet", is_flag=True, help="Show nothing but errors.")
def command(
    endpoint: str, mode: str, out: Path | None, frames: int | None, timeout: float, modulation: str, json_path: Path | None, quiet: bool
) -> None:
    """Show or record what a flowgraph publishes over ZMQ at ENDPOINT, such as tcp://127.0.0.1:5555.

    A terminal shows who was active, the symbols, and of the users that were heard the error of their symbols and what their phases turn;
    from a publisher with a monitor also whose payloads fail, how the antennas are, and counters.
    The publisher is that of a receiver, or one of packed samples, which --out FILE.npz keeps.
    Ends with the publisher, after --frames, or by Ctrl-C; in every case FILE is complete. Fails when nothing comes for --timeout seconds.
    """
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(_archive(out)) if out else None
        listener = stack.enter_context(Listener(endpoint, mode=mode, timeout_s=timeout or None))
        meter = Meter(listener, screen=Screen(modulation))
        if console.is_terminal and not quiet:
            stack.enter_context(Live(console=console, get_renderable=meter.show, refresh_per_second=4))
        failure = hear(meter, archive, frames)
    if json_path is not None:
        write_json(json_path, meter.summary())
    if failure is not None:
        raise failure
    if not quiet and not (json_path and str(json_path) == "-"):
        click.echo(_sentence(meter, out))


def hear(meter: Meter, archive: Archive | None, most: int | None) -> Exception | None:
    """Listens to the end, and returns why that is an error, if it is."""
    try:
        for message in meter.listener:
            arrays = results(message, None if most is None else most - meter.frames)
            if archive is not None:
                archive.write(arrays, message.metadata)
            meter.count(arrays, message.metadata)
            if most is not None and meter.frames >= most:
                meter.ended = "frames"
                return None
    except KeyboardInterrupt:
        meter.ended = "interrupt"
    except SilentPeerError as error:
        meter.ended = "timeout"
        return error
    except FormatError as error:
        meter.ended = "error"
        return error
    except OSError as error:
        meter.ended = "error"
        return click.ClickException(f"cannot write on: {error}")
    return None if meter.frames else SilentPeerError(f"stopped before {meter.listener.endpoint} sent a frame: is its flowgraph running?")


def _archive(path: Path) -> Archive:
    if path.suffix not in KINDS:
        raise click.BadParameter(f"{path} does not end in {' or '.join(KINDS)}", param_hint="--out")
    return open_archive(path)


def _sentence(meter: Meter, out: Path | None) -> str:
    found = meter.summary()
    rate = f"{found['frames']} frames in {found['seconds']:.1f} s"
    what = f"{found['active_per_frame']:.2f} active users a frame" if found["users"] else f"{found['octets_per_frame']:.0f} octets a frame"
    return f"{rate}, {what}, {found['lost']} messages lost, {found['bad']} bad" + (f"; written to {out}" if out else "")
