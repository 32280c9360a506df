"""The options that describe a system, the same for every verb that simulates one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..core import PILOT_ENERGIES, SNR_CONVENTIONS, SystemConfig
from ..errors import ConfigError
from ..forward.channels import CHANNELS
from ..forward.coding import NAMES as CODES
from ..forward.modulation import MODULATIONS
from ..forward.pilots import PILOT_KINDS

MAX_THREADS = 1024  # OpenMP ends the process when asked for more than memory holds


ON_AIR = SystemConfig(  # what verbs with a waveform take where nothing is said
    pilot_len=32,
    data_len=96,
    activity=0.125,
    samples_per_symbol=4,
    preamble_len=16,
    guard_len=8,
    timing_offset=0.5,
    cfo_hz=250.0,
    common_cfo_hz=2000.0,
    sample_rate_hz=1e6,
)


class Bits(click.ParamType):
    """A number of converter bits, or ``inf``."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value) in ("inf", "0"):
            return 0
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: pass a whole number of bits, or inf for an ideal converter", param, ctx)


SYSTEM = (  # option, field of SystemConfig, type, help
    ("--users", "users", int, "Potential users of the cell."),
    ("--antennas", "antennas", int, "Antennas of the array, as square as it goes; or say --rows and --columns."),
    ("--rows", "rows", int, "Rows of the planar array."),
    ("--columns", "columns", int, "Columns of the planar array."),
    ("--activity", "activity", float, "Probability that a user is awake in a frame."),
    ("--active-users", "active_users", int, "Fixed number of active users per frame, instead of --activity."),
    ("--pilots", "pilot_len", int, "Pilot symbols of a frame."),
    ("--data", "data_len", int, "Data symbols of a frame; 0: activity detection only."),
    ("--modulation", "modulation", click.Choice(sorted(MODULATIONS)), "Constellation of the data."),
    ("--code", "code", click.Choice(CODES), "Code of the payloads, decoded by GNU Radio's gr-fec."),
    ("--pilot-kind", "pilot_kind", click.Choice(PILOT_KINDS), "Alphabet of the pilot book."),
    ("--pilot-seed", "pilot_seed", int, "Seed of the pilot book."),
    ("--pilot-energy", "pilot_energy", click.Choice(PILOT_ENERGIES), "Book of unit mean power per symbol, or unit norm per sequence."),
    ("--index-bits", "index_bits", int, "Bits that a device tells by its choice of a sequence; needs --data 0."),
    ("--snr-db", "snr_db", float, "Signal-to-noise ratio [dB]."),
    ("--snr-convention", "snr_convention", click.Choice(SNR_CONVENTIONS), "What --snr-db relates to the noise; link-budget: not used."),
    ("--tx-power-dbm", "tx_power_dbm", float, "Transmit power per unit of pilot energy [dBm], with link-budget."),
    ("--noise-figure-db", "noise_figure_db", float, "Noise figure of the receiver [dB], with link-budget."),
    ("--bandwidth-hz", "bandwidth_hz", float, "Bandwidth of the thermal noise [Hz], with link-budget."),
    ("--adc-bits", "adc_bits", Bits(), "Converter bits per real part, or inf."),
    (
        "--adc-offset",
        "adc_offset",
        float,
        "Threshold of all comparators, as a fraction of the root mean square per real part.",
    ),
    ("--adc-dither", "adc_dither", float, "Known dither, its root mean square as a fraction of that of the samples."),
    ("--channel", "channel", str, f"Channel model: {', '.join(CHANNELS)}, or FILE.npz."),
    ("--power-control/--no-power-control", "power_control", bool, "Whether users of the pathloss channel invert their loss."),
    ("--placement-seed", "placement_seed", int, "Where users stand on path-loss channels; without: elsewhere in every frame."),
    ("--cfo-hz", "cfo_hz", float, "Largest carrier frequency offset of a user [Hz]."),
    ("--samples-per-symbol", "samples_per_symbol", int, "Samples of a symbol on the air; 1: frames of symbols, without a waveform."),
    ("--preamble", "preamble_len", int, "Preamble symbols of a burst."),
    ("--guard", "guard_len", int, "Silent symbols of a slot."),
    ("--roll-off", "roll_off", float, "Roll-off of the root-raised-cosine pulse."),
    ("--timing-offset", "timing_offset", float, "Largest offset of a user's burst from the slot [symbols]."),
    ("--common-cfo-hz", "common_cfo_hz", float, "Carrier frequency offset of the array's oscillator [Hz]."),
    ("--sample-rate-hz", "sample_rate_hz", float, "Samples per second of one antenna [Hz]."),
    ("--chain-phase-deg", "chain_phase_deg", float, "Spread of the receive chains' static phases [degrees]."),
)


def system_options(
    *, lists: Mapping[str, click.ParamType] | None = None, default: SystemConfig | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --config, a file, and an option for each line of `SYSTEM`; one that is not given leaves the configuration as it is.

    ``lists`` gives some fields another type, for verbs that take several values of them; ``default`` is what the help shows.
    """
    defaults, special = default or SystemConfig(), lists or {}

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for flag, name, kind, text in reversed(SYSTEM):
            value = getattr(defaults, name)
            note = f"  [default: {'inf' if name == 'adc_bits' else value}]" if value is not None or name == "adc_bits" else ""
            command = click.option(flag, name, type=special.get(name, kind), default=None, help=text + note)(command)
        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        return click.option("--config", "config_path", type=file, help="TOML file with a [system] table; options override it.")(command)

    return add


def configure(path: Path | None, options: dict[str, Any], default: SystemConfig | None = None) -> SystemConfig:
    """Takes the options that describe the system out of ``options``, and lays them over the file, or over the ``default``."""
    config = (default or SystemConfig()) if path is None else SystemConfig.from_toml(path)
    changes = {name: options.pop(name) for _, name, _, _ in SYSTEM}
    changes = {name: value for name, value in changes.items() if value is not None}
    if "antennas" in changes:
        changes |= grid(changes.pop("antennas"), changes.get("rows"), changes.get("columns"))
    if "adc_bits" in changes:
        changes["adc_bits"] = changes["adc_bits"] or None
    return config.replace(**changes)


def grid(antennas: int, rows: int | None = None, columns: int | None = None) -> dict[str, int]:
    """Rows and columns of an array of ``antennas``, as square as what is given allows; ConfigError when they do not multiply up.

    >>> grid(32), grid(32, rows=2)
    ({'rows': 4, 'columns': 8}, {'rows': 2, 'columns': 16})
    """
    if rows is None:
        rows = antennas // columns if columns else next(n for n in range(max(math.isqrt(max(antennas, 1)), 1), 0, -1) if antennas % n == 0)
    columns = columns or antennas // max(rows, 1)
    if rows * columns != antennas:
        raise ConfigError(f"{antennas} antennas are not {rows} rows of {columns}: leave out --antennas, or --rows and --columns")
    return {"rows": rows, "columns": columns}
