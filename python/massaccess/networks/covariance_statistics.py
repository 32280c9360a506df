"""What the covariance of received pilots says of each user, given powers of all of them.

Everything is in units of the noise: the pilots p_n of `whitened` samples carry sqrt(mean gain / noise variance), and the covariance model
is S = sum_n power_n p_n p_n^H + I. With S^-1 p_n at hand, one user's own power leaves S by a rank-one update, so all users are judged in
the light of all the others at the price of one solve (Fengler, Haghighatshoar, Jung, Caire, IEEE Trans. Inf. Theory 2021, eq. 17-21).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SELF_SHARE = 1e-3  # least 1 - power_n p_n^H S^-1 p_n: what rounding leaves of a user that explains all of its own direction
QUIETEST = 1e-3  # noise variance over received power, at least: a model of single precision cannot tell less
LEAST, MOST = -3.0, 8.0  # of logarithms of energies over what the model expects


@dataclass(frozen=True)
class Whitened:
    """Received pilots rx [B L M] and book [B L N] in units of the noise, and their sample covariance cov [B L L] = rx rx^H / M."""

    rx: Tensor
    book: Tensor
    cov: Tensor


@dataclass(frozen=True)
class Statistics:
    """Of each user, its own power taken out of S [B N]: ``precision`` q = p^H S^-1 p, ``energy`` m = p^H S^-1 C S^-1 p, so that m / q is
    about 1 for a silent user and about 1 + power q for an active one; ``filters`` [B L N] = S^-1 p / (1 - power p^H S^-1 p);
    ``fit`` [B] = tr(S^-1 C) / L, which is about 1 when the powers explain what was received."""

    precision: Tensor
    energy: Tensor
    filters: Tensor
    fit: Tensor


def whitened(rx: Tensor, pilots: Tensor, noise_var: Tensor) -> Whitened:
    """rx [B L M], pilots [B L N] (times the root of each user's mean gain) and noise_var [B], no less than `QUIETEST` of the power."""
    power = rx.abs().square().mean((1, 2))
    scale = noise_var.maximum(QUIETEST * power).rsqrt()[:, None, None]
    rx, book = rx * scale, pilots * scale
    return Whitened(rx, book, rx @ rx.mH / rx.shape[2])


def statistics(seen: Whitened, power: Tensor) -> Statistics:
    """For powers [B N] in units of each user's mean gain."""
    book, length = seen.book, seen.book.shape[1]
    noise = torch.eye(length, dtype=book.dtype, device=book.device)
    factor = torch.linalg.cholesky((book * power[:, None]) @ book.mH + noise)
    both = torch.cholesky_solve(torch.cat([book, seen.cov.expand(len(book), -1, -1)], 2), factor)
    image, ratio = both[..., : book.shape[2]], both[..., book.shape[2] :]
    precision = (book.conj() * image).sum(1).real
    own = (1 - power * precision).clamp_min(SELF_SHARE)
    energy = (image.conj() * (seen.cov @ image)).sum(1).real / own.square()
    fit = ratio.diagonal(dim1=1, dim2=2).real.mean(1)
    return Statistics(precision / own, energy, image / own[:, None], fit)


def evidence(precision: Tensor, energy: Tensor, power: float | Tensor = 1.0) -> Tensor:
    """Log-likelihood ratio per antenna of a user of that power against silence, independent antennas: power m / (1 + power q) -
    log(1 + power q)."""
    scale = power * precision
    return power * energy / (1 + scale) - torch.log1p(scale)


def features(found: Statistics, antennas: int) -> Tensor:
    """[B N 4] of order 1 whatever the pilot length, the number of antennas, the noise and the book: how well the user can be seen,
    log(1 + q); what was seen, log(m / q); the evidence that it is active with its mean power; the evidence for the power that fits best."""
    precision, energy = found.precision, found.energy
    ratio = torch.log(energy / precision.clamp_min(1e-12) + 1e-12).clamp(LEAST, MOST)
    best = torch.relu(ratio).expm1() - torch.relu(ratio)
    level = antennas * evidence(precision, energy)
    return torch.stack([torch.log1p(precision) / 2, ratio, squashed(level), squashed(antennas * best)], -1)


def squashed(log_odds: Tensor) -> Tensor:
    """Log odds where they decide, their logarithm where they are sure."""
    return torch.asinh(log_odds / 4)
