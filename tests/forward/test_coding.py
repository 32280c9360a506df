"""Codes: what fits, linearity, distances that are known, and where bits go on the air."""

from __future__ import annotations

import pytest
import torch

from massaccess import SystemConfig
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.forward.coding import CODES, Convolutional, Polar, interleaving, make_code, transform
from massaccess.forward.framing import Framing
from massaccess.forward.modulation import SUREST, constellation
from massaccess.forward.simulate import Population, Simulation

CASES = [(name, bits) for name in CODES for bits in (74, 130, 192, 256, 384)]


def drawn(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_codes_are_linear_one_to_one_and_fit(name, bits):
    code = make_code(name, bits)
    assert code.info_bits % 8 == 0
    assert code.info_bits / bits <= 0.5
    assert code.info_bits >= bits / 2 - 16
    assert code.coded_bits <= bits
    a, b = drawn(20, code.info_bits), drawn(20, code.info_bits, seed=1)
    assert torch.equal(code.encode(a) ^ code.encode(b), code.encode(a ^ b))
    assert code.encode(torch.eye(code.info_bits, dtype=torch.uint8)).any(1).all()


def test_the_convolutional_code_is_that_of_ccsds():
    """G1 = 1 + D + D2 + D3 + D6 and G2 = 1 + D2 + D3 + D5 + D6, and the free distance is 10."""
    code = Convolutional(192)
    impulse = torch.zeros(code.info_bits, dtype=torch.uint8)
    impulse[0] = 1
    answer = code.encode(impulse).reshape(-1, 2)
    assert answer[:7, 0].tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert answer[:7, 1].tolist() == [1, 0, 1, 1, 0, 1, 1]
    assert not answer[7:].any()
    short = torch.cartesian_prod(*[torch.tensor([0, 1], dtype=torch.uint8)] * 10)
    starts = short[short[:, 0] == 1]
    weights = code.encode(torch.nn.functional.pad(starts, (0, code.info_bits - 10))).sum(1)
    assert int(weights.min()) == 10


def test_polar_codewords_never_use_what_is_shortened():
    for bits in (74, 130, 192, 256):
        code = Polar(bits)
        assert len(code.sent) == bits
        whole = torch.zeros(50, code.length, dtype=torch.uint8)
        whole[:, code.info] = drawn(50, code.info_bits)
        assert not transform(whole)[:, code.shortened].any()
        assert not set(code.info.tolist()) & set(code.shortened.tolist())


def test_a_burst_on_the_air_is_scattered_over_the_code():
    for bits in (74, 192, 384):
        where = interleaving(bits)
        assert where.sort().values.equal(torch.arange(bits))
        for first in range(bits - 8):
            burst = where[first : first + 8].sort().values
            assert int(burst.diff().min()) >= bits // 24


@pytest.mark.parametrize("name", sorted(CODES))
def test_what_is_sent_comes_back_when_it_is_not_disturbed(name):
    framing = Framing(users=3, bits=148, code=name)
    payload = torch.randint(0, 256, (3, framing.payload_bytes), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    bits = framing.encode(payload)
    users = torch.arange(3)
    assert torch.equal(bits, framing.encode_rows(payload, users))
    soft = framing.soft(1.0 - 2.0 * bits, users)
    assert torch.equal((soft < 0).to(torch.uint8), framing.coding.encode(framing.info(payload)))
    found, ok = framing.check(framing.info(payload))
    assert torch.equal(found, payload)
    assert ok.all()


def test_one_users_codeword_is_never_anothers():
    framing = Framing(users=2, bits=192, code="conv")
    payload = torch.ones(2, framing.payload_bytes, dtype=torch.uint8)
    bits = framing.encode(payload)
    assert 0.3 < (bits[0] != bits[1]).float().mean() < 0.7
    own, other = (framing.soft(1.0 - 2.0 * bits[:1], torch.tensor([user])) < 0 for user in (0, 1))
    sent = framing.coding.encode(framing.info(payload[:1])).bool()
    assert torch.equal(own, sent)
    assert (other ^ sent).float().mean() > 0.3


def test_frames_of_a_seed_are_the_same_wherever_they_are_made():
    config = SystemConfig(users=6, rows=2, columns=2, pilot_len=6, data_len=40, channel="rayleigh", code="conv")
    truth, obs = Simulation(config, 3).frames(5, 14)
    population = Population(config, 3)
    assert torch.equal(truth.bits, torch.cat([population.transmit(0).bits[5:], population.transmit(1).bits[:3]]))
    assert obs.code == "conv"
    assert population.framing.payload_bytes == 2


def test_errors_name_the_cure():
    with pytest.raises(UnknownNameError, match="conv"):
        Framing(users=2, bits=192, code="turbo")
    with pytest.raises(ConfigError, match="raise data_len"):
        Framing(users=2, bits=40, code="conv")
    framing = Framing(users=2, bits=192, code="polar")
    with pytest.raises(ConfigError, match="check"):
        framing.decode(torch.zeros(2, 192))
    with pytest.raises(ShapeError):
        framing.soft(torch.zeros(2, 191), torch.arange(2))
    with pytest.raises(ConfigError, match="no code"):
        Framing(users=2, bits=192).soft(torch.zeros(2, 192), torch.arange(2))
    with pytest.raises(ShapeError):
        framing.encode_rows(torch.zeros(2, 3, dtype=torch.uint8), torch.arange(2))


def test_ratios_are_finite_and_exact():
    alphabet = constellation("qpsk")
    symbols, var = torch.tensor([[1 + 1j, 0.5 - 0.25j, 0j, 0j]]), torch.tensor([[0.0, 0.5, torch.inf, 1e-30]])
    ratios = alphabet.ratios(symbols, var)[0]
    assert ratios[:2].tolist() == [SUREST, SUREST]
    assert ratios[2:4].tolist() == pytest.approx([4 * 0.5 / 2**0.5 / 0.5, -4 * 0.25 / 2**0.5 / 0.5])
    assert ratios[4:].tolist() == [0, 0, 0, 0]
