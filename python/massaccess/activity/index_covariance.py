"""Covariance detection of index-modulated pilots: who is active, and with which of its sequences, from the sample covariance alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Estimate, Observation, sequence_estimate
from ..errors import unknown
from ..lanes import split
from ..parallel import over_frames
from ..priors.one_of_rows import OneOfRows, gain_grid
from .covariance import Problem, descend, evidence

DECISIONS = ("map", "lr", "fixed")
Range = tuple[float, float] | None  # of gains that are not known [dB]
LEAST = 1e-6  # gain in log posterior of a move that is worth making
NOTHING = 1e-30  # stands for a power of zero where its logarithm is told
ROUNDS = 4  # moves a frame, at the most, in units of the devices


@dataclass(frozen=True)
class IndexCovariance:
    """Coordinate descent over all sequences of all devices (see `covariance.Covariance`), then a decision section by section.

    ``decision`` "fixed": the largest power of a section counts as active above half of the device's gain (the rule that Ma, Wu, Gao, Shen
    2023 compare with, after Fengler et al. 2021). "lr": each sequence against silence by the likelihood ratio at the device's gain, prior
    included, all other sections at the powers that descent found. "map": every device is silent or has one sequence, at its gain; the move
    of one device, also from one sequence to another, that raises the posterior most is made first, until none does.

    Where gains are not known but for their range (``gain_range_db`` of the observation), descent may go up to its end, "fixed" takes its
    low end for the gain, "lr" averages the
    likelihood over those of `priors.one_of_rows.gain_grid`, and "map" moves at the gains that fit best next to what descent found, then
    averages in the same way, given the other sections.

    Options as in `covariance.Covariance`.
    """

    decision: str = "map"
    sweeps: int = 40
    tolerance: float = 1e-3
    ceiling: float = 10.0

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise unknown("decision", self.decision, DECISIONS)

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``sequence_odds`` [B N Q]; info: power [B N Q], iterations [B] (sweeps)."""
        problem, unknown_db = _problem(obs), obs.gain_range_db
        limit = self.ceiling * (problem.gain if unknown_db is None else torch.full_like(problem.gain, _linear(unknown_db[1])))
        power, sweeps = descend(problem, limit, sweeps=self.sweeps, tolerance=self.tolerance)
        odds = self._odds(problem, power, obs.sequences, unknown_db)
        shape = (obs.users, obs.sequences)
        found = odds.to(obs.pilot_rx.real.dtype)
        return sequence_estimate(found, info={"power": power.unflatten(1, shape), "iterations": sweeps})

    def _odds(self, problem: Problem, power: Tensor, sequences: int, unknown_db: Range) -> Tensor:
        if self.decision == "fixed":
            return torch.log(2 * power / problem.gain + NOTHING).unflatten(1, (-1, sequences))
        if self.decision == "lr":
            return _averaged(problem, power, sequences, unknown_db)
        level = problem.gain if unknown_db is None else _fitted(problem, power, sequences, unknown_db)
        problem = replace(problem, gain=level)
        largest, column = (power / level).unflatten(1, (-1, sequences)).max(-1)
        path = _move_compiled if power.device.type == "cpu" else _move_batched
        chosen, odds = path(problem, torch.where(largest > 0.5, column, -1), sequences)
        return odds if unknown_db is None else _averaged(problem, _power_of(problem, chosen, sequences), sequences, unknown_db)


def _averaged(problem: Problem, power: Tensor, sequences: int, unknown_db: Range) -> Tensor:
    """Log odds [B N Q] of each sequence given the powers [B NQ] of the other sections, at the device's gain or over all it may have."""
    precision, match = given_others(problem, power, sequences)
    if unknown_db is None:
        level = problem.gain.unflatten(1, (-1, sequences))
        return evidence(precision, match, level, problem.antennas) - problem.log_odds_against
    grid = gain_grid(*unknown_db).to(power)
    each = evidence(precision[..., None], match[..., None], grid, problem.antennas)
    return torch.logsumexp(each, -1) - math.log(len(grid)) - problem.log_odds_against


def _problem(obs: Observation) -> Problem:
    """Every sequence a column; gains are those of the columns, the least possible where they are not known."""
    rx, book = obs.pilot_rx.to(torch.complex128), obs.pilots.to(torch.complex128)
    least = 1.0 if obs.gain_range_db is None else _linear(obs.gain_range_db[0])
    gain = rx.real.new_full((obs.frames, obs.users), least) if obs.user_gain is None else obs.user_gain.double()
    prior = OneOfRows(obs.activity, gain).log_prior(obs.sequences)
    gain = gain.repeat_interleave(obs.sequences, 1)
    return Problem(rx @ rx.mH / obs.antennas, book, gain, obs.linear_noise_var, obs.antennas, -prior)


def given_others(problem: Problem, power: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    """p^H S^-1 p and p^H S^-1 C S^-1 p [B N Q] of each sequence, S without the powers of its own section; power [B NQ].

    Taking the section's columns P with powers G out of S turns S^-1 P into S^-1 P (I - G P^H S^-1 P)^-1.
    """
    shape = (-1, sequences)
    images = problem.images(power)
    matched = (problem.cov @ images).unflatten(2, shape)
    images, book = images.unflatten(2, shape), problem.book.unflatten(1, shape)
    precision = torch.einsum("lnq,blnp->bnqp", book.conj(), images)
    match = torch.einsum("blnq,blnp->bnqp", images.conj(), matched)
    kept = torch.eye(sequences, dtype=precision.dtype, device=power.device) - power.unflatten(1, shape)[..., None] * precision
    turn = torch.linalg.inv(kept)
    return (precision @ turn).diagonal(dim1=2, dim2=3).real, (turn.mH @ match @ turn).diagonal(dim1=2, dim2=3).real


def _linear(level_db: float) -> float:
    return float(10 ** (level_db / 10))


def _fitted(problem: Problem, power: Tensor, sequences: int, unknown_db: tuple[float, float]) -> Tensor:
    """Power [B NQ], within the range, at which each sequence fits best next to the other sections."""
    precision, match = given_others(problem, power, sequences)
    return ((match - precision) / precision.square()).clamp(_linear(unknown_db[0]), _linear(unknown_db[1])).flatten(1)


def _power_of(problem: Problem, chosen: Tensor, sequences: int) -> Tensor:
    """Powers [B NQ] of the chosen [B N] sequences, -1 for none."""
    return torch.nn.functional.one_hot(chosen + 1, sequences + 1)[..., 1:].flatten(1) * problem.gain


def _move_compiled(problem: Problem, chosen: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    from . import _index_covariance_kernel as kernel

    cov, book = split(problem.cov), split(problem.book.mT)
    state, odds = chosen.numpy().copy(), problem.gain.new_zeros(*chosen.shape, sequences)
    level, looks = problem.gain.contiguous().numpy(), float(problem.antennas)
    fixed = (*cov, *book, level, problem.noise_var, looks, -problem.log_odds_against, ROUNDS * chosen.shape[1])
    over_frames(kernel.move, len(chosen), *fixed, state, odds.numpy())
    return torch.from_numpy(state), odds


def _move_batched(problem: Problem, chosen: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    """The same moves in tensor operations, one of every frame at a time: the path for a GPU. Returns (chosen, odds)."""
    level = problem.gain.unflatten(1, (-1, sequences))
    silent = level.new_zeros(level.shape[:2])
    for turn in range(ROUNDS * chosen.shape[1] + 1):
        precision, match = given_others(problem, _power_of(problem, chosen, sequences), sequences)
        odds = evidence(precision, match, level, problem.antennas) - problem.log_odds_against
        cases = torch.cat([silent[..., None], odds], -1)
        gain, choice = (cases - cases.gather(2, (chosen + 1)[..., None])).max(-1)
        best, winner = gain.max(1, keepdim=True)
        if not bool((best > LEAST).any()) or turn == ROUNDS * chosen.shape[1]:
            break
        chosen = torch.where(best > LEAST, chosen.scatter(1, winner, choice.gather(1, winner) - 1), chosen)
    return chosen, odds
