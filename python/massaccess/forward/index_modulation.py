"""Index modulation: which of its Q = 2^J sequences a device sends says J bits (P3 section II-B), most significant bit first.

>>> to_index(torch.tensor([[0, 1], [1, 1]])).tolist(), to_bits(torch.tensor([1, 3]), 2).tolist()
([1, 3], [[0, 1], [1, 1]])
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def to_index(bits: Tensor) -> Tensor:
    """Number [...] long, 0 to Q - 1, of the sequence that bits [... J] (0 or 1, any integer type) choose."""
    weights = 2 ** torch.arange(bits.shape[-1] - 1, -1, -1, device=bits.device)
    return (bits.long() * weights).sum(-1)


def to_bits(index: Tensor, index_bits: int) -> Tensor:
    """Bits [... J] uint8 of the sequences index [...]."""
    return ((index[..., None] >> torch.arange(index_bits - 1, -1, -1, device=index.device)) & 1).to(torch.uint8)


def llrs(odds: Tensor) -> Tensor:
    """log p(bit = 0) / p(bit = 1) [... J] of a device that is active, from log odds [... Q] of its sequences against anything common.

    >>> llrs(torch.tensor([0.0, 0.0, 0.0, 9.0])).round().tolist()
    [-8.0, -8.0]
    """
    index_bits = (odds.shape[-1] - 1).bit_length()
    one = to_bits(torch.arange(odds.shape[-1], device=odds.device), index_bits).bool().T
    value = odds[..., None, :]
    return torch.logsumexp(value.masked_fill(one, -math.inf), -1) - torch.logsumexp(value.masked_fill(~one, -math.inf), -1)
