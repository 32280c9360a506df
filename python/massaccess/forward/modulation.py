"""Constellations: bits to symbols and back, hard and soft.

Gray labels as in 3GPP TS 38.211, section 5.1, unit mean power.

>>> import torch
>>> qpsk = constellation("qpsk")
>>> bits = torch.tensor([0, 1, 1, 1], dtype=torch.uint8)
>>> [complex(round(x.real, 3), round(x.imag, 3)) for x in qpsk.modulate(bits).tolist()]
[(0.707-0.707j), (-0.707-0.707j)]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..errors import ShapeError, unknown

MODULATIONS = {"qpsk": 2, "16qam": 4}  # name -> bits per symbol
SUREST = 1e3  # nats that a decoder is told of a bit at most
LEAST_VAR = 1e-6  # of a symbol: surer than `SUREST` anyway


@dataclass(frozen=True)
class Constellation:
    """points [Q] complex of unit mean power; labels [Q bits_per_symbol] uint8, point q carries the binary digits of q."""

    name: str
    points: Tensor
    labels: Tensor

    @property
    def bits_per_symbol(self) -> int:
        return self.labels.shape[1]

    def modulate(self, bits: Tensor) -> Tensor:
        """Symbols [... D] of bits [... D * bits_per_symbol] (0 or 1, any integer type)."""
        if bits.shape[-1] % self.bits_per_symbol:
            raise ShapeError(f"{bits.shape[-1]} bits do not fill {self.name} symbols: pass a multiple of {self.bits_per_symbol}")
        groups = bits.reshape(*bits.shape[:-1], -1, self.bits_per_symbol).long()
        weights = 2 ** torch.arange(self.bits_per_symbol - 1, -1, -1, device=bits.device)
        return self.points.to(bits.device)[(groups * weights).sum(-1)]

    def decide(self, symbols: Tensor) -> Tensor:
        """Bits [... D * bits_per_symbol] uint8 of the points nearest to symbols [... D]."""
        real, imag = symbols.real, symbols.imag
        signs = [(real < 0), (imag < 0)]
        if self.bits_per_symbol == 4:
            signs += [real.abs() > 2 / math.sqrt(10), imag.abs() > 2 / math.sqrt(10)]
        return torch.stack(signs, -1).flatten(-2).to(torch.uint8)

    def llr(self, symbols: Tensor, symbol_var: Tensor) -> Tensor:
        """log p(bit = 0) / p(bit = 1), [... D * bits_per_symbol], for symbols = x + CN(0, symbol_var), x equally likely points.

        Exact (log-sum-exp over the constellation); an infinite variance gives zeros.
        """
        points, labels = self.points.to(symbols.device), self.labels.to(symbols.device).bool()
        distance = (symbols[..., None] - points).abs().square() / symbol_var[..., None]
        metric = -distance[..., None, :]  # [... D 1 Q]
        zero = torch.logsumexp(metric.masked_fill(labels.T, -math.inf), -1)
        one = torch.logsumexp(metric.masked_fill(~labels.T, -math.inf), -1)
        return (zero - one).flatten(-2)

    def ratios(self, symbols: Tensor, symbol_var: Tensor) -> Tensor:
        """`llr` as decoders want it: finite, at most `SUREST` either way."""
        return self.llr(symbols, symbol_var.clamp_min(LEAST_VAR)).nan_to_num().clamp(-SUREST, SUREST)


@cache
def constellation(name: str) -> Constellation:
    """The constellation called ``name``; UnknownNameError lists the names."""
    if name not in MODULATIONS:
        raise unknown("modulation", name, MODULATIONS)
    width = MODULATIONS[name]
    labels = (torch.arange(2**width)[:, None] >> torch.arange(width - 1, -1, -1)) & 1
    sign = 1.0 - 2.0 * labels.float()
    if name == "qpsk":
        points = torch.complex(sign[:, 0], sign[:, 1]) / math.sqrt(2)
    else:
        points = torch.complex(sign[:, 0] * (2 - sign[:, 2]), sign[:, 1] * (2 - sign[:, 3])) / math.sqrt(10)
    return Constellation(name, points, labels.to(torch.uint8))
