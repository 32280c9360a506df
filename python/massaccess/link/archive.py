"""Files of what a listener heard. Both kinds grow on the disk, not in memory.

``.npz``: for ``numpy.load``. One array for each of the publisher's, frames along the first axis: ``frame`` uint64 [F], ``activity`` float32
[F N], ``symbols`` complex64 [F D N], ``channel`` complex64 [F N M], of a non-coherent receiver ``odds`` float32 [F N Q], of packed samples
``packed`` uint8 [F L+D octets] (`massaccess.forward.packing`); and ``metadata.jsonl``, octets, a line for each change, ``row`` being
the first frame that it holds for. It appears under its name when it is complete.

``.jsonl``: one line a frame, to read along: ``{"frame": 7, "active": [3, 9], "activity": [0.98, 0.71]}``, where ``activity`` is that of the
active users, and ``sequence`` of a non-coherent receiver which of its sequences each of them sent, counted from 0; and a line
``{"metadata": {...}}`` before the first frame that it holds for. Symbols and channels are left out, and packed samples are refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from ..errors import ConfigError, FormatError
from .metadata import Metadata
from .wire import Message

THRESHOLD = 0.5


def results(message: Message, most: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of a message of frames, of at most so many: ``frame`` [K], and others with K rows, of a receiver ``activity`` [K N] (and
    ``odds`` [K N Q], of a non-coherent one), of packed samples ``packed`` [K L+D octets].

    Raises FormatError when it is a message of something else.
    """
    frame = message["frame"]
    name, dtype, rank = ("packed", np.uint8, 3) if "packed" in message.arrays else ("activity", np.float32, 2)
    found = message[name]
    if frame.dtype != np.uint64 or frame.ndim != 1 or found.dtype != dtype or found.ndim != rank:
        shapes = f"frame is {frame.dtype} {list(frame.shape)} and {name} {found.dtype} {list(found.shape)}"
        raise FormatError(f"{shapes}: not from a receiver, nor packed samples")
    odds = message.arrays.get("odds")
    if odds is not None and (odds.dtype != np.float32 or odds.ndim != 3 or odds.shape[:2] != found.shape or not odds.shape[2]):
        raise FormatError(f"odds are {odds.dtype} {list(odds.shape)} beside {name} {list(found.shape)}: not from a receiver")
    for other, array in message.arrays.items():
        if array.shape[:1] != frame.shape:
            raise FormatError(f"{other} is {list(array.shape)} in a message of {len(frame)} frames: not from a receiver")
    return {other: array[:most] for other, array in message.arrays.items()}


def active(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Decisions [K N] bool of a receiver whose `results` are ``arrays``: with sequences, whether one of them is likelier than silence."""
    found: np.ndarray = (arrays["odds"] > 0).any(-1) if "odds" in arrays else arrays["activity"] > THRESHOLD
    return found


class Archive(ABC):
    """Takes results as they come; use it as a context manager, or call `close`. ``frames`` counts them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self._known: Metadata | None = None
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is no folder: make it first, or choose another name")

    def write(self, arrays: Mapping[str, np.ndarray], metadata: Metadata) -> None:
        """Appends what `results` gave. Raises FormatError when the publisher has changed its arrays."""
        told = metadata.update({"frame": None, "rx_time": None})
        if told != self._known:
            self._known = told
            self._tell(metadata)
        self._append(arrays)
        self.frames += len(arrays["frame"])

    @abstractmethod
    def close(self) -> None:
        """Completes the file."""

    @abstractmethod
    def _tell(self, metadata: Metadata) -> None: ...

    @abstractmethod
    def _append(self, arrays: Mapping[str, np.ndarray]) -> None: ...

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class JsonlArchive(Archive):
    """See the module."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 until close()

    def close(self) -> None:
        self._file.close()

    def _tell(self, metadata: Metadata) -> None:
        self._line({"metadata": metadata.to_dict()})

    def _append(self, arrays: Mapping[str, np.ndarray]) -> None:
        if "activity" not in arrays:
            raise FormatError("packed samples do not say who is active, which is all that .jsonl holds: choose .npz")
        for row, found in enumerate(active(arrays)):
            users, activity = np.flatnonzero(found), arrays["activity"][row]
            known = {"frame": int(arrays["frame"][row]), "active": users.tolist()}
            known["activity"] = [round(float(value), 4) for value in activity[users]]
            if "odds" in arrays:
                known["sequence"] = arrays["odds"][row, users].argmax(-1).tolist()
            self._line(known)

    def _line(self, entry: Mapping[str, object]) -> None:
        self._file.write(json.dumps(entry) + "\n")


class NpzArchive(Archive):
    """See the module. Until `close` each array grows in a file of its own, in a hidden folder beside ``path``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        self._metadata = open(self._folder / "metadata.jsonl", "w", encoding="utf-8")  # noqa: SIM115 until close()
        self._files: dict[str, IO[bytes]] = {}
        self._layout: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}

    def close(self) -> None:
        """Packs the arrays; without frames nothing is left."""
        if not self._folder.exists():
            return
        self._metadata.close()
        for file in self._files.values():
            file.close()
        if self.frames:
            whole = self._folder / "whole.npz"  # the dot: no array can have that name
            self._pack(whole)
            os.replace(whole, self.path)
        shutil.rmtree(self._folder)

    def _tell(self, metadata: Metadata) -> None:
        self._metadata.write(json.dumps({"row": self.frames, **metadata.to_dict()}) + "\n")

    def _append(self, arrays: Mapping[str, np.ndarray]) -> None:
        layout = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        if not self._layout:
            self._layout = layout
            self._files = {name: open(self._folder / name, "wb") for name in layout}  # noqa: SIM115 until close()
        if layout != self._layout:
            raise FormatError("the publisher changed the size of its arrays: write into another file from here on")
        for name, array in arrays.items():
            self._files[name].write(np.ascontiguousarray(array).data)

    def _pack(self, target: Path) -> None:
        with zipfile.ZipFile(target, "w") as packed:
            for name, (dtype, shape) in self._layout.items():
                with packed.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self.frames, *shape)}
                    np.lib.format.write_array_header_1_0(member, header)
                    _copy(self._folder / name, member, self.frames * int(np.prod(shape)) * dtype.itemsize)
            packed.write(self._folder / "metadata.jsonl", "metadata.jsonl")


KINDS: dict[str, type[Archive]] = {".npz": NpzArchive, ".jsonl": JsonlArchive}


def open_archive(path: str | Path) -> Archive:
    """The archive for the ending of ``path``. Raises ConfigError for an ending that is in no list."""
    path = Path(path)
    if path.suffix not in KINDS:
        raise ConfigError(f"{path} does not end in one of {', '.join(KINDS)}: choose .npz for arrays or .jsonl for text")
    return KINDS[path.suffix](path)


def _copy(source: Path, target: IO[bytes], size: int) -> None:
    """Exactly ``size`` bytes: a write that was interrupted has left more in one array than in another."""
    with open(source, "rb") as stream:
        while size:
            piece = stream.read(min(size, 1 << 20))
            target.write(piece)
            size -= len(piece)
