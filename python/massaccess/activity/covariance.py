"""Covariance maximum likelihood: who is active, from the sample covariance of the received pilots alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..lanes import split
from ..parallel import over_frames


@dataclass(frozen=True)
class Covariance:
    """Coordinate descent on the covariance likelihood, then a maximum a posteriori decision by greedy bit flips.

    The received pilots of one antenna are CN(0, S), S = sum_n power_n p_n p_n^H + noise_var I. Descent minimises log|S| + tr(S^-1 C) over
    power_n in [0, ceiling * gain_n], one user at a time, S^-1 kept by rank-one updates (Fengler, Haghighatshoar, Jung, Caire, IEEE Trans.
    Inf. Theory 2021, Algorithm 1; the baseline that P1 leaves out). Users go in the order of their matched-filter power, so that the
    answer does not depend on how they are numbered.

    The decision is maximum a posteriori, prior activity included. Where the antennas are independent (``channel_cov`` unknown), power_n is
    either 0 or gain_n, and bits are flipped greedily, the one that raises the posterior most first, until none does. On correlated
    channels the power that a user shows in one frame varies; there the likelihood is averaged over a Gamma distribution of that power of
    shape ``power_shape``, by default half of (tr R)^2 / tr(R^2) with R = ``channel_cov``: a user sees part of the directions of the cell.

    Options: sweeps: most passes over the users; tolerance: stop when no step exceeds it (relative to the user's own precision);
    ceiling: upper limit of a power in units of the user's mean; threshold: on the log odds of being active, 0 is MAP.
    """

    sweeps: int = 40
    tolerance: float = 1e-3
    ceiling: float = 10.0
    power_shape: float | None = None
    threshold: float = 0.0

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N]; info: power [B N], log_odds [B N], sweeps [B]."""
        rx = obs.pilot_rx.to(torch.complex128)
        gain = torch.ones(obs.frames, obs.users, dtype=torch.float64, device=rx.device) if obs.user_gain is None else obs.user_gain.double()
        odds = math.log((1 - obs.activity) / obs.activity) if obs.activity < 1 else -math.inf
        problem = Problem(rx @ rx.mH / obs.antennas, obs.pilots.to(torch.complex128), gain, obs.linear_noise_var, obs.antennas, odds)
        compiled = rx.device.type == "cpu"
        power, sweeps = descend(problem, self.ceiling * gain, sweeps=self.sweeps, tolerance=self.tolerance)
        shape = self.power_shape or _power_shape(obs)
        if shape is None:
            log_odds = (_flip_compiled if compiled else _flip_batched)(problem, power > 0.5 * gain)
        else:
            log_odds = _averaged_log_odds(problem, power, shape)
        activity = torch.sigmoid(log_odds - self.threshold).to(obs.pilot_rx.real.dtype)
        return Estimate(activity, info={"power": power, "log_odds": log_odds, "sweeps": sweeps})


@dataclass(frozen=True)
class Problem:
    """Sample covariances, the book, mean powers of its columns, noise variance, independent antennas, and log p(silent) / p(active)."""

    cov: Tensor  # [B L L] complex128
    book: Tensor  # [L N]
    gain: Tensor  # [B N]
    noise_var: float
    antennas: int
    log_odds_against: float

    def order(self) -> Tensor:
        """Users by falling matched-filter power [B N]."""
        matched = (self.book.conj() * (self.cov @ self.book)).sum(1).real
        return torch.argsort(matched * self.gain, descending=True, dim=-1, stable=True)

    def images(self, power: Tensor) -> Tensor:
        """S^-1 p of every column, [B L N], under the powers [B N]."""
        noise = self.noise_var * torch.eye(len(self.book), dtype=self.cov.dtype, device=self.cov.device)
        covariance = (self.book * power[:, None, :]) @ self.book.mH + noise
        return torch.linalg.solve(covariance, self.book.expand(len(power), -1, -1))

    def precision_and_match(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """p^H S^-1 p and p^H S^-1 C S^-1 p [B N] under the powers [B N]."""
        image = self.images(power)
        return (self.book.conj() * image).sum(1).real, (image.conj() * (self.cov @ image)).sum(1).real


def descend(problem: Problem, limit: Tensor, *, sweeps: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Powers [B N] in [0, limit [B N]] that minimise log|S| + tr(S^-1 C), and sweeps taken [B]; see `Covariance`."""
    path = _descend_compiled if problem.cov.device.type == "cpu" else _descend_batched
    return path(problem, limit, sweeps, tolerance)


def _power_shape(obs: Observation) -> float | None:
    if obs.channel_cov is None:
        return None
    trace = obs.channel_cov.diagonal().real.sum()
    return max(0.5 * float(trace.square() / obs.channel_cov.abs().square().sum()), 1.0)


def _averaged_log_odds(problem: Problem, power: Tensor, shape: float) -> Tensor:
    """Log odds [B N] of each user given the powers of the others, averaged over its own power ~ Gamma(shape, mean gain)."""
    precision, match = problem.precision_and_match(power)
    rest = (1 - power * precision).clamp_min(1e-9)  # takes the user's own power out again
    precision, match = precision / rest, match / rest.square()
    nodes, weights = _gamma_quadrature(shape)
    level = problem.gain[..., None] * nodes.to(power)
    each = evidence(precision[..., None], match[..., None], level, problem.antennas)
    return torch.logsumexp(each + weights.to(power).log(), -1) - problem.log_odds_against


def evidence(precision: Tensor, match: Tensor, level: Tensor, antennas: int) -> Tensor:
    """log p(rx | power level) / p(rx | power 0) of a column with `Problem.precision_and_match` at power 0."""
    scale = 1 + level * precision
    return antennas * (level * match / scale - scale.log())


@cache
def _gamma_quadrature(shape: float, count: int = 64) -> tuple[Tensor, Tensor]:
    """Nodes and weights [count] for averages over Gamma(shape) of mean 1, equally spaced in its quantiles' logarithms."""
    from scipy.stats import gamma

    law = gamma(shape, scale=1 / shape)
    edges = np.geomspace(law.ppf(1e-5), law.isf(1e-7), count + 1)
    return torch.from_numpy(np.sqrt(edges[1:] * edges[:-1])), torch.from_numpy(np.diff(law.cdf(edges)))


def _descend_compiled(problem: Problem, limit: Tensor, most: int, tolerance: float) -> tuple[Tensor, Tensor]:
    from . import _covariance_kernel as kernel

    frames, users = problem.gain.shape
    cov, book = split(problem.cov), split(problem.book.mT)
    inverse = np.empty_like(cov[0]), np.empty_like(cov[0])
    power, sweeps = np.zeros((frames, users)), np.zeros(frames, dtype=np.int64)
    fixed = (*cov, *book, problem.order().numpy(), problem.noise_var, limit.contiguous().numpy(), most, tolerance)
    over_frames(kernel.descend, frames, *fixed, *inverse, power, sweeps)
    return torch.from_numpy(power), torch.from_numpy(sweeps)


def _flip_compiled(problem: Problem, active: Tensor) -> Tensor:
    from . import _covariance_kernel as kernel

    cov, book = split(problem.cov), split(problem.book.mT)
    inverse = np.empty_like(cov[0]), np.empty_like(cov[0])
    chosen, cost = active.numpy().copy(), np.zeros(active.shape)
    fixed = (*cov, *book, problem.gain.numpy(), problem.noise_var, float(problem.antennas), problem.log_odds_against, 2 * len(book[0]))
    over_frames(kernel.flip, len(chosen), *fixed, chosen, *inverse, cost)
    return torch.from_numpy(np.where(chosen, cost, -cost))


def _descend_batched(problem: Problem, limit: Tensor, most: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """The same descent in tensor operations, one user of all frames at a time: the path for a GPU."""
    cov, rows, order = problem.cov, problem.book.mT.contiguous(), problem.order()
    frames, users = problem.gain.shape
    size = rows.shape[1]
    inverse = torch.eye(size, dtype=cov.dtype, device=cov.device).repeat(frames, 1, 1) / problem.noise_var
    power = torch.zeros_like(problem.gain)
    sweeps = torch.zeros(frames, dtype=torch.long, device=cov.device)
    running = torch.ones(frames, dtype=torch.bool, device=cov.device)
    for sweep in range(most):
        largest = torch.zeros(frames, dtype=torch.float64, device=cov.device)
        for rank in range(users):
            user = order[:, rank : rank + 1]
            pilot = rows[user[:, 0]][..., None]
            mine = power.gather(1, user)[:, 0]
            image = inverse @ pilot
            gain = (pilot.mH @ image).real[:, 0, 0]
            match = (image.mH @ cov @ image).real[:, 0, 0]
            step = ((match - gain) / gain.square()).maximum(-mine).minimum(limit.gather(1, user)[:, 0] - mine)
            idle = ~running | (step.abs() * gain < 1e-9) | ((mine == 0) & bool(sweep % 4))
            step = step.masked_fill(idle, 0.0)
            inverse = inverse - (step / (1 + step * gain))[:, None, None] * (image @ image.mH)
            power.scatter_add_(1, user, step[:, None])
            largest = largest.maximum(step.abs() * gain)
        sweeps += running
        if sweep % 4 == 0:
            running = running & (largest >= tolerance)
            if not bool(running.any()):
                break
    return power, sweeps


def _flip_batched(problem: Problem, active: Tensor) -> Tensor:
    for _ in range(2 * active.shape[1]):
        precision, match = problem.precision_and_match(problem.gain * active)
        sign = 1.0 - 2.0 * active
        step = sign * problem.gain
        scale = (1 + step * precision).clamp_min(1e-12)
        cost = problem.antennas * (scale.log() - step * match / scale) + sign * problem.log_odds_against
        best, winner = cost.min(1, keepdim=True)
        flips = best < -1e-6
        if not bool(flips.any()):
            break
        active = active.scatter(1, winner, active.gather(1, winner) ^ flips)
    return torch.where(active, cost, -cost)
