"""The command as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Massaccess = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def massaccess() -> Massaccess:
    """Runs ``massaccess`` with arguments in a process of its own; keyword arguments go to `subprocess.run`."""

    def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", "from massaccess.cli import main; main()", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload, no-any-return]

    return call
