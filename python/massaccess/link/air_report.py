"""What a broker tells of its air: counters, events, and the truth of each slot, for whoever measures a receiver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import SystemConfig
from ..errors import FormatError
from ..forward.air import burst_of
from ..forward.modulation import constellation
from ..forward.waveform import matched, to_rows
from .wire import Message


@dataclass(frozen=True)
class Event:
    """Something that happened to ``who`` ("user 3", "base station", "broker") in slot ``slot``."""

    slot: int
    who: str
    what: str

    def __str__(self) -> str:
        return f"slot {self.slot}: {self.who} {self.what}"


@dataclass(frozen=True)
class SlotReport:
    """The truth of consecutive slots: frame [B] uint64, active [B N] bool, bits [B N C] uint8 (0 where nobody sent), and the broker's
    counters so far."""

    frame: np.ndarray
    active: np.ndarray
    bits: np.ndarray
    counters: Mapping[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        """As a message has it."""
        return {
            "frame": self.frame,
            "sent": self.active.astype(np.uint8),
            "bits": np.packbits(self.bits, axis=-1),
            "report": np.frombuffer(json.dumps(self.counters).encode(), np.uint8),
        }

    @classmethod
    def of(cls, message: Message, width: int) -> SlotReport:
        """The inverse of `arrays`, for ``width`` bits of a user and slot. Raises FormatError for another message."""
        frame, sent, packed = (message[name] for name in ("frame", "sent", "bits"))
        if frame.ndim != 1 or sent.ndim != 2 or len(sent) != len(frame) or packed.shape != (*sent.shape, -(-width // 8)):
            raise FormatError(f"sent is {list(sent.shape)} and bits {list(packed.shape)}: not from a broker of this system")
        try:
            counters = json.loads(message["report"].tobytes())
        except (ValueError, RecursionError):
            raise FormatError("the report is not JSON: the sender is broken") from None
        if not isinstance(counters, dict):
            raise FormatError("the report is no object: the sender is broken")
        return cls(frame, sent.astype(bool), np.unpackbits(packed, axis=-1, count=width), counters)


def sent(config: SystemConfig, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Who sends in each slot [B N] bool and which bits [B N C] uint8, by what users' transmitters put out [B slot_samples N], in step with
    the slots and without noise: the truth whoever the users are.

    Bits are those of the data of the burst, as they are on the air; 0 for users that are silent.
    """
    burst, points = burst_of(config), constellation(config.modulation)
    active = (samples != 0).any(1)
    bits = torch.zeros(*active.shape, config.data_len * points.bits_per_symbol, dtype=torch.uint8)
    awake = active.any(0).nonzero().flatten()
    if len(awake) and len(samples):
        data = matched(to_rows(samples[:, :, awake], burst), burst)[:, burst.pilot_len :]
        bits[:, awake] = points.decide(data.transpose(1, 2)) * active[:, awake, None]
    return active, bits
