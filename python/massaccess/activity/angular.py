"""The toolkit's activity detector: soft covariance descent, beam by beam, with angular profiles as prior."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..errors import ConfigError
from ..parallel import over_frames
from ..priors.profiles import AngularProfiles
from ..weights import choose_profiles
from .candidates import Candidates

LANES = 16  # beams that a vector register holds: kept ones are a multiple of it
CERTAIN = 1e-9  # from certainty, that the prior odds may be


@dataclass(frozen=True)
class Annealing:
    """Exponents of the likelihood: from ``start`` to ``end``, geometrically in ``steps``."""

    start: float
    end: float
    steps: int

    def exponents(self, effort: float, hold: int) -> Tensor:
        """[S]: fewer steps with an ``effort`` below 1; the last exponent once more, and ``hold`` times at most."""
        steps = max(round(self.steps * effort), 1)
        return torch.cat([torch.logspace(math.log10(self.start), math.log10(self.end), steps + 1)[:-1], torch.full((1 + hold,), self.end)])


STRUCTURED = Annealing(0.3, 0.55, 4)
ALIKE = Annealing(0.1, 0.9, 16)
"""Where no beam differs from another, errors are local optima more often, and a sweep costs little."""


@dataclass(frozen=True)
class AngularCovariance:
    """Who is active, and through which angular profile, by soft coordinate descent on one covariance matrix per beam.

    In beam m the received pilots are CN(0, S_m), S_m = sum_n own_nm p_n p_n^H + noise_var I, where own_nm is the power that user n is
    expected to show there: the mean over silence and the profiles of a mixture (`priors.profiles`), each as likely as the received pilots
    and the powers of the others make it. One user is visited at a time: its power is taken out of S_m, the evidence of each profile is
    sum_m [v e_m / (1 + v q_m) - log(1 + v q_m)] with q_m = p^H S_m^-1 p and e_m = |p^H S_m^-1 y_m|^2, and its new expected power goes
    back in by rank-one updates of S_m^-1. Evidence first counts to a small power, then to a larger one (annealing): early decisions are
    soft, and few are local optima. The last exponent stays below 1, because the others are not known for certain: posteriors are better
    calibrated so, overloaded frames and foreign channels most of all; the odds that are told are those of the posterior to that power.

    With one profile that is the same everywhere (``channel_cov`` unknown: independent antennas) all S_m are one, and this is a soft,
    annealed form of covariance maximum likelihood (Fengler et al. 2021). A share ``foreign`` of users is expected to have channels that
    the profiles were not made for. Beams that hold little of what was received and of what the profiles expect (``neglect`` of both) are
    left out.

    Of bursts whose users are out of step (``rows`` of the observation), covariance descent over all users and delays leaves a few
    candidates (`candidates.Candidates`), which are then looked at with all profiles, beams and sweeps.

    Options: weights: which profiles, see `weights.choose_profiles`; components: merge them to so many (0: all); effort: share of the
    annealing steps; hold: most sweeps after them; ignore: log odds below which a user is looked at in some sweeps only; spread_db: gains
    of users are not known, and lie within so many dB around ``user_gain``; threshold: on the log odds of being active, 0 is maximum a
    posteriori.
    """

    weights: str = "auto"
    components: int = 0
    foreign: float = 0.07
    neglect: float = 0.02
    effort: float = 1.0
    hold: int = 8
    ignore: float = -5.0
    spread_db: float = 0.0
    threshold: float = 0.0
    weights_kind: ClassVar[str] = "profiles"

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N]; info: log_odds, power (expected of a user, per antenna) [B N], sweeps, beams (kept) [B]; of
        bursts out of step also delay [B N] in symbols.

        Raises ConfigError, ShapeError and the errors of `weights.choose_profiles`.
        """
        self._check()
        near = Candidates.of(obs) if obs.rows is not None and (obs.timing_range or obs.user_delay is not None) else None
        if near is None:
            problem = Problem.of(obs, self._profiles(obs), self)
        else:
            thorough = replace(self, components=0, neglect=AngularCovariance.neglect, effort=1.0, hold=AngularCovariance.hold)
            problem = Problem.of(near.observation(obs), thorough._profiles(obs), thorough, near.book)
        log_odds, power, sweeps = (_descend_compiled if obs.pilot_rx.device.type == "cpu" else _descend_batched)(problem)
        log_odds = log_odds - (1 - float(problem.exponents[-1])) * problem.odds
        info = {"log_odds": log_odds, "power": power}
        info = info if near is None else near.everybody(info)
        activity = torch.sigmoid(info["log_odds"] - self.threshold).to(obs.pilot_rx.real.dtype)
        return Estimate(activity, info={**info, "sweeps": sweeps, "beams": problem.kept_count})

    def _profiles(self, obs: Observation) -> AngularProfiles:
        return prepared(choose_profiles(self.weights, obs), self.components, self.foreign, self.spread_db)

    def _check(self) -> None:
        for name, low, high in (("foreign", 0, 0.5), ("neglect", 0, 0.5), ("effort", 0, 100), ("spread_db", 0, 100)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}: pass {low} to {high}")
        if self.components < 0 or self.hold < 1:
            raise ConfigError(f"components is {self.components}, hold is {self.hold}: pass 0 (all) or more, and 1 or more")


@functools.lru_cache(maxsize=16)
def prepared(found: AngularProfiles, components: int, foreign: float, spread_db: float) -> AngularProfiles:
    """Remembered for each object: files give the same one every time, and merging would take longer than a frame."""
    found = found.merged(components) if components else found
    found = found if found.alike or not foreign else found.with_foreign(foreign)
    return found.spread(spread_db)


@dataclass(frozen=True, eq=False)
class Problem:
    """What the descent works on; see `_angular_kernel.descend`, whose layout this is, in single precision."""

    rx: Tensor  # [B L M] complex
    kept: Tensor  # [B M]
    kept_count: Tensor  # [B]
    book: Tensor  # [B N L] complex, or [1 N L] where frames share it
    amplitude: Tensor  # [B N]
    order: Tensor  # [B N]
    power: Tensor  # [M K]
    log_weight: Tensor  # [K]
    looks: int
    odds: float
    noise_var: float
    exponents: Tensor  # [S]
    everybody: Tensor  # [S]
    ignore: float
    tolerance: float = 1e-2

    @staticmethod
    def of(obs: Observation, profiles: AngularProfiles, options: AngularCovariance, book: Tensor | None = None) -> Problem:
        """Of the pilots of an observation, or of the rows ``book`` [B N L] that each frame has of its own."""
        device = obs.pilot_rx.device
        rx = profiles.into(obs.pilot_rx).to(torch.complex64)
        book = (obs.pilots.mT[None] if book is None else book).to(torch.complex64).contiguous()
        gain = torch.ones(obs.frames, obs.users, device=device) if obs.user_gain is None else obs.user_gain.float()
        shared = profiles.alike and obs.antennas > 1
        mean = profiles.mean.to(device, torch.float32)
        kept, count = kept_beams(rx, mean, obs.linear_noise_var, 1.0 if shared else options.neglect)
        exponents = (ALIKE if profiles.alike else STRUCTURED).exponents(options.effort, options.hold)
        everybody = torch.zeros(len(exponents), dtype=torch.bool)
        everybody[0], everybody[-options.hold - 1 :: 2] = True, True
        odds = min(max(obs.activity, CERTAIN), 1 - CERTAIN)
        matched = (book.conj() @ rx).abs().square().sum(-1) * gain
        return Problem(
            square_root(rx) if shared else rx,
            kept,
            torch.ones_like(count) if shared else count,
            book,
            gain.sqrt(),
            torch.argsort(matched, descending=True, dim=1, stable=True),
            profiles.power.mT.to(device, torch.float32).contiguous(),
            profiles.weight.log().to(device, torch.float32),
            obs.antennas if shared else 1,
            math.log(odds) - math.log1p(-odds),
            obs.linear_noise_var,
            exponents.to(device),
            everybody,
            options.ignore,
        )


def square_root(rx: Tensor) -> Tensor:
    """[B L L] with the same sum of outer products of columns as rx [B L M]."""
    scatter = rx.to(torch.complex128) @ rx.mH.to(torch.complex128)
    loaded = scatter + 1e-9 * scatter.diagonal(dim1=1, dim2=2).real.mean(1)[:, None, None] * torch.eye(rx.shape[1], device=rx.device)
    return torch.linalg.cholesky(loaded).to(rx.dtype)


def kept_beams(rx: Tensor, mean: Tensor, noise_var: float, neglect: float) -> tuple[Tensor, Tensor]:
    """Beams of each frame [B M], those first that matter most, and how many are kept [B]: all but ``neglect`` of what was received above
    the noise and of what is expected, half of each."""
    excess = (rx.abs().square().mean(1) - noise_var).clamp_min(0)
    score = excess / excess.sum(1, keepdim=True).clamp_min(1e-30) + mean / mean.sum()
    ranked, kept = score.sort(dim=1, descending=True, stable=True)
    needed = (ranked.cumsum(1) < (1 - neglect) * score.sum(1, keepdim=True)).sum(1) + 1
    return kept, (-(-needed // LANES) * LANES).clamp_max(rx.shape[2])


def _split(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(values.real.numpy()), np.ascontiguousarray(values.imag.numpy())


def _descend_compiled(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    from . import _angular_kernel as kernel

    frames, users = problem.amplitude.shape
    single = np.float32
    log_odds, power, used = np.zeros((frames, users), single), np.zeros((frames, users), single), np.zeros(frames, np.int64)
    layout = (*_split(problem.rx), problem.kept.numpy(), problem.kept_count.numpy(), *_split(problem.book), problem.amplitude.numpy())
    prior = (problem.order.numpy(), problem.power.numpy(), problem.log_weight.numpy(), single(problem.looks), single(problem.odds))
    sweeps = problem.exponents.numpy(), problem.everybody.numpy()
    course = (single(problem.noise_var), *sweeps, single(problem.ignore), single(problem.tolerance))
    over_frames(kernel.descend, frames, *layout, *prior, *course, log_odds, power, used)
    return torch.from_numpy(log_odds), torch.from_numpy(power), torch.from_numpy(used)


def _descend_batched(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """The same descent in tensor operations, one user of all frames at a time: the path for a GPU."""
    state = _State.of(problem)
    users, last = problem.order.shape[1], float(problem.exponents[-1])
    for sweep, exponent in enumerate(problem.exponents.tolist()):
        largest = torch.zeros_like(state.running, dtype=torch.float32)
        for rank in range(users):
            largest = largest.maximum(state.visit(problem, problem.order[:, rank], sweep, exponent))
        state.used.add_(state.running)
        if exponent == last and problem.everybody[sweep] and sweep > 0:
            state.running.logical_and_(largest >= 10 * problem.tolerance)
            if not bool(state.running.any()):
                break
    spread = 1.0 if problem.looks > 1 else 1 / problem.rx.shape[2]
    return state.log_odds, state.own.sum(2) * spread * problem.amplitude.square(), state.used


@dataclass(frozen=True, eq=False)
class _State:
    inverse: Tensor  # [B W L L], W beams, or 1 where all are alike
    power: Tensor  # [B W K], zero in beams that are left out
    own: Tensor  # [B N W]
    log_odds: Tensor  # [B N]
    running: Tensor  # [B]
    used: Tensor  # [B]

    @staticmethod
    def of(problem: Problem) -> _State:
        (frames, users), size, device = problem.order.shape, problem.book.shape[2], problem.rx.device
        if problem.looks > 1:
            power = problem.power[None, :1].expand(frames, -1, -1)
        else:
            rank = torch.empty_like(problem.kept).scatter_(
                1, problem.kept, torch.arange(problem.kept.shape[1], device=device).expand_as(problem.kept)
            )
            power = problem.power * (rank < problem.kept_count[:, None])[..., None]
        lanes = power.shape[1]
        inverse = torch.eye(size, dtype=problem.rx.dtype, device=device).repeat(frames, lanes, 1, 1) / problem.noise_var
        running = torch.ones(frames, dtype=torch.bool, device=device)
        own = torch.zeros(frames, users, lanes, device=device)
        return _State(inverse, power, own, torch.zeros(frames, users, device=device), running, running.long() * 0)

    def visit(self, problem: Problem, user: Tensor, sweep: int, exponent: float) -> Tensor:
        """Updates one user [B] of each frame; by how much its power moved, relative [B]."""
        rows = torch.arange(len(user), device=user.device)
        before = self.log_odds[rows, user]
        visited = self.running & (problem.everybody[sweep] | (before >= problem.ignore))
        pilot = problem.book[rows % len(problem.book), user] * problem.amplitude[rows, user, None]
        image = (self.inverse @ pilot[:, None, :, None])[..., 0]  # [B W L]
        precision = torch.einsum("bl,bwl->bw", pilot.conj(), image).real
        if problem.looks > 1:
            energy = torch.einsum("bwl,blm->bwm", image.conj(), problem.rx).abs().square().sum(-1)
        else:
            energy = torch.einsum("bwl,blw->bw", image.conj(), problem.rx).abs().square()
        own = self.own[rows, user]
        rest = 1 / (1 - own * precision).clamp_min(1e-4)
        alone, energy = precision * rest, energy * rest.square()
        scale = 1 + self.power * alone[..., None]
        evidence = problem.log_weight + (self.power * energy[..., None] / scale - problem.looks * scale.log()).sum(1)
        now = (exponent * evidence).logsumexp(1) + problem.odds
        share = torch.softmax(exponent * evidence, 1) * torch.sigmoid(now)[:, None]
        share = torch.where((share > 1e-3) & (now >= problem.ignore)[:, None], share, 0)
        step = torch.einsum("bk,bwk->bw", share, self.power) - own
        moved = torch.where(visited, (step.abs() * precision).amax(1), 0)
        step = torch.where((moved > problem.tolerance)[:, None], step, 0)
        factor = step / (1 + step * precision)
        self.inverse.sub_(factor[..., None, None] * image[..., None] * image.conj()[..., None, :])
        self.own[rows, user] = own + step
        self.log_odds[rows, user] = torch.where(visited, now, before)
        return torch.where(moved > problem.tolerance, moved, 0)
