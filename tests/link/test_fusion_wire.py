"""Messages between access points and the fusion centre: they come out as they went in, and nothing else gets through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from massaccess.errors import FormatError
from massaccess.link import wire
from massaccess.link.fusion_wire import (
    FIELDS,
    LARGEST,
    POSTERIOR,
    REASON_BYTES,
    Kind,
    Note,
    arrays_of,
    check,
    pack,
    reason_of,
    refusal,
    unpack,
)
from massaccess.link.metadata import Metadata
from massaccess.receivers.factor import Factor


def prior(covariance: str) -> Factor:
    return Factor.prior(2, 3, 4, covariance=covariance, like=torch.zeros(()))


def work(covariance: str = "shared") -> Note:
    factor = prior(covariance)
    numbers = {"job": 5, "start": 2**40, "count": 2, "stage": 1}
    return Note(Kind.WORK, numbers, {**arrays_of(factor), **arrays_of(factor, POSTERIOR)}, 99, Metadata(pilot_book="0123abcd"))


@pytest.mark.parametrize("covariance", ["diagonal", "shared", "full"])
def test_a_message_comes_out_as_it_went_in(covariance: str) -> None:
    sent = work(covariance)
    found = unpack(pack(sent))
    assert (found.kind, found.numbers, found.session, found.metadata) == (sent.kind, sent.numbers, 99, sent.metadata)
    for names in (("shift", "precision"), POSTERIOR):
        factor = found.factor(names)
        assert factor is not None
        assert torch.equal(factor.shift, prior(covariance).shift)
        assert torch.equal(factor.precision, prior(covariance).precision)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind != Kind.WORK])
def test_every_kind(kind: Kind) -> None:
    note = refusal("no room", 1) if kind == Kind.REFUSED else Note(kind, dict.fromkeys(FIELDS[kind], 7), {}, 1)
    found = unpack(pack(note))
    assert (found.kind, found.numbers) == (kind, note.numbers)
    assert found.factor() is None


def test_reasons_are_short_and_harmless() -> None:
    assert reason_of(unpack(pack(refusal("a\x1b[2Jb" + "x" * 9999, 1)))) == "a [2Jb" + "x" * (REASON_BYTES - 6)


def test_what_is_bent_is_refused_with_a_format_error() -> None:
    draw, whole = np.random.default_rng(0), np.frombuffer(pack(work()), np.uint8)
    refused = 0
    for _ in range(2000):
        bent = whole.copy()
        bent[draw.integers(0, 600, draw.integers(1, 4))] = draw.integers(0, 256)
        try:
            unpack(bent[: draw.integers(0, len(bent) + 1)].tobytes() if draw.random() < 0.2 else bent.tobytes())
        except FormatError:
            refused += 1
    assert refused > 1000


HEAD = np.array([Kind.BYE, 1], np.int64)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"head": HEAD.astype(np.float64)},
        {"head": HEAD[:1]},
        {"head": HEAD[None]},
        {"head": np.array([99, 1])},
        {"head": np.array([Kind.BYE, 2])},
        {"head": np.array([Kind.BYE, 1, 0])},
        {"head": HEAD, "shift": np.zeros(3, np.float32)},
        {"head": np.array([Kind.ANSWER, 1, 0, -1])},
        {"head": np.array([Kind.ANSWER, 1, 0, LARGEST + 1])},
        {"head": np.array([Kind.ANSWER, 1, 0, 1]), "shift": np.zeros(3, np.float32)},
        {"head": np.array([Kind.ANSWER, 1, 0, 1]), "shift": np.zeros(3), "precision": np.zeros(3)},
        {"head": np.array([Kind.REFUSED, 1]), "reason": np.zeros(3, np.complex64)},
    ],
)
def test_what_is_well_formed_and_means_nothing_is_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(FormatError):
        unpack(wire.encode(arrays, Metadata(), sequence=0))


@pytest.mark.parametrize("covariance", ["diagonal", "shared", "full"])
def test_factors_that_cannot_be(covariance: str) -> None:
    like = prior(covariance)
    assert check(like.nothing(), like) is not None
    assert check(Factor(-3 * torch.ones_like(like.shift), like.precision), like) is not None
    for bad in (
        Factor(like.shift[:1], like.precision),
        Factor(like.shift, like.precision[..., :1]),
        Factor(like.shift, -like.precision),
        Factor(like.shift, like.precision * torch.nan),
        Factor(like.shift + torch.inf, like.precision),
        Factor(like.shift + 1e30, like.precision),
    ):
        with pytest.raises(FormatError):
            check(bad, like)
