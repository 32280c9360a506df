"""The description of a burst on the air, the same for transmitter and receiver: what lies where in a slot, and how it is shaped.

A slot is ``guard_len // 2`` silent symbols, preamble, pilots, data, and silence for the rest of the guard. All lengths are symbols. The
first preamble symbol peaks at the sample ``lead * samples_per_symbol`` of its slot; slot n begins n * `slot_samples` samples after slot 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

ROW_RATE = 2
"""Rows a symbol that receivers get: two hold all of a pulse whose roll-off is at most 1."""

LEAST_GUARD = 4
"""Symbols: shorter guards would let bursts of users that are half a symbol apart run into one another."""


@dataclass(frozen=True)
class Burst:
    """Lengths [symbols] of a burst, ``samples_per_symbol`` and ``roll_off`` of its root-raised-cosine pulse.

    Raises ConfigError when they do not make a burst.

    >>> burst = Burst(pilot_len=32, data_len=96, preamble_len=16, guard_len=8, samples_per_symbol=4)
    >>> burst.slot_len, burst.slot_samples, burst.rows
    (152, 608, 304)
    """

    pilot_len: int
    data_len: int
    preamble_len: int = 16
    guard_len: int = 8
    samples_per_symbol: int = 4
    roll_off: float = 0.25

    def __post_init__(self) -> None:
        _require(self.samples_per_symbol >= ROW_RATE, f"samples_per_symbol is {self.samples_per_symbol}: pass {ROW_RATE} or more")
        _require(0 < self.roll_off <= 1, f"roll_off is {self.roll_off}: pass more than 0, up to 1")
        _require(self.preamble_len >= 0 and self.preamble_len % 2 == 0, f"preamble_len is {self.preamble_len}: pass an even count, or 0")
        _require(self.guard_len >= LEAST_GUARD, f"guard_len is {self.guard_len}: pass {LEAST_GUARD} silent symbols or more")

    @property
    def known(self) -> int:
        """Symbols that a receiver knows beforehand: preamble and pilots."""
        return self.preamble_len + self.pilot_len

    @property
    def symbols(self) -> int:
        """Symbols of a burst: preamble, pilots, data."""
        return self.known + self.data_len

    @property
    def slot_len(self) -> int:
        """Symbols of a slot, with the guard."""
        return self.symbols + self.guard_len

    @property
    def lead(self) -> int:
        """Silent symbols at the beginning of a slot."""
        return self.guard_len // 2

    @property
    def slot_samples(self) -> int:
        """Samples of a slot."""
        return self.slot_len * self.samples_per_symbol

    @property
    def rows(self) -> int:
        """Rows of a frame as receivers get it: two a symbol."""
        return self.slot_len * ROW_RATE

    @property
    def reference(self) -> float:
        """The instant [symbols of the slot] at which channels are told, and where carriers turn nothing: the middle of what is known."""
        return self.lead + (self.known - 1) / 2


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
