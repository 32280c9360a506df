"""What users send, slot by slot, as samples: the transmitting side of a burst system.

Slot n of a seed is frame n of `simulate.Population`: whoever knows the seed can make the truth again. Payloads may take the place of the
random ones: octets, which the framing encodes, or bits that are encoded already.

>>> config = SystemConfig(users=4, pilot_len=4, data_len=16, samples_per_symbol=4, preamble_len=8, guard_len=8, activity=1.0)
>>> sender = Sender(config, user_list=(1, 3))
>>> slot = sender.slot(0)
>>> slot.active.tolist(), slot.samples.shape
([True, True], (144, 2))
>>> quiet = Sender(config, user_list=(1, 3), random=False)
>>> quiet.slot(0, {3: bytes(quiet.payload_bytes)}).active.tolist()
[False, True]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..burst import Burst
from ..core import SystemConfig
from ..errors import ConfigError
from .simulate import BLOCK, Population
from .waveform import modulate, preamble

KEPT_BLOCKS = 2


class Slot(NamedTuple):
    """What some users send in a slot: active [U] bool, samples [slot_samples U] complex64, zero for users that sleep."""

    active: np.ndarray
    samples: np.ndarray


@dataclass(frozen=True, eq=False)
class Sender:
    """The users ``user_list`` of a ``config``, all unless given. ``amplitude`` is that of a symbol: the samples of one burst have a root
    mean square of amplitude / sqrt(samples_per_symbol), and peaks about twice as high. Without ``random`` nobody sends unless it has a
    payload.

    Raises ConfigError for a configuration without a waveform, and for users that are not there, or named twice.
    """

    config: SystemConfig
    seed: int = 0
    user_list: Sequence[int] = ()
    amplitude: float = 1.0
    random: bool = True

    def __post_init__(self) -> None:
        users = tuple(self.user_list) or tuple(range(self.config.users))
        if self.config.burst is None:
            raise ConfigError("samples_per_symbol is 1: pass 2 or more, bursts on the air have a waveform (--samples-per-symbol 4)")
        if len(set(users)) != len(users) or not all(0 <= user < self.config.users for user in users):
            raise ConfigError(f"user_list is {list(users)}: pass different numbers of 0 to {self.config.users - 1}")
        if not 0 < self.amplitude < float("inf"):
            raise ConfigError(f"amplitude is {self.amplitude}: pass more than 0")
        object.__setattr__(self, "user_list", users)
        object.__setattr__(self, "_block", lru_cache(KEPT_BLOCKS)(self._make))

    @property
    def burst(self) -> Burst:
        assert self.config.burst is not None
        return self.config.burst

    @property
    def payload_bytes(self) -> int:
        """Octets of a payload."""
        return self._population.framing.payload_bytes

    @property
    def payload_bits(self) -> int:
        """Bits of a payload that is encoded already: those of the data symbols."""
        return self.config.data_len * self._population.constellation.bits_per_symbol

    @cached_property
    def _population(self) -> Population:
        return Population(self.config, self.seed)

    def slot(self, number: int, payloads: Mapping[int, bytes | Sequence[int]] | None = None) -> Slot:
        """What is sent in a slot. ``payloads``, by user: `payload_bytes` octets (bytes), or `payload_bits` bits (a list), in place of what
        the user would send; it wakes users that sleep. Raises ConfigError for payloads of another length."""
        active, samples = self._block(number // BLOCK)  # type: ignore[attr-defined]
        slot = Slot(active[number % BLOCK], samples[number % BLOCK])
        if not payloads:
            return slot
        slot = Slot(slot.active.copy(), slot.samples.copy())
        for user, payload in payloads.items():
            column = self.user_list.index(user)
            slot.active[column] = True
            slot.samples[:, column] = self._waves(self._symbols(user, payload)[None, :, None], torch.ones(1, 1, dtype=torch.bool))[0, :, 0]
        return slot

    def _make(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        sent = self._population.transmit(block)
        columns = list(self.user_list)
        active = sent.active[:, columns] & self.random
        return active.numpy(), self._waves(sent.samples[:, :, columns], active)

    def _waves(self, samples: Tensor, active: Tensor) -> np.ndarray:
        """[B slot_samples U] of frames [B pilot_len + data_len, U] of active [B U] users."""
        burst = self.burst
        waves = torch.zeros(*active.shape, burst.slot_samples, dtype=torch.complex64)
        if active.any():
            bodies = samples.transpose(1, 2)[active].T  # [T awake]
            symbols = torch.cat([preamble(burst)[:, None].expand(-1, bodies.shape[1]), bodies])
            waves[active] = self.amplitude * modulate(symbols[None], burst)[0].T
        return np.ascontiguousarray(waves.transpose(1, 2).numpy())

    def _symbols(self, user: int, payload: bytes | Sequence[int]) -> Tensor:
        """Pilots and data [pilot_len + data_len] of a payload."""
        population = self._population
        if isinstance(payload, bytes):
            if len(payload) != self.payload_bytes or not payload:
                raise ConfigError(f"payload of {len(payload)} bytes: send exactly {self.payload_bytes}")
            octets = torch.zeros(1, self.config.users, self.payload_bytes, dtype=torch.uint8)
            octets[0, user] = torch.tensor(list(payload), dtype=torch.uint8)
            bits = population.framing.encode(octets)[0, user]
        else:
            bits = torch.tensor(list(payload), dtype=torch.long)
            if len(bits) != self.payload_bits or bool(((bits < 0) | (bits > 1)).any()):
                raise ConfigError(f"{len(bits)} encoded bits: send exactly {self.payload_bits}, each 0 or 1")
        return torch.cat([population.pilots[:, user], population.constellation.modulate(bits)])


def slot_time(number: int, epoch: tuple[int, float], slot_samples: int, sample_rate_hz: float) -> tuple[int, float]:
    """When slot ``number`` begins, whole seconds and fraction, if slot 0 begins at ``epoch``.

    >>> slot_time(2000, (10, 0.5), 608, 1e6)
    (11, 0.716)
    """
    seconds, samples = divmod(number * slot_samples, sample_rate_hz)
    fraction = epoch[1] + samples / sample_rate_hz
    carry = int(fraction // 1)
    return epoch[0] + int(seconds) + carry, round(fraction - carry, 15)
