"""Running a flowgraph under the eyes of a user: progress while it runs, a table at the end, and numbers for JSON."""

from __future__ import annotations

import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import MassaccessError

REFRESH_SECONDS = 0.25
RATES = {
    "aep": "activity error rate",
    "p_md": "missed detection",
    "p_fa": "false alarm",
    "ser_devices": "symbol error rate of all devices",
    "ser": "symbol error rate",
    "ber": "bit error rate",
    "fer": "packet error rate",
    "nmse_db": "channel NMSE [dB]",
}


@dataclass(frozen=True)
class Outcome:
    """How a flowgraph ended: ``seconds`` on the wall, whether the user ``interrupted`` it."""

    seconds: float
    interrupted: bool


def watch(run: Callable[..., None], tb: Any, title: str, facts: Callable[[float], Mapping[str, Any]]) -> Outcome:
    """Runs ``tb`` with ``run`` (of `gnuradio.massaccess`), and shows ``facts(seconds so far)`` on standard error where that is a terminal.

    Ctrl-C, and SIGTERM alike, end it in good order. A block that fails raises BlockFailure.
    """
    console = Console(stderr=True)
    began = time.monotonic()
    shown = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    last = 0.0

    def tick() -> None:
        nonlocal last
        if shown and time.monotonic() - last > REFRESH_SECONDS:
            last = time.monotonic()
            shown.update(_progress(title, facts(last - began), last - began), refresh=True)

    restore = _terminate_like_interrupt()
    try:
        if shown:
            shown.start()
        run(tb, on_tick=tick)
        return Outcome(time.monotonic() - began, False)
    except KeyboardInterrupt:
        return Outcome(time.monotonic() - began, True)
    finally:
        if shown:
            shown.stop()
        restore()


def _terminate_like_interrupt() -> Callable[[], None]:
    """SIGTERM raises KeyboardInterrupt until the returned function is called."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    return lambda: (signal.signal(signal.SIGTERM, before), None)[1]


def _progress(title: str, facts: Mapping[str, Any], seconds: float) -> Table:
    shown = Table(title=f"{title}, {seconds:.0f} s", title_justify="left", show_header=False, box=None)
    for name, value in facts.items():
        shown.add_row(name, _number(value))
    return shown


def counters(stats: Mapping[str, Any], expected: int, seconds: float) -> dict[str, Any]:
    """What every flowgraph shows while it runs; ``expected`` frames, 0: no end."""
    done = stats["frames"]
    return {
        "frames": f"{done} of {expected}" if expected else str(done),
        "frames per second": done / max(seconds, 1e-3),
        "active users per frame": stats["active"] / max(done, 1),
        "packets": stats["packets"],
        **{name: stats[name] for name in ("dropped", "rejected", "queue")},
        **({"cut short": stats["cut"]} if stats["cut"] else {}),
    }


def final_table(title: str, streaming: Mapping[str, Any], rates: Mapping[str, Any]) -> Group:
    """Counters of the flowgraph and, where there is a truth, error rates with their confidence intervals, under a line of title."""
    shown = Table(show_header=False)
    for name, value in streaming.items():
        shown.add_row(name, _number(value))
    if rates:
        shown.add_section()
    for name, label in RATES.items():
        if rates.get(name) is not None:
            shown.add_row(label, _rate(rates, name))
    return Group(Text(title), shown)


def _rate(rates: Mapping[str, Any], name: str) -> str:
    interval = rates.get(f"{name}_ci95")
    return _number(rates[name]) + (f"  ({_number(interval[0])} to {_number(interval[1])})" if interval else "")


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def streaming_facts(stats: Mapping[str, Any], outcome: Outcome, digest: str, expected: int | None) -> dict[str, Any]:
    """What the flowgraph did, for the table and for JSON. ``lost`` frames were ``expected`` and have no answer."""
    frames, interrupted = stats["frames"], outcome.interrupted
    lost = 0 if expected is None or interrupted else expected - frames
    return {
        **{name: stats[name] for name in ("receiver", "weights", "weights_hash", "gains", "learned")},
        "frames": frames,
        "frames_per_second": frames / outcome.seconds,
        "seconds": outcome.seconds,
        "receiver_seconds": stats["seconds"],
        "active_per_frame": stats["active"] / max(frames, 1),
        "packets": stats["packets"],
        "lost": lost,
        "dropped": stats["dropped"],
        "rejected": stats["rejected"],
        "cut": stats["cut"],
        "stalls": stats["stalls"],
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "digest": digest,
        "interrupted": interrupted,
    }


def payload_facts(tb: Any, outcome: Outcome) -> dict[str, Any]:
    """What the decoder of coded payloads did; nothing without a code. ``goodput_bps``: bits of payload a second of the run."""
    if tb.payloads is None:
        return {}
    stats = tb.payloads.stats()
    names = {"payloads": "payloads", "failed_crc": "failed_crc", "dropped": "payloads_dropped", "rejected": "payloads_rejected"}
    goodput = 8 * stats["payload_bytes"] * stats["payloads"] / outcome.seconds
    told = {"code": tb.config.code, "payload_bytes": stats["payload_bytes"], "payloads_digest": tb.payloads.digest()}
    return {**told, **{name: stats[key] for key, name in names.items()}, "decoder_seconds": stats["seconds"], "goodput_bps": goodput}


def labelled(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a person wants to see."""
    return {
        "receiver": facts["receiver"],
        **({"weights": " ".join([facts["weights"], facts["weights_hash"]])} if facts["weights"] else {}),
        **({"gains": facts["gains"] + _learned(facts["learned"])} if facts["gains"] != "known" else {}),
        "frames": f"{facts['frames']}, {facts['frames_per_second']:.1f} per second" + (" (interrupted)" if facts["interrupted"] else ""),
        "lost frames": f"{facts['lost']} ({facts['dropped']} dropped, {facts['rejected']} rejected)",
        **({"cut short by the deadline": f"{facts['cut']} frames"} if facts["cut"] else {}),
        "active users per frame": facts["active_per_frame"],
        **(_payloads(facts) if "code" in facts else {"packets received": facts["packets"]}),
        "time in the receiver": f"{facts['receiver_seconds']:.2f} of {facts['seconds']:.2f} s",
        "peak memory": f"{facts['peak_memory_mib']:.0f} MiB",
        "digest": facts["digest"][:16],
    }


def _payloads(facts: Mapping[str, Any]) -> dict[str, Any]:
    lost = facts["payloads_dropped"] + facts["payloads_rejected"]
    ends = [f"{facts['failed_crc']} failed the CRC", *([f"{lost} lost"] if lost else [])]
    return {
        "payloads received": ", ".join([f"{facts['payloads']} of {facts['payload_bytes']} octets ({facts['code']})", *ends]),
        "goodput": f"{facts['goodput_bps'] / 1e3:.3g} kbit/s",
        "time in the decoder": f"{facts['decoder_seconds']:.2f} s",
    }


def _learned(frames: int) -> str:
    return f" from {frames} frames" if frames else ""


def finish(outcome: Outcome) -> None:
    """Exit code 130 after Ctrl-C."""
    if outcome.interrupted:
        sys.stdout.flush()
        sys.exit(130)


def explain(error: MassaccessError, traceback: bool) -> MassaccessError:
    """Prints the traceback of a block that failed, on request; returns the error, to be raised."""
    if traceback and hasattr(error, "details"):
        click.echo(error.details, err=True)
    return error
