"""The weights file: safetensors, with one JSON document in its header. Nothing is ever unpickled.

Tensors: ``network.*`` (the trained state, which a network with a method ``verify()`` checks itself), ``covariance`` [M M 2] (E[h h^H] of
the training channels, real and imaginary parts) and ``calibration`` [S 1+M] (noise variances, rising, and the error variance of each beam
there); the last two for rows only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import __version__
from ..errors import ConfigError, FormatError, MassaccessError, NotFiniteError, ShapeError
from ..networks import DETECTORS, NETWORKS, NONCOHERENT, build

FORMAT = "massaccess-weights/1"
KINDS = ("channel", "matrix", "activity", "noncoherent")
"""A prior of antenna rows; a prior of whole matrices [users antennas]; an activity detector; a detector of index-modulated sequences."""
PREFIX = "network."
MOST_USERS = 65_536  # of a book that a weights file names


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself.

    network: key of `networks.NETWORKS`; config: its constructor arguments; kind: one of `KINDS`; rows, columns: the array (0 for other
    kinds than "channel": any); channel: what it was trained on; recipe, seed: how; metrics: how well, on held-out training channels
    (``snr_db``, ``nmse_db``, ``lmmse_db``: denoising in white noise; of kind "activity": ``pilots``, ``aep`` and ``log_loss`` by channel;
    of kind "noncoherent": ``ser`` and ``log_loss`` in the cell ``system``; ``device``: where); pilots: of detectors, ``book`` "redrawn"
    (any will do) or "fixed" (that of ``kind``, ``seed``, ``users``), the ``shortest`` and ``longest`` that it was trained with, of kind
    "noncoherent" also ``energy`` and ``id`` of the book; created_with: version of this package.
    """

    network: str
    config: Mapping[str, Any]
    kind: str = "channel"
    rows: int = 0
    columns: int = 0
    channel: str = ""
    recipe: str = ""
    seed: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    pilots: Mapping[str, Any] = field(default_factory=dict)
    created_with: str = __version__
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise FormatError(f"format is {self.format!r:.40}, not {FORMAT}: take a version of massaccess that knows it, or train again")
        if self.network not in NETWORKS or self.kind not in KINDS:
            raise FormatError(f"network {self.network!r:.40} of kind {self.kind!r:.40} is unknown here: a newer version may know it")
        for kind, networks in (("activity", DETECTORS), ("noncoherent", NONCOHERENT)):
            if (self.kind == kind) != (self.network in networks):
                raise FormatError(f"network {self.network!r} is none of kind {self.kind!r}: train again")
        whole = all(isinstance(value, int) and 0 <= value <= 4096 for value in (self.rows, self.columns))
        if not whole or (self.kind == "channel") != (self.rows * self.columns > 0):
            raise FormatError(
                f"the array is {self.rows!r:.20} by {self.columns!r:.20}: rows and columns are 1 or more, for a matrix prior and "
                "for an activity detector 0"
            )
        if not all(isinstance(one, Mapping) for one in (self.config, self.metrics, self.pilots)):
            raise FormatError("config, metrics and pilots of the header are no JSON objects: train again")
        named = self.kind != "noncoherent" or all(isinstance(self.pilots.get(name), str) for name in ("id", "energy"))
        if (self.kind in ("activity", "noncoherent")) != _names_a_book(self.pilots) or not named:
            raise FormatError(f"the header of kind {self.kind!r} says {dict(self.pilots)!s:.80} of pilots: train again")

    @property
    def antennas(self) -> int:
        return self.rows * self.columns

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Header:
        """FormatError unless ``text`` is a header of this version."""
        try:
            document = {"pilots": {}, **json.loads(text)}  # which is younger than the format
            return cls(**{item.name: document[item.name] for item in dataclasses.fields(cls)})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, MassaccessError):
                raise
            raise FormatError(f"the header is not that of {FORMAT} ({type(error).__name__}: {error!s:.80}): train again") from error


def _names_a_book(pilots: Mapping[str, Any]) -> bool:
    book, users = pilots.get("book"), pilots.get("users")
    if book != "fixed":
        return bool(book == "redrawn")
    whole = isinstance(users, int) and 1 <= users <= MOST_USERS and isinstance(pilots.get("seed"), int)
    return whole and isinstance(pilots.get("kind"), str)


@dataclass(frozen=True, eq=False)
class Trained:
    """A weights file in memory: header, network state by name, covariance [M M] complex, calibration [S 1+M], sha256 of the file."""

    header: Header
    state: Mapping[str, Tensor] = field(repr=False)
    covariance: Tensor | None = field(default=None, repr=False)
    calibration: Tensor | None = field(default=None, repr=False)
    sha256: str = ""

    @functools.cached_property
    def network(self) -> nn.Module:
        """The network with these weights, on the CPU, in evaluation mode and without gradients; FormatError when they do not fit."""
        return self.build()

    def build(self) -> nn.Module:
        """A new copy of `network`."""
        try:
            _same_array(self.header)
            with torch.device("meta"):  # takes no memory, whatever sizes the header asks for
                _same_shapes(build(self.header.network, self.header.config), self.state)
            with torch.random.fork_rng(devices=[]):
                network = build(self.header.network, self.header.config)
            network.load_state_dict(dict(self.state))
            if hasattr(network, "verify"):
                network.verify()  # type: ignore[operator]
        except (ImportError, ValueError, RuntimeError, MemoryError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            raise FormatError(
                f"the tensors are not those of {self.header.network} with {dict(self.header.config)!s:.200} ({error!s:.200}): "
                "take the file and the version of massaccess that belong together"
            ) from error
        return network.eval().requires_grad_(False)


def _same_array(header: Header) -> None:
    for name in ("rows", "columns"):
        if header.kind == "channel" and header.config.get(name) != getattr(header, name):
            raise ShapeError(f"{name} of the network is {header.config.get(name)!r:.20}, of the array {getattr(header, name)}")


def _same_shapes(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    wanted, found = ({name: tuple(value.shape) for name, value in one.items()} for one in (network.state_dict(), state))
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        name = different[0]
        raise ShapeError(f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'in this network')}")


def save(
    path: str | Path, network: nn.Module, header: Header, *, covariance: Tensor | None = None, calibration: Tensor | None = None
) -> Path:
    """Writes a weights file that `read` takes; it appears whole or not at all.

    Raises ConfigError for a name that does not end in .safetensors or has no folder, NotFiniteError when a tensor holds NaN or infinity.
    """
    tensors = {PREFIX + name: value for name, value in network.state_dict().items()}
    if header.kind == "channel":
        if covariance is None or covariance.shape != (header.antennas, header.antennas):
            raise ConfigError(
                f"a prior of rows needs the covariance of its channels: pass covariance [{header.antennas} {header.antennas}]"
            )
        tensors["covariance"] = torch.view_as_real(covariance.to(torch.complex64))
    if calibration is not None:
        tensors["calibration"] = calibration
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise NotFiniteError(f"{name} holds NaN or infinity: the training diverged; lower its rate, or clip more")
    return write(Path(path), tensors, {"massaccess": header.to_json()})


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """A safetensors file, written beside ``path`` and renamed."""
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise ConfigError(f"cannot write tensors to {path}: pass a name that ends in .safetensors, in a folder that exists")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, name, metadata)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


def read_tensors(path: str | Path, what: str = "weights file") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; ConfigError when there is none, FormatError when it is damaged or something else."""
    if not Path(path).is_file():
        raise ConfigError(f"no {what} at {path}: check the path, or see `massaccess weights` for what ships")
    try:
        with safe_open(str(path), "pt") as stored:
            # copies: what lies in the file begins at any multiple of 8 bytes, and linear algebra of complex numbers crashes there
            return {key: stored.get_tensor(key).clone() for key in stored.keys()}, stored.metadata() or {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, MemoryError) as error:
        raise FormatError(f"{path} is not a whole safetensors file ({error!s:.120}): copy it again, or train again") from error


def read(path: str | Path, *, sha256: str | None = None) -> Trained:
    """The weights file at ``path``, checked: header, names and shapes of the tensors, finite numbers, and ``sha256`` where it is given.

    Raises ConfigError when there is no file, FormatError when it is damaged, foreign, or not the one that was meant.
    """
    tensors, metadata = read_tensors(path)
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if sha256 is not None and found != sha256:
        raise FormatError(f"{path} is not the file that shipped (sha256 {found[:12]}, not {sha256[:12]}): install massaccess again")
    if "massaccess" not in metadata:
        raise FormatError(
            f"{path} is not a weights file of massaccess: its header has no 'massaccess' entry; make one with `massaccess train`"
        )
    try:
        trained = _checked(Header.from_json(metadata["massaccess"]), tensors, found)
        trained.network
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return trained


def _checked(header: Header, tensors: Mapping[str, Tensor], sha256: str) -> Trained:
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise FormatError(f"{name} holds NaN or infinity: train again")
    antennas = header.antennas
    covariance, calibration = tensors.get("covariance"), tensors.get("calibration")
    if header.kind == "channel" and (covariance is None or covariance.shape != (antennas, antennas, 2)):
        raise FormatError(f"covariance is missing or not [{antennas} {antennas} 2]: train again")
    if calibration is not None and not _is_table(calibration, antennas):
        raise FormatError(f"calibration is {list(calibration.shape)}, not [levels {antennas + 1}] of positive numbers, levels rising")
    state = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    return Trained(header, state, None if covariance is None else torch.view_as_complex(covariance.float()), calibration, sha256)


def _is_table(table: Tensor, antennas: int) -> bool:
    fits = table.ndim == 2 and table.shape[1] == antennas + 1 and len(table) > 1 and table.is_floating_point()
    return fits and bool((table > 0).all() and (table[:, 0].diff() > 0).all()) and math.isfinite(float(table.sum()))
