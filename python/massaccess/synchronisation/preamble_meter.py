"""What the rows of one slot tell: whether a preamble is there, how late and how fast it turns, and how strong noise and signal are.

All users send the same preamble, two equal halves. The correlations c1, c2 of every antenna with the halves, at lags around the nominal
instant, are those of the same channels, turned by the carrier offset. So conj(c1) c2, summed over antennas and lags (non-coherent between
antennas, whose phases differ), has the phase of the offset over half a preamble, and over the lags the weight of the users' delays; noise
and data average out in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..burst import ROW_RATE, Burst
from ..forward.waveform import modulate, preamble

REACH = 2  # rows: lags of a symbol either side, for users half a symbol apart
EDGE = 0.5  # weight of the first and last symbol of a half: what is beside them is not the same in both
DELAYS = (-0.4, -0.2, 0.0, 0.2, 0.4)  # symbols: in the middle of fifths of what users are spread over
QUIET = 10 ** (-2.2)  # rows with less of a burst's power are guard
CHANCE = 1e-2  # that noise passes the test of coherence alone; that of energy lets less pass
DEVIATIONS = 3.0  # by which energy must exceed that of noise
FREEDOM = 3  # independent lags among those that are summed: pulses are about two rows wide


class SlotMeasure(NamedTuple):
    """Of one slot: ``turn``, the sum of conj(c1) c2 (phase: carrier offset over half a preamble) relative to the correlations' energy, at
    most 1; ``late`` [symbols], the mean delay of the users by power; ``energy`` of the correlations per antenna and lag, in units of a
    row's; ``guard`` and ``whole``, mean power of the guard's rows and of all."""

    turn: complex
    late: float
    energy: float
    guard: float
    whole: float


@dataclass(frozen=True)
class PreambleMeter:
    """Measures slots of a ``burst`` at ``antennas`` antennas."""

    burst: Burst
    antennas: int

    @property
    def span(self) -> float:
        """Symbols between the halves."""
        return self.burst.preamble_len / 2

    @cached_property
    def templates(self) -> np.ndarray:
        """[halves lags rows] complex64: the halves as rows, conjugated, at each lag."""
        burst, half = self.burst, self.burst.preamble_len // 2
        symbols = torch.zeros(1, burst.symbols, 1, dtype=torch.complex64)
        symbols[0, :half, 0] = preamble(burst)[:half]
        symbols[0, [0, half - 1], 0] *= EDGE
        rows = modulate(symbols, burst, rate=ROW_RATE)[0, :, 0].conj().resolve_conj().numpy()
        lags = range(-REACH, REACH + 1)
        return np.stack([np.stack([np.roll(rows, lag + shift) for lag in lags]) for shift in (0, ROW_RATE * half)])

    @cached_property
    def _strength(self) -> float:
        """Energy of a half."""
        return float(np.vdot(self.templates[0, REACH], self.templates[0, REACH]).real)

    @cached_property
    def profile(self) -> np.ndarray:
        """Mean power of each row [rows], that of the middle being 1, when bursts of random symbols have delays up to half a symbol."""
        symbols = torch.eye(self.burst.symbols, dtype=torch.complex64)[None]
        power = [
            modulate(symbols, self.burst, delay=torch.full((1, self.burst.symbols), late), rate=ROW_RATE)[0].abs().square().sum(1)
            for late in DELAYS
        ]
        return ROW_RATE * torch.stack(power).mean(0).numpy()

    @cached_property
    def quiet(self) -> np.ndarray:
        """Indices of the guard's rows, where a burst has nearly no power; at least the quietest row."""
        return np.flatnonzero(self.profile <= max(QUIET, float(self.profile.min())))

    @property
    def leak(self) -> tuple[float, float]:
        """Shares of a burst's power that the guard's rows and all rows have."""
        return float(self.profile[self.quiet].mean()), float(self.profile.mean())

    @cached_property
    def bias(self) -> tuple[complex, float]:
        """Phasor of the turn, and delay [rows], that users spread evenly around the grid, without any carrier offset, seem to have: before
        the first half is silence, and after the second are pilots."""
        symbols = torch.zeros(1, self.burst.symbols, len(DELAYS), dtype=torch.complex64)
        symbols[0, : self.burst.preamble_len] = preamble(self.burst)[:, None]
        rows = modulate(symbols, self.burst, delay=torch.tensor([DELAYS]), rate=ROW_RATE)[0].numpy()
        first, second = self.templates @ rows
        turns = np.einsum("lm,lm->l", first.conj(), second)
        turn = complex(turns.sum())
        return turn / abs(turn), _late(turns, turn)

    def __call__(self, rows: np.ndarray) -> SlotMeasure:
        """``rows`` [rows antennas] complex64, contiguous, in step with the slot as far as that is known."""
        seen = self.templates @ rows  # [halves lags antennas]
        turns = np.einsum("lm,lm->l", seen[0].conj(), seen[1]) * self.bias[0].conjugate()
        energy = float(np.vdot(seen, seen).real) / 2
        turn = complex(turns.sum())
        late = (_late(turns, turn) - self.bias[1]) / ROW_RATE
        parts = rows.view(np.float32)
        power = np.einsum("tm,tm->t", parts, parts)
        guard, whole = float(power[self.quiet].mean()) / self.antennas, float(power.mean()) / self.antennas
        scale = energy / (self.antennas * (2 * REACH + 1) * self._strength)
        return SlotMeasure(turn / energy if energy > 0 else 0j, late, scale, guard, whole)

    def found(self, seen: SlotMeasure, noise_var: float) -> bool:
        """Whether a preamble is there: more energy than noise has, and both halves alike. Noise passes in less than one slot of 1,000."""
        enough = 1 + DEVIATIONS / math.sqrt(2 * FREEDOM * self.antennas)
        alike = 1 - CHANCE ** (1 / (FREEDOM * self.antennas - 1))
        return seen.energy > enough * noise_var and abs(seen.turn) ** 2 > alike

    def crowded(self, seen: SlotMeasure, noise_var: float) -> bool:
        """Whether there is power that noise does not explain."""
        return seen.whole > noise_var * (1.25 + DEVIATIONS / math.sqrt(self.burst.rows * self.antennas))


def _late(turns: np.ndarray, turn: complex) -> float:
    """The mean lag [rows], weighted by what each lag gives to the ``turn`` of all; 0 where it cannot be told."""
    weights = (turns * np.conj(turn)).real
    total = float(weights.sum())
    return float(weights @ np.arange(-REACH, REACH + 1)) / total if total > 0 else 0.0
