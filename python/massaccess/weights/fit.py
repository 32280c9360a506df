"""What a stream settles before its first frame: which weights it will use, and whether they fit its array and its channel.

>>> fit("auto", rows=2, columns=2, covariance=None).weights
'gaussian'
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core import Observation
from ..errors import ConfigError, ShapeError
from . import LARGEST_DISTANCE, PROFILES, _distance, _select, choose_activity
from .shipped import INDEX, available, load
from .stored import Trained

HASH_DIGITS = 16


@dataclass(frozen=True)
class Fit:
    """weights: "gaussian", the name of weights that ship, or that of a file (for a prior of matrices also "bernoulli-gaussian");
    digits: the first `HASH_DIGITS` of the sha256 of the file, empty for a closed form; note: what a user should be told, or empty."""

    weights: str
    digits: str = ""
    note: str = ""


def fit(
    name: str, *, rows: int, columns: int, covariance: Tensor | None, kind: str = "channel", network: str = "", index: Path = INDEX
) -> Fit:
    """What a receiver that is told ``weights=name`` will use for an array of rows x columns and the known ``covariance`` [M M].

    "auto" that finds nothing is the closed form, with the reason as a note. Weights by name must fit the covariance, where one is known;
    a file is taken whatever the covariance, with a note. ``kind`` "matrix": a prior of whole matrices, for any array; "activity": a
    detector, whose network is ``network``, for any array; "noncoherent": one of sequences, which checks its sizes itself; "profiles":
    angular profiles.
    Raises UnknownNameError, ConfigError, FormatError (the file is missing, damaged or foreign, the channel another) and ShapeError (the
    array another).
    """
    if kind == "matrix":
        return _of_matrices(name, index)
    if kind == "activity":
        found = choose_activity(name, network, index=index)
        return Fit(_shown(name, found, index), found.sha256[:HASH_DIGITS])
    if kind == "noncoherent":  # "auto" asks for the pilot book too, which the first frame brings
        return Fit(name) if name == "auto" else _of_a_file(name, index)
    networks = PROFILES if kind == "profiles" else ()
    trained, reason = _select(name, _empty(rows * columns, covariance), index, networks)
    if trained is None:
        return Fit("gaussian", note=reason)
    shown, header = _shown(name, trained, index), trained.header
    if (header.rows, header.columns) != (rows, columns):
        raise ShapeError(
            f"weights {shown} are for an array of {header.rows}x{header.columns} antennas, not {rows}x{columns}: "
            "pass weights='auto' or 'gaussian', or train for this array"
        )
    away = 0.0 if covariance is None else _distance(covariance, trained)
    return Fit(shown, trained.sha256[:HASH_DIGITS], _note(name, away, index))


def _empty(antennas: int, covariance: Tensor | None) -> Observation:
    """All that weights are chosen by."""
    samples = torch.zeros(1, 1, antennas, dtype=torch.complex64)
    return Observation(samples, samples[:, :0], samples[0, :, :1], 1.0, channel_cov=covariance)


def _note(name: str, away: float, index: Path) -> str:
    """For weights that are ``away`` from the channel; ConfigError when they were asked for by name."""
    if away <= LARGEST_DISTANCE:
        return ""
    far = f"whose covariance is {away:.2f} away from the known one, {LARGEST_DISTANCE} is allowed"
    shipped = available(index).get(name)
    if shipped is None:
        return f"weights {Path(name).name} were trained on channels {far}; using them because the file was named"
    raise ConfigError(
        f"weights {name} were trained on channels {far}: pass weights='auto' or 'gaussian', or the file to insist: {shipped.path}"
    )


def _of_matrices(name: str, index: Path) -> Fit:
    if name in ("auto", "bernoulli-gaussian"):
        return Fit("bernoulli-gaussian")
    return _of_a_file(name, index)


def _of_a_file(name: str, index: Path) -> Fit:
    trained = load(name, index=index)
    return Fit(_shown(name, trained, index), trained.sha256[:HASH_DIGITS])


def _shown(name: str, trained: Trained, index: Path) -> str:
    """The name of weights that ship, also where "auto" chose them; of others that of the file."""
    names = [key for key, one in available(index).items() if key == name or (name == "auto" and one.sha256 == trained.sha256)]
    return names[0] if names else Path(name).name
