"""The message that crosses a socket: a fixed head, a small JSON header, then raw little-endian arrays. Nothing in it is executed.

::

    offset  size  field
    0       8     magic b"MASSACC\\n"
    8       2     version, u16 = 1
    10      2     flags, u16: bit 0 = the publisher has ended; the other bits are 0
    12      4     header length in bytes, u32, a multiple of 8
    16      8     payload length in bytes, u64
    24      8     stream, u64: a random number of the publisher's run
    32      8     sequence, u64: counts the messages of a stream from 0
    40      ...   header: {"arrays": [[name, dtype, shape], ...], "metadata": {...}}, padded with spaces
    ...     ...   payload: the arrays in this order, C order, each padded with zero bytes to a multiple of 8

All integers are little-endian. A reader checks every length before it touches the payload, and the arrays it returns are views of the
message: decoding costs no more memory than the message and a header of at most `MAX_HEADER` bytes.

>>> message = decode(encode({"activity": np.zeros((3, 4), np.float32)}, Metadata(receiver="jcedd"), sequence=5))
>>> message.sequence, message["activity"].shape, message.metadata.receiver
(5, (3, 4), 'jcedd')
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FormatError, MassaccessError, ShapeError
from .metadata import Metadata

MAGIC = b"MASSACC\n"
VERSION = 1
END = 1
HEAD = struct.Struct("<8sHHIQQQ")
ALIGN = 8
MAX_HEADER = 16 * 1024
MAX_ARRAYS = 16
MAX_RANK = 4
MAX_BYTES = 256 * 1024 * 1024
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "complex64", "complex128")
}
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Message:
    """What a message says: arrays by name (read-only views), the metadata of its first frame, and its place in the stream."""

    arrays: Mapping[str, np.ndarray]
    metadata: Metadata = Metadata()
    sequence: int = 0
    stream: int = 0
    end: bool = False

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise FormatError(f"the message has no array {name!r}, only {', '.join(self.arrays) or 'none'}: is this the right publisher?")
        return self.arrays[name]


def encode(arrays: Mapping[str, np.ndarray], metadata: Metadata, *, sequence: int, stream: int = 0, end: bool = False) -> bytes:
    """One message. Raises ShapeError for arrays that `decode` would refuse."""
    layout, parts = [], []
    for name, array in arrays.items():
        dtype = array.dtype.name
        if not NAME.fullmatch(name) or dtype not in DTYPES or array.ndim > MAX_RANK:
            cure = f"pass names of a to z, at most {MAX_RANK} axes and one of {', '.join(DTYPES)}"
            raise ShapeError(f"array {name!r} is {array.dtype} {list(array.shape)}: {cure}")
        layout.append([name, dtype, list(array.shape)])
        parts += [np.ascontiguousarray(array, DTYPES[dtype]).data.cast("B") if array.size else b"", bytes(-array.nbytes % ALIGN)]
    header = _padded(json.dumps({"arrays": layout, "metadata": metadata.to_dict()}, separators=(",", ":"), allow_nan=False).encode())
    payload = sum(len(part) for part in parts)
    if len(header) > MAX_HEADER:
        raise ShapeError(f"a header of {len(header)} bytes: shorten the metadata, {MAX_HEADER} bytes hold the user_gain of 1,000 users")
    if len(arrays) > MAX_ARRAYS or payload > MAX_BYTES:
        raise ShapeError(
            f"{len(arrays)} arrays of {payload} bytes: send at most {MAX_ARRAYS} arrays and {MAX_BYTES} bytes, or fewer frames a message"
        )
    head = HEAD.pack(MAGIC, VERSION, END if end else 0, len(header), payload, stream, sequence)
    return b"".join([head, header, *parts])


def decode(message: bytes | bytearray | memoryview) -> Message:
    """The inverse of `encode`. Raises FormatError, and nothing else, for anything that is not such a message."""
    view = memoryview(message).cast("B")
    flags, header_len, payload_len, stream, sequence = _head(view)
    header = _header(view[HEAD.size : HEAD.size + header_len])
    layout = _layout(header["arrays"])
    if sum(_span(dtype, shape) for _, dtype, shape in layout) != payload_len:
        raise FormatError(f"the arrays in the header do not add up to the {payload_len} bytes that follow: the sender is broken")
    arrays, offset = {}, HEAD.size + header_len
    for name, dtype, shape in layout:
        arrays[name] = _view(view, offset, dtype, shape)
        offset += _span(dtype, shape)
    return Message(arrays, _metadata(header["metadata"]), sequence, stream, bool(flags & END))


def _head(view: memoryview) -> tuple[int, int, int, int, int]:
    if len(view) < HEAD.size:
        raise FormatError(f"a message of {len(view)} bytes is shorter than the head of {HEAD.size}: truncated, or not from massaccess")
    magic, version, flags, header_len, payload_len, stream, sequence = HEAD.unpack_from(view)
    if magic != MAGIC:
        raise FormatError(f"the message starts with {magic!r}: it is not from a massaccess publisher")
    if version != VERSION:
        raise FormatError(
            f"the message has version {version} and this massaccess reads version {VERSION}: use the same release on both sides"
        )
    if flags & ~END or header_len % ALIGN or header_len > MAX_HEADER or payload_len > MAX_BYTES:
        raise FormatError(
            f"flags {flags:#x}, header of {header_len} and payload of {payload_len} bytes: not a message of version {VERSION}"
        )
    if len(view) != HEAD.size + header_len + payload_len:
        raise FormatError(
            f"the message has {len(view)} bytes and declares {HEAD.size + header_len + payload_len}: truncated or run together"
        )
    return flags, header_len, payload_len, stream, sequence


def _header(octets: memoryview) -> dict[str, Any]:
    try:
        header = json.loads(bytes(octets).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not JSON ({str(error)[:80]}): the sender is broken") from None
    if not isinstance(header, dict) or set(header) != {"arrays", "metadata"}:
        raise FormatError('the header is not {"arrays": ..., "metadata": ...}: the sender is broken')
    return header


def _layout(rows: Any) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    if not isinstance(rows, list) or len(rows) > MAX_ARRAYS:
        raise FormatError(f"the header lists no arrays, or more than {MAX_ARRAYS}: the sender is broken")
    layout = [_row(row) for row in rows]
    if len({name for name, _, _ in layout}) != len(layout):
        raise FormatError("two arrays have the same name: the sender is broken")
    return layout


def _row(row: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    name, dtype, shape = row if isinstance(row, list) and len(row) == 3 else (None, None, None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FormatError(f"{row!r:.80} does not describe an array: write [name, dtype, shape]")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"array {name} has the dtype {dtype!r:.40}: only {', '.join(DTYPES)} may be sent")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise FormatError(f"array {name} has the shape {shape!r:.80}: write at most {MAX_RANK} sizes of 0 or more")
    if math.prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize > MAX_BYTES:
        raise FormatError(f"array {name} of shape {shape!r:.80} is above {MAX_BYTES} bytes: send fewer frames a message")
    return name, DTYPES[dtype], tuple(shape)


def _span(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    octets = math.prod(shape) * dtype.itemsize
    return octets + -octets % ALIGN


def _view(view: memoryview, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = np.frombuffer(view, dtype, math.prod(shape), offset) if math.prod(shape) else np.empty(0, dtype)
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _metadata(values: Any) -> Metadata:
    if not isinstance(values, dict):
        raise FormatError("the metadata is not an object: the sender is broken")
    try:
        return Metadata.from_dict(values)
    except MassaccessError as error:
        raise FormatError(f"the metadata does not hold: {error}") from None


def _padded(octets: bytes) -> bytes:
    return octets + b" " * (-len(octets) % ALIGN)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
