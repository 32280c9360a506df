"""Writing and inspecting channel banks; reading is `channels.read_bank`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, NotFiniteError, ShapeError
from .channels import read_bank

FLOOR = 1e-12  # eigenvalues below it are rounding: a bank with fewer channels than antennas has zeros


def save_bank(path: str | Path, h: np.ndarray, gain_db: np.ndarray, train: int, recipe: Mapping[str, Any], *, half: bool = True) -> Path:
    """Writes a channel bank that `channels.Bank.load` reads; the file appears whole or not at all.

    h complex [n, antennas], mean power 1 per antenna; gain_db [n]; the first ``train`` rows are the training half; ``recipe`` says how
    it was made and must be JSON. ``half`` stores float16 [n, antennas, 2]: half the size of complex64, with a rounding error of -74 dB.
    Raises ShapeError, ConfigError or NotFiniteError when the parts do not fit.
    """
    path = Path(path)
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise ConfigError(f"cannot write a channel bank to {path}: pass a name that ends in .npz, in a directory that exists")
    h, gain_db = np.asarray(h, dtype=np.complex64), np.asarray(gain_db, dtype=np.float32)
    if h.ndim != 2 or h.size == 0 or gain_db.shape != h.shape[:1]:
        raise ShapeError(f"h is {list(h.shape)} and gain_db {list(gain_db.shape)}: pass complex [n, antennas] and real [n]")
    if not 0 <= train <= len(h):
        raise ConfigError(f"train is {train} for {len(h)} channels: pass the length of the training half, from 0 to {len(h)}")
    with np.errstate(over="ignore"):  # caught below
        stored = np.stack([h.real, h.imag], axis=-1).astype(np.float16) if half else h
    if not (np.isfinite(stored).all() and np.isfinite(gain_db).all()):
        raise NotFiniteError(
            "h or gain_db holds NaN, infinity or numbers beyond half precision: normalise to mean power 1, or pass half=False"
        )
    arrays = {"h": stored, "gain_db": gain_db, "train": np.array(train), "recipe": np.array(json.dumps(dict(recipe)))}
    return _write_atomic(path, arrays)


def describe_bank(path: str | Path) -> dict[str, Any]:
    """What is in a bank, ready for JSON: sizes, powers, how correlated the antennas are, recipe and hash.

    Eigenvalues are of E[h h^H] over the training half, or over the whole file without one. ``effective_rank`` is (sum of eigenvalues)^2 /
    sum of squares; ``eigenvalues_for_90_percent`` counts the largest ones that hold 90 % of the power; ``condition_db`` is the largest over
    the smallest.
    """
    bank = read_bank(path)
    h, gain_db, train = bank["h"].astype(np.complex128), bank["gain_db"], bank["train"]
    power = np.square(np.abs(h)).sum(-1)
    return {
        "path": str(path),
        "channels": len(h),
        "antennas": h.shape[1],
        "train": train,
        "mean_power": float(power.mean()),
        "power_std": float(power.std()),
        "gain_db_range": [float(gain_db.min()), float(gain_db.max())],
        **_correlation(h[:train] if train else h),
        "recipe": bank["recipe"],
        "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    }


def _correlation(h: np.ndarray) -> dict[str, float | int]:
    values = np.clip(np.linalg.eigvalsh(h.T @ h.conj() / len(h))[::-1], FLOOR, None)
    share = np.cumsum(values) / values.sum()
    return {
        "effective_rank": float(values.sum() ** 2 / np.square(values).sum()),
        "eigenvalues_for_90_percent": int((share < 0.9).sum()) + 1,
        "condition_db": float(10 * np.log10(values[0] / values[-1])),
    }


def _write_atomic(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes beside ``path`` and renames, so that a reader never sees half a file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path
