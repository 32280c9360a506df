"""Index modulation: which of its Q = 2^J sequences a device sends says J bits (P3 section II-B), most significant bit first.

>>> to_index(torch.tensor([[0, 1], [1, 1]])).tolist(), to_bits(torch.tensor([1, 3]), 2).tolist()
([1, 3], [[0, 1], [1, 1]])

A payload of several octets is as many frames of one sequence each as its bits need, zeros at the end; nothing protects it.

>>> bits = spread(b"hi", 3)
>>> bits.shape, gather(bits)
(torch.Size([6, 3]), b'hi')
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


def spread(octets: bytes, index_bits: int) -> Tensor:
    """Bits [F J] uint8 of the F = ceil(8 octets / J) frames that tell ``octets``, most significant bit first."""
    bits = to_bits(torch.tensor(list(octets), dtype=torch.long), 8).flatten()
    return torch.nn.functional.pad(bits, (0, -len(bits) % index_bits)).reshape(-1, index_bits)


def gather(bits: Tensor) -> bytes:
    """The inverse of `spread`: the whole octets in bits [F J]."""
    flat = bits.flatten()
    return bytes(to_index(flat[: len(flat) // 8 * 8].reshape(-1, 8)).tolist())


def llrs(odds: Tensor) -> Tensor:
    """log p(bit = 0) / p(bit = 1) [... J] of a device that is active, from log odds [... Q] of its sequences against anything common.

    >>> llrs(torch.tensor([0.0, 0.0, 0.0, 9.0])).round().tolist()
    [-8.0, -8.0]
    """
    index_bits = (odds.shape[-1] - 1).bit_length()
    one = to_bits(torch.arange(odds.shape[-1], device=odds.device), index_bits).bool().T
    value = odds[..., None, :]
    return torch.logsumexp(value.masked_fill(one, -math.inf), -1) - torch.logsumexp(value.masked_fill(~one, -math.inf), -1)
