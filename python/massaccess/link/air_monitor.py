"""Compares what a base station finds with what a broker says was sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..core import SystemConfig
from ..forward.modulation import constellation
from .air_report import SlotReport

MOST_WAITING = 4096  # slots whose other half has not come
THRESHOLD = 0.5


class Tally:
    """Counts slot by slot: bursts that were sent, and missed of them; users taken to be active that were silent, false_alarms; bursts that
    were found with wrong bits before decoding, wrong; bits and bit_errors of those that were found."""

    def __init__(self, config: SystemConfig) -> None:
        self.width = config.data_len * constellation(config.modulation).bits_per_symbol
        self._points, self._users = constellation(config.modulation), config.users
        self._sent: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._found: OrderedDict[int, tuple[np.ndarray, np.ndarray | None]] = OrderedDict()
        self.counts = dict.fromkeys(("slots", "bursts", "missed", "false_alarms", "wrong", "bits", "bit_errors", "unpaired"), 0)
        self.broker: Mapping[str, Any] = {}
        self._code = config.code
        self._payloads: int | None = None

    def decoded(self, payloads: int) -> None:
        """Takes how many payloads of coded bursts came out of the base station's decoder in all."""
        self._payloads = payloads

    def sent(self, report: SlotReport) -> None:
        """Takes what a broker said."""
        self.broker = report.counters
        for row, frame in enumerate(report.frame.tolist()):
            self._sent[frame] = report.active[row], report.bits[row]
            self._compare(frame)

    def found(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes what `massaccess.link.archive.results` found in a message of a base station."""
        active = arrays["activity"] > THRESHOLD
        symbols = arrays.get("symbols")
        for row, frame in enumerate(arrays["frame"].tolist()):
            bits = None if symbols is None else self._points.decide(torch.from_numpy(symbols[row].T.copy())).numpy()
            self._found[frame] = active[row], bits
            self._compare(frame)

    def rates(self) -> dict[str, float | None]:
        """p_md, p_fa, ber of bursts that were found, and fer: bursts that were missed or have wrong bits, or with a code what `decoded`
        says. None where nothing was sent, or is known."""
        c = self.counts
        lost: int | None = c["missed"] + c["wrong"]
        if self._code != "none":
            lost = None if self._payloads is None else max(c["bursts"] - self._payloads, 0)
        silent = c["slots"] * self._users - c["bursts"]
        return {
            "p_md": c["missed"] / c["bursts"] if c["bursts"] else None,
            "p_fa": c["false_alarms"] / silent if silent else None,
            "ber": c["bit_errors"] / c["bits"] if c["bits"] else None,
            "fer": lost / c["bursts"] if lost is not None and c["bursts"] and c["bits"] else None,
        }

    def _compare(self, frame: int) -> None:
        if frame in self._sent and frame in self._found:
            self._count(*self._sent.pop(frame), *self._found.pop(frame))
        for waiting in (self._sent, self._found):
            while len(waiting) > MOST_WAITING:
                waiting.popitem(last=False)
                self.counts["unpaired"] += 1

    def _count(self, active: np.ndarray, sent: np.ndarray, found: np.ndarray, bits: np.ndarray | None) -> None:
        counts, both = self.counts, active & found
        counts["slots"] += 1
        counts["bursts"] += int(active.sum())
        counts["missed"] += int((active & ~found).sum())
        counts["false_alarms"] += int((found & ~active).sum())
        if bits is not None:
            errors = (sent[both] != bits[both]).sum(1)
            counts["wrong"] += int((errors > 0).sum())
            counts["bits"] += int(both.sum()) * self.width
            counts["bit_errors"] += int(errors.sum())
