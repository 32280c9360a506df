"""What the covariance of received pilots says of each user, given powers of all of them.

Everything is in units of the noise: the pilots p_n of `whitened` samples carry sqrt(mean gain / noise variance), and the covariance model
is S = sum_n power_n p_n p_n^H + I. With S^-1 p_n at hand, one user's own power leaves S by a rank-one update, so all users are judged in
the light of all the others at the price of one solve (Fengler, Haghighatshoar, Jung, Caire, IEEE Trans. Inf. Theory 2021, eq. 17-21).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SELF_SHARE = 1e-3  # least 1 - power_n p_n^H S^-1 p_n: what rounding leaves of a user that explains all of its own direction
QUIETEST = 1e-3  # noise variance over received power, at least: a model of single precision cannot tell less
OF_FRAME = 6  # features of a frame
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
    about 1 for a silent user and about 1 + power q for an active one; ``fit`` [B] = tr(S^-1 C) / L, which is about 1 when the powers
    explain what was received."""

    precision: Tensor
    energy: Tensor
    fit: Tensor


def whitened(rx: Tensor, pilots: Tensor, noise_var: Tensor) -> Whitened:
    """rx [B L M], pilots [B L N] (times the root of each user's mean gain) and noise_var [B], no less than `QUIETEST` of the power."""
    power = rx.abs().square().mean((1, 2))
    scale = noise_var.maximum(QUIETEST * power).rsqrt()[:, None, None]
    rx, book = rx * scale, pilots * scale
    return Whitened(rx, book, rx @ rx.mH / rx.shape[2])


def statistics(seen: Whitened, power: Tensor) -> Statistics:
    """For powers [B N] in units of each user's mean gain. S is inverted, not solved for each user: its condition is bounded by `QUIETEST`,
    and on a CPU one small inverse and a product take a tenth of the time."""
    book, length = seen.book, seen.book.shape[1]
    noise = torch.eye(length, dtype=book.dtype, device=book.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky((book * power[:, None]) @ book.mH + noise))
    image = inverse @ book
    precision = _inner(book, image)
    own = (1 - power * precision).clamp_min(SELF_SHARE)
    energy = _inner(image, seen.cov @ image) / own.square()
    return Statistics(precision / own, energy, (inverse * seen.cov.mT).sum((1, 2)).real / length)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Real part of the inner products of columns [B L N], [B N]."""
    return (left.real * right.real + left.imag * right.imag).sum(1)


def evidence(precision: Tensor, energy: Tensor, power: float | Tensor = 1.0) -> Tensor:
    """Log-likelihood ratio per antenna of a user of that power against silence, independent antennas: power m / (1 + power q) -
    log(1 + power q)."""
    scale = power * precision
    return power * energy / (1 + scale) - torch.log1p(scale)


def features(precision: Tensor, energy: Tensor, looks: float | Tensor) -> Tensor:
    """[... N 4] of order 1 whatever the pilot length, the number of antennas (``looks``), the noise and the book: how well the user can be
    seen, log(1 + q); what was seen, log(m / q); the evidence that it is active with its mean power, and for the power that fits best."""
    ratio = torch.log(energy / precision.clamp_min(1e-12) + 1e-12).clamp(LEAST, MOST)
    best = torch.relu(ratio).expm1() - torch.relu(ratio)
    level = looks * evidence(precision, energy)
    return torch.stack([torch.log1p(precision) / 2, ratio, squashed(level), squashed(looks * best)], -1)


def of_frame(power: Tensor, log_odds: Tensor, fit: Tensor, sizes: Tensor) -> Tensor:
    """[B OF_FRAME]: whether the powers [B N] explain what was received (``fit`` [B]), how many users there are for the pilots, how many are
    in doubt, and the ``sizes``."""
    load = torch.log(power.sum(1) * torch.exp(-sizes[1] - 3) + 1e-3)
    doubt = 10 * (torch.sigmoid(log_odds) * torch.sigmoid(-log_odds)).mean(1)
    return torch.cat([torch.stack([fit.log().clamp(-3, 3), load, doubt], -1), sizes.expand(len(power), -1)], -1)


def sizes_of(seen: Whitened) -> Tensor:
    """[3] logarithms, around 0: antennas, pilots, users for each pilot."""
    (length, antennas), users = seen.rx.shape[1:], seen.book.shape[2]
    found = [math.log(antennas) - 4, math.log(length) - 3, math.log(users / length) - 2]
    return seen.rx.real.new_tensor(found)


def squashed(log_odds: Tensor) -> Tensor:
    """Log odds where they decide, their logarithm where they are sure."""
    return torch.asinh(log_odds / 4)
