"""What a fusion centre reports: frames, and what happened to access points."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from ..detection.linear import Symbols
from ..forward.framing import Framing
from ..forward.modulation import constellation
from .fusion_source import Air


@dataclass(frozen=True)
class Event:
    """Something happened to access point ``access_point`` while frame ``frame`` was fused: joined, late, bad, lost, back
    or left."""

    frame: int
    access_point: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"frame {self.frame}: access point {self.access_point} {self.what}: {self.why}"


@dataclass(frozen=True)
class Fused:
    """What the access points agreed on for frames ``start`` and after: symbols [B D N] complex = x + CN(0, symbol_var [B D N]);
    bits [B N C] uint8; payload [B N bytes] uint8 and crc_ok [B N] bool; contributed: access points whose factors count, asked: those that
    were there at the start; seconds it took; bytes that crossed the network."""

    start: int
    symbols: Tensor
    symbol_var: Tensor
    bits: Tensor
    payload: Tensor
    crc_ok: Tensor
    contributed: tuple[int, ...]
    asked: tuple[int, ...]
    seconds: float
    octets: int

    def __len__(self) -> int:
        return len(self.symbols)


def fused(air: Air, start: int, found: Symbols, contributed: Iterable[int], asked: Iterable[int], *, seconds: float, octets: int) -> Fused:
    """Decisions and packets of the symbols that were ``found``."""
    bits = constellation(air.modulation).decide(found.symbols.mT)
    payload, crc_ok = Framing(air.users, bits.shape[-1]).decode(bits)
    return Fused(start, found.symbols, found.symbol_var, bits, payload, crc_ok, tuple(contributed), tuple(asked), seconds, octets)


def summary(events: Iterable[Event]) -> dict[str, int]:
    """How often each kind of event happened."""
    counts: dict[str, int] = {}
    for event in events:
        counts[event.what] = counts.get(event.what, 0) + 1
    return counts
