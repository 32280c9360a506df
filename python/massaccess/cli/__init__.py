"""The ``massaccess`` command: one file a verb, imported only when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from .. import __version__
from ..errors import MassaccessError

VERBS = {
    "run": "Stream simulated frames through a GNU Radio flowgraph and report how well they are received.",
    "receive": "Decode a SigMF recording, or what comes from a virtual air, a simulation or USRPs.",
    "transmit": "Send the bursts of users to a radio, over ZMQ, or into files.",
    "air": "Run a virtual air on this machine: users, broker, base station and monitor.",
    "listen": "Show or record what a flowgraph publishes over ZMQ.",
    "ap": "Run one access point: antennas of its own, Gaussian factors to a fusion centre.",
    "fuse": "Run the fusion centre of distributed access points.",
    "calibrate": "Measure the receive chains of an array, and show and check calibration files.",
    "evaluate": "Monte Carlo of one or more receivers at one or more points, without GNU Radio.",
    "figure": "Rerun a published figure's experiment: JSON and picture.",
    "channels": "Make and inspect channel banks.",
    "train": "Train a channel prior from a recipe.",
    "weights": "List, show and check trained networks.",
    "receivers": "List the receivers, with sources.",
    "doctor": "Check versions, paths, blocks and flowgraphs: what is wrong and the cure.",
}


class _Verbs(click.Group):
    """Loads ``cli/<verb>.py`` on demand; each holds a click command called ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f".{cmd_name}", __name__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="massaccess")
def group() -> None:
    """Grant-free massive random access receivers for massive MIMO."""


def main() -> None:
    """Entry point: errors of the house go to standard error as one sentence, with exit code 1."""
    try:
        group.main(prog_name="massaccess", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MassaccessError as error:
        click.echo(f"massaccess: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
