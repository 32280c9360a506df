"""Payload bytes to bits on the air and back: payload, CRC-16, padding, and a whitening sequence of each user's own.

The CRC is CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xFFFF). Whitening keeps equal payloads of two users from being equal symbols, and
makes the CRC fail when one user's bits are taken for another's.

>>> framing = Framing(users=2, bits=40)
>>> framing.payload_bytes
3
>>> bits = framing.encode(torch.tensor([[1, 2, 3], [1, 2, 3]], dtype=torch.uint8))
>>> payload, ok = framing.decode(bits)
>>> payload[1].tolist(), ok.tolist()
([1, 2, 3], [True, True])
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ShapeError
from ..rng import generator

CRC_BYTES = 2
WHITENING_SEED = 0x1021


@dataclass(frozen=True)
class Framing:
    """Frames of ``bits`` bits for each of ``users`` users. Fewer than 24 bits carry no CRC: ``payload_bytes`` is 0 and nothing decodes."""

    users: int
    bits: int

    @property
    def payload_bytes(self) -> int:
        """Bytes of payload in a frame of one user."""
        return max(self.bits // 8 - CRC_BYTES, 0)

    @cached_property
    def whitening(self) -> Tensor:
        """[users bits] uint8."""
        rows = [
            torch.randint(0, 2, (self.bits,), generator=generator(WHITENING_SEED, user), dtype=torch.uint8) for user in range(self.users)
        ]
        return torch.stack(rows)

    def encode(self, payload: Tensor) -> Tensor:
        """Bits [... users bits] uint8 of payload [... users payload_bytes] uint8."""
        if payload.shape[-2:] != (self.users, self.payload_bytes):
            raise ShapeError(f"payload is {list(payload.shape)}: pass [..., {self.users}, {self.payload_bytes}] bytes")
        if not self.payload_bytes:
            return self.whitening.to(payload.device).expand(*payload.shape[:-1], self.bits).clone()
        check = crc16(payload)
        body = torch.cat([payload, (check >> 8).to(torch.uint8)[..., None], (check & 255).to(torch.uint8)[..., None]], -1)
        bits = (body[..., None] >> _SHIFTS.to(body.device)) & 1
        padded = torch.nn.functional.pad(bits.flatten(-2), (0, self.bits - 8 * body.shape[-1]))
        return padded ^ self.whitening.to(body.device)

    def decode(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Payload [... users payload_bytes] uint8 and whether its CRC holds [... users] bool, of bits [... users bits]."""
        if bits.shape[-2:] != (self.users, self.bits):
            raise ShapeError(f"bits are {list(bits.shape)}: pass [..., {self.users}, {self.bits}]")
        plain = (bits.to(torch.uint8) ^ self.whitening.to(bits.device))[..., : 8 * (self.payload_bytes + CRC_BYTES)]
        if not self.payload_bytes:
            return plain[..., :0], torch.zeros(bits.shape[:-1], dtype=torch.bool, device=bits.device)
        octets = plain.reshape(*plain.shape[:-1], -1, 8)
        body = (octets << _SHIFTS.to(bits.device)).sum(-1).to(torch.uint8)
        return body[..., :-CRC_BYTES], crc16(body) == 0


def crc16(octets: Tensor) -> Tensor:
    """CRC-16/CCITT-FALSE [...] int32 over the last axis of octets [... n] uint8; zero over a message followed by its CRC.

    >>> hex(int(crc16(torch.tensor(list(b"123456789"), dtype=torch.uint8))))
    '0x29b1'
    """
    table = _TABLE.to(octets.device)
    state = torch.full(octets.shape[:-1], 0xFFFF, dtype=torch.int32, device=octets.device)
    for octet in octets.unbind(-1):
        state = ((state << 8) & 0xFFFF) ^ table[((state >> 8) ^ octet.int()).long()]
    return state


def _table() -> Tensor:
    state = torch.arange(256, dtype=torch.int32) << 8
    for _ in range(8):
        state = ((state << 1) ^ torch.where(state & 0x8000 > 0, 0x1021, 0)) & 0xFFFF
    return state.to(torch.int32)


_TABLE = _table()
_SHIFTS = torch.arange(7, -1, -1, dtype=torch.uint8)
