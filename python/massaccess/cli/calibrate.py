"""``massaccess calibrate``: measures the chains of an array, shows what a calibration file holds, and checks whether it fits."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..calibration import Book, Calibration, Entry
from ..calibration.record import MAX_AGE_HOURS
from ..errors import ConfigError, MassaccessError
from ._json import json_option, write_json
from .run import blocks

SOURCES = ("uhd", "sim", "sigmf")
SIGNALS = ("tone", "preamble")
GOOD_DEG = 2.0  # residual phase that an array should come down to
SIMULATED = ",".join(f"SIM{board}" for board in range(1, 9))
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Measure the receive chains of an array, and show and check calibration files."""


@command.command()
@click.option(
    "--source", type=click.Choice(("uhd", "sim", "sigmf")), default="uhd", show_default=True, help="USRPs, simulated ones, a recording."
)
@click.option("--addresses", default="", help="Network addresses or serial numbers of the boards, separated by commas, in antenna order.")
@click.option("--channels", type=click.IntRange(1), default=2, show_default=True, help="Channels of each board.")
@click.option("--reference", type=click.Choice(("external", "internal", "mimo", "gpsdo")), default="external", show_default=True)
@click.option("--rate", type=float, default=1e6, show_default=True, help="Samples per second.")
@click.option("--freq", type=float, default=3.5e9, show_default=True, help="Centre frequency [Hz].")
@click.option("--gain", type=float, default=20.0, show_default=True, help="Gain of all channels [dB].")
@click.option("--master-clock-rate", type=float, default=0.0, help="Of all boards [Hz]; 0: as they are.")
@click.option("--args", "more_args", default="", help="Further device arguments; with --source sim, what the array does.")
@click.option("--recording", type=FILE, help="With --source sigmf: a recording of samples.")
@click.option(
    "--signal", type=click.Choice(("tone", "preamble")), default="tone", show_default=True, help="What the splitter feeds to all."
)
@click.option("--tone-hz", type=float, default=100e3, show_default=True, help="Offset of the tone from the centre frequency.")
@click.option("--search-hz", type=click.FloatRange(0), default=10e3, show_default=True, help="How far off the signal's carrier may be.")
@click.option("--captures", type=click.IntRange(2), default=8, show_default=True, help="Stretches of samples; one half checks the other.")
@click.option("--length", type=click.IntRange(64), default=2048, show_default=True, help="Samples of each.")
@click.option("--out", type=FILE, default=Path("calibration.toml"), show_default=True, help="File to update.")
@json_option
def estimate(source: str, recording: Path | None, out: Path, json_path: Path | None, **options: Any) -> None:
    """Measure the chains from a tone, or a preamble, that all of them get, and update a calibration file.

    Without hardware: ``massaccess calibrate estimate --source sim``.
    """
    radio = blocks()
    array = _source(radio, source, recording, options)
    antennas = array.output_signature().sizeof_stream_item(0) // 8
    named = {name: options[name] for name in ("signal", "tone_hz", "search_hz", "captures", "length")}
    calibrator = radio.array_calibrator(antennas, path=str(out), **named)
    began = time.monotonic()
    radio.run(_flowgraph(array, calibrator))
    found = calibrator.measurement
    if found is None:
        raise MassaccessError(f"the source ended before {options['captures']} captures of {options['length']} samples: make it longer")
    report = {
        "id": found.calibration.id,
        "channels": len(found.calibration),
        "method": options["signal"],
        "residual_deg": found.residual_deg,
        "residual_ci95_deg": list(found.residual_ci95),
        "uncalibrated_deg": found.uncalibrated_deg,
        "snr_db": found.snr_db,
        "deaf": list(found.deaf),
        "seconds": time.monotonic() - began,
        "file": str(out),
    }
    if json_path is not None:
        write_json(json_path, {"version": __version__, **report})
    if json_path is None or str(json_path) != "-":
        _tell(report)


@command.command()
@click.argument("file", type=FILE)
@json_option
def show(file: Path, json_path: Path | None) -> None:
    """Show what a calibration file holds: settings, ages, residuals, and the phase of every channel."""
    book = Book.load(file)
    settings = list(_settings(book))
    if json_path is not None:
        write_json(
            json_path, {"file": str(file), "hash": book.hash, "settings": settings, "entries": [asdict(entry) for entry in book.entries]}
        )
        return
    for row in settings:
        click.echo(
            f"{row['freq_hz'] / 1e6:g} MHz, {row['rate_hz'] / 1e6:g} MS/s, {row['gain_db']:g} dB: {row['channels']} channels, "
            f"{row['age_hours']:.1f} hours old, residual {row['residual_deg']:.2f} degrees rms ({row['method']})"
        )
    table = Table("channel", "MHz", "amplitude", "phase [deg]", "± [deg]", "delay [samples]", "SNR [dB]", "date")
    for entry in book.entries:
        table.add_row(*_cells(entry))
    Console().print(table)


@command.command()
@click.argument("file", type=FILE)
@click.option("--channels", default="", help="Channels in antenna order, 'SERIAL:0,1 SERIAL:0,1'.  [default: those of the file]")
@click.option("--freq", type=float, help="Centre frequency [Hz].  [default: what the file holds]")
@click.option("--rate", type=float, help="Samples per second.  [default: what the file holds]")
@click.option("--gain", type=float, help="Gain [dB].  [default: what the file holds]")
@click.option("--max-age-hours", type=click.FloatRange(0), default=MAX_AGE_HOURS, show_default=True)
@json_option
def check(file: Path, channels: str, max_age_hours: float, json_path: Path | None, **setting: float | None) -> None:
    """Check that a calibration file is whole, fits an array as it is set, is not stale, and is good enough.

    Exit code 1 when it does not fit; what is stale or poor is a warning.
    """
    calibration = _chosen(Book.load(file), channels, setting)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        calibration.warn_if_stale(max_age_hours)
    words = [str(warning.message) for warning in told]
    if calibration.residual_deg > GOOD_DEG:
        words.append(
            f"residual phase is {calibration.residual_deg:.2f} degrees rms, {GOOD_DEG:g} are good: raise the level of the signal, or take "
            "more --captures"
        )
    dead = [entry.key.name for entry in calibration.entries if entry.amplitude == 0]
    if dead:
        words.append(f"{', '.join(dead)} heard nothing and will be masked: check their cables and calibrate again")
    facts = {
        "id": calibration.id,
        "channels": len(calibration),
        "age_hours": calibration.age_hours(),
        "residual_deg": calibration.residual_deg,
    }
    if json_path is not None:
        write_json(json_path, {"file": str(file), **facts, "warnings": words})
    else:
        click.echo(f"{calibration.id}: {len(calibration)} channels, residual {calibration.residual_deg:.2f} degrees rms")
    for word in words:
        click.echo(f"warning: {word}", err=True)


def _source(radio: Any, source: str, recording: Path | None, options: Mapping[str, Any]) -> Any:
    if source == "sigmf":
        if recording is None:
            raise ConfigError("--source sigmf plays a recording: pass --recording FILE")
        return radio.array_replay(str(recording))
    names = ("channels", "reference", "rate", "freq", "gain", "master_clock_rate", "more_args")
    chosen = {name: options[name] for name in names}
    if source == "sim":
        return radio.usrp_array_source(options["addresses"] or SIMULATED, driver="sim", **_simulated(chosen, options))
    if not options["addresses"]:
        raise ConfigError("which boards? pass --addresses 192.168.10.2,192.168.10.3 (`uhd_find_devices` lists them), or --source sim")
    return radio.usrp_array_source(options["addresses"], **chosen)


def _simulated(chosen: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The simulated array gets the signal that is asked for, unless its arguments say otherwise."""
    own = f"signal={options['signal']},tone_hz={options['tone_hz']:.12g}"
    return {**chosen, "more_args": f"{own},{chosen['more_args']}" if chosen["more_args"] else own}


def _flowgraph(*chain: Any) -> Any:
    from gnuradio import gr

    tb = gr.top_block("massaccess calibrate")
    tb.connect(*chain)
    return tb


def _tell(report: Mapping[str, Any]) -> None:
    low, high = report["residual_ci95_deg"]
    click.echo(f"{report['channels']} channels from a {report['method']}, SNR {report['snr_db']:.1f} dB per sample")
    click.echo(
        f"phases: {report['uncalibrated_deg']:.1f} degrees rms as they are, {report['residual_deg']:.2f} corrected [{low:.2f}, {high:.2f}]"
    )
    if report["deaf"]:
        click.echo(f"warning: antennas {', '.join(map(str, report['deaf']))} hear nothing and will be masked: check their cables", err=True)
    if report["residual_deg"] > GOOD_DEG:
        click.echo(f"warning: {GOOD_DEG:g} degrees are good: raise the level of the signal, or take more --captures", err=True)
    click.echo(f"calibration {report['id']} in {report['file']}")


def _settings(book: Book) -> Iterator[dict[str, Any]]:
    def setting(entry: Entry) -> tuple[float, float, float]:
        return entry.freq_hz, entry.rate_hz, entry.gain_db

    for (freq, rate, gain), group in itertools.groupby(sorted(book.entries, key=setting), setting):
        part = Calibration(tuple(group))
        methods = sorted({entry.method for entry in part.entries})
        yield {
            "freq_hz": freq,
            "rate_hz": rate,
            "gain_db": gain,
            "channels": len(part),
            "age_hours": part.age_hours(),
            "residual_deg": part.residual_deg,
            "method": ", ".join(methods),
        }


def _chosen(book: Book, channels: str, setting: Mapping[str, float | None]) -> Calibration:
    """The calibration of the array that the options describe; what they leave open is as in the file."""
    if not channels and all(value is None for value in setting.values()):
        return book.only()
    first = book.entries[0] if book.entries else None
    if first is None:
        raise ConfigError("the file holds nothing: run `massaccess calibrate estimate`")
    freq, rate, gain = (
        own if (own := setting[name]) is not None else getattr(first, field)
        for name, field in (("freq", "freq_hz"), ("rate", "rate_hz"), ("gain", "gain_db"))
    )
    wanted = _pairs(channels) if channels else list(dict.fromkeys((entry.serial, entry.channel) for entry in book.entries))
    return book.select(wanted, freq_hz=freq, rate_hz=rate, gain_db=gain)


def _pairs(text: str) -> list[tuple[str, int]]:
    try:
        parts = [part.rpartition(":") for part in text.split()]
        return [(serial, int(number)) for serial, _, numbers in parts for number in numbers.split(",")]
    except ValueError:
        raise ConfigError(f"--channels is '{text:.60}': pass 'SERIAL:0,1 SERIAL:0,1', in the order of the antennas") from None


def _cells(entry: Entry) -> list[str]:
    numbers = (entry.freq_hz / 1e6, entry.amplitude, entry.phase_deg, entry.phase_std_deg, entry.delay_samples, entry.snr_db)
    forms = ("{:g}", "{:.4g}", "{:.1f}", "{:.2f}", "{:.3f}", "{:.1f}")
    return [entry.key.name, *(form.format(number) for form, number in zip(forms, numbers, strict=True)), entry.date]
