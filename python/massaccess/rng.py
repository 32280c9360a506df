"""Random generators: always an argument, never global, always derived from a seed and a path.

A path names what the numbers are for, so that one sweep point, one block of frames or one stage can be made again alone:

>>> import torch
>>> a = generator(7, "noise", 3)
>>> b = generator(7, "noise", 3)
>>> bool(torch.equal(torch.rand(4, generator=a), torch.rand(4, generator=b)))
True
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream of numbers that ``path`` names under ``seed``."""
    text = repr((int(seed), *path)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded by ``derive(seed, *path)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def complex_normal(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Draws from CN(0, 1), circularly symmetric with total variance 1 per entry, on the generator's device."""
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    parts = torch.randn(*shape, 2, generator=generator, dtype=real, device=generator.device)
    return torch.view_as_complex(parts * math.sqrt(0.5))
