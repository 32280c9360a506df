"""The air between users' transmitters and the samples of an array, as a stream: samples of all users in, samples of all antennas out.

For each slot n every user gets the channel (block fading), timing offset and carrier offset of frame n of `forward.simulate.Propagation`.
Draws belong to (seed, slot), and whole slots are worked on at a time, so chunk sizes change nothing, to the last bit.

A user's stream need not be slotted: its delay is a filter over the stream. It is uniform within ``timing_offset`` symbols either way, its
carrier within ``cfo_hz``; the array's own carrier is off by ``common_cfo_hz``, and turns on from slot to slot. Carriers of users turn
nothing at `Burst.reference` of each slot, phase noise starts at 0 with it: what was before is part of the channel.
Sample n of the output is taken when sample n of the inputs is sent (with ``clock_ppm``, n / (1 + ppm 1e-6)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..burst import Burst
from ..core import SystemConfig
from ..errors import ConfigError, ShapeError
from ..rng import complex_normal, generator
from .channels import received_power
from .impairments import Chains, Impairments, chains_of
from .simulate import BLOCK, Propagation
from .waveform import modulate, preamble, turning

HALF = 16  # taps of an interpolator, either side
KAISER = 8.0  # shape of its window: errors below -70 dB up to 0.4 cycles per sample
KEPT_BLOCKS = 4


@dataclass(frozen=True)
class SlotTruth:
    """What was drawn for a slot: delay [N] symbols, cfo [N] cycles per symbol, and channel [N M], path loss and chain gains included."""

    slot: int
    delay: Tensor
    cfo: Tensor
    channel: Tensor


class Air:
    """Streams from ``config.users`` transmitters to ``config.antennas`` converters; slot 0 of the draws, or ``first_slot``, comes first.

    >>> config = SystemConfig(users=3, rows=2, columns=2, pilot_len=4, data_len=4, channel="rayleigh", samples_per_symbol=4, guard_len=8)
    >>> air = Air(config)
    >>> tuple(air.push(torch.zeros(100, 3, dtype=torch.complex64)).shape), tuple(air.flush().shape)
    ((64, 4), (36, 4))

    Raises ConfigError for a configuration without a waveform.
    """

    def __init__(self, config: SystemConfig, seed: int = 0, impairments: Impairments | None = None, *, first_slot: int = 0) -> None:
        self.config, self.seed, self.impairments = config, seed, impairments or Impairments()
        self.burst = burst_of(config)
        self._propagation = Propagation(config, seed)
        self._propagation.model  # a wrong name fails here
        self._block = lru_cache(KEPT_BLOCKS)(self._draw)
        self._later = math.ceil(config.timing_offset * config.samples_per_symbol)
        self.restart(first_slot)

    @property
    def reach(self) -> int:
        """Samples of input that an output needs besides its own, either side."""
        return HALF + self._later

    @property
    def slot_samples(self) -> int:
        return self.burst.slot_samples

    @property
    def slot(self) -> int:
        """The slot that is worked on next."""
        return self._slot

    def restart(self, slot: int) -> None:
        """Forgets what is on its way, and goes on with the first sample of another slot."""
        self._slot, self._taken = slot, slot
        self._buffer = torch.zeros(self.reach, self.config.users, dtype=torch.complex64)
        self._clock = (
            _Clock(self.impairments.clock_ppm, slot * self.slot_samples, self.slot_samples) if self.impairments.clock_ppm else None
        )
        self._owed = 0

    def push(self, samples: Tensor) -> Tensor:
        """Takes samples [n users] complex64; gives those [m M] that are complete, whole slots.

        Raises ShapeError for another number of users.
        """
        if samples.ndim != 2 or samples.shape[1] != self.config.users:
            raise ShapeError(f"samples are {list(samples.shape)}: pass [samples, {self.config.users}], a column a user")
        self._owed += len(samples)
        return self._run(samples)

    def push_frames(self, samples: Tensor) -> Tensor:
        """The same for frames [B L+D N] of symbols, pilots and data of all users, one a slot: samples [B * slot_samples, M], at once.

        Bursts are delayed as `Propagation` does it, each within its own slot: do not mix with `push`. With ``clock_ppm`` the last slots
        are on their way until others follow.
        """
        awake = (samples != 0).any(1)
        head = preamble(self.burst)[:, None] * awake[:, None, :]
        done = []
        for number, (frame, here) in enumerate(zip(torch.cat([head, samples], 1), awake, strict=True), self._slot):
            block, row = divmod(number, BLOCK)
            users = here.nonzero().flatten()
            delay = self._block(block)[0][row, users]
            sent = modulate(frame[None, :, users], self.burst, delay=delay[None])[0] if len(users) else head.new_zeros(self.slot_samples, 0)
            done += self._finish(sent, users, number)
        self._slot += len(samples)
        return self._joined(done)

    def flush(self) -> Tensor:
        """The samples [m M] of the array that are still due for those that were pushed; then `restart`, or push no more."""
        owed = self._owed
        pad = -(self._buffer.shape[0] + owed) % self.slot_samples + 2 * self.slot_samples + 2 * self.reach
        return self._run(torch.zeros(pad, self.config.users, dtype=torch.complex64))[: max(owed, 0)]

    def truth(self, slot: int) -> SlotTruth:
        """What was, or will be, drawn for a slot."""
        block, row = divmod(slot, BLOCK)
        delay, cfo, channel = self._block(block)
        return SlotTruth(slot, delay[row], cfo[row], channel[row] * self.loss[:, None] * self.chains.gain)

    @cached_property
    def loss(self) -> Tensor:
        """Amplitude factor of each user's path loss [N]."""
        share = torch.rand(self.config.users, generator=generator(self.seed, "path loss"))
        return 10 ** (-self.impairments.path_loss_db * share / 20)

    @cached_property
    def chains(self) -> Chains:
        """The receive chains; the phases are those of `Propagation.chain_phase`."""
        return chains_of(self.config, self.impairments, self.seed, phase=self._propagation.chain_phase, power=self.power)

    @property
    def power(self) -> float:
        """E|x|^2 of a sample of an antenna, signal and noise, over whole slots."""
        share = self.burst.symbols / self.burst.slot_samples
        return share * (received_power(self.config) - self.config.noise_var) + self.config.noise_var

    def phase_noise(self, slot: int) -> Tensor:
        """Phase [slot_samples N] of the users' oscillators, in radians."""
        step = math.sqrt(2 * math.pi * self.impairments.phase_noise_hz / self.config.sample_rate_hz)
        steps = torch.randn(self.slot_samples, self.config.users, generator=generator(self.seed, "phase noise", slot))
        return step * steps.cumsum(0)

    def _draw(self, block: int) -> tuple[Tensor, Tensor, Tensor]:
        air = self._propagation
        return air.delay(block), air.cfo(block), air.channel(block)[0]

    def _run(self, samples: Tensor) -> Tensor:
        self._buffer = torch.cat([self._buffer, samples])
        done, need = [], self.slot_samples + 2 * self.reach
        while len(self._buffer) >= need:
            done += self._finish(*self._late(self._buffer[:need]), self._slot)
            self._buffer, self._slot = self._buffer[self.slot_samples :], self._slot + 1
        self._buffer = self._buffer.clone()  # not a view of all that was ever pushed
        whole = self._joined(done)
        self._owed -= len(whole)
        return whole

    def _joined(self, done: list[Tensor]) -> Tensor:
        return torch.cat(done) if done else torch.zeros(0, self.config.antennas, dtype=torch.complex64)

    def _late(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """What users send in the slot at hand, delayed [slot_samples A], and who is awake [A], of samples of it and around it."""
        awake = (window != 0).any(0).nonzero().flatten()
        block, row = divmod(self._slot, BLOCK)
        delay = self._block(block)[0][row, awake] * self.config.samples_per_symbol
        return delayed(window[:, awake], delay, self.reach), awake

    def _finish(self, sent: Tensor, awake: Tensor, slot: int) -> list[Tensor]:
        """Blocks of samples [slot_samples M] of the array that are complete with what ``awake`` users send in a slot."""
        clean = self._superpose(sent, awake, slot)
        return [self._receive(part) for part in (self._clock.push(clean) if self._clock else [clean])]

    def _superpose(self, sent: Tensor, awake: Tensor, slot: int) -> Tensor:
        """What the antennas would receive [slot_samples M] of what ``awake`` users send [slot_samples A]."""
        block, row = divmod(slot, BLOCK)
        _, cfo, channel = (part[row, awake] for part in self._block(block))
        if self.config.cfo_hz:
            sent = sent * turning(self.burst, cfo.double(), self.burst.samples_per_symbol).to(sent.dtype)
        if self.impairments.phase_noise_hz:
            angle = self.phase_noise(slot)[:, awake]
            sent = sent * torch.polar(torch.ones_like(angle), angle)
        return sent @ (channel * self.loss[awake, None])

    def _receive(self, clean: Tensor) -> Tensor:
        """Oscillator, noise, chains and converters of the array for its next slot of samples."""
        c, first = self.config, self._taken * self.slot_samples
        if c.common_cfo_hz:
            turns = torch.arange(first, first + self.slot_samples, dtype=torch.double) * (c.common_cfo_hz / c.sample_rate_hz) % 1
            clean = clean * torch.polar(torch.ones_like(turns), 2 * math.pi * turns).to(clean.dtype)[:, None]
        noise = complex_normal(*clean.shape, generator=generator(self.seed, "sample noise", self._taken))
        self._taken += 1
        return self.chains.apply(clean + noise * math.sqrt(c.noise_var))


class _Clock:
    """Takes samples [n M] of a clock, the first of which is number ``start``, and gives blocks of those of a faster one."""

    def __init__(self, ppm: float, start: int, block: int) -> None:
        self._rate = 1 + ppm * 1e-6
        self._start = self._next = start
        self._block, self._first = block, start - HALF
        self._buffer: Tensor | None = None

    def push(self, samples: Tensor) -> list[Tensor]:
        held = samples.new_zeros(HALF, samples.shape[1]) if self._buffer is None else self._buffer
        held, done = torch.cat([held, samples]), []
        while True:
            steps = torch.arange(self._next - self._start, self._next - self._start + self._block, dtype=torch.double)
            instants = self._start + steps / self._rate
            whole = instants.floor()
            first = whole.long() - self._first - HALF + 1
            if int(first[-1]) + 2 * HALF > len(held):
                break
            taps = interpolator(instants - whole)
            index = first[:, None] + torch.arange(2 * HALF)
            done.append(torch.einsum("nt,ntm->nm", taps.to(held.dtype), held[index]))
            self._next += self._block
        spent = max(0, int(first[0]))
        self._buffer, self._first = held[spent:].clone(), self._first + spent
        return done


def interpolator(fraction: Tensor) -> Tensor:
    """Taps [... 2 HALF] that interpolate a stream ``fraction`` [...] of a sample behind the one that tap HALF - 1 meets."""
    return _taps(torch.arange(2 * HALF, dtype=torch.double) - (HALF - 1) - fraction.double()[..., None])


def delayed(window: Tensor, delay: Tensor, reach: int) -> Tensor:
    """Streams [n K], each later by its delay [K] samples, out of ``window`` [n + 2 reach, K], which begins ``reach`` earlier."""
    users = window.shape[1]
    if not users:
        return window[reach:-reach]
    taps = _taps(
        torch.arange(-reach, reach + 1, dtype=torch.double) + delay.double()[:, None]
    ).float()  # correlates: out(n) = x(n + t) tap(t)
    parts = torch.view_as_real(window).permute(2, 1, 0)  # [2 K n']
    found = torch.nn.functional.conv1d(parts, taps[:, None], groups=users)
    return torch.view_as_complex(found.permute(2, 1, 0).contiguous())


def _taps(distance: Tensor) -> Tensor:
    """Windowed sinc [... t] float64 at distances in samples; 0 beyond HALF. A distance of whole samples is exact."""
    inside = (1 - (distance / HALF).square()).clamp(min=0)
    window = torch.special.i0(KAISER * inside.sqrt()) / torch.special.i0(torch.tensor(KAISER, dtype=torch.double))
    return torch.sinc(distance) * window * (distance.abs() <= HALF)


def burst_of(config: SystemConfig) -> Burst:
    """The burst of a configuration; ConfigError when it has none."""
    if config.burst is None:
        raise ConfigError(
            "samples_per_symbol is 1, frames of symbols without a waveform: pass samples_per_symbol=4 (--samples-per-symbol 4)"
        )
    return config.burst
