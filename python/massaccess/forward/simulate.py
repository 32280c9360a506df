"""Nature: who transmits what, over which channel, with which noise.

Random numbers come in blocks of `BLOCK` frames, each from a generator of its own, derived from (seed, stage, block). So frame f of seed s
is the same frame whether it is made in a sweep, in a flowgraph or alone, whatever the batch sizes along the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..burst import ROW_RATE, Burst
from ..core import Frame, FrontEnd, Observation, SystemConfig
from ..errors import ShapeError
from ..rng import complex_normal, generator
from .channels import ChannelModel, make_channel, received_power
from .framing import Framing
from .front_end import front_end, quantize
from .index_modulation import to_index
from .modulation import Constellation, constellation
from .pilots import book_of
from .waveform import modulate, observe_burst, preamble

BLOCK = 16


@dataclass(frozen=True)
class Transmission:
    """What a population sends: active [B N] bool, bits [B N C] uint8, symbols [B D N] complex, and samples [B L+D N], pilots then data,
    zero for users that sleep."""

    active: Tensor
    bits: Tensor
    symbols: Tensor
    samples: Tensor


@dataclass(frozen=True)
class Population:
    """Potential users of one cell: pilots, payloads and the random access behaviour."""

    config: SystemConfig
    seed: int = 0

    @cached_property
    def pilots(self) -> Tensor:
        """[L N Q] complex64."""
        return book_of(self.config)

    @cached_property
    def constellation(self) -> Constellation:
        return constellation(self.config.modulation)

    @cached_property
    def framing(self) -> Framing:
        return Framing(self.config.users, self.config.data_len * self.constellation.bits_per_symbol, self.config.code)

    def transmit(self, block: int) -> Transmission:
        """The `BLOCK` frames numbered from ``block * BLOCK``: Bernoulli activity (or a fixed count), random payloads."""
        draw = generator(self.seed, "source", block)
        active = self._activity(draw)
        if self.config.index_bits:
            return self.choose(active, torch.randint(0, 2, (BLOCK, *self._index), generator=draw, dtype=torch.uint8))
        shape = (BLOCK, self.config.users, self.framing.payload_bytes)
        payload = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
        return self.modulate(active, payload)

    def modulate(self, active: Tensor, payload: Tensor) -> Transmission:
        """Frames of active [B N] bool users with payload [B N payload_bytes] uint8."""
        bits = self.framing.encode(payload)
        symbols = self.constellation.modulate(bits).transpose(1, 2).contiguous()
        samples = torch.cat([self.pilots.expand(len(active), -1, -1), symbols], 1) * active[:, None, :]
        return Transmission(active, bits, symbols, samples)

    def choose(self, active: Tensor, bits: Tensor) -> Transmission:
        """Non-coherent frames of active [B N] bool devices that send the sequence that bits [B N J] uint8 choose."""
        if bits.shape[1:] != self._index:
            raise ShapeError(f"bits are {list(bits.shape)}: pass [frames, {', '.join(map(str, self._index))}], index_bits of each device")
        c = self.config
        chosen = self.pilots.unflatten(1, (c.users, c.sequences))[:, torch.arange(c.users), to_index(bits)]  # [L B N]
        symbols = self.pilots.new_zeros(len(bits), 0, c.users)
        return Transmission(active, bits, symbols, chosen.transpose(0, 1) * active[:, None, :])

    @property
    def _index(self) -> tuple[int, int]:
        return self.config.users, self.config.index_bits

    def _activity(self, draw: torch.Generator) -> Tensor:
        c = self.config
        chance = torch.rand(BLOCK, c.users, generator=draw)
        if c.active_users is None:
            return chance < c.activity
        chosen = chance.argsort(-1)[:, : c.active_users]
        return torch.zeros(BLOCK, c.users, dtype=torch.bool).scatter_(1, chosen, True)


@dataclass(frozen=True)
class Propagation:
    """The air between the users and the array, up to the converters: block fading, carrier offsets, chain phases, noise."""

    config: SystemConfig
    seed: int = 0

    @cached_property
    def model(self) -> ChannelModel:
        return make_channel(self.config)

    @cached_property
    def chain_phase(self) -> Tensor:
        """Static phase factor of each receive chain [M]: Gaussian of ``chain_phase_deg`` standard deviation."""
        spread = math.radians(self.config.chain_phase_deg)
        angle = spread * torch.randn(self.config.antennas, generator=generator(self.seed, "chains"))
        return torch.polar(torch.ones_like(angle), angle)

    def channel(self, block: int) -> tuple[Tensor, Tensor | None]:
        """Channels [BLOCK N M] of a block of frames, and their known mean power [BLOCK N] where the model has one."""
        return self.model.draw(BLOCK, self.config.users, generator=generator(self.seed, "channel", block))

    def noise(self, block: int) -> Tensor:
        """[BLOCK L+D M], or of bursts [BLOCK rows M], of variance ``noise_var``."""
        c = self.config
        unit = complex_normal(BLOCK, c.burst.rows if c.burst else c.frame_len, c.antennas, generator=generator(self.seed, "noise", block))
        return unit * math.sqrt(c.noise_var)

    def cfo(self, block: int) -> Tensor:
        """Carrier offset [BLOCK N] of each user, in cycles per symbol, uniform within ``cfo_hz`` either way."""
        return self._uniform("cfo", block) * (self.config.cfo_hz / self.config.symbol_rate_hz)

    def delay(self, block: int) -> Tensor:
        """How late each user's burst is [BLOCK N], in symbols, uniform within ``timing_offset`` either way."""
        return self._uniform("timing", block) * self.config.timing_offset

    def _uniform(self, what: str, block: int) -> Tensor:
        return 2 * torch.rand(BLOCK, self.config.users, generator=generator(self.seed, what, block)) - 1

    def rotation(self, block: int) -> Tensor | None:
        """What carrier offsets do to frames of symbols [BLOCK L+D N]; ``None`` without offsets."""
        if not self.config.cfo_hz:
            return None
        angle = 2 * math.pi * self.cfo(block)[:, None] * torch.arange(self.config.frame_len)[:, None]
        return torch.polar(torch.ones_like(angle), angle)

    def receive(self, samples: Tensor, block: int, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor | None]:
        """rx [B L+D M], channel [B N M] and known gains [B N] for transmitted samples [B L+D N] that are ``rows`` of the block; of bursts
        rx is [B rows M], as a receiver in step with the slot gets them."""
        channel, gain = self.channel(block)
        sent = self._waves(samples, block, rows) if self.config.burst else self._turned(samples, block, rows)
        channel = channel[rows] * self.chain_phase
        return sent @ channel + self.noise(block)[rows], channel, None if gain is None else gain[rows]

    def _turned(self, samples: Tensor, block: int, rows: slice) -> Tensor:
        rotation = self.rotation(block)
        return samples if rotation is None else samples * rotation[rows]

    def _waves(self, samples: Tensor, block: int, rows: slice) -> Tensor:
        """Waveforms [B rows N] of bursts, whose pilots and data are ``samples`` [B L+D N]."""
        burst = self.config.burst
        assert burst is not None
        awake = (samples != 0).any(1)
        head = preamble(burst)[:, None] * awake[:, None, :]
        offsets = {"delay": self.delay(block)[rows], "cfo": self.cfo(block)[rows]}
        return modulate(torch.cat([head, samples], 1), burst, **offsets, rate=ROW_RATE)


@dataclass(frozen=True)
class Simulation:
    """Population, propagation and front end of one configuration and seed.

    >>> frame, obs = Simulation(SystemConfig(users=8, pilot_len=6, data_len=12, channel="rayleigh")).frames(0, 20)
    >>> tuple(frame.channel.shape), tuple(obs.pilot_rx.shape)
    ((20, 8, 64), (20, 6, 64))
    """

    config: SystemConfig
    seed: int = 0

    @cached_property
    def population(self) -> Population:
        return Population(self.config, self.seed)

    @cached_property
    def propagation(self) -> Propagation:
        return Propagation(self.config, self.seed)

    @cached_property
    def front_end(self) -> FrontEnd:
        c = self.config
        frame = (c.frame_len, c.antennas)
        return front_end(bits=c.adc_bits, power=sample_power(c), threshold=c.adc_offset, dither=c.adc_dither, frame=frame)

    def frames(self, start: int, count: int) -> tuple[Frame, Observation]:
        """Truth and observation of the frames ``start`` to ``start + count``."""
        if count < 1 or start < 0:
            raise ShapeError(f"frames({start}, {count}): pass a start of 0 or more and a count of 1 or more")
        parts: list[tuple[Tensor, ...]] = []
        gains: list[Tensor] = []
        air = self.propagation
        for block in range(start // BLOCK, (start + count - 1) // BLOCK + 1):
            rows = slice(max(start - block * BLOCK, 0), min(start + count - block * BLOCK, BLOCK))
            sent = self.population.transmit(block)
            rx, channel, gain = air.receive(sent.samples[rows], block, rows)
            offsets = air.delay(block)[rows], air.cfo(block)[rows]
            parts.append((sent.active[rows], sent.bits[rows], sent.symbols[rows], channel, rx, *offsets))
            gains += [] if gain is None else [gain]
        active, bits, symbols, channel, rx, *moved = (torch.cat(column) for column in zip(*parts, strict=True))
        seen = self.observe(quantize(rx, self.front_end), user_gain=torch.cat(gains) if gains else None)
        return Frame(active, bits, symbols, channel, start, *(moved if self.config.burst else ())), seen

    def observe(self, rx: Tensor, *, user_gain: Tensor | None = None) -> Observation:
        """The observation that converter outputs rx [B L+D M], or of bursts [B rows M], make."""
        c = self.config
        return observe(
            rx,
            self.population.pilots,
            burst=c.burst,
            timing_range=c.timing_offset,
            cfo_range=c.cfo_hz / c.symbol_rate_hz if c.burst else 0.0,
            noise_var=c.noise_var,
            activity=c.activity_prior,
            modulation=c.modulation,
            code=c.code,
            front_end=self.front_end,
            user_gain=user_gain,
            channel_cov=self.propagation.model.covariance,
            array=(c.rows, c.columns),
            sequences=c.sequences,
        )


def sample_power(config: SystemConfig) -> float:
    """E|y|^2 of one antenna sample as converters get it: a burst spreads a symbol's energy over all rows of the symbol."""
    power = received_power(config)
    return power if config.burst is None else (power - config.noise_var) / ROW_RATE + config.noise_var


def observe(rx: Tensor, pilots: Tensor, *, burst: Burst | None = None, **known: Any) -> Observation:
    """Cuts frames rx [B L+D M], or the rows [B rows M] of a ``burst``, into pilots and data; ``known`` are the other fields of
    `Observation`."""
    if burst is not None:
        return observe_burst(rx, pilots, burst, **known)
    pilot_len = pilots.shape[0]
    if rx.ndim != 3 or rx.shape[1] < pilot_len:
        raise ShapeError(
            f"rx is {list(rx.shape)} but a frame starts with {pilot_len} pilots: pass [frames, {pilot_len} + data_len, antennas]"
        )
    return Observation(rx[:, :pilot_len], rx[:, pilot_len:], pilots, **known)
