"""Files of channels: reading, writing and inspecting them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, FormatError, NotFiniteError, ShapeError

FLOOR = 1e-12  # eigenvalues below it are rounding: a bank with fewer channels than antennas has zeros


def read_bank(path: str | Path) -> dict[str, Any]:
    """A channel bank as `save_bank` takes it: h [n M] complex64, gain_db [n] float32, train, recipe, covariance [M M] complex64 or None.

    The ``.npz`` file has ``h`` (complex [n, M], or real [n, M, 2]: real and imaginary parts), ``gain_db`` [n], and if it likes ``train``
    (length of the training half, otherwise 0), ``recipe`` (JSON text) and ``covariance``, where the training half stayed behind. Nothing
    is ever unpickled.
    Raises ConfigError when there is no such file, FormatError when it is not a channel bank.
    """
    if not Path(path).is_file():
        raise ConfigError(f"no channel bank at {path}: check the path, or make one with `massaccess channels generate --out FILE.npz`")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(
            f"{path} is not a readable channel bank ({error}): copy it again whole, or remake it with plain arrays"
        ) from error
    return {name: check(arrays, path) for name, check in _CHECKS.items()}


def _checked_h(arrays: dict[str, np.ndarray], path: str | Path) -> np.ndarray:
    h = _required(arrays, "h", path)
    if h.dtype.kind == "f" and h.ndim == 3 and h.shape[2] == 2:
        h = np.ascontiguousarray(h, dtype=np.float32).view(np.complex64)[..., 0]
    if h.dtype.kind != "c" or h.ndim != 2 or h.size == 0:
        raise FormatError(f"h of {path} is {h.dtype} {list(h.shape)}: store complex [n, antennas], or real [n, antennas, 2]")
    return _finite(h, np.complex64, "h", path)


def _checked_gain(arrays: dict[str, np.ndarray], path: str | Path) -> np.ndarray:
    gain_db, count = _required(arrays, "gain_db", path), len(arrays["h"])
    if gain_db.dtype.kind not in "fiu" or gain_db.shape != (count,):
        raise FormatError(f"gain_db of {path} is {gain_db.dtype} {list(gain_db.shape)}: store one real number per channel, [{count}]")
    return _finite(gain_db, np.float32, "gain_db", path)


def _checked_train(arrays: dict[str, np.ndarray], path: str | Path) -> int:
    train, count = arrays.get("train", np.array(0)), len(arrays["h"])
    if train.dtype.kind not in "iu" or train.ndim != 0 or not 0 <= int(train) <= count:
        raise FormatError(f"train of {path} is {train.dtype} {train}: store one integer from 0 to {count}, the length of the training half")
    return int(train)


def _checked_recipe(arrays: dict[str, np.ndarray], path: str | Path) -> dict[str, Any]:
    try:
        return dict(json.loads(str(arrays.get("recipe", "{}"))))
    except (TypeError, ValueError) as error:
        raise FormatError(f"recipe of {path} is not a JSON object ({error}): store it with save_bank") from error


def _checked_covariance(arrays: dict[str, np.ndarray], path: str | Path) -> np.ndarray | None:
    if "covariance" not in arrays:
        return None
    covariance, antennas = arrays["covariance"], arrays["h"].shape[1]
    if covariance.dtype.kind != "c" or covariance.shape != (antennas, antennas):
        raise FormatError(
            f"covariance of {path} is {covariance.dtype} {list(covariance.shape)}: store complex [antennas, antennas], {antennas} here"
        )
    return _finite(covariance, np.complex64, "covariance", path)


def _required(arrays: dict[str, np.ndarray], key: str, path: str | Path) -> np.ndarray:
    if key not in arrays:
        raise FormatError(f"{path} has no array '{key}' (it has {', '.join(sorted(arrays)) or 'none'}): a channel bank needs h and gain_db")
    return arrays[key]


def _finite(values: np.ndarray, dtype: type, key: str, path: str | Path) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number beyond single precision becomes infinity and is refused like one
        single: np.ndarray = values.astype(dtype)
    if not np.isfinite(single).all():
        raise FormatError(f"{key} of {path} holds NaN or infinity: drop those channels before storing the bank")
    return single


_CHECKS = {"h": _checked_h, "gain_db": _checked_gain, "train": _checked_train, "recipe": _checked_recipe, "covariance": _checked_covariance}


def save_bank(
    path: str | Path,
    h: np.ndarray,
    gain_db: np.ndarray,
    train: int,
    recipe: Mapping[str, Any],
    *,
    covariance: np.ndarray | None = None,
    half: bool = True,
) -> Path:
    """Writes a channel bank that `channels.Bank.load` reads; the file appears whole or not at all.

    h complex [n, antennas], mean power 1 per antenna; gain_db [n]; the first ``train`` rows are the training half; ``recipe`` says how
    it was made and must be JSON; ``covariance`` [M M] is E[h h^H] as known from elsewhere, for a bank without a training half.
    ``half`` stores float16 [n, antennas, 2]: half the size of complex64, with a rounding error of -74 dB.
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
    if covariance is not None:
        arrays["covariance"] = np.asarray(covariance, dtype=np.complex64)
        _checked_covariance(arrays, path)
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
