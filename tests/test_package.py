"""The wheel and the source distribution: built once, without a network, and looked into."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "python"
GRC = "share/gnuradio/grc/blocks"
WEIGHTS = ("index.toml", "planted.safetensors")
PARTS = ("pyproject.toml", "README.md", "LICENSE", "python", "grc")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two distributions, built from a copy: the tree stays clean, and stale build folders do not leak in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    weights = source / "python" / "massaccess" / "weights"  # trained networks travel like this: planted, whether some ship yet or not
    weights.mkdir(exist_ok=True)
    for name in WEIGHTS:
        (weights / name).write_text("planted")
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="session")
def wheel(built: Path) -> list[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return archive.namelist()


def shipped(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(PYTHON).as_posix() for path in (PYTHON / folder).rglob(pattern) if "__pycache__" not in path.parts}


@pytest.mark.parametrize("pattern", ["*.py", "*.npz", "*.toml", "*.safetensors"])
def test_wheel_holds_the_library(wheel: list[str], pattern: str) -> None:
    assert shipped("massaccess", pattern) <= set(wheel)


def test_wheel_holds_the_banks(wheel: list[str]) -> None:
    assert {"massaccess/data/uma_nlos_8x8.npz", "massaccess/data/florence_8x8.npz"} <= set(wheel)


def test_wheel_holds_weights_and_their_index(wheel: list[str]) -> None:
    assert {f"massaccess/weights/{name}" for name in WEIGHTS} <= set(wheel)


def test_wheel_holds_the_blocks(wheel: list[str]) -> None:
    blocks = shipped("gnuradio", "*.py")
    assert blocks
    assert blocks <= set(wheel)


def test_wheel_holds_the_block_descriptions(wheel: list[str]) -> None:
    described = {path.name for path in (ROOT / "grc").glob("*.yml")}
    assert described
    assert described == {name.rpartition("/")[2] for name in wheel if f".data/data/{GRC}/" in name}


def test_wheel_leaves_gnuradio_alone(wheel: list[str]) -> None:
    assert "gnuradio/__init__.py" not in wheel
    assert all(name.startswith("gnuradio/massaccess/") for name in wheel if name.startswith("gnuradio/"))


def test_wheel_holds_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.startswith("massaccess-")} == {"gnuradio", "massaccess"}
    assert not [name for name in wheel if name.endswith((".pyc", ".nbi", ".nbc"))]


def test_wheel_has_the_command(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "massaccess = massaccess.cli:main" in archive.read(entry).decode()


def test_source_distribution_can_make_the_wheel(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "python/massaccess/core.py"} <= names
    assert {f"grc/{path.name}" for path in (ROOT / "grc").glob("*.yml")} <= names
