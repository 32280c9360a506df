"""``massaccess fuse``: the fusion centre of distributed access points."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import torch

from .. import __version__
from ..core import SystemConfig
from ..errors import ConfigError, MassaccessError
from ..forward.simulate import Simulation
from ..link.fusion_centre import Centre
from ..link.fusion_report import Event, Fused, summary
from ..link.fusion_source import Air
from ..receivers.factor import COVARIANCES
from ..receivers.fusion import MODES
from ..registry import create
from ._json import json_option, write_json
from ._system import configure, system_options
from .ap import CONNECT

PROGRESS_SECONDS = 2.0
TUNING = ("covariance", "refinements", "sweeps", "damping")


@click.command()
@system_options()
@click.option("--of", "count", type=click.IntRange(1), required=True, metavar="N", help="How many access points there are.")
@click.option("--wait-for", type=click.IntRange(1), default=None, metavar="N", help="Start with so many access points. [default: all]")
@click.option("--mode", type=click.Choice(MODES), default="sequential", show_default=True, help="In turn, all at once, or as they come.")
@click.option("--covariance", type=click.Choice(COVARIANCES), default=None, help="Of the symbols' posterior. [default: shared]")
@click.option("--refinements", type=click.IntRange(0), default=None, help="Rounds with the symbols as additional pilots. [default: 3]")
@click.option("--sweeps", type=click.IntRange(1), default=None, help="Turns of each access point a round. [default: of the mode]")
@click.option("--damping", type=click.FloatRange(0, 1), default=None, help="Share of a new factor that is taken. [default: of the mode]")
@click.option("--frames", type=click.IntRange(0), default=16, show_default=True, help="Frames to fuse; 0: until recordings end.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First frame.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Most frames fused in one go.")
@click.option("--seed", type=int, default=None, help="Of the access points' simulation: bit error rates are reported too.")
@click.option("--bind", "endpoint", default=CONNECT, show_default=True, metavar="ENDPOINT", help="Where access points connect.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect; nothing is encrypted, whoever connects can take part.")
@click.option("--deadline", type=click.FloatRange(0.001), default=5.0, show_default=True, metavar="S", help="An answer after S is late.")
@click.option("--lost", type=click.FloatRange(0.1), default=3.0, show_default=True, metavar="S", help="Silent for S seconds is lost.")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, metavar="S", help="Give up when nobody is there.")
@json_option
@click.option("--quiet", is_flag=True, help="Show nothing but errors.")
def command(config_path: Path | None, json_path: Path | None, quiet: bool, **options: Any) -> None:
    """Wait for N access points (`massaccess ap`), then decode frames with what they send: Gaussian factors, no samples.

    An access point that is late, lost or back is reported on standard error and in the JSON, and costs only its own information. Exit code
    1 when no access point is there for --timeout seconds.
    """
    config = configure(config_path, options)
    if config.activity_prior != 1:
        raise ConfigError(
            f"activity is {config.activity_prior}: access points have to know who is active, pass --active-users {config.users}"
        )
    if not config.data_len:
        raise ConfigError("data_len is 0: access points agree on symbols, pass --data 1 or more")
    truth = None if options["seed"] is None else Simulation(config, options["seed"])
    mode, count = options["mode"], options["count"]
    pvi = create(f"pvi-{mode}", **{name: options[name] for name in TUNING if options[name] is not None})
    air = Air.of(config, Simulation(config).population.pilots)
    hear = None if quiet else lambda event: click.echo(f"massaccess: {event}", err=True)
    limits = {"deadline_s": options["deadline"], "lost_s": options["lost"], "patience_s": options["timeout"]}
    reach = {"endpoint": options["endpoint"], "allow_remote": options["allow_remote"], "batch": options["batch"]}
    with Centre(air, count, pvi, **limits, **reach, on_event=hear) as centre:
        rows, failure, seconds = _fuse(centre, options, config, truth, quiet)
    report = document(config, centre, rows, {**options, "seconds": seconds})
    if json_path is not None:
        write_json(json_path, report)
    if failure is not None:
        raise failure
    if not quiet and not (json_path and str(json_path) == "-"):
        click.echo(_sentence(report))


def _fuse(
    centre: Centre, options: dict[str, Any], config: SystemConfig, truth: Simulation | None, quiet: bool
) -> tuple[list[dict[str, Any]], Exception | None, float]:
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    try:
        if not quiet:
            click.echo(f"massaccess: fusion centre at {centre.endpoint}", err=True)
        centre.wait(options["wait_for"])
        began = time.monotonic()
        shown = -PROGRESS_SECONDS
        for fused in centre.frames(options["start"], options["frames"] or None, batch=options["batch"]):
            rows += frame_rows(fused, truth)
            if not quiet and time.monotonic() - began - shown >= PROGRESS_SECONDS:
                shown = time.monotonic() - began
                heard = " ".join(map(str, fused.contributed)) or "nobody"
                click.echo(f"massaccess: frame {fused.start + len(fused) - 1} done; access points {heard}", err=True)
    except KeyboardInterrupt:
        pass
    except MassaccessError as error:
        return rows, error, time.monotonic() - began
    return rows, None, time.monotonic() - began


def frame_rows(fused: Fused, truth: Simulation | None) -> list[dict[str, Any]]:
    """One row a frame: which access points contributed, symbols, decisions, the payloads whose CRC holds, and where the truth is known
    the bit errors."""
    wrong = None if truth is None else (fused.bits != truth.frames(fused.start, len(fused))[0].bits).flatten(1)
    return [_row(fused, i, None if wrong is None else wrong[i]) for i in range(len(fused))]


def _row(fused: Fused, i: int, wrong: torch.Tensor | None) -> dict[str, Any]:
    packets = {str(user): bytes(fused.payload[i, user].tolist()).hex() for user in fused.crc_ok[i].nonzero().flatten().tolist()}
    row = {
        "frame": fused.start + i,
        "contributed": list(fused.contributed),
        "missing": [index for index in fused.asked if index not in fused.contributed],
        "crc_ok": int(fused.crc_ok[i].sum()),
        "packets": packets,
        "symbols": torch.view_as_real(fused.symbols[i]).round(decimals=5).tolist(),
        "symbol_var": fused.symbol_var[i].mean().item(),
        "decisions": ["".join(map(str, bits)) for bits in fused.bits[i].tolist()],
        "seconds": fused.seconds / len(fused),
        "octets": fused.octets // len(fused),
    }
    return row if wrong is None else {**row, "bit_errors": int(wrong.sum()), "bits": wrong.numel()}


def document(config: SystemConfig, centre: Centre, rows: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` writes."""
    counted = [row for row in rows if "bit_errors" in row]
    total = sum(row["bits"] for row in counted)
    return {
        "config": config.to_dict(),
        "version": __version__,
        "mode": options["mode"],
        "access_points": options["count"],
        "seed": options["seed"],
        "frames": len(rows),
        "seconds": options["seconds"],
        "ber": sum(row["bit_errors"] for row in counted) / total if total else None,
        "packets": sum(row["crc_ok"] for row in rows),
        "packets_sent": len(rows) * config.users,
        "octets_per_frame": sum(row["octets"] for row in rows) / len(rows) if rows else None,
        "messages": {"bad": centre.bad, "refused": centre.refused, "last_error": str(centre.last_error) if centre.last_error else None},
        "reports": summary(centre.events),
        "events": [_said(event) for event in centre.events],
        "results": rows,
    }


def _said(event: Event) -> dict[str, Any]:
    return {"frame": event.frame, "access_point": event.access_point, "what": event.what, "why": event.why}


def _sentence(report: dict[str, Any]) -> str:
    rate = "" if report["ber"] is None else f", bit error rate {report['ber']:.2e}"
    trouble = ", ".join(f"{report['reports'].get(what, 0)} {what}" for what in ("late", "lost", "back"))
    octets = report["octets_per_frame"] or 0
    return (
        f"{report['frames']} frames from {report['access_points']} access points in {report['seconds']:.1f} s: {report['packets']} of "
        f"{report['packets_sent']} packets{rate}; {octets / 1e3:.0f} kB a frame; {trouble}, {report['messages']['bad']} bad messages"
    )
