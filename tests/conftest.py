"""Shared by all tests: which marks run, how many threads, and seeds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two workers share two cores
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import torch

torch.set_num_threads(1)


def _map_ring_buffers() -> None:
    """Lets GNU Radio keep its buffers in mapped files. By default they are System V segments: a machine has 4,096 of them, and flowgraphs
    that a test worker has run keep theirs, because Python blocks with message handlers are never freed."""
    home, factory = Path(tempfile.gettempdir()) / f"massaccess-tests-{os.getuid()}", "gr::vmcircbuf_mmap_shm_open_factory"
    chosen = home / ".gnuradio" / "prefs" / "vmcircbuf_default_factory"
    chosen.parent.mkdir(parents=True, exist_ok=True)
    if not chosen.exists() or chosen.read_text() != factory:
        chosen.write_text(factory)
    os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    os.environ["HOME"] = str(home)


_map_ring_buffers()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run when asked for with -m; GPU tests where there is a GPU."""
    asked = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("slow") and "slow" not in asked:
            item.add_marker(pytest.mark.skip(reason="slow: pass -m slow"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The library takes generators; this is for what a test itself draws."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
