"""The sweeps over sections in tensor operations, one device of all frames at a time: the path for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .section_problem import Found, Problem

STILL, LEAST_SHARE, LEAST_REST, FLOOR = 1e-2, 1e-3, 1e-9, 1e-12  # as in the kernel, which says what they are


def batched(problem: Problem) -> Found:
    """The same as the compiled sweeps."""
    state = _State.of(problem)
    for sweep in range(len(problem.exponents)):
        state.begin(problem, sweep)
        if not bool(state.running.any()):
            continue
        for rank in range(problem.order.shape[1]):
            state.visit(problem, sweep, rank)
        state.end(problem, sweep)
    return state.found(problem)


@dataclass(eq=False)
class _State:
    inverse: Tensor  # [B W L L], W beams, or 1 where all antennas are alike
    power: Tensor  # [B W K], zero in beams that are left out
    own: Tensor  # [B N Q W]
    odds: Tensor  # [B N Q]
    hushed: Tensor  # [B N]
    total: Tensor  # [B N Q] sums over sampled sweeps
    silence: Tensor  # [B N]
    counted: Tensor  # [B N] sweeps in these sums
    shown: Tensor  # [B N] power, summed likewise
    mass: Tensor  # [B N G]
    moved: Tensor  # [B]
    moving: Tensor  # [B]
    doubtful: Tensor  # [B]
    running: Tensor  # [B]
    used: Tensor  # [B]

    @staticmethod
    def of(problem: Problem) -> _State:
        (frames, users), (_, sequences, size), rx = problem.order.shape, problem.book.shape, problem.rx
        if problem.looks:
            power = problem.power[None, :1].expand(frames, -1, -1)
        else:
            rank = torch.empty_like(problem.kept).scatter_(
                1, problem.kept, torch.arange(rx.shape[2], device=rx.device).expand_as(problem.kept)
            )
            power = problem.power * (rank < problem.kept_count[:, None])[..., None]
        lanes, here = power.shape[1], rx.real
        inverse = torch.eye(size, dtype=rx.dtype, device=rx.device).repeat(frames, lanes, 1, 1) / problem.noise_var
        sections = here.new_zeros(frames, users, sequences)
        yes = torch.ones(frames, dtype=torch.bool, device=rx.device)
        return _State(
            inverse,
            power,
            here.new_zeros(frames, users, sequences, lanes),
            sections,
            here.new_ones(frames, users),
            sections.clone(),
            here.new_zeros(frames, users),
            torch.zeros(frames, users, dtype=torch.long, device=rx.device),
            here.new_zeros(frames, users),
            here.new_zeros(frames, users, problem.levels),
            here.new_zeros(frames),
            yes,
            yes.clone(),
            yes.clone(),
            torch.zeros(frames, dtype=torch.long, device=rx.device),
        )

    def begin(self, problem: Problem, sweep: int) -> None:
        if problem.sampled[sweep]:
            if not problem.sampled[sweep - 1]:
                ranked = torch.nn.functional.pad(self.odds, (0, 1)).sort(-1, descending=True).values
                self.doubtful = (ranked[..., 0] - ranked[..., 1] < problem.certain).any(1)
            self.running = self.doubtful
        else:
            self.running = self.moving
        self.moved = torch.zeros_like(self.moved)

    def end(self, problem: Problem, sweep: int) -> None:
        self.used += self.running
        last = problem.everybody[sweep] and sweep > 0 and problem.exponents[sweep] == problem.exponents[sweep - 1]
        if last and not problem.sampled[sweep]:
            self.moving = self.moving & (self.moved > STILL)

    def visit(self, problem: Problem, sweep: int, rank: int) -> None:
        """Updates one device of each frame that is running."""
        rows = torch.arange(len(self.used), device=self.used.device)
        user = problem.order[:, rank]
        visited = self.running & (problem.everybody[sweep] | (self.odds[rows, user].amax(1) >= problem.ignore))
        pilots = problem.book[user] * problem.amplitude[rows, user, None, None]
        before = torch.where(visited[:, None, None], self.own[rows, user], 0)
        for q in range(pilots.shape[1]):
            self._add(pilots[:, q], -before[:, q])
        image = torch.einsum("bwij,bqj->bqwi", self.inverse, pilots)
        precision = torch.einsum("bqi,bqwi->bqw", pilots.conj(), image).real
        if problem.looks:
            energy = torch.einsum("bqwi,bim->bqwm", image.conj(), problem.rx).abs().square().sum(-1)
        else:
            energy = torch.einsum("bqwi,biw->bqw", image.conj(), problem.rx).abs().square()
        scale = 1 + self.power[:, None] * precision[..., None]
        evidence = problem.log_weight[user, None] + (
            self.power[:, None] * energy[..., None] / scale - max(problem.looks, 1) * scale.log()
        ).sum(2)
        counts = problem.exponents[sweep] * evidence  # [B Q K]
        now = counts.logsumexp(2) + problem.prior
        silence = torch.sigmoid(-now.logsumexp(1))
        share = torch.softmax(counts.flatten(1), 1) * (1 - silence)[:, None]
        if problem.sampled[sweep]:
            self._count(problem, rows, user, visited, share.unflatten(1, counts.shape[1:]), silence)
            share = _drawn(share, silence, problem.numbers[sweep, rank])
        else:
            told = share.unflatten(1, (counts.shape[1], -1, problem.levels)).sum((1, 2))
            self.mass[rows, user] = torch.where(visited[:, None], told, self.mass[rows, user])
            self.moved = self.moved.maximum(torch.where(visited, (silence - self.hushed[rows, user]).abs(), 0))
            self.hushed[rows, user] = torch.where(visited, silence, self.hushed[rows, user])
            self.odds[rows, user] = torch.where(visited[:, None], now, self.odds[rows, user])
        share = share.unflatten(1, counts.shape[1:])
        chosen = share > LEAST_SHARE if problem.looks else (share.amax(2, keepdim=True) > LEAST_SHARE).expand_as(share)
        fresh = torch.einsum("bqk,bwk->bqw", torch.where(chosen & visited[:, None, None], share, 0), self.power)
        for q in range(pilots.shape[1]):
            self._add(pilots[:, q], fresh[:, q])
        self.own[rows, user] = torch.where(visited[:, None, None], fresh, self.own[rows, user])

    def _add(self, pilot: Tensor, power: Tensor) -> None:
        """Puts ``power`` [B W] of a pilot [B L] into the covariance."""
        image = torch.einsum("bwij,bj->bwi", self.inverse, pilot)
        precision = torch.einsum("bi,bwi->bw", pilot.conj(), image).real
        factor = power / (1 + power * precision).clamp_min(LEAST_REST)
        self.inverse -= factor[..., None, None] * image[..., None] * image.conj()[..., None, :]

    def _count(self, problem: Problem, rows: Tensor, user: Tensor, visited: Tensor, share: Tensor, silence: Tensor) -> None:
        told = share.unflatten(2, (-1, problem.levels)).sum((1, 2))
        before = torch.where((self.counted[rows, user] > 0)[:, None], self.mass[rows, user], 0)
        self.mass[rows, user] = torch.where(visited[:, None], before + told, self.mass[rows, user])
        self.total[rows, user] += torch.where(visited[:, None], share.sum(2), 0)
        self.shown[rows, user] += torch.where(visited, (share @ problem.power.mean(0)).sum(1), 0)
        self.silence[rows, user] += torch.where(visited, silence, 0)
        self.counted[rows, user] += visited

    def found(self, problem: Problem) -> Found:
        sampled, sweeps = self.counted > 0, self.counted.clamp_min(1)
        odds = self.total.clamp_min(FLOOR).log() - self.silence.clamp_min(FLOOR).log()[..., None]
        soft = self.own.sum((2, 3)) / (1 if problem.looks else problem.power.shape[0])
        power = torch.where(sampled, self.shown / sweeps, soft) * problem.amplitude.square()
        silence = torch.where(sampled, self.silence / sweeps, self.hushed)
        return Found(torch.where(sampled[..., None], odds, self.odds), power, self.mass / sweeps[..., None], silence, self.used)


def _drawn(share: Tensor, silence: Tensor, number: Tensor) -> Tensor:
    """One state of [B S] with its probability, or none: share 1 in the place of many."""
    edges = silence[:, None] + share.cumsum(1)
    first = (edges > number).int().argmax(1)
    taken = (number >= silence) & (edges[:, -1] > number)
    return torch.nn.functional.one_hot(first, share.shape[1]) * taken[:, None].to(share)
