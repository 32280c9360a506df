"""Processes that belong together: started, watched, reported when they die, and all ended with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

GRACE_SECONDS = 5.0
PARENT = "MASSACCESS_PARENT"


@dataclass
class Process:
    """A ``massaccess`` command in a process of its own; its standard error goes to ``log``."""

    name: str
    arguments: Sequence[str]
    log: Path
    vital: bool = False
    deaths: int = 0
    reason: str = ""
    ended: bool = False
    _running: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 for none."""
        return self._running.pid if self._running is not None and self._running.poll() is None else 0

    def start(self) -> None:
        """In a session of its own: Ctrl-C is for the one who started it, which ends the others in order."""
        with open(self.log, "ab") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "massaccess", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {PARENT: str(os.getpid())},
            )
        self.ended = False

    def died(self) -> bool:
        """Whether it has ended since this was asked last, and not well: the reason is in ``reason`` then."""
        if self._running is None or self.ended or (code := self._running.poll()) is None:
            return False
        self.ended = True
        if code == 0:
            return False
        self.deaths += 1
        said = last_line(self.log)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.reason = f"{how}{': ' + said if said and code > 0 else ''}"
        return True

    def end(self, signum: int = signal.SIGTERM) -> None:
        if self.pid and self._running is not None:
            self._running.send_signal(signum)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so long."""
        if self._running is None:
            return True
        try:
            self._running.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True


def end_all(processes: Sequence[Process]) -> None:
    """Asks all to end, the last started first, and makes those that do not."""
    for process in reversed(processes):
        process.end(signal.SIGCONT)  # one that was stopped would not hear anything else
        process.end()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        if not process.wait(deadline - time.monotonic()):
            process.end(signal.SIGKILL)
            process.wait(GRACE_SECONDS)


def orphaned() -> bool:
    """Whether the process that started this one, by `Process.start`, has gone."""
    parent = os.environ.get(PARENT)
    return parent is not None and os.getppid() != int(parent)


def last_line(path: Path) -> str:
    """What a log ends with."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8", "replace")[-4096:].splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1][-300:] if lines else ""
