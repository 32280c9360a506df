"""The list of weights that ship: ``index.toml`` beside this file."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError, unknown
from .stored import Trained, read

INDEX = Path(__file__).with_name("index.toml")


@dataclass(frozen=True)
class Shipped:
    """One line of the index: name, path of the file, its sha256, and what it is."""

    name: str
    path: Path
    sha256: str
    summary: str


def available(index: Path = INDEX) -> dict[str, Shipped]:
    """The weights that ship, by name, the default first; FormatError when the index is damaged."""
    return dict(_listed(index, index.stat().st_mtime_ns if index.is_file() else 0))


def load(name: str | Path, *, index: Path = INDEX) -> Trained:
    """Shipped weights by name, or any weights file by its path (ends in .safetensors).

    Raises UnknownNameError (which lists the names), ConfigError when there is no such file, and FormatError when it is damaged.
    """
    shipped = available(index)
    if str(name) in shipped:
        return _cached(shipped[str(name)].path, shipped[str(name)].sha256)
    if Path(name).suffix != ".safetensors":
        raise unknown("weights", str(name), ["auto", "gaussian", "FILE.safetensors", *shipped])
    return _cached(Path(name), None)


def _cached(path: Path, sha256: str | None) -> Trained:
    state = path.stat() if path.is_file() else None
    return _read(path.absolute(), sha256, *((state.st_mtime_ns, state.st_size) if state else (0, 0)))


@functools.lru_cache(maxsize=16)
def _read(path: Path, sha256: str | None, mtime_ns: int, size: int) -> Trained:  # a file that changed is another key
    return read(path, sha256=sha256)


@functools.lru_cache(maxsize=4)
def _listed(index: Path, mtime_ns: int) -> dict[str, Shipped]:
    try:
        lines = tomllib.loads(index.read_text("utf-8")).get("weights", [])
        found = [Shipped(str(line["name"]), index.parent / line["file"], str(line["sha256"]), str(line["summary"])) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{index} is damaged ({error!r:.80}): install massaccess again") from error
    return {one.name: one for one in found}
