"""SigMF recordings of frames: ``name.sigmf-data`` and ``name.sigmf-meta``.

The data file holds the frames as they come, sample by sample: ``cf32_le`` with one channel an antenna, so that frame f is the samples
``f * frame_len`` to ``(f + 1) * frame_len`` and any SigMF tool can read it. Frames whose indices follow one another under the same metadata
are one run: one capture (time, frequency) and one annotation (index of the first frame, noise, converters, ...). The extension
``massaccess`` adds ``config`` (the fields of SystemConfig), ``seed`` and the fields of `massaccess.link.metadata`.

Of quantised frames the data file may hold the converters' bits, as `massaccess.forward.packing` packs them: ``ru8`` with one channel
an octet of a sample vector (16 for 64 antennas of one bit), and ``packing`` beside ``config`` says so: bits a part, antennas, order.

Of a system with a waveform (``samples_per_symbol`` of 2 or more) the data file holds the samples of the array as they come, whole frames
or not. Wherever frames are spoken of it is samples then: an item is one sample of all antennas, its index ``rx_time`` times the sample
rate, and a run ends where samples are lost: a new capture has the time of the first one behind the gap.

A recording appears under its name only when it is complete; stopping early, by Ctrl-C as well, makes a shorter complete one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import SystemConfig
from ..errors import ConfigError, FormatError
from ..forward.packing import octets
from .metadata import Metadata

EXTENSION = {"name": "massaccess", "version": "1.3.0", "optional": True}
CAPTURED = {"rx_freq": "core:frequency", "rx_time": "massaccess:rx_time"}
ANNOTATED = {
    name: f"massaccess:{name}"
    for name in (
        "frame",
        "pilot_book",
        "noise_var",
        "adc_bits",
        "adc_scale",
        "adc_offset",
        "adc_dither",
        "user_gain",
        "calibration",
        "receiver",
        "version",
        "weights",
        "weights_hash",
    )
}
ORDER = "antenna, part (real, imaginary), bit (most significant first)"


def item_len(config: SystemConfig) -> int:
    """Samples of an item: those of a frame, or 1 where recordings are of samples."""
    return 1 if config.burst else config.frame_len


@dataclass(frozen=True)
class Layout:
    """How the data file holds a sample vector of ``antennas``: complex samples, or with ``bits`` packed ones of so many bits a part."""

    antennas: int
    bits: int = 0

    @property
    def datatype(self) -> str:
        return "ru8" if self.bits else "cf32_le"

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u1" if self.bits else "<c8")

    @property
    def channels(self) -> int:
        """Items of a sample vector."""
        return octets(self.antennas, self.bits) if self.bits else self.antennas

    @property
    def packing(self) -> dict[str, Any]:
        """What the metadata say of it."""
        return {"massaccess:packing": {"bits": self.bits, "antennas": self.antennas, "order": ORDER}} if self.bits else {}


@dataclass(frozen=True)
class Run:
    """Frames in a row: the item ``first`` and the ``count - 1`` after it; ``metadata`` is that of the first, its frame index included."""

    first: int
    count: int
    metadata: Metadata

    def follows_on(self, metadata: Metadata, frame_seconds: float, tolerance: float = 1e-3) -> bool:
        """Whether the frame that ``metadata`` tells of is simply the next one of this run, its time right to a ``tolerance`` of a frame."""
        mine, theirs = self.metadata.to_dict(), metadata.to_dict()
        if theirs.pop("frame") != mine.pop("frame") + self.count:
            return False
        began, now = mine.pop("rx_time", None), theirs.pop("rx_time", None)
        if now is not None and (
            began is None or abs(_seconds_between(began, now) - self.count * frame_seconds) > frame_seconds * tolerance
        ):
            return False
        return mine == theirs


PARTS = {"global": dict, "captures": list, "annotations": list}


def stem(path: str | Path) -> Path:
    """The name of a recording without the SigMF endings."""
    path = Path(path)
    if not path.name:
        raise ConfigError(f"{path} is a folder: pass the name of a recording")
    return path.with_suffix("") if path.suffix in (".sigmf-meta", ".sigmf-data", ".sigmf") else path


def meta_file(name: Path) -> Path:
    return name.with_name(name.name + ".sigmf-meta")


def data_file(name: Path) -> Path:
    return name.with_name(name.name + ".sigmf-data")


def validate(document: Any) -> None:
    """Raises FormatError unless ``document`` is what the SigMF specification calls valid."""
    import jsonschema
    import sigmf

    if not isinstance(document, dict) or not all(isinstance(document.get(key), kind) for key, kind in PARTS.items()):
        raise FormatError("it is not SigMF metadata: that has the objects global, captures and annotations")
    try:
        sigmf.validate.validate(document)
    except (jsonschema.ValidationError, sigmf.error.SigMFError) as error:
        raise FormatError(f"it is not valid SigMF: {str(error).splitlines()[0]}") from None


def _seconds_between(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[0] - a[0]) + (b[1] - a[1])
