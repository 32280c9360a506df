"""Reading SigMF recordings, in the form that `massaccess.link.recording_format` tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import SystemConfig
from ..errors import ConfigError, FormatError, MassaccessError
from ..forward.packing import unpack
from .metadata import Metadata, converter_of, metadata_of
from .recording_format import ANNOTATED, CAPTURED, ORDER, Layout, Run, data_file, item_len, meta_file, stem, validate


@dataclass(frozen=True)
class Recording:
    """A recording opened for reading; the samples stay on the disk until they are asked for.

    config: the system that made it; seed: of the simulation, if it was one; runs: see `Run`; layout: how samples are
    ``stored`` [frames frame_len channels], memory-mapped. Of a waveform, frames are samples and frame_len is 1.
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
            changes["rx_time"] = _later(run.metadata.rx_time, offset * item_len(self.config) / rate)
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
    runs = _runs(document, _known(whole, config), item_len(config), len(stored), salvage)
    for run in runs:
        if layout.bits and run.metadata.adc_bits != layout.bits:
            raise FormatError(f"{name} holds {layout.bits} bits a part, and its metadata say {run.metadata.adc_bits}: correct adc_bits")
    return Recording(name, config, whole.get("massaccess:seed"), runs, layout, stored)


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
    length = item_len(config)
    frame = length * layout.channels * layout.dtype.itemsize
    if size < frame or (size % frame and not salvage):
        cure = "pass salvage=True to read the whole frames" if size >= frame else "there is no whole frame to read"
        raise FormatError(
            f"{path} has {size} bytes, {size / frame:.2f} frames of {frame}: it was cut off or belongs to another configuration; {cure}"
        )
    shape = (size // frame, length, layout.channels)
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
        rate = whole["core:sample_rate"]
        return Metadata(rx_rate=rate) if config.burst else metadata_of(config, rx_rate=rate)  # samples say themselves what else there is
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


def _later(time: tuple[int, float], seconds: float) -> tuple[int, float]:
    whole = int(time[1] + seconds)
    return time[0] + whole, time[1] + seconds - whole
