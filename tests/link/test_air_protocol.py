"""Requests and answers of a virtual air, octet by octet, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from massaccess.errors import FormatError
from massaccess.link.air_protocol import Request, parse_reply, parse_request, reply, request


def test_the_octets_are_those_of_the_table():
    assert request(608) == struct.pack("<I", 608)
    assert request(608, 2**40) == struct.pack("<IQ", 608, 2**40)
    samples = np.array([1 + 2j, 3 - 4j], np.complex64)
    assert [bytes(part) for part in reply(samples)] == [struct.pack("<4f", 1, 2, 3, -4)]
    assert [bytes(part) for part in reply(samples, 7)] == [struct.pack("<Q", 7), struct.pack("<4f", 1, 2, 3, -4)]


def test_requests_of_others_are_understood():
    assert parse_request(struct.pack("<I", 5)) == Request(5)
    assert parse_request(struct.pack("<I", 0)) == Request(1)
    assert parse_request(b"\xff", 608) == Request(608)  # as virtual radios of other projects ask
    assert parse_request(request(3, 9)) == Request(3, 9)


@pytest.mark.parametrize("channels", [1, 3])
def test_answers_come_back(channels):
    samples = np.arange(6 * channels).astype(np.complex64).reshape((6, channels) if channels > 1 else 6)
    for index in (None, 0, 12345):
        found, back = parse_reply([bytes(part) for part in reply(samples, index)], channels)
        assert found == index
        np.testing.assert_array_equal(back, samples)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"1234567"], "7 octets"),
        ([bytes(8 * 5)], "40 octets: samples have 24"),
        ([bytes(24 * 11)], "at most 10"),
        ([bytes(4), bytes(24)], "2 parts"),
        ([bytes(8), bytes(8), bytes(24)], "3 parts"),
        ([], "0 parts"),
        ([np.full(3, np.nan, "<c8").tobytes()], "not finite"),
        ([np.full(3, complex(0, np.inf), "<c8").tobytes()], "not finite"),
    ],
)
def test_what_is_no_answer_is_refused(parts, reason):
    with pytest.raises(FormatError, match=reason):
        parse_reply(parts, 3, 10)
