"""What crosses the sockets of a virtual air: requests, and raw samples for answers, so that any radio program can join.

A request is the count of samples wanted, u32; answers are that many samples or fewer, complex64, little-endian, all antennas of a sample
one after another. So far it is what GNU Radio's own ZMQ REQ source and REP sink say. A request may go on with the number of the first
sample wanted, u64; a peer that understands it answers in two parts, the number of the first sample that it gives, u64, and the samples.
No samples behind a number mean that the end has come.

>>> parse_request(request(608, 1216))
Request(count=608, index=1216)
>>> index, samples = parse_reply(reply(np.ones(2, np.complex64), 1216))
>>> index, len(samples)
(1216, 2)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FormatError

PLAIN = struct.Struct("<I")
INDEXED = struct.Struct("<IQ")
INDEX = struct.Struct("<Q")
SAMPLE = np.dtype("<c8")
LARGEST_REQUEST = 256  # octets
LARGEST_INDEX = 2**62


@dataclass(frozen=True)
class Request:
    """``count`` samples are wanted, from ``index`` on, or, where that is ``None``, those that come next."""

    count: int
    index: int | None = None


def request(count: int, index: int | None = None) -> bytes:
    """The octets of a request."""
    return PLAIN.pack(count) if index is None else INDEXED.pack(count, index)


def parse_request(octets: bytes, default: int = 1) -> Request:
    """What a request asks for; shorter ones than 4 octets, as other programs send, ask for ``default`` samples."""
    if len(octets) == INDEXED.size:
        count, index = INDEXED.unpack(octets)
        return Request(max(count, 1), min(index, LARGEST_INDEX))
    return Request(max(PLAIN.unpack_from(octets)[0], 1) if len(octets) >= PLAIN.size else default)


def reply(samples: np.ndarray, index: int | None = None) -> list[bytes | memoryview]:
    """The parts of an answer to a request, with ``index`` to one that told an index."""
    raw = np.ascontiguousarray(samples, SAMPLE).reshape(-1).view(np.uint8).data
    return [raw] if index is None else [INDEX.pack(index), raw]


def parse_reply(parts: Sequence[bytes], channels: int = 1, most: int | None = None) -> tuple[int | None, np.ndarray]:
    """(index, samples [n channels] or, of one channel, [n]) of an answer; the samples are a view.

    Raises FormatError for what is no answer: broken samples, more than ``most``, NaN or infinity.
    """
    if not 1 <= len(parts) <= 2 or (len(parts) == 2 and len(parts[0]) != INDEX.size):
        raise FormatError(f"an answer of {len(parts)} parts: send raw samples, or an index of 8 octets and raw samples")
    octets, whole = len(parts[-1]), channels * SAMPLE.itemsize
    if octets % whole:
        raise FormatError(f"an answer of {octets} octets: samples have {whole}, complex64 of {channels} channels")
    if most is not None and octets // whole > most:
        raise FormatError(f"an answer of {octets // whole} samples: send at most {most}")
    samples = np.frombuffer(parts[-1], SAMPLE)
    if not np.isfinite(samples.view(np.float32)).all():
        raise FormatError("samples that are not finite: correct the transmitter")
    index = INDEX.unpack(parts[0])[0] if len(parts) == 2 else None
    return index, samples if channels == 1 else samples.reshape(-1, channels)
