"""What hardware adds to the channel: users' oscillators and distances, chains and converters of the array, and samples that get lost.

>>> ideal = Impairments()
>>> (ideal.phase_noise_hz, ideal.converter_bits)
(0.0, 0)
>>> overflows = Overflows(chance=1.0, longest=5, slot_samples=10)
>>> [(start, len(piece)) for start, piece in overflows.cut(torch.zeros(40, 1), 0)] == overflows.kept(0, 40)
True
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import SystemConfig
from ..errors import ConfigError
from ..rng import generator

CREST = 4.0  # full scale of a converter over the root mean square per real part, unless it is given: clips 6e-5 of Gaussian parts
MAX_BITS = 16


@dataclass(frozen=True)
class Impairments:
    """How far from ideal users and array are; all 0 is ideal. What `SystemConfig` has (offsets of time and carrier, chain phases) is there.

    ``phase_noise_hz`` is the linewidth (full width at half maximum) of every user's oscillator, whose phase is a Wiener process;
    ``path_loss_db``: each user loses 0 to so much, evenly spread, the same in the whole run; ``clock_ppm``: the array's sample clock is
    fast by so much. ``chain_gain_db``, ``iq_gain_db`` and ``iq_phase_deg`` are standard deviations over the chains, of gain and of the
    imbalance between real and imaginary part; ``dc_offset`` is the root mean square of the chains' offsets, as a fraction of that of the
    samples. ``converter_bits`` per real part (0: ideal) resolve -``full_scale`` to ``full_scale``, in units of the samples (0: four times
    the root mean square per real part), and clip what is beyond. Raises ConfigError for values that cannot be.
    """

    phase_noise_hz: float = 0.0
    path_loss_db: float = 0.0
    clock_ppm: float = 0.0
    chain_gain_db: float = 0.0
    iq_gain_db: float = 0.0
    iq_phase_deg: float = 0.0
    dc_offset: float = 0.0
    converter_bits: int = 0
    full_scale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("phase_noise_hz", "path_loss_db", "chain_gain_db", "iq_gain_db", "iq_phase_deg", "dc_offset", "full_scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}: pass 0 (ideal) or more")
        if not abs(self.clock_ppm) <= 1000:
            raise ConfigError(f"clock_ppm is {self.clock_ppm}: pass -1000 to 1000 parts per million")
        if not 0 <= self.converter_bits <= MAX_BITS:
            raise ConfigError(f"converter_bits is {self.converter_bits}: pass 1 to {MAX_BITS}, or 0 for ideal converters")


@dataclass(frozen=True)
class Chains:
    """The receive chains: gain [M] complex, direct and image [M] complex (``direct * x + image * conj(x)``), dc [M] complex, and the
    converters' bits and full scale."""

    gain: Tensor
    direct: Tensor
    image: Tensor
    dc: Tensor
    bits: int
    full_scale: float

    def apply(self, samples: Tensor) -> Tensor:
        """What comes out of the converters [n M] for what the antennas receive [n M]."""
        x = samples * self.gain
        x = self.direct * x + self.image * x.conj() if bool(self.image.any()) else x
        x = x + self.dc if bool(self.dc.any()) else x
        return convert(x, self.bits, self.full_scale)

    @property
    def image_rejection_db(self) -> Tensor:
        """Power of the signal over that of its image, of each chain [M]; infinite without imbalance."""
        return 20 * (self.direct.abs() / self.image.abs()).log10()


def chains_of(config: SystemConfig, impairments: Impairments, seed: int, *, phase: Tensor, power: float) -> Chains:
    """The chains that ``seed`` draws; ``phase`` [M] complex are their phase factors, ``power`` is E|x|^2 of a sample before them."""
    antennas, rms = config.antennas, math.sqrt(power / 2)

    def normal(what: str, spread: float, count: int = antennas) -> Tensor:
        return spread * torch.randn(count, generator=generator(seed, "chains", what))

    gain = phase * 10 ** (normal("gain", impairments.chain_gain_db) / 20)
    amplitude = 10 ** (normal("iq gain", impairments.iq_gain_db) / 20)
    skew = torch.polar(amplitude, torch.deg2rad(normal("iq phase", impairments.iq_phase_deg)))
    dc = torch.view_as_complex(normal("dc", impairments.dc_offset * rms, 2 * antennas).view(antennas, 2))
    return Chains(gain, (1 + skew.conj()) / 2, (1 - skew) / 2, dc, impairments.converter_bits, impairments.full_scale or CREST * rms)


def convert(samples: Tensor, bits: int, full_scale: float) -> Tensor:
    """Samples (complex, any shape) behind mid-rise converters of ``bits`` per real part over -``full_scale`` to ``full_scale``.

    >>> convert(torch.tensor([0.3 - 0.1j, 9 + 0j]), 2, 1.0).tolist()
    [(0.25-0.25j), (0.75+0.25j)]
    """
    if not bits:
        return samples
    step, limit = 2 * full_scale / 2**bits, 2 ** (bits - 1) - 0.5
    levels = (torch.view_as_real(samples.resolve_conj()) / step).floor().add(0.5).clamp(-limit, limit)
    return torch.view_as_complex(levels * step)


@dataclass(frozen=True)
class Overflows:
    """Samples that a receiver loses: with a ``chance`` in every slot, 1 to ``longest`` of them from somewhere in the slot on.

    Drawn by (seed, slot), so that chunk sizes change nothing; losses that touch are one gap.
    """

    chance: float
    longest: int
    slot_samples: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1 or self.longest < 1:
            raise ConfigError(
                f"overflows of chance {self.chance} and {self.longest} samples: pass a chance from 0 to 1 and 1 sample or more"
            )

    def gap(self, slot: int) -> tuple[int, int]:
        """First lost sample and the first behind the gap that begins in a slot; equal when there is none."""
        draw = generator(self.seed, "overflow", slot)
        first = slot * self.slot_samples + int(torch.randint(self.slot_samples, (), generator=draw))
        lost = int(torch.randint(1, self.longest + 1, (), generator=draw))
        return first, first + (lost if float(torch.rand((), generator=draw)) < self.chance else 0)

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The gaps [first, behind) that reach into samples ``start`` to ``stop``, in order, joined where they touch."""
        reach = -(-self.longest // self.slot_samples)
        found: list[tuple[int, int]] = []
        for slot in range(max(0, start // self.slot_samples - reach), -(-stop // self.slot_samples)):
            first, behind = self.gap(slot)
            if behind <= first or behind <= start or first >= stop:
                continue
            if found and first <= found[-1][1]:
                found[-1] = (found[-1][0], max(behind, found[-1][1]))
            else:
                found.append((first, behind))
        return found

    def kept(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(first, count) of the stretches of samples ``start`` to ``stop`` that are not lost."""
        edges = [start, *(edge for gap in self.gaps(start, stop) for edge in gap), stop]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return [(first, stop - first) for first, stop in pairs if stop > first]

    def cut(self, samples: Tensor, start: int) -> Iterator[tuple[int, Tensor]]:
        """What is left of samples [n ...], the first of which is number ``start``: pieces and the number of their first."""
        for first, count in self.kept(start, start + len(samples)):
            yield first, samples[first - start :][:count]
