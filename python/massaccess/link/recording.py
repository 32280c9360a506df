"""SigMF recordings of frames: ``name.sigmf-data`` and ``name.sigmf-meta``.

The data file holds the frames as they come, sample by sample: ``cf32_le`` with one channel an antenna, so that frame f is the samples
``f * frame_len`` to ``(f + 1) * frame_len`` and any SigMF tool can read it. Frames whose indices follow one another under the same metadata
are one run: one capture (time, frequency) and one annotation (index of the first frame, noise, converters, ...). The extension
``massaccess`` adds ``config`` (the fields of SystemConfig), ``seed`` and the fields of `massaccess.link.metadata`.

Of quantised frames the data file may hold the converters' bits, as `massaccess.forward.packing` packs them: ``ru8`` with one channel
an octet of a sample vector (16 for 64 antennas of one bit), and ``packing`` beside ``config`` says so: bits a part, antennas, order.

A recording appears under its name only when it is complete; stopping early, by Ctrl-C as well, makes a shorter complete one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import __version__
from ..core import SystemConfig
from ..errors import ConfigError, FormatError, MassaccessError, ShapeError
from ..forward.packing import octets, unpack
from .metadata import Metadata, converter_of, metadata_of

EXTENSION = {"name": "massaccess", "version": "1.1.0", "optional": True}
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
        "calibration",
        "receiver",
        "version",
        "weights",
        "weights_hash",
    )
}


ORDER = "antenna, part (real, imaginary), bit (most significant first)"


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

    def follows_on(self, metadata: Metadata, frame_seconds: float) -> bool:
        """Whether the frame that ``metadata`` tells of is simply the next one of this run."""
        mine, theirs = self.metadata.to_dict(), metadata.to_dict()
        if theirs.pop("frame") != mine.pop("frame") + self.count:
            return False
        began, now = mine.pop("rx_time", None), theirs.pop("rx_time", None)
        if now is not None and (began is None or abs(_seconds_between(began, now) - self.count * frame_seconds) > frame_seconds / 1000):
            return False
        return mine == theirs


class Recorder:
    """Writes one recording of frames of ``config``; use it as a context manager, or call `close`.

    ``packed`` frames are the bits of its converters (`massaccess.forward.packing`). Memory does not grow with the frames, only with the
    runs. Raises ConfigError when the recording exists already, unless ``overwrite``, and for packed frames of ideal converters.
    """

    def __init__(
        self,
        path: str | Path,
        config: SystemConfig,
        *,
        seed: int | None = None,
        description: str = "",
        overwrite: bool = False,
        packed: bool = False,
    ) -> None:
        if packed and not config.adc_bits:
            raise ConfigError("packed frames need adc_bits, the bits of the converters: ideal ones have none")
        self._layout = Layout(config.antennas, config.adc_bits or 0 if packed else 0)
        self.path, self.config, self.seed, self.description = stem(path), config, seed, description
        require_free(path, overwrite)
        self.runs: list[Run] = []
        self.frames = 0
        self._hash = hashlib.sha512()
        self._rate: float | None = None
        self._consistent = True
        self._part = self.path.parent / f".{self.path.name}.{os.getpid()}.part"
        try:
            self._file = open(self._part, "w+b", buffering=0)  # noqa: SIM115 until close()
        except OSError as error:
            raise ConfigError(f"cannot write into {self.path.parent} ({error.strerror}): choose a folder that you may write") from None

    def write(self, frames: np.ndarray, metadata: Metadata) -> None:
        """Appends frames [count frame_len antennas] or [count frame_len*antennas] complex64, consecutive from ``metadata.frame`` on; packed
        ones are [count frame_len octets] or [count frame_len*octets] uint8.

        Raises ShapeError for frames of another size, ConfigError for another sample rate, pilot book or number of bits, OSError when the
        disk is full.
        """
        layout = self._layout
        if frames.size != len(frames) * self._frame_items or (layout.bits and frames.dtype != layout.dtype):
            kind = "uint8" if layout.bits else "complex64"
            raise ShapeError(
                f"frames are {frames.dtype} {list(frames.shape)}: "
                f"pass {kind} [count, {self.config.frame_len}, {layout.channels}] for this configuration"
            )
        frames = np.ascontiguousarray(frames, layout.dtype)
        if not len(frames):
            return
        metadata = metadata.at(self._next_index() if metadata.frame is None else metadata.frame)
        self._check_rate(metadata)
        if layout.bits and metadata.adc_bits not in (None, layout.bits):
            raise ConfigError(f"frames of {metadata.adc_bits} bits in a recording of {layout.bits}: give recorder and converters the same")
        self._consistent = False
        self._write(frames.reshape(-1).view(np.uint8).data)
        self._extend(len(frames), metadata)
        self._consistent = True

    def close(self) -> None:
        """Completes the recording under its name; one without frames leaves nothing."""
        if self._file.closed:
            return
        self._file.truncate(self.frames * self._frame_items * self._layout.dtype.itemsize)
        if not self._consistent:  # a write was cut short: the hash may be ahead of the frames
            self._file.seek(0)
            self._hash = hashlib.file_digest(self._file, "sha512")
        os.fsync(self._file.fileno())
        self._file.close()
        if not self.frames:
            self._part.unlink()
            return
        document = self._document()
        validate(document)
        meta_file(self.path).unlink(missing_ok=True)  # never new samples beside old metadata
        os.replace(self._part, data_file(self.path))
        self._part.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(self._part, meta_file(self.path))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def _frame_items(self) -> int:
        return self.config.frame_len * self._layout.channels

    def _next_index(self) -> int:
        return (self.runs[-1].metadata.frame or 0) + self.runs[-1].count if self.runs else 0

    def _check_rate(self, metadata: Metadata) -> None:
        rate = metadata.rx_rate or self._rate or self.config.sample_rate_hz
        if self.frames and rate != self._rate:
            raise ConfigError(
                f"the sample rate changed from {self._rate:g} to {rate:g} Hz: a recording has one, start another for the new rate"
            )
        self._rate = rate

    def _write(self, octets: memoryview) -> None:
        done = 0
        while done < len(octets):
            done += self._file.write(octets[done:])
        self._hash.update(octets)

    def _extend(self, count: int, metadata: Metadata) -> None:
        seconds = self.config.frame_len / (self._rate or 1.0)
        if self.runs and self.runs[-1].follows_on(metadata, seconds):
            last = self.runs[-1]
            self.runs[-1] = Run(last.first, last.count + count, last.metadata)
        else:
            self.runs.append(Run(self.frames, count, metadata))
        self.frames += count

    def _document(self) -> dict[str, Any]:
        import sigmf

        whole = {
            "core:version": sigmf.__specification__,
            "core:datatype": self._layout.datatype,
            "core:sample_rate": self._rate,
            "core:num_channels": self._layout.channels,
            "core:sha512": self._hash.hexdigest(),
            "core:recorder": f"massaccess {__version__}",
            "core:extensions": [EXTENSION],
            "massaccess:config": self.config.to_dict(),
            **self._layout.packing,
        }
        if self.description:
            whole["core:description"] = self.description
        if self.seed is not None:
            whole["massaccess:seed"] = self.seed
        length = self.config.frame_len
        return {
            "global": whole,
            "captures": [_capture(run, length) for run in self.runs],
            "annotations": [_annotation(run, length) for run in self.runs],
        }


@dataclass(frozen=True)
class Recording:
    """A recording opened for reading; the samples stay on the disk until they are asked for.

    config: the system that made it; seed: of the simulation, if it was one; runs: see `Run`; layout: how samples are
    ``stored`` [frames frame_len channels], memory-mapped.
    """

    path: Path
    config: SystemConfig
    seed: int | None
    runs: tuple[Run, ...]
    layout: Layout
    stored: np.ndarray

    def __len__(self) -> int:
        return self.stored.shape[0]

    @property
    def samples(self) -> np.ndarray:
        """All frames [frames frame_len antennas] complex64: memory-mapped, or unpacked into memory."""
        return np.concatenate([self.read(run, 0, run.count) for run in self.runs]) if self.layout.bits else self.stored

    def read(self, run: Run, offset: int, count: int) -> np.ndarray:
        """``count`` frames of a run, the ``offset``-th and those after it [count frame_len antennas] complex64."""
        found = self.stored[run.first + offset :][:count]
        if not self.layout.bits:
            return found
        converter = converter_of(run.metadata, (self.config.frame_len, self.config.antennas))
        return unpack(np.asarray(found), converter, self.config.antennas)

    @property
    def metadata(self) -> Metadata:
        """What is known of the first frame."""
        return self.runs[0].metadata

    def chunks(self, frames: int) -> Iterator[tuple[Metadata, np.ndarray]]:
        """Pieces of at most ``frames`` consecutive frames, each with the metadata of its first; together they are the recording."""
        if frames < 1:
            raise ConfigError(f"chunks of {frames} frames: pass 1 or more")
        for run in self.runs:
            for offset in range(0, run.count, frames):
                count = min(frames, run.count - offset)
                yield self._metadata_at(run, offset), np.array(self.read(run, offset, count), np.complex64)

    def _metadata_at(self, run: Run, offset: int) -> Metadata:
        changes: dict[str, Any] = {"frame": (run.metadata.frame or 0) + offset}
        if run.metadata.rx_time is not None:
            rate = run.metadata.rx_rate or self.config.sample_rate_hz
            changes["rx_time"] = _later(run.metadata.rx_time, offset * self.config.frame_len / rate)
        return run.metadata.update(changes)


def open_recording(path: str | Path, *, config: SystemConfig | None = None, check_hash: bool = True, salvage: bool = False) -> Recording:
    """Opens a recording by its name, with or without ``.sigmf-meta`` or ``.sigmf-data``.

    ``config`` replaces the recording's own, and is needed for one that another program made; ``check_hash=False`` skips reading all samples
    once, for large files; ``salvage`` takes the whole frames that a damaged data file still has, unchecked.

    Raises FormatError for a file that is missing, foreign, truncated or altered.
    """
    name = stem(path)
    document = _load(meta_file(name))
    whole = document["global"]
    config = config or _config(whole, name)
    layout = _layout(whole, config, name)
    stored = _map(data_file(name), config, layout, salvage)
    if check_hash and not salvage:
        _check_hash(data_file(name), whole.get("core:sha512"))
    runs = _runs(document, _known(whole, config), config.frame_len, len(stored), salvage)
    for run in runs:
        if layout.bits and run.metadata.adc_bits != layout.bits:
            raise FormatError(f"{name} holds {layout.bits} bits a part, and its metadata say {run.metadata.adc_bits}: correct adc_bits")
    return Recording(name, config, whole.get("massaccess:seed"), runs, layout, stored)


def require_free(path: str | Path, overwrite: bool) -> None:
    """Raises ConfigError when a recording of that name exists, unless it may be overwritten, or when there is no such folder."""
    name = stem(path)
    if not name.parent.is_dir():
        raise ConfigError(f"{name.parent} is no folder: make it first, or choose another name")
    for file in (meta_file(name), data_file(name)):
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} exists: choose another name, or overwrite it on purpose with overwrite=True")


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


YEAR_10000 = 253402300800  # in seconds since 1970
PARTS = {"global": dict, "captures": list, "annotations": list}


def _capture(run: Run, length: int) -> dict[str, Any]:
    known = run.metadata.to_dict()
    capture = {"core:sample_start": run.first * length, "core:global_index": known["frame"] * length}
    capture |= {key: known[name] for name, key in CAPTURED.items() if name in known}
    if run.metadata.rx_time is not None and run.metadata.rx_time[0] < YEAR_10000:
        capture["core:datetime"] = _iso(run.metadata.rx_time)
    return capture


def _annotation(run: Run, length: int) -> dict[str, Any]:
    known = run.metadata.to_dict()
    place = {"core:sample_start": run.first * length, "core:sample_count": run.count * length, "core:label": "frames"}
    return place | {key: known[name] for name, key in ANNOTATED.items() if name in known}


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
        validate(document)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist: pass the name of a SigMF recording; one that was killed has no metadata") from None
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from None
    except FormatError as error:
        raise FormatError(f"{path} cannot be used, {error}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON ({str(error)[:80]}): it is damaged, or no SigMF metadata") from None
    return document


def _config(whole: dict[str, Any], name: Path) -> SystemConfig:
    if "massaccess:config" not in whole:
        raise FormatError(
            f"{name} does not say which system made it: pass config=, the SystemConfig with its users, antennas and frame lengths"
        )
    try:
        return SystemConfig.from_dict(whole["massaccess:config"])
    except (MassaccessError, TypeError) as error:
        raise FormatError(f"{name} has a massaccess:config that does not hold ({error}): pass config= to replace it") from None


def _layout(whole: dict[str, Any], config: SystemConfig, name: Path) -> Layout:
    packing = whole.get("massaccess:packing", {})
    bits = packing.get("bits", 0) if isinstance(packing, dict) else None
    if type(bits) is not int or not 0 <= bits <= 16 or (bits and packing.get("order") != ORDER):
        raise FormatError(f"{name} has a massaccess:packing that is not known here, {packing!r:.80}: use the release that made it")
    layout = Layout(config.antennas, bits)
    found = whole.get("core:datatype"), whole.get("core:num_channels", 1)
    if found != (layout.datatype, layout.channels):
        raise FormatError(
            f"{name} is {found[0]} with {found[1]} channels and the configuration has {config.antennas} antennas: "
            f"convert it to {layout.datatype} with {layout.channels} channels, or pass the config= that it was made with"
        )
    if "core:sample_rate" not in whole:
        raise FormatError(f"{name} has no core:sample_rate: add it to the metadata, in samples per second of one antenna")
    if whole.get("core:dataset") or whole.get("core:trailing_bytes"):
        raise FormatError(f"{name} is a non-conforming SigMF dataset: convert it to a plain {layout.datatype} data file")
    return layout


def _map(path: Path, config: SystemConfig, layout: Layout, salvage: bool) -> np.ndarray:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FormatError(f"cannot read {path} ({error.strerror}): put the data file beside the metadata") from None
    frame = config.frame_len * layout.channels * layout.dtype.itemsize
    if size < frame or (size % frame and not salvage):
        cure = "pass salvage=True to read the whole frames" if size >= frame else "there is no whole frame to read"
        raise FormatError(
            f"{path} has {size} bytes, {size / frame:.2f} frames of {frame}: it was cut off or belongs to another configuration; {cure}"
        )
    shape = (size // frame, config.frame_len, layout.channels)
    return np.memmap(path, layout.dtype, "r", shape=shape)


def _check_hash(path: Path, expected: str | None) -> None:
    if expected is None:
        return
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha512").hexdigest()
    if found != expected:
        raise FormatError(f"{path} is not what was recorded, its sha512 differs: copy it again, or pass salvage=True to read it as it is")


def _known(whole: dict[str, Any], config: SystemConfig) -> Metadata:
    if not isinstance(whole.get("massaccess:seed", 0), int):
        raise FormatError(f"massaccess:seed is {whole['massaccess:seed']!r:.80}: write the integer that made the frames, or leave it out")
    try:
        return metadata_of(config, rx_rate=whole["core:sample_rate"])
    except MassaccessError as error:
        raise FormatError(f"the global metadata does not hold: {error}") from None


def _runs(document: dict[str, Any], known: Metadata, length: int, frames: int, salvage: bool) -> tuple[Run, ...]:
    captures = {item["core:sample_start"]: item for item in document["captures"]}
    rows = [row for row in document["annotations"] if "massaccess:frame" in row]
    if not rows:  # made by another program: one run from frame 0
        return (Run(0, frames, _metadata({"core:sample_start": 0}, captures.get(0, {}), known)),)
    runs, expected = [], 0
    for row in rows:
        start = int(row["core:sample_start"])
        first, odd = divmod(start, length)
        count, odd_too = divmod(int(row.get("core:sample_count", 0)), length)
        if odd or odd_too or first != expected or not count:
            raise FormatError(f"annotation at sample {start}: runs must cover whole frames of {length} samples one after another")
        expected += count
        runs.append(Run(first, count, _metadata(row, captures.get(start, {}), known)))
    if expected != frames and not salvage:
        raise FormatError(
            f"the annotations tell of {expected} frames and the data file holds {frames}: pass salvage=True to read what there is"
        )
    return tuple(Run(run.first, min(run.count, frames - run.first), run.metadata) for run in runs if run.first < frames)


def _metadata(row: dict[str, Any], capture: dict[str, Any], known: Metadata) -> Metadata:
    said = {name: row[key] for name, key in ANNOTATED.items() if key in row}
    said |= {name: capture[key] for name, key in CAPTURED.items() if key in capture}
    try:
        return known.update({"frame": 0, **said})
    except MassaccessError as error:
        raise FormatError(f"the metadata at sample {row['core:sample_start']} does not hold: {error}") from None


def _seconds_between(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[0] - a[0]) + (b[1] - a[1])


def _later(time: tuple[int, float], seconds: float) -> tuple[int, float]:
    whole = int(time[1] + seconds)
    return time[0] + whole, time[1] + seconds - whole


def _iso(time: tuple[int, float]) -> str:
    return datetime.fromtimestamp(time[0], UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{int(time[1] * 1e9):09d}Z"
