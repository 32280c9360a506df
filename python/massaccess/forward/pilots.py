"""Pilot books: one non-orthogonal sequence a user, with an id that stays the same wherever the book is made.

>>> book = pilot_book(users=4, pilot_len=3, seed=1)
>>> tuple(book.shape), book_id(book)
((3, 4), '7f41449e')
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..core import SystemConfig
from ..errors import unknown
from ..rng import complex_normal, generator
from .modulation import constellation

PILOT_KINDS = ("qpsk", "gaussian")
PIECE = 64  # rows drawn at once: books of different lengths share their first rows


def pilot_book(*, users: int, pilot_len: int, kind: str = "qpsk", seed: int = 0) -> Tensor:
    """Random pilots [pilot_len users] complex64 of unit mean power.

    Books of one seed and kind nest: a shorter book is the first rows of a longer one (variable pilot length, P1 eq. 3), and fewer users
    are its first columns.
    """
    if kind not in PILOT_KINDS:
        raise unknown("pilot kind", kind, PILOT_KINDS)
    pieces = [_piece(users, kind, seed, piece) for piece in range(-(-pilot_len // PIECE))]
    return torch.cat(pieces)[:pilot_len]


def book_of(config: SystemConfig) -> Tensor:
    """The book of a cell [pilot_len users * sequences] complex64, of its ``pilot_energy``: the sequences of a device lie side by side."""
    book = pilot_book(users=config.users * config.sequences, pilot_len=config.pilot_len, kind=config.pilot_kind, seed=config.pilot_seed)
    return book if config.pilot_energy == "symbol" else book / torch.linalg.vector_norm(book, dim=0)


def _piece(users: int, kind: str, seed: int, piece: int) -> Tensor:
    """`PIECE` rows of the book, each user's from a generator of its own."""
    draws = [generator(seed, "pilots", kind, user, piece) for user in range(users)]
    if kind == "gaussian":
        return torch.stack([complex_normal(PIECE, generator=draw) for draw in draws], 1)
    points = constellation("qpsk").points
    return torch.stack([points[torch.randint(0, 4, (PIECE,), generator=draw)] for draw in draws], 1)


def book_id(pilots: Tensor) -> str:
    """Eight hexadecimal digits that identify pilots [pilot_len users]: a hash of the values rounded to 16 bits."""
    parts = torch.view_as_real(pilots.resolve_conj().cpu().to(torch.complex128))
    rounded = torch.round(parts * 2**12).to(torch.int32).numpy().astype("<i4")
    return hashlib.blake2b(repr(rounded.shape).encode() + rounded.tobytes(), digest_size=4).hexdigest()
