"""What access points and the fusion centre say to one another: messages of `wire`, told apart by a kind.

Every message has the array ``head``, int64: the kind, the version of this protocol, then the numbers that `FIELDS` lists for the kind.
Factors travel as float32 arrays. The wire's stream number is the session of the sender: a random number of each run of a program.

    hello     access point -> centre   who I am, what I have; again every heartbeat
    welcome   centre -> access point   how to work; the answer to each hello
    refused   centre -> access point   why not, array ``reason``: UTF-8
    work      centre -> access point   refine your factor: ``shift`` and ``precision`` of the posterior without it, and ahead of a new
                                       channel estimate ``posterior_shift`` and ``posterior_precision``
    answer    access point -> centre   the new factor, ``shift`` and ``precision``; without them: I have no such frames
    bye       both                     I end

Samples and channels are in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch

from ..errors import FormatError
from ..receivers.factor import Factor
from . import wire
from .metadata import Metadata

PROTOCOL = 1
LARGEST = 2**53  # numbers in a head lie between 0 and this
REASON_BYTES = 512


class Kind(IntEnum):
    """The first number of a head."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    WORK = 4
    ANSWER = 5
    BYE = 6


FIELDS = {
    Kind.HELLO: ("index", "of", "antennas", "users", "pilot_len", "data_len", "bits_per_symbol", "oldest", "newest", "ended", "job"),
    Kind.WELCOME: ("first", "again", "steps", "covariance", "normalise", "heartbeat_ms"),
    Kind.REFUSED: (),
    Kind.WORK: ("job", "start", "count", "stage"),
    Kind.ANSWER: ("index", "job"),
    Kind.BYE: (),
}
FACTOR, POSTERIOR = ("shift", "precision"), ("posterior_shift", "posterior_precision")
DTYPES: Mapping[str, type] = {"reason": np.uint8}  # of all others float32
ARRAYS: Mapping[Kind, tuple[set[str], ...]] = {
    Kind.HELLO: (set(),),
    Kind.WELCOME: (set(),),
    Kind.REFUSED: ({"reason"},),
    Kind.WORK: ({*FACTOR}, {*FACTOR, *POSTERIOR}),
    Kind.ANSWER: (set(), {*FACTOR}),
    Kind.BYE: (set(),),
}


@dataclass(frozen=True)
class Note:
    """One message: its kind, its numbers by name, further arrays by name, and who sent it."""

    kind: Kind
    numbers: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    session: int = 0
    metadata: Metadata = Metadata()

    def factor(self, names: tuple[str, str] = FACTOR) -> Factor | None:
        """The factor in the arrays called ``names``, if there is one."""
        if names[0] not in self.arrays:
            return None
        shift, precision = (torch.from_numpy(self.arrays[name].copy()) for name in names)
        return Factor(shift, precision)


def pack(note: Note, *, sequence: int = 0) -> bytes:
    """The message. KeyError when a number of its kind is missing."""
    head = np.array([note.kind, PROTOCOL, *(note.numbers[name] for name in FIELDS[note.kind])], np.int64)
    return wire.encode({"head": head, **note.arrays}, note.metadata, sequence=sequence, stream=note.session)


def unpack(message: bytes) -> Note:
    """The inverse of `pack`. Raises FormatError, and nothing else, for anything that is not such a message."""
    found = wire.decode(message)
    arrays = dict(found.arrays)
    head = arrays.pop("head", None)
    if head is None or head.dtype != np.int64 or head.ndim != 1 or len(head) < 2:
        raise FormatError("the message has no head: it is not from an access point or a fusion centre")
    kind, version = int(head[0]), int(head[1])
    if version != PROTOCOL or kind not in set(Kind):
        raise FormatError(f"kind {kind} of protocol {version}, this is protocol {PROTOCOL}: use the same release on both sides")
    kind, names = Kind(kind), FIELDS[Kind(kind)]
    numbers = head[2:].tolist()
    if len(numbers) != len(names) or any(not 0 <= number <= LARGEST for number in numbers):
        raise FormatError(f"a {kind.name.lower()} has the {len(names)} numbers {', '.join(names)}, 0 or more: the sender is broken")
    if set(arrays) not in ARRAYS[kind] or any(array.dtype != DTYPES.get(name, np.float32) for name, array in arrays.items()):
        raise FormatError(f"a {kind.name.lower()} with the arrays {', '.join(arrays) or 'none'}: the sender is broken")
    return Note(kind, dict(zip(names, numbers, strict=True)), arrays, found.stream, found.metadata)


def arrays_of(factor: Factor, names: tuple[str, str] = FACTOR) -> dict[str, np.ndarray]:
    """The arrays of a message that carry ``factor``."""
    return {name: part.numpy() for name, part in zip(names, (factor.shift, factor.precision), strict=True)}


def refusal(reason: str, session: int) -> Note:
    """A refusal, its reason cut to `REASON_BYTES`."""
    return Note(Kind.REFUSED, {}, {"reason": np.frombuffer(reason.encode()[:REASON_BYTES], np.uint8)}, session)


def reason_of(note: Note) -> str:
    """What a refusal says, harmless to print."""
    text = note.arrays["reason"].tobytes()[:REASON_BYTES].decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)


def check(factor: Factor, like: Factor) -> Factor:
    """``factor``, a message's, if it is of the shape of ``like`` and can be counted; otherwise FormatError: numbers must be finite and
    precisions those of a log-concave likelihood, so that no sum of factors can spoil the posterior."""
    if factor.shift.shape != like.shift.shape or factor.precision.shape != like.precision.shape:
        raise FormatError(f"a factor of shape {list(factor.shift.shape)} {list(factor.precision.shape)}: the sender has another system")
    finite = all(bool(torch.isfinite(part).all()) and bool((part.abs() < 1e12).all()) for part in (factor.shift, factor.precision))
    if not finite or not _can_be_precision(factor.precision, like):
        raise FormatError("a factor that is not finite or not of positive precision: the sender is broken")
    return factor


SLACK = 1e-3  # of the prior's precision: what rounding may take away


def _can_be_precision(precision: torch.Tensor, prior: Factor) -> bool:
    if prior.diagonal:
        return bool((precision >= -SLACK * prior.precision).all())
    size = precision.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None].clamp_min(0)
    return not bool(torch.linalg.cholesky_ex(precision + SLACK * prior.precision * (1 + size)).info.any())
