"""What travels beside the numbers, said once: stream tags, PDU dictionaries, SigMF files and the wire all use this table.

>>> facts = Metadata(frame=17, noise_var=0.4, receiver="jcedd")
>>> facts.to_dict()
{'frame': 17, 'noise_var': 0.4, 'receiver': 'jcedd'}
>>> Metadata.from_dict({"noise_var": -1.0})
Traceback (most recent call last):
massaccess.errors.ConfigError: noise_var is -1.0: pass a variance, 0 or more
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import FrontEnd, SystemConfig
from ..errors import ConfigError, unknown

Time = tuple[int, float]
MAX_TEXT = 256
BOOK_DIGITS = 8
HASH_DIGITS = 16


@dataclass(frozen=True)
class Field:
    """One row: the ``name`` is the key of stream tags, PDU dictionaries and the wire's header alike; ``sigmf`` is the object and key in a
    recording. ``check`` returns the stored value or raises ConfigError with the cure."""

    name: str
    type: str
    unit: str
    meaning: str
    appears: str
    sigmf: str
    check: Callable[[str, Any], Any]


@dataclass(frozen=True)
class Metadata:
    """What is known about a frame and those after it, until something else is said. ``None``: nobody said.

    The fields are those of `FIELDS`, which has their units and meanings. Raises ConfigError for a value that cannot be.
    """

    frame: int | None = None
    rx_time: Time | None = None
    rx_rate: float | None = None
    rx_freq: float | None = None
    pilot_book: str | None = None
    noise_var: float | None = None
    adc_bits: int | None = None
    adc_scale: float | None = None
    adc_offset: float | None = None
    adc_dither: float | None = None
    user_gain: tuple[float, ...] | None = None
    calibration: str | None = None
    receiver: str | None = None
    version: str | None = None
    weights: str | None = None
    weights_hash: str | None = None

    def __post_init__(self) -> None:
        for row in FIELDS:
            value = getattr(self, row.name)
            if value is not None:
                object.__setattr__(self, row.name, row.check(row.name, value))

    def to_dict(self) -> dict[str, Any]:
        """The fields that are known, in the order of the table."""
        return {row.name: value for row in FIELDS if (value := getattr(self, row.name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metadata:
        """The inverse of `to_dict`, through JSON as well; an unknown key is an error that lists the known ones."""
        for name in values:
            if name not in NAMES:
                raise unknown("metadata field", name, NAMES)
        return cls(**values)

    def update(self, changes: Mapping[str, Any]) -> Metadata:
        """A copy with some fields said anew, by name (``None`` forgets one); `self` when there are none."""
        return Metadata.from_dict({**self.to_dict(), **changes}) if changes else self

    def at(self, frame: int) -> Metadata:
        """The same, said of another frame."""
        return dataclasses.replace(self, frame=frame)


def metadata_of(config: SystemConfig, **known: Any) -> Metadata:
    """What a configuration alone tells: rate, carrier, pilots, noise and converters, and whatever else is ``known`` by name.

    >>> known = metadata_of(SystemConfig(users=4, pilot_len=3, snr_db=10.0, snr_convention="per-user"), calibration="roof-3")
    >>> known.noise_var, known.adc_bits, known.calibration
    (0.1, 0, 'roof-3')
    """
    from ..forward.front_end import front_end
    from ..forward.pilots import book_id, book_of
    from ..forward.simulate import sample_power

    converter = front_end(bits=config.adc_bits, power=sample_power(config))
    book = book_of(config)
    told = {
        "rx_rate": config.sample_rate_hz,
        "rx_freq": config.carrier_hz,
        "pilot_book": book_id(book),
        "noise_var": config.noise_var,
        "adc_bits": config.adc_bits or 0,
        "adc_scale": converter.scale,
        "adc_offset": config.adc_offset or None,
        "adc_dither": config.adc_dither or None,
    }
    return Metadata.from_dict({**told, **known})


def converter_of(known: Metadata, frame: tuple[int, int]) -> FrontEnd:
    """The converters that ``known`` tells of, for frames of (symbols, antennas): ideal ones where it says nothing."""
    from ..forward.front_end import front_end

    return front_end(
        bits=known.adc_bits or None,
        power=2 * (known.adc_scale or 1.0) ** 2,
        threshold=known.adc_offset or 0.0,
        dither=known.adc_dither or 0.0,
        frame=frame,
    )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= value.__index__() < 2**64:
        raise ConfigError(f"{name} is {value!r}: pass a count from 0 to 2**64 - 1")
    return int(value)


def _bits(name: str, value: Any) -> int:
    if _count(name, value) > 16:
        raise ConfigError(f"{name} is {value!r}: pass 1 to 16, or 0 for an ideal converter")
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise ConfigError(f"{name} is {value!r}: pass a number")
    try:
        number = float(value)
    except (TypeError, OverflowError) as error:
        raise ConfigError(f"{name} is {value!r}: pass a number that fits a double") from error
    if not math.isfinite(number):
        raise ConfigError(f"{name} is {number}: pass a finite number")
    return number


def _positive(name: str, value: Any) -> float:
    if (number := _number(name, value)) <= 0:
        raise ConfigError(f"{name} is {number}: pass a number above 0")
    return number


def _variance(name: str, value: Any) -> float:
    if (number := _number(name, value)) < 0:
        raise ConfigError(f"{name} is {number}: pass a variance, 0 or more")
    return number


def _share(name: str, value: Any) -> float:
    if (number := _number(name, value)) < 0:
        raise ConfigError(f"{name} is {number}: pass a root mean square as a fraction of adc_scale, 0 or more")
    return number


def _gains(name: str, value: Any) -> tuple[float, ...]:
    """In single precision, written as short as it goes: a header has to hold them."""
    numbers = () if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else tuple(_number(name, entry) for entry in value)
    if not numbers or min(numbers) <= 0:
        raise ConfigError(f"{name} is {value!r:.80}: pass one mean power above 0 for each user")
    return tuple(float(str(np.float32(entry))) for entry in numbers)


def _time(name: str, value: Any) -> Time:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{name} is {value!r}: pass (whole seconds, fraction of a second), so that no precision is lost")
    seconds, fraction = _count(name, value[0]), _number(name, value[1])
    if not 0 <= fraction < 1:
        raise ConfigError(f"{name} has the fraction {fraction}: pass 0 <= fraction < 1 and carry the rest into the seconds")
    return seconds, fraction


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise ConfigError(f"{name} is {value!r:.80}: pass printable text of at most {MAX_TEXT} characters")
    return value


def _book(name: str, value: Any) -> str:
    if not _is_hexadecimal(value, BOOK_DIGITS):
        raise ConfigError(f"{name} is {value!r:.80}: pass the {BOOK_DIGITS} hexadecimal digits of forward.pilots.book_id")
    return str(value)


def _hash(name: str, value: Any) -> str:
    if not _is_hexadecimal(value, HASH_DIGITS):
        raise ConfigError(f"{name} is {value!r:.80}: pass the first {HASH_DIGITS} hexadecimal digits of the sha256")
    return str(value)


def _is_hexadecimal(value: Any, digits: int) -> bool:
    return isinstance(value, str) and len(value) == digits and set(value) <= set("0123456789abcdef")


ON_CHANGE = "first item, on change"
ON_RESULTS = "first result, on change"
FIELDS = (
    Field("frame", "uint64", "1", "index of the frame; gaps are lost frames", "every item", "annotations `massaccess:frame`", _count),
    Field(
        "rx_time",
        "(uint64, double)",
        "s, s",
        "time of the first sample: seconds and fraction, as UHD tags it; frames follow back to back until it is said anew",
        "first item, after a gap",
        "captures `massaccess:rx_time`, `core:datetime`",
        _time,
    ),
    Field("rx_rate", "double", "Hz", "complex samples per second of one antenna", "first item", "global `core:sample_rate`", _positive),
    Field("rx_freq", "double", "Hz", "centre frequency", ON_CHANGE, "captures `core:frequency`", _number),
    Field("pilot_book", "string", "", "id of the pilots: 8 hexadecimal digits", ON_CHANGE, "annotations `massaccess:pilot_book`", _book),
    Field(
        "noise_var",
        "double",
        "power",
        "total variance of a complex noise entry",
        ON_CHANGE,
        "annotations `massaccess:noise_var`",
        _variance,
    ),
    Field("adc_bits", "int", "bit", "converter bits per real part; 0: ideal", ON_CHANGE, "annotations `massaccess:adc_bits`", _bits),
    Field(
        "adc_scale",
        "double",
        "amplitude",
        "root mean square per real part of the samples that the converters are set for, without dither",
        ON_CHANGE,
        "annotations `massaccess:adc_scale`",
        _positive,
    ),
    Field(
        "adc_offset",
        "double",
        "1",
        "threshold of all comparators, as a fraction of adc_scale",
        ON_CHANGE,
        "annotations `massaccess:adc_offset`",
        _number,
    ),
    Field(
        "adc_dither",
        "double",
        "1",
        "root mean square of the known dither, as a fraction of adc_scale; the sequence is that of `massaccess.forward.front_end`",
        ON_CHANGE,
        "annotations `massaccess:adc_dither`",
        _share,
    ),
    Field(
        "user_gain",
        "f32vector",
        "power",
        "mean channel power of each user, where it is known",
        ON_CHANGE,
        "annotations `massaccess:user_gain`",
        _gains,
    ),
    Field("calibration", "string", "", "id of the array calibration", ON_CHANGE, "annotations `massaccess:calibration`", _text),
    Field("receiver", "string", "", "registry name of the receiver", ON_RESULTS, "annotations `massaccess:receiver`", _text),
    Field("version", "string", "", "version of massaccess that made the result", ON_RESULTS, "annotations `massaccess:version`", _text),
    Field(
        "weights",
        "string",
        "",
        "prior of a receiver that can learn one: gaussian, a name of `massaccess weights`, or that of a file",
        ON_RESULTS,
        "annotations `massaccess:weights`",
        _text,
    ),
    Field(
        "weights_hash",
        "string",
        "",
        "first 16 hexadecimal digits of the sha256 of the weights file",
        ON_RESULTS,
        "annotations `massaccess:weights_hash`",
        _hash,
    ),
)
NAMES = tuple(row.name for row in FIELDS)


def markdown() -> str:
    """The table as a Markdown page; ``docs/metadata.md`` is this text."""
    head = ("name", "type", "unit", "meaning", "said on", "in a SigMF recording")
    rows = [(f"`{row.name}`", row.type, row.unit, row.meaning, row.appears, row.sigmf) for row in FIELDS]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
    return PREFACE + "\n".join(lines) + "\n"


PREFACE = """# Metadata

The name in the first column is the key everywhere: of the stream tag, in the dictionary of a PDU, and in the `metadata` object of a ZMQ
message. A field that nobody knows is left out. A value holds from the item that it is said on until it is said anew. In a ZMQ message it
holds for all frames of the message, whose indices are the array `frame`. Amplitudes and powers are in the units of the samples.

Samples may be packed, as the bits of the converters that `adc_bits`, `adc_scale`, `adc_offset` and `adc_dither` describe: octets as
`massaccess.forward.packing` says, array `packed` of a ZMQ message, datatype `ru8` of a SigMF recording, whose global object has
`massaccess:packing` with bits a part, antennas and order.

This page is made by `massaccess.link.metadata.markdown()`.

"""
