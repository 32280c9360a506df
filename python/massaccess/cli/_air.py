"""All processes of a virtual air under one roof, and what their monitor shows."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..core import SystemConfig
from ..errors import FormatError
from ..forward.impairments import Impairments
from ..link.air_monitor import Tally
from ..link.air_report import SlotReport
from ..link.archive import results
from ..link.listener import Listener
from ._live import RATES, _number, _terminate_like_interrupt
from ._processes import Process, end_all
from .run import headline

TICK_SECONDS = 0.02
REFRESH_SECONDS = 0.5
MOST_RESTARTS = 10
AT_ONCE = 64  # messages that are read before the processes are looked at


class Launcher:
    """Starts users, broker and base station in ``folder``, follows what they tell, and ends them. ``options`` are those of the verb."""

    def __init__(self, config: SystemConfig, folder: Path, options: Mapping[str, Any]) -> None:
        self.config, self.folder, self.options = config, folder, options
        self.tally = Tally(config)
        self.failures: list[str] = []
        self.bad = 0
        self.seconds = 0.0
        (folder / "system.toml").write_text(config.to_toml())
        self._console = Console(stderr=True)
        self._processes = [*self._users(), self._broker(), self._base()]
        self._listeners: dict[str, Listener] = {}

    def run(self) -> bool:
        """Whether Ctrl-C, or SIGTERM, ended it."""
        began, shown_at = time.monotonic(), 0.0
        live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        restore = _terminate_like_interrupt()
        try:
            if live:
                live.start()
            for process in self._processes:
                process.start()
            while not self._over():
                self._listen()
                self.seconds = time.monotonic() - began
                if live and time.monotonic() - shown_at > REFRESH_SECONDS:
                    shown_at = time.monotonic()
                    live.update(self._table(), refresh=True)
            return False
        except KeyboardInterrupt:
            return True
        finally:
            if live:
                live.stop()
            end_all(self._processes)
            self._drain()
            for listener in self._listeners.values():
                listener.close()
            self._base_report = self._read(self.folder / "base.json")
            if (payloads := self._base_report.get("flowgraph", {}).get("payloads")) is not None:
                self.tally.decoded(payloads)
            restore()

    def report(self) -> dict[str, Any]:
        """All that was counted."""
        return {
            "config": self.config.to_dict(),
            "version": __version__,
            "seed": self.options["seed"],
            "seconds": self.seconds,
            "monitor": {**self.tally.counts, **self.tally.rates(), "bad_messages": self.bad},
            "broker": self.tally.broker,
            "base": self._base_report.get("flowgraph", {}),
            "processes": {process.name: {"deaths": process.deaths, "reason": process.reason} for process in self._processes},
            "failures": self.failures,
        }

    def show(self, report: Mapping[str, Any]) -> None:
        """The report, for people."""
        base = report["base"]
        coded = {"payloads": f"{base['payloads']} received, {base['failed_crc']} failed the CRC"} if "payloads" in base else {}
        facts = {**self._facts(), **coded, "digest": base.get("digest", "")[:16]}
        Console().print(Group(Text(headline(self.config)), self._rows(facts)))

    # --- processes ---

    def _users(self) -> list[Process]:
        count = min(self.options["processes"], self.config.users)
        edges = [self.config.users * place // count for place in range(count + 1)]
        return [
            self._process(
                f"users-{first}-{last - 1}", "air", "user", "--who", f"{first}-{last - 1}", "--bind", self._at("user{user}"), *self._slots()
            )
            for first, last in itertools.pairwise(edges)
        ]

    def _broker(self) -> Process:
        told = ["--users-at", self._at("user{user}"), "--bind", self._at("base"), "--monitor", self._at("sent"), *self._slots()]
        for item in dataclasses.fields(Impairments):
            told += ["--" + item.name.replace("_", "-"), str(self.options[item.name])]
        for name in ("chunk", "patience", "join"):
            told += [f"--{name}", str(self.options[name])]
        return self._process("broker", "air", "broker", *told, vital=True)

    def _base(self) -> Process:
        told = ["--source", "zmq", "--endpoint", self._at("base"), "--publish", self._at("found"), "--json", str(self.folder / "base.json")]
        for name in ("receiver", "record"):
            told += [f"--{name}", self.options[name]] if self.options[name] else []
        for name in ("max_batch", "threads"):
            told += ["--" + name.replace("_", "-"), str(self.options[name])]
        told += ["--overwrite"] if self.options["overwrite"] else []
        told += ["--set", "timeout=0"]
        return self._process("base-station", "receive", *told, vital=True)

    def _process(self, name: str, *arguments: str, vital: bool = False) -> Process:
        told = [*arguments, "--config", str(self.folder / "system.toml"), "--seed", str(self.options["seed"])]
        return Process(name, told, self.folder / f"{name}.log", vital)

    def _slots(self) -> list[str]:
        return ["--slots", str(self.options["slots"])]

    def _at(self, name: str) -> str:
        return f"ipc://{self.folder}/{name}"

    def _over(self) -> bool:
        """Whether all is done, or nothing can go on; tells of those that died."""
        for process in self._processes:
            if process.died():
                self._tell_death(process)
                if self.options["restart"] and process.deaths <= MOST_RESTARTS:
                    process.start()
                elif process.vital:
                    return True
        base = self._processes[-1]
        return base.ended and not base.pid

    def _tell_death(self, process: Process) -> None:
        self.failures.append(f"{process.name} {process.reason}")
        again = self.options["restart"] and process.deaths <= MOST_RESTARTS
        click.echo(f"massaccess: {self.failures[-1]}{'; it is started again' if again else ''}", err=True)

    # --- what they tell ---

    def _listen(self, seconds: float = TICK_SECONDS) -> bool:
        """Reads what there is; whether there was something."""
        heard = False
        for name, take in (("sent", self._take_sent), ("found", self._take_found)):
            listener = self._listener(name)
            for _ in range(AT_ONCE if listener else 0):
                message = listener.poll(0) if listener else None
                if message is None:
                    break
                heard = True
                try:
                    take(message)
                except FormatError:
                    self.bad += 1
        if not heard:
            time.sleep(seconds)
        return heard

    def _listener(self, name: str) -> Listener | None:
        """A connection to a publisher, as soon as it is there."""
        listener = self._listeners.get(name)
        if listener is not None and listener.ended:
            listener.close()
            self._listeners.pop(name)
            listener = None
        if listener is None and (self.folder / name).exists():
            listener = self._listeners[name] = Listener(self._at(name), timeout_s=None, high_water_mark=1024)
        return listener

    def _take_sent(self, message: Any) -> None:
        self.tally.sent(SlotReport.of(message, self.tally.width))

    def _take_found(self, message: Any) -> None:
        self.tally.found(results(message))

    def _drain(self) -> None:
        while self._listen(0.0):
            pass

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    # --- what is shown ---

    def _facts(self) -> dict[str, Any]:
        counts, broker = self.tally.counts, self.tally.broker
        rates = {RATES[name]: rate for name, rate in self.tally.rates().items() if rate is not None}
        return {
            "slots in the air": broker.get("slot", 0),
            "slots compared": f"{counts['slots']}, {counts['slots'] / max(self.seconds, 1e-3):.1f} per second",
            "bursts": f"{counts['bursts']}, {counts['missed']} missed, {counts['wrong']} wrong, {counts['false_alarms']} false alarms",
            **rates,
            "users": f"{broker.get('users_here', 0)} here, {broker.get('users_silent', 0)} silent",
            "silent slots of users": broker.get("silent_slots", 0),
            "malformed answers": broker.get("malformed", 0),
        }

    def _table(self) -> Group:
        rows = self._rows({**self._facts(), **{process.name: self._state(process) for process in self._processes}})
        return Group(Text(f"virtual air, {self.seconds:.0f} s"), rows)

    @staticmethod
    def _rows(facts: Mapping[str, Any]) -> Table:
        shown = Table(show_header=False)
        for name, value in facts.items():
            shown.add_row(name, _number(value))
        return shown

    @staticmethod
    def _state(process: Process) -> str:
        state = f"runs, process {process.pid}" if process.pid else "has ended"
        return f"{state}; {process.reason}" if process.reason else state
