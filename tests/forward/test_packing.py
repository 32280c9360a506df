"""Packed samples: nothing is lost, and the order is what the format says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from massaccess.errors import ConfigError, ShapeError
from massaccess.forward.front_end import front_end, quantize
from massaccess.forward.packing import octets, pack, unpack
from massaccess.rng import complex_normal, generator


def quantized(bits, antennas=6, **options):
    converter = front_end(bits=bits, power=3.0, frame=(7, antennas), **options)
    return quantize(3**0.5 * complex_normal(5, 7, antennas, generator=generator(1)), converter).numpy(), converter


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 12, 16])
@pytest.mark.parametrize("options", [{}, {"dither": 0.6}, {"threshold": -0.2, "dither": 0.1}])
def test_unpacking_gives_the_very_same_samples(bits, options):
    for antennas in (1, 6, 8):
        samples, converter = quantized(bits, antennas, **options)
        packed = pack(samples, converter)
        assert packed.shape == (5, 7, octets(antennas, bits))
        again = unpack(packed, converter, antennas)
        assert again.dtype == np.complex64
        assert np.array_equal(again.view(np.uint32), samples.view(np.uint32))


def test_sixteen_octets_hold_the_signs_of_64_antennas():
    samples, converter = quantized(1, 64)
    packed = pack(samples, converter)
    assert packed.shape[-1] == 16
    parts = samples.view(np.float32).reshape(5, 7, 64, 2)
    for antenna, part in ((0, 0), (0, 1), (1, 0), (5, 1), (63, 1)):
        place = 2 * antenna + part
        bit = packed[..., place // 8] >> (7 - place % 8) & 1
        assert np.array_equal(bit == 1, parts[..., antenna, part] > 0)


def test_numbers_count_levels_from_the_lowest():
    converter = front_end(bits=3, power=2.0)
    levels = torch.unique(quantize(10 * complex_normal(5000, generator=generator(2)), converter).real)
    assert len(levels) == 8
    samples = torch.complex(levels, levels.flip(0))[:, None].numpy()
    numbers = [int(f"{octet:08b}"[:3], 2) for (octet,) in pack(samples, converter)]
    others = [int(f"{octet:08b}"[3:6], 2) for (octet,) in pack(samples, converter)]
    assert (numbers, others) == (list(range(8)), list(range(8))[::-1])


def test_signs_are_those_before_the_offset_is_taken_away():
    """With much dither a sample's own sign is the dither's."""
    samples, converter = quantized(1, dither=5.0)
    plain = pack(samples, front_end(bits=1, power=3.0))
    assert not np.array_equal(plain, pack(samples, converter))


def test_what_does_not_fit_is_refused():
    samples, converter = quantized(1, dither=0.1)
    with pytest.raises(ConfigError, match="ideal converter"):
        pack(samples, front_end(bits=None, power=1.0))
    with pytest.raises(ShapeError, match="whole frames"):
        pack(samples[:, :6], converter)
    with pytest.raises(ShapeError, match="pass uint8"):
        unpack(pack(samples, converter)[..., :1], converter, 6)
    with pytest.raises(ShapeError, match="pass uint8"):
        unpack(pack(samples, converter).astype(np.int16), converter, 6)
    spoiled = np.full_like(samples, complex("nan"))
    assert pack(spoiled, front_end(bits=1, power=1.0)).shape == (5, 7, 2)
