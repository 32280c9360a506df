"""Calibrations as files: what was measured, of which channel, at which frequency, rate and gain, when, how, and how well.

A file is a `Book`: TOML with one ``[[entry]]`` for each (serial number, channel, frequency, rate, gain setting). A new measurement of the
same replaces the old one. `Book.select` gives the `Calibration` of an array as it stands now, or says what is missing.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from ..errors import ConfigError, FormatError, MassaccessWarning
from .correction import Correction, correction_of

FORMAT = "massaccess-calibration"
VERSION = 1
METHODS = ("tone", "preamble", "expected")
ID_DIGITS = 16
MAX_AGE_HOURS = 12.0
"""Default age at which a calibration counts as stale: boards drift by degrees an hour as they warm up and cool down."""

HERTZ = 0.5
"""Frequencies and rates closer than this are the same: a device answers with what its dividers make."""

GAIN_DB = 0.05


@dataclass(frozen=True, order=True)
class Key:
    """What a measurement is of: serial number of the motherboard, its channel, centre frequency [Hz], sample rate [Hz], gain [dB]."""

    serial: str
    channel: int
    freq_hz: float
    rate_hz: float
    gain_db: float

    def matches(self, other: Key) -> bool:
        """Whether both are of one channel under one setting."""
        return (
            (self.serial, self.channel) == (other.serial, other.channel)
            and abs(self.freq_hz - other.freq_hz) <= HERTZ
            and abs(self.rate_hz - other.rate_hz) <= HERTZ
            and abs(self.gain_db - other.gain_db) <= GAIN_DB
        )

    @property
    def name(self) -> str:
        return f"{self.serial}:{self.channel}"


@dataclass(frozen=True)
class Entry:
    """One line of a book: amplitude, phase [degrees] and delay [samples] of a chain, the date (ISO 8601, UTC) and method of the
    measurement, its signal-to-noise ratio per sample [dB], the standard deviation of its phase [degrees], and what was left of the whole
    array's phases after correction, on samples that the estimate had not seen [degrees rms]."""

    serial: str
    channel: int
    freq_hz: float
    rate_hz: float
    gain_db: float
    amplitude: float
    phase_deg: float
    delay_samples: float
    date: str
    method: str
    snr_db: float
    phase_std_deg: float
    residual_deg: float

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            right = isinstance(value, str) if item.type == "str" else isinstance(value, (int, float)) and not isinstance(value, bool)
            if not right or (item.type == "int" and not isinstance(value, int)) or (item.type == "float" and not math.isfinite(value)):
                raise FormatError(f"entry of a calibration: {item.name} is {value!r:.60}; write it with `massaccess calibrate estimate`")
        _when(self.date)

    @property
    def key(self) -> Key:
        return Key(self.serial, self.channel, self.freq_hz, self.rate_hz, self.gain_db)

    @property
    def response(self) -> complex:
        return complex(self.amplitude * np.exp(1j * math.radians(self.phase_deg)))


@dataclass(frozen=True)
class Calibration:
    """The calibration of one array: one entry for each antenna, in the order of its channels."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ConfigError("a calibration has no entries: measure at least one channel")

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def gain(self) -> np.ndarray:
        """Responses of the chains, complex128 [M]."""
        return np.array([entry.response for entry in self.entries])

    @property
    def delay(self) -> np.ndarray:
        """Delays of the chains in samples, [M]."""
        return np.array([entry.delay_samples for entry in self.entries])

    @property
    def keys(self) -> tuple[Key, ...]:
        return tuple(entry.key for entry in self.entries)

    @property
    def oldest(self) -> datetime:
        return min(_when(entry.date) for entry in self.entries)

    @property
    def residual_deg(self) -> float:
        """Root mean square of the residual phases of the measurements in it."""
        return float(np.sqrt(np.mean([entry.residual_deg**2 for entry in self.entries])))

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of a hash of everything in it; tag ``calibration`` carries it.

        Two calibrations with one id are the same, down to the order of the channels.
        """
        return _hash(asdict(entry) for entry in self.entries)

    def correction(self, *, amplitude: bool = True, least_delay: float = 0.1) -> Correction:
        """What undoes it, see `correction_of`."""
        return correction_of(self.gain, self.delay, amplitude=amplitude, least_delay=least_delay)

    def age_hours(self, now: datetime | None = None) -> float:
        """Hours since its oldest entry was measured."""
        return ((now or datetime.now(UTC)) - self.oldest).total_seconds() / 3600

    def warn_if_stale(self, max_age_hours: float = MAX_AGE_HOURS, *, now: datetime | None = None) -> bool:
        """Whether it is older than it should be; then also a MassaccessWarning with the cure."""
        age = self.age_hours(now)
        if age > max_age_hours:
            warnings.warn(
                f"calibration {self.id} is {age:.1f} hours old and {max_age_hours:g} are allowed: phases drift, run `massaccess calibrate "
                "estimate` again, or raise the age limit",
                MassaccessWarning,
                stacklevel=2,
            )
        elif age < -1 / 60:
            warnings.warn(
                f"calibration {self.id} is from the future ({self.oldest.isoformat()}): set the clock of this machine",
                MassaccessWarning,
                stacklevel=2,
            )
        return age > max_age_hours


@dataclass(frozen=True)
class Book:
    """Calibrations of any number of channels and settings."""

    entries: tuple[Entry, ...] = ()

    def update(self, fresh: Iterable[Entry]) -> Book:
        """The same with measurements added; one of the same channel and setting replaces the older one."""
        known = list(self.entries)
        for entry in fresh:
            known = [old for old in known if not old.key.matches(entry.key)] + [entry]
        return Book(tuple(sorted(known, key=lambda entry: entry.key)))

    def select(
        self, channels: Sequence[tuple[str, int]], *, freq_hz: float, rate_hz: float, gain_db: float | Sequence[float]
    ) -> Calibration:
        """The calibration of an array whose antennas are ``channels``, (serial number, channel) each, as it is set now.

        Raises ConfigError for a foreign one: other serial numbers, another frequency, rate or gain. The message says which are there.
        """
        gains = [gain_db] * len(channels) if isinstance(gain_db, (int, float)) else list(gain_db)
        wanted = [Key(serial, channel, freq_hz, rate_hz, gain) for (serial, channel), gain in zip(channels, gains, strict=True)]
        found = [next((entry for entry in self.entries if entry.key.matches(key)), None) for key in wanted]
        if None in found:
            raise ConfigError(self._why_not([key for key, entry in zip(wanted, found, strict=True) if entry is None]))
        return Calibration(tuple(entry for entry in found if entry))

    def only(self) -> Calibration:
        """Everything as one calibration, in the order of serial numbers and channels; ConfigError when there are several settings."""
        settings = {(entry.freq_hz, entry.rate_hz, entry.gain_db) for entry in self.entries}
        if len({setting[:2] for setting in settings}) > 1:
            raise ConfigError(
                f"the file holds {len(settings)} settings: say which frequency, rate and gain (see `massaccess calibrate show`)"
            )
        return Calibration(self.entries)

    def save(self, path: str | Path) -> None:
        """Writes TOML, at once: a crash leaves the old file. Raises ConfigError when that is not possible."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        try:
            partial.write_text(self.text(), "utf-8")
            partial.replace(target)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None

    def text(self) -> str:
        """The TOML document that `save` writes."""
        return tomli_w.dumps({"format": FORMAT, "version": VERSION, "hash": self.hash, "entry": [asdict(entry) for entry in self.entries]})

    @classmethod
    def load(cls, path: str | Path) -> Book:
        """Reads what `save` wrote. Raises ConfigError for a file that is not there, FormatError for one that is damaged or foreign."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; make it with `massaccess calibrate estimate`") from None
        try:
            return cls.parse(text.decode(), str(path))
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is not a calibration file: {error}") from None

    @classmethod
    def parse(cls, text: str, path: str) -> Book:
        """The inverse of `text`; ``path`` is for messages. Raises FormatError."""
        try:
            document = tomllib.loads(text)
        except ValueError as error:
            raise FormatError(f"{path} is not a calibration file: {error}") from None
        if document.get("format") != FORMAT:
            raise FormatError(f"{path} is not a calibration file: it lacks format = '{FORMAT}'")
        if document.get("version") != VERSION:
            raise FormatError(f"{path} has version {document.get('version')!r} and this program knows {VERSION}: update massaccess")
        rows, names = document.get("entry", []), {item.name for item in fields(Entry)}
        if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) == names for row in rows):
            raise FormatError(f"{path}: every [[entry]] needs {', '.join(sorted(names))}, and nothing else")
        book = cls(tuple(Entry(**row) for row in rows))
        if document.get("hash") != book.hash:
            raise FormatError(f"{path} does not have the hash that it says: it was changed or damaged; calibrate anew, or take the backup")
        return book

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of a hash of everything in it."""
        return _hash(asdict(entry) for entry in self.entries)

    def _why_not(self, missing: list[Key]) -> str:
        """One sentence on what is foreign, the coarsest difference first."""
        first = missing[0]
        who = ", ".join(key.name for key in missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        serials = sorted({entry.serial for entry in self.entries})
        own = [entry for entry in self.entries if (entry.serial, entry.channel) == (first.serial, first.channel)]
        cure = "run `massaccess calibrate estimate` with this array as it is set now"
        if not own:
            return f"the calibration is of other devices: {who} is not in it, but {', '.join(serials[:8]) or 'nothing'}; {cure}"
        at_freq = [entry for entry in own if abs(entry.freq_hz - first.freq_hz) <= HERTZ]
        if not at_freq:
            known = ", ".join(f"{entry.freq_hz:.12g}" for entry in own)
            return f"the calibration of {who} is for another frequency: {known} Hz, but the array is at {first.freq_hz:.12g} Hz; {cure}"
        at_rate = [entry for entry in at_freq if abs(entry.rate_hz - first.rate_hz) <= HERTZ]
        if not at_rate:
            known = ", ".join(f"{entry.rate_hz:.12g}" for entry in at_freq)
            return f"the calibration of {who} is for another rate: {known} samples/s, but the array runs at {first.rate_hz:.12g}; {cure}"
        known = ", ".join(f"{entry.gain_db:g}" for entry in at_rate)
        return f"the calibration of {who} is for another gain: {known} dB, but the array is set to {first.gain_db:g} dB; {cure}"


def _when(date: str) -> datetime:
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise FormatError(f"date of a calibration is {date!r:.40}: write ISO 8601 with a time zone, as 2026-01-31T12:00:00+00:00")
    return when


def _hash(rows: Iterable[Mapping[str, Any]]) -> str:
    text = "\n".join(tomli_w.dumps(dict(row)) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]
