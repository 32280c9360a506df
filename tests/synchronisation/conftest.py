"""A cell on the air, with its truth: what users send, and what an array gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from massaccess.burst import Burst
from massaccess.forward.waveform import modulate, preamble, to_rows
from massaccess.rng import complex_normal


@dataclass(frozen=True)
class Air:
    """``samples`` [n antennas] of slots that begin ``shift`` samples late; ``clean`` [slots slot_samples antennas] is what they would be
    without shift, common carrier offset and noise of ``noise_var``."""

    burst: Burst
    samples: np.ndarray
    clean: torch.Tensor
    noise_var: float
    shift: int

    def place(self, time: tuple[int, float], rate: float = 1e6) -> float:
        """Which slot begins at a time, if the first sample is at 0: 3.01 is a hundredth of a slot after slot 3."""
        return ((time[0] + time[1]) * rate - self.shift) / self.burst.slot_samples

    def likeness(self, slot: int, rows: np.ndarray) -> float:
        """Correlation of rows with those that a slot makes."""
        wanted = to_rows(self.clean[slot][None], self.burst)[0].numpy()
        return float(abs(np.vdot(wanted, rows)) / (np.linalg.norm(wanted) * np.linalg.norm(rows)))


@pytest.fixture(scope="session")
def air() -> Callable[..., Air]:
    """``air(slots, users=..)``: so many ``users`` awake in every slot but the ``silent`` ones, spread over ``spread`` symbols and
    ``cfo_spread`` cycles per symbol either way, other channels in every slot; ``cfo`` [cycles per symbol] of the array; ``drift`` of the
    users' clocks."""

    def make(
        slots: int,
        *,
        users: int = 16,
        antennas: int = 16,
        snr_db: float = 15.0,
        cfo: float = 0.0,
        spread: float = 0.5,
        cfo_spread: float = 0.001,
        shift: int = 0,
        drift: float = 0.0,
        silent: range = range(0),
        seed: int = 0,
    ) -> Air:
        draw = torch.Generator().manual_seed(seed)
        burst = Burst(pilot_len=16, data_len=24, preamble_len=16, guard_len=8, samples_per_symbol=4)
        bodies = torch.polar(torch.ones(()), math.pi / 2 * torch.randint(0, 4, (slots, burst.symbols, users), generator=draw))
        bodies[:, : burst.preamble_len] = preamble(burst)[:, None]
        bodies[list(silent)] = 0
        late = spread * (2 * torch.rand(slots, users, generator=draw) - 1)
        late = late + drift * burst.slot_len * torch.arange(slots)[:, None]
        turning = cfo_spread * (2 * torch.rand(slots, users, generator=draw) - 1)
        sent = modulate(bodies, burst, delay=late, cfo=turning)
        clean = sent @ complex_normal(slots, users, antennas, generator=draw)
        noise_var = users / 10 ** (snr_db / 10)
        stream = torch.cat([torch.zeros(shift, antennas), clean.flatten(0, 1), torch.zeros(8, antennas)])
        angle = 2 * math.pi * (cfo / burst.samples_per_symbol * torch.arange(len(stream), dtype=torch.double) % 1)
        stream = stream * torch.polar(torch.ones_like(angle), angle)[:, None].to(torch.complex64)
        stream = stream + math.sqrt(noise_var) * complex_normal(*stream.shape, generator=draw)
        return Air(burst, stream.to(torch.complex64).numpy(), clean, noise_var, shift)

    return make
