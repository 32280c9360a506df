"""Counted multiplications against the products that they count."""

from __future__ import annotations

from massaccess.core import SystemConfig
from massaccess.evaluate.operations import multiplications

CELL = SystemConfig(users=10, rows=2, columns=2, pilot_len=6, data_len=0, index_bits=1)


def test_amp_makes_two_complex_products_an_iteration() -> None:
    """Book^H times residual, book times estimate: 4 * 20 * 6 * 4 each."""
    assert multiplications("noncoherent-amp", CELL, 1) == 2 * 4 * 20 * 6 * 4
    assert multiplications("noncoherent-amp-sections", CELL, 7.5) == 7.5 * multiplications("noncoherent-amp", CELL, 1)


def test_the_networks_count_is_the_printed_one() -> None:
    assert multiplications("dl-mampnet", CELL) == 8 * 4 * 20 * 6 * 16 + 4 * 400 * 4


def test_covariance_grows_with_the_square_of_the_symbols() -> None:
    short, long = (multiplications("noncoherent-covariance", CELL.replace(pilot_len=length), 9) for length in (6, 12))
    assert long == 4 * short
    assert multiplications("noncoherent-covariance-fixed", CELL, 9) < multiplications("noncoherent-covariance", CELL, 9)


def test_receivers_without_a_count_have_none() -> None:
    assert multiplications("jcedd", CELL, 3) is None
    assert multiplications("noncoherent-amp", CELL) is None
