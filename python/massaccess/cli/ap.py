"""``massaccess ap``: one access point, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..link.fusion_peer import Peer
from ..link.fusion_source import RecordedShare, SimulatedShare, Source
from ..link.recording import open_recording
from ._system import configure, system_options

CONNECT = "tcp://127.0.0.1:5560"


@click.command()
@system_options()
@click.option("--index", type=click.IntRange(0), required=True, metavar="I", help="Which access point this is, counted from 0.")
@click.option("--of", "count", type=click.IntRange(1), required=True, metavar="N", help="How many access points share the array.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation; the same for all access points.")
@click.option("--recording", type=click.Path(path_type=Path), metavar="FILE", help="SigMF recording of its own antennas, instead.")
@click.option("--share", is_flag=True, help="The recording is of the whole array: take this access point's part.")
@click.option("--connect", "endpoint", default=CONNECT, show_default=True, metavar="ENDPOINT", help="Where `massaccess fuse` is.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="S", help="Give up after S silent seconds; 0: never."
)
@click.option("--quiet", is_flag=True, help="Show nothing but errors.")
def command(
    config_path: Path | None,
    index: int,
    count: int,
    seed: int,
    recording: Path | None,
    share: bool,
    endpoint: str,
    timeout: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Run access point I of N: it holds its antennas' share of a simulated array, or a recording, and sends the fusion centre Gaussian
    factors of the symbols, never samples or channels.

    Ends when the centre does, or by Ctrl-C. Fails when there is no centre for --timeout seconds.
    """
    source: Source
    if recording is None:
        source = SimulatedShare(configure(config_path, options), seed, index, count)
    else:
        source = RecordedShare(open_recording(recording), *((index, count) if share else (0, 1)))
    with Peer(source, endpoint, index=index, of=count) as peer:
        if not quiet:
            click.echo(f"access point {index} of {count}: {source.antennas} antennas, fusion centre at {endpoint}", err=True)
        try:
            ended = peer.run(patience_s=timeout or None)
        except KeyboardInterrupt:
            ended = "interrupt"
    if not quiet:
        click.echo(f"access point {index}: {peer.answered} answers, ended by {ended}", err=True)
