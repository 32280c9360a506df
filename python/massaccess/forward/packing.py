"""Quantised samples as the converters' bits: 64 antennas of one bit are 16 octets a sample vector, where complex samples are 512.

A sample vector is its antennas in order, each the real part and then the imaginary one. A part is the number of its level, counted from the
lowest level, 0, in ``bits`` bits, the most significant one first; with one bit that is 1 for a positive sign and 0 for a negative one.
Bits fill octets from the most significant bit on, as `numpy.packbits` does, and zeros fill up the last octet of every sample vector.

>>> from massaccess.forward.front_end import front_end, quantize
>>> converter = front_end(bits=1, power=2.0)
>>> samples = quantize(torch.tensor([[0.3 - 2.0j, -1.0 - 0.1j, 4.0 + 0.2j, -3.0 + 1.0j]]), converter).numpy()
>>> [f"{octet:08b}" for octet in pack(samples, converter)[0]]
['10001101']
>>> bool((unpack(pack(samples, converter), converter, antennas=4) == samples).all())
True
"""

from __future__ import annotations

import numpy as np
import torch

from ..core import FrontEnd
from ..errors import ShapeError
from .front_end import levels_of, samples_of


def octets(antennas: int, bits: int) -> int:
    """Octets of a sample vector.

    >>> octets(64, 1), octets(64, 4), octets(3, 1)
    (16, 64, 1)
    """
    return -(-2 * bits * antennas // 8)


def pack(samples: np.ndarray, converter: FrontEnd) -> np.ndarray:
    """The bits uint8 [... T octets] of samples [... T M] complex that ``converter`` gave. (None gives NaN; it becomes any level.)

    Raises ConfigError for an ideal converter, and ShapeError where an offset does not fit the samples.
    """
    _require_fit(samples.shape, converter)
    levels = levels_of(torch.from_numpy(samples), converter)
    if converter.bits == 1:
        return _in_rows((levels > 0).numpy(), samples.shape)
    bits = converter.bits or 0
    number = (levels.nan_to_num_() + (2 ** (bits - 1) - 0.5)).to(torch.int32).numpy()
    return _in_rows((number[..., None] >> np.arange(bits)[::-1] & 1).astype(np.bool_), samples.shape)


def _in_rows(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.packbits(found.reshape(*shape[:-1], -1), axis=-1)


def unpack(packed: np.ndarray, converter: FrontEnd, antennas: int) -> np.ndarray:
    """The samples complex64 [... T M] of packed [... T octets] uint8, to the last bit what `pack` was given.

    Raises ShapeError for octets of another number of antennas or bits.
    """
    bits = converter.bits or 0
    if packed.dtype != np.uint8 or packed.shape[-1:] != (octets(antennas, bits),):
        raise ShapeError(
            f"packed samples are {packed.dtype} {list(packed.shape)}: pass uint8 [..., {octets(antennas, bits)}] "
            f"for {antennas} antennas of {bits} bits a part"
        )
    _require_fit((*packed.shape[:-1], antennas), converter)
    found = np.unpackbits(packed, axis=-1, count=2 * bits * antennas).reshape(*packed.shape[:-1], antennas, 2, bits)
    number = found[..., 0] if bits == 1 else found @ (1 << np.arange(bits)[::-1])
    levels = torch.from_numpy(number.astype(np.float32)) - (2 ** (bits - 1) - 0.5)
    return samples_of(levels, converter).numpy()


def _require_fit(shape: tuple[int, ...], converter: FrontEnd) -> None:
    if converter.offset is not None and converter.offset.shape != shape[-2:]:
        raise ShapeError(
            f"samples are {list(shape)} but the converter has an offset for {list(converter.offset.shape)}: "
            "pass whole frames, and all antennas"
        )
