"""Writing SigMF recordings, in the form that `massaccess.link.recording_format` tells."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import __version__
from ..core import SystemConfig
from ..errors import ConfigError, ShapeError
from .metadata import Metadata
from .recording_format import ANNOTATED, CAPTURED, EXTENSION, Layout, Run, data_file, item_len, meta_file, stem, validate

HALF_A_SAMPLE = 0.5  # clocks of radios count in ticks of their own
YEAR_10000 = 253402300800  # in seconds since 1970


class Recorder:
    """Writes one recording of frames of ``config``, or of samples where that has a waveform; use it as a context manager, or call `close`.

    ``packed`` frames are the bits of its converters (`massaccess.forward.packing`). Memory does not grow with the frames, only with the
    runs. Raises ConfigError when the recording exists already, unless ``overwrite``, and for packed frames of ideal converters or of a
    waveform.
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
        if packed and config.burst:
            raise ConfigError("samples of a waveform are not packed: leave packed out, or pass samples_per_symbol=1")
        self._layout = Layout(config.antennas, config.adc_bits or 0 if packed else 0)
        self.path, self.config, self.seed, self.description = stem(path), config, seed, description
        require_free(path, overwrite)
        self._length = item_len(config)
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
        ones are [count frame_len octets] or [count frame_len*octets] uint8. Of a waveform, samples [count antennas].

        Raises ShapeError for frames of another size, ConfigError for another sample rate, pilot book or number of bits, OSError when the
        disk is full.
        """
        layout = self._layout
        if frames.size != len(frames) * self._frame_items or (layout.bits and frames.dtype != layout.dtype):
            kind = "uint8" if layout.bits else "complex64"
            raise ShapeError(
                f"frames are {frames.dtype} {list(frames.shape)}: "
                f"pass {kind} [count, {self._length}, {layout.channels}] for this configuration"
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
        return self._length * self._layout.channels

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
        seconds = self._length / (self._rate or 1.0)
        tolerance = HALF_A_SAMPLE if self.config.burst else 1e-3
        if self.runs and self.runs[-1].follows_on(metadata, seconds, tolerance):
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
        length = self._length
        return {
            "global": whole,
            "captures": [_capture(run, length) for run in self.runs],
            "annotations": [_annotation(run, length) for run in self.runs],
        }


def require_free(path: str | Path, overwrite: bool) -> None:
    """Raises ConfigError when a recording of that name exists, unless it may be overwritten, or when there is no such folder."""
    name = stem(path)
    if not name.parent.is_dir():
        raise ConfigError(f"{name.parent} is no folder: make it first, or choose another name")
    for file in (meta_file(name), data_file(name)):
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} exists: choose another name, or overwrite it on purpose with overwrite=True")


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


def _iso(time: tuple[int, float]) -> str:
    return datetime.fromtimestamp(time[0], UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{int(time[1] * 1e9):09d}Z"
