"""Payload bytes to bits on the air and back: payload, CRC-16, code or padding, and a whitening sequence of each user's own.

The CRC is CRC-16/CCITT-FALSE (polynomial 0x1021, start 0xFFFF). Whitening keeps equal payloads of two users from being equal symbols, and
makes the CRC fail when one user's bits are taken for another's. With a code (`forward.coding`) the coded bits, filled up with zeros, are
interleaved over the frame before they are whitened, and a decoder of log-likelihood ratios stands between `soft` and `check`.

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

from ..errors import ConfigError, ShapeError
from ..rng import generator
from .coding import Code, interleaving, make_code

CRC_BYTES = 2
WHITENING_SEED = 0x1021


@dataclass(frozen=True)
class Framing:
    """Frames of ``bits`` bits for each of ``users`` users, coded by ``code``. Without a code fewer than 24 bits carry no CRC:
    ``payload_bytes`` is 0 and nothing decodes. Raises UnknownNameError and ConfigError as `forward.coding.make_code` does."""

    users: int
    bits: int
    code: str = "none"

    def __post_init__(self) -> None:
        make_code(self.code, self.bits)

    @property
    def coding(self) -> Code | None:
        """The code, if there is one."""
        return make_code(self.code, self.bits)

    @property
    def info_bits(self) -> int:
        """Bits of payload and CRC in a frame of one user."""
        return self.coding.info_bits if self.coding else self.bits // 8 * 8

    @property
    def payload_bytes(self) -> int:
        """Bytes of payload in a frame of one user."""
        return max(self.info_bits // 8 - CRC_BYTES, 0)

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
        return self._plain(payload) ^ self.whitening.to(payload.device)

    def encode_rows(self, payload: Tensor, users: Tensor) -> Tensor:
        """Bits [n bits] uint8 of payload [n payload_bytes] uint8, row by row of users [n]."""
        if payload.shape != (len(users), self.payload_bytes):
            raise ShapeError(f"payload is {list(payload.shape)}: pass [{len(users)}, {self.payload_bytes}] bytes")
        return self._plain(payload) ^ self.whitening.to(payload.device)[users]

    def decode(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Payload [... users payload_bytes] uint8 and whether its CRC holds [... users] bool, of bits [... users bits] without a code."""
        if bits.shape[-2:] != (self.users, self.bits):
            raise ShapeError(f"bits are {list(bits.shape)}: pass [..., {self.users}, {self.bits}]")
        if self.coding:
            raise ConfigError(f"frames are coded by {self.code!r}: decode what `soft` gives, and `check` the result")
        plain = (bits.to(torch.uint8) ^ self.whitening.to(bits.device))[..., : 8 * (self.payload_bytes + CRC_BYTES)]
        return self.check(plain)

    def soft(self, llrs: Tensor, users: Tensor) -> Tensor:
        """What a decoder takes, log-likelihood ratios [n coded_bits] of the code, from those of the bits on the air [n bits] of users [n].

        Raises ConfigError without a code.
        """
        if llrs.shape != (len(users), self.bits):
            raise ShapeError(f"llrs are {list(llrs.shape)}: pass [{len(users)}, {self.bits}]")
        if self.coding is None:
            raise ConfigError("frames have no code: pass code, one of those that forward.coding lists")
        sign = 1 - 2 * self.whitening.to(llrs.device)[users].to(llrs.dtype)
        coded = torch.empty_like(llrs)
        coded[:, interleaving(self.bits).to(llrs.device)] = llrs * sign
        return coded[:, : self.coding.coded_bits]

    def check(self, info: Tensor) -> tuple[Tensor, Tensor]:
        """Payload [... payload_bytes] uint8 and whether its CRC holds [...] bool, of information bits [... info_bits]."""
        if not self.payload_bytes:
            return info[..., :0], torch.zeros(info.shape[:-1], dtype=torch.bool, device=info.device)
        octets = info.reshape(*info.shape[:-1], -1, 8)
        body = (octets << _SHIFTS.to(info.device)).sum(-1).to(torch.uint8)
        return body[..., :-CRC_BYTES], crc16(body) == 0

    def holds(self, info: Tensor) -> Tensor:
        """Whether the CRC holds [...] bool, of information bits [... info_bits]."""
        return self.check(info)[1]

    def info(self, payload: Tensor) -> Tensor:
        """Information bits [... info_bits] uint8 of payload [... payload_bytes] uint8: octets and CRC, most significant bits first."""
        check = crc16(payload)
        body = torch.cat([payload, (check >> 8).to(torch.uint8)[..., None], (check & 255).to(torch.uint8)[..., None]], -1)
        return ((body[..., None] >> _SHIFTS.to(body.device)) & 1).flatten(-2)

    def _plain(self, payload: Tensor) -> Tensor:
        """Bits [... bits] uint8 before whitening."""
        if not self.payload_bytes:
            return payload.new_zeros(*payload.shape[:-1], self.bits)
        info = self.info(payload)
        coded = self.coding.encode(info) if self.coding else info
        padded = torch.nn.functional.pad(coded, (0, self.bits - coded.shape[-1]))
        return padded[..., interleaving(self.bits).to(padded.device)] if self.coding else padded


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
