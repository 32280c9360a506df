"""Codes for payloads: which there are, what fits into a frame, and how bits are encoded. What a decoder must know of them stands here too.

A code belongs to a number of ``bits`` on the air, those of the data symbols of one user and frame, has a rate of about 1/2, and carries
whole octets: ``info_bits`` in, ``coded_bits`` out, the rest of the frame is filled with zeros.

``conv``  the convolutional code of CCSDS 131.0: constraint length 7, rate 1/2, G1 = 171 (octal) first, G2 = 133, without the inversion
          of G2 (whitening does its work). It starts in state 0 and six zeros of tail end it there.
``polar`` Arikan's transform x = u F^(x)n in natural order. Inputs are ranked by polarisation weight (He et al., Globecom 2017): the sum
          of 2^(j/4) over the ones j of an index. A length that is not a power of two is shortened: outputs at the bit reversals of the
          last indices are zero and not sent, because the inputs of the same indices are (Wang and Liu, IEEE Comm. Letters 2014).

>>> code = make_code("conv", 192)
>>> code.info_bits, code.coded_bits
(88, 188)
>>> code.encode(torch.ones(88, dtype=torch.uint8))[:8].tolist()
[1, 1, 0, 1, 1, 0, 0, 1]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError, unknown

OCTET = 8
LEAST_INFO = 3 * OCTET  # a CRC and one octet
GOLDEN = (3 - math.sqrt(5)) / 2
Check = Callable[[Tensor], Tensor]
"""Information bits [n info_bits] uint8 to whether their CRC holds [n] bool."""


class Decoder(Protocol):
    """What turns ratios into bits."""

    def __call__(self, llrs: Tensor, holds: Check | None = None) -> Tensor:
        """The likeliest information bits [n info_bits] uint8 of log-likelihood ratios log p(0)/p(1) [n coded_bits], natural logarithm. One
        that can try harder does so where the CRC does not hold."""
        ...


class Code(Protocol):
    """A code for frames of ``bits`` bits on the air."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def bits(self) -> int:
        """Bits on the air."""
        ...

    @property
    def info_bits(self) -> int:
        """Bits in, payload and CRC: whole octets."""
        ...

    @property
    def coded_bits(self) -> int:
        """Bits out, at most ``bits``."""
        ...

    def encode(self, info: Tensor) -> Tensor:
        """Coded bits [... coded_bits] uint8 of info [... info_bits] uint8."""
        ...


@dataclass(frozen=True)
class Convolutional:
    """See the module."""

    bits: int
    name: ClassVar[str] = "conv"
    summary: ClassVar[str] = "convolutional, K = 7, rate 1/2, terminated"
    constraint: ClassVar[int] = 7
    polynomials: ClassVar[tuple[int, int]] = (0o117, 0o155)  # 171 and 133 with the newest bit last, as gr-fec writes them

    @property
    def info_bits(self) -> int:
        return max(self.bits // 2 - (self.constraint - 1), 0) // OCTET * OCTET

    @property
    def coded_bits(self) -> int:
        return 2 * (self.info_bits + self.constraint - 1)

    def encode(self, info: Tensor) -> Tensor:
        """Coded bits [... coded_bits] uint8 of info [... info_bits] uint8: G1 and G2 in turn."""
        _check(info, self.info_bits)
        memory = self.constraint - 1
        line = torch.nn.functional.pad(info, (memory, memory))
        length = self.info_bits + memory
        out = []
        for taps in self.polynomials:
            delays = [delay for delay in range(self.constraint) if taps >> delay & 1]
            parts = [line[..., memory - delay : memory - delay + length] for delay in delays]
            out.append(torch.stack(parts).sum(0) & 1)
        return torch.stack(out, -1).flatten(-2).to(torch.uint8)


@dataclass(frozen=True)
class Polar:
    """See the module. ``list_sizes``: how many paths decoders keep, the later ones where the CRC does not hold after the earlier."""

    bits: int
    name: ClassVar[str] = "polar"
    summary: ClassVar[str] = "polar, rate 1/2, successive cancellation list"
    list_sizes: ClassVar[tuple[int, ...]] = (8, 32)

    @property
    def info_bits(self) -> int:
        return self.bits // (2 * OCTET) * OCTET

    @property
    def coded_bits(self) -> int:
        return self.bits

    @property
    def length(self) -> int:
        """Length of the mother code, a power of two."""
        return 1 << max(self.bits - 1, 1).bit_length()

    @cached_property
    def shortened(self) -> Tensor:
        """Outputs of the mother code that are zero and not sent, rising [length - bits]."""
        return bit_reversal(self.length)[self.bits :].sort().values

    @cached_property
    def sent(self) -> Tensor:
        """Outputs that are sent, in their order on the air [bits]."""
        return _rest(self.length, self.shortened)

    @cached_property
    def info(self) -> Tensor:
        """Inputs that carry information, rising [info_bits]: the heaviest that shortening has left."""
        weight = polarisation_weight(self.length)
        weight[self.shortened] = -1
        return weight.argsort()[self.length - self.info_bits :].sort().values

    @cached_property
    def frozen(self) -> Tensor:
        """Inputs that are zero, rising [length - info_bits]."""
        return _rest(self.length, self.info)

    def encode(self, info: Tensor) -> Tensor:
        """Coded bits [... coded_bits] uint8 of info [... info_bits] uint8."""
        _check(info, self.info_bits)
        line = info.new_zeros(*info.shape[:-1], self.length)
        line[..., self.info.to(info.device)] = info
        return transform(line)[..., self.sent.to(info.device)]


CODES: dict[str, type[Convolutional] | type[Polar]] = {kind.name: kind for kind in (Convolutional, Polar)}
NAMES = ("none", *CODES)  # of SystemConfig.code


@cache
def make_code(name: str, bits: int) -> Code | None:
    """The code called ``name`` for ``bits`` bits on the air, nothing for "none".

    Raises UnknownNameError, which lists the names, and ConfigError where a CRC and one octet do not fit.
    """
    if name not in NAMES:
        raise unknown("code", name, NAMES)
    if name == "none":
        return None
    code = CODES[name](bits)
    if code.info_bits < LEAST_INFO:
        raise ConfigError(f"code {name!r} carries {code.info_bits} bits in {bits}, too few for a CRC and one octet: raise data_len")
    return code


@cache
def interleaving(bits: int) -> Tensor:
    """Which coded bit each of ``bits`` bits on the air is [bits]: steps of about 0.38 of the frame. What goes wrong at one place of the
    frame, as where a phase has drifted away, reaches the decoder as errors far apart.

    >>> interleaving(16).tolist()[:5]
    [0, 5, 10, 15, 4]
    """
    near = round(GOLDEN * bits)
    step = next(size for size in range(max(near - 1, 1), bits + 2) if math.gcd(size, bits) == 1)
    return torch.arange(bits) * step % bits


def transform(line: Tensor) -> Tensor:
    """line [... 2^n] F^(x)n modulo 2, natural order.

    >>> transform(torch.tensor([0, 0, 0, 1])).tolist(), transform(torch.tensor([0, 1, 0, 0])).tolist()
    ([1, 1, 1, 1], [1, 1, 0, 0])
    """
    length, half = line.shape[-1], 1
    while half < length:
        upper, lower = line.unflatten(-1, (-1, 2, half)).unbind(-2)
        line = torch.stack([upper ^ lower, lower], -2).flatten(-3)
        half *= 2
    return line


def bit_reversal(length: int) -> Tensor:
    """Indices [length] with their binary digits read backwards.

    >>> bit_reversal(8).tolist()
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    width = length.bit_length() - 1
    index = torch.arange(length)
    return sum(((index >> digit) & 1) << (width - 1 - digit) for digit in range(width)) + torch.zeros_like(index)


def polarisation_weight(length: int) -> Tensor:
    """Weights [length] float64; a heavier input is a better one. No two are equal."""
    width = length.bit_length() - 1
    ones = (torch.arange(length)[:, None] >> torch.arange(width)) & 1
    return (ones * 2 ** (torch.arange(width, dtype=torch.float64) / 4)).sum(1)


def _rest(length: int, taken: Tensor) -> Tensor:
    free = torch.ones(length, dtype=torch.bool)
    free[taken] = False
    return free.nonzero()[:, 0]


def _check(info: Tensor, size: int) -> None:
    if info.shape[-1] != size:
        raise ShapeError(f"info is {list(info.shape)}: pass [..., {size}] bits")
