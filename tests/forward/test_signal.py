"""Modulation, pilots, framing, front end: what goes on the air and what the converters make of it."""

from __future__ import annotations

import binascii
import dataclasses
import math

import pytest
import torch

from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.forward.framing import Framing, crc16
from massaccess.forward.front_end import front_end, optimal_step, quantize
from massaccess.forward.modulation import MODULATIONS, constellation
from massaccess.forward.pilots import book_id, pilot_book
from massaccess.rng import complex_normal, derive, generator


@pytest.mark.parametrize("name", MODULATIONS)
def test_constellations_have_unit_power_and_gray_labels(name):
    alphabet = constellation(name)
    assert float(alphabet.points.abs().square().mean()) == pytest.approx(1.0)
    distance = (alphabet.points[:, None] - alphabet.points).abs()
    nearest = float(distance[distance > 1e-6].min())
    for i in range(len(alphabet.points)):
        for j in range(i):
            if float(distance[i, j]) < nearest * 1.01:
                assert int((alphabet.labels[i] != alphabet.labels[j]).sum()) == 1


@pytest.mark.parametrize("name", MODULATIONS)
def test_bits_come_back_from_symbols(name):
    alphabet = constellation(name)
    bits = torch.randint(0, 2, (3, 5, 24), dtype=torch.uint8)
    symbols = alphabet.modulate(bits)
    assert torch.equal(alphabet.decide(symbols), bits)
    llr = alphabet.llr(symbols, torch.full(symbols.shape, 0.1))
    assert torch.equal((llr < 0).to(torch.uint8), bits)


@pytest.mark.parametrize("name", MODULATIONS)
def test_decisions_are_the_nearest_points(name):
    alphabet = constellation(name)
    x = 1.2 * complex_normal(2000, generator=generator(1))
    nearest = (x[:, None] - alphabet.points).abs().argmin(-1)
    assert torch.equal(alphabet.decide(x).unflatten(0, (-1, alphabet.bits_per_symbol)), alphabet.labels[nearest])


def test_log_likelihood_ratios_are_calibrated():
    """Among bits with an LLR near 1, a share of 1 / (1 + e) is 1."""
    alphabet = constellation("16qam")
    bits = torch.randint(0, 2, (400000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = alphabet.modulate(bits)
    noisy = x + math.sqrt(0.2) * complex_normal(*x.shape, generator=generator(2))
    llr = alphabet.llr(noisy, torch.full(x.shape, 0.2))
    near = (llr > 0.9) & (llr < 1.1)
    assert float(bits[near].double().mean()) == pytest.approx(1 / (1 + math.e), abs=0.02)
    assert not bool(alphabet.llr(x[:4], torch.full((4,), math.inf)).any())


def test_modulation_errors_name_the_cure():
    with pytest.raises(UnknownNameError, match="16qam, qpsk"):
        constellation("8psk")
    with pytest.raises(ShapeError, match="multiple of 4"):
        constellation("16qam").modulate(torch.zeros(6, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ["qpsk", "gaussian"])
def test_pilot_books_nest_and_have_a_stable_id(kind):
    long, short = (pilot_book(users=9, pilot_len=length, kind=kind, seed=4) for length in (20, 12))
    assert torch.equal(long[:12], short)
    assert torch.equal(long[:, :5], pilot_book(users=5, pilot_len=20, kind=kind, seed=4))
    assert book_id(long) == book_id(long.clone()) != book_id(short)
    assert book_id(long) != book_id(pilot_book(users=9, pilot_len=20, kind=kind, seed=5))
    power = pilot_book(users=200, pilot_len=100, kind=kind).abs().square().mean()
    assert float(power) == pytest.approx(1.0, abs=0.03)


def test_crc_is_the_standard_one():
    for length in (1, 7, 40):
        octets = torch.randint(0, 256, (5, length), dtype=torch.uint8)
        for row, crc in zip(octets, crc16(octets), strict=True):
            assert int(crc) == binascii.crc_hqx(bytes(row.tolist()), 0xFFFF)


def test_framing_finds_every_single_and_double_bit_error():
    framing = Framing(users=1, bits=74)
    bits = framing.encode(torch.randint(0, 256, (1, framing.payload_bytes), dtype=torch.uint8))
    used = 8 * (framing.payload_bytes + 2)
    single = torch.eye(used, dtype=torch.uint8)
    pairs = torch.combinations(torch.arange(used))
    double = torch.zeros(len(pairs), used, dtype=torch.uint8).scatter_(1, pairs, 1)
    for pattern in (single, double):
        spoiled = bits.repeat(len(pattern), 1)
        spoiled[:, :used] ^= pattern
        _, ok = framing.decode(spoiled[:, None, :])
        assert not bool(ok.any())


def test_framing_knows_its_user():
    framing = Framing(users=6, bits=74)
    payload = torch.randint(0, 256, (300, 6, framing.payload_bytes), dtype=torch.uint8)
    bits = framing.encode(payload)
    decoded, ok = framing.decode(bits)
    assert bool(ok.all())
    assert torch.equal(decoded, payload)
    _, swapped = framing.decode(bits.roll(1, dims=1))
    assert float(swapped.double().mean()) < 0.01


def test_short_frames_carry_no_crc():
    framing = Framing(users=2, bits=20)
    assert framing.payload_bytes == 0
    payload, ok = framing.decode(framing.encode(torch.zeros(3, 2, 0, dtype=torch.uint8)))
    assert payload.shape == (3, 2, 0)
    assert not bool(ok.any())


@pytest.mark.parametrize(("bits", "step"), [(1, 1.5958), (2, 0.9957), (3, 0.5860), (4, 0.3352)])
def test_steps_are_those_of_max(bits, step):
    """Max 1960, table II."""
    assert optimal_step(bits)[0] == pytest.approx(step, abs=2e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 6])
def test_distortion_is_uncorrelated_and_of_the_variance_claimed(bits):
    y = math.sqrt(7.0) * complex_normal(400000, generator=generator(3))
    converter = front_end(bits=bits, power=7.0)
    distortion = quantize(y, converter) - y
    assert abs(complex((distortion * y.conj()).mean())) < 0.03 * 7.0 / 2**bits
    assert float(distortion.abs().square().mean()) == pytest.approx(converter.distortion_var, rel=0.03)


def test_one_bit_ignores_positive_scaling_and_ideal_changes_nothing():
    y = complex_normal(50, generator=generator(4))
    one = front_end(bits=1, power=1.0)
    assert torch.equal(quantize(y, one), quantize(17.0 * y, one))
    assert len(torch.unique(quantize(y, one).real)) == 2
    assert quantize(y, front_end(bits=None, power=1.0)) is y


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize(("threshold", "dither"), [(0.0, 0.7), (0.2, 0.0), (-0.2, 0.5)])
def test_known_offsets_leave_output_equal_to_input_plus_distortion(bits, threshold, dither):
    y = math.sqrt(7.0) * complex_normal(200, 50, 40, generator=generator(3))
    converter = front_end(bits=bits, power=7.0, threshold=threshold, dither=dither, frame=(50, 40))
    samples = quantize(y, converter)
    distortion = samples - y
    assert abs(complex((distortion * y.conj()).mean())) < 0.03 * 7.0 / 2**bits
    assert abs(complex((distortion * converter.offset.conj()).mean())) < 0.03 * 7.0 / 2**bits
    assert abs(complex(distortion.mean())) < 0.02
    assert float(distortion.abs().square().mean()) == pytest.approx(converter.distortion_var, rel=0.04)
    levels = samples + converter.offset
    torch.testing.assert_close(levels, quantize(y + converter.offset, dataclasses.replace(converter, offset=None)))
    assert len(torch.unique((levels.real / converter.scale * 1e3).round())) == 2**bits


def test_dither_is_the_same_in_every_frame_and_for_everybody():
    one, two = (front_end(bits=1, power=power, dither=0.5, frame=(300, 100)) for power in (2.0, 8.0))
    torch.testing.assert_close(2 * one.offset, two.offset)
    assert float(one.offset.real.std()) == pytest.approx(0.5, rel=0.02)
    both = front_end(bits=1, power=2.0, threshold=0.3, dither=0.5, frame=(300, 100))
    torch.testing.assert_close(one.offset - both.offset, torch.full((300, 100), 0.3 + 0.3j))


def test_offsets_need_the_shape_of_frames_and_a_real_converter():
    with pytest.raises(ConfigError, match="pass frame="):
        front_end(bits=1, power=1.0, dither=0.1)
    assert front_end(bits=None, power=1.0, dither=0.1) == front_end(bits=None, power=1.0)
    assert front_end(bits=1, power=1.0, frame=(3, 4)) == front_end(bits=1, power=1.0)


def test_seeds_name_streams():
    assert derive(1, "a", 2) == derive(1, "a", 2)
    assert len({derive(seed, *path) for seed in (1, 2) for path in (("a",), ("b",), ("a", 1), ("a", "1"))}) == 8
