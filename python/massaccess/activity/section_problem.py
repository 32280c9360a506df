"""What the sweeps over sections work on, and what they find."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Observation
from ..errors import ShapeError
from ..priors.profiles import AngularProfiles, gain_levels
from ..rng import generator as seeded
from . import angular

NUMBERS_SEED = 0  # of the uniform numbers of the sampled sweeps: the same for all frames, so that answers are


@dataclass(frozen=True)
class Course:
    """Soft sweeps whose likelihood counts to powers from ``start`` to ``end``, geometrically in ``steps`` and then ``hold`` times at most;
    then ``sweeps`` sampled ones, at the power ``sampled``."""

    start: float
    end: float
    steps: int
    hold: int
    sampled: float
    sweeps: int


STRUCTURED = Course(0.3, 0.55, 4, 8, 0.8, 60)
ALIKE = Course(0.1, 1.0, 6, 3, 1.0, 150)
"""Where no beam differs from another the model is exact, and the whole likelihood counts."""


@dataclass(frozen=True, eq=False)
class Found:
    """odds [B N Q]; power [B N]; level_mass [B N G] of being active at each level of unknown gains; silence [B N]; sweeps [B]."""

    odds: Tensor
    power: Tensor
    level_mass: Tensor
    silence: Tensor
    sweeps: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """What the sweeps work on, in double precision; see `_section_kernel`, whose layout this is."""

    rx: Tensor  # [B L C] complex
    kept: Tensor  # [B M]
    kept_count: Tensor  # [B]
    book: Tensor  # [N Q L] complex
    amplitude: Tensor  # [B N]
    order: Tensor  # [B N]
    power: Tensor  # [M K]
    log_weight: Tensor  # [N K]
    levels: int  # of unknown gains: profile k is at level k mod levels
    looks: int  # antennas that are alike; 0 where beams differ
    prior: float
    noise_var: float
    exponents: Tensor  # [S]
    everybody: Tensor  # [S]
    sampled: Tensor  # [S]
    numbers: Tensor  # [S N]
    ignore: float
    certain: float

    @staticmethod
    def of(obs: Observation, profiles: AngularProfiles, *, sweeps: int | None, neglect: float, ignore: float, certain: float) -> Problem:
        device, alike = obs.pilot_rx.device, profiles.alike
        rx = profiles.into(obs.pilot_rx).to(torch.complex128)
        book = obs.pilots.mT.to(torch.complex128).unflatten(0, (obs.users, obs.sequences)).contiguous()
        gain = torch.ones(obs.frames, obs.users, device=device, dtype=torch.float64) if obs.user_gain is None else obs.user_gain.double()
        kept, count = angular.kept_beams(rx, profiles.mean.to(rx.real), obs.linear_noise_var, neglect)
        matched = torch.einsum("nql,blm->bnqm", book.conj(), rx).abs().square().sum(-1).amax(-1) * gain
        activity = min(max(obs.activity, angular.CERTAIN), 1 - angular.CERTAIN)
        exponents, everybody, sampled = _sweeps(ALIKE if alike else STRUCTURED, sweeps)
        numbers = torch.rand(len(exponents), obs.users, generator=seeded(NUMBERS_SEED, "sections"), dtype=torch.float64)
        return Problem(
            angular.square_root(rx) if alike and obs.antennas > obs.pilot_len else rx,
            kept,
            count,
            book,
            gain.sqrt(),
            torch.argsort(matched, descending=True, dim=1, stable=True),
            profiles.power.mT.to(device, torch.float64).contiguous(),
            *_log_weight(obs, profiles),
            obs.antennas if alike else 0,
            math.log(activity / obs.sequences) - math.log1p(-activity),
            obs.linear_noise_var,
            exponents.to(device),
            everybody,
            sampled,
            numbers.to(device),
            ignore,
            certain,
        )


def _log_weight(obs: Observation, profiles: AngularProfiles) -> tuple[Tensor, int]:
    """log p(profile) [N K] of each device, and how many levels of gain profiles stand for."""
    levels = 1 if obs.gain_range_db is None else len(gain_levels(*obs.gain_range_db)[0])
    weight = profiles.weight.log().to(obs.pilot_rx.device, torch.float64).expand(obs.users, -1)
    if obs.level_evidence is not None:
        learned = obs.level_evidence.to(weight)
        if learned.shape != (obs.users, levels):
            raise ShapeError(f"level_evidence is {list(learned.shape)}: pass [{obs.users}, {levels}], one number per user and level")
        weight = (weight.unflatten(1, (-1, levels)) + learned[:, None]).flatten(1)
        weight = weight - weight.logsumexp(1, keepdim=True)
    return weight.contiguous(), levels


def _sweeps(course: Course, sweeps: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Exponent of the likelihood, whether everybody is visited, and whether states are sampled, [S] for each sweep."""
    sampled = course.sweeps if sweeps is None else sweeps
    rising = torch.logspace(math.log10(course.start), math.log10(course.end), course.steps + 1, dtype=torch.float64)[:-1]
    exponents = torch.cat([rising, rising.new_full((course.hold,), course.end), rising.new_full((sampled,), course.sampled)])
    soft = course.steps + course.hold
    everybody = torch.zeros(len(exponents), dtype=torch.bool)
    everybody[[0, *(sweep for sweep in (course.steps + 1, course.steps + 4) if sweep < soft), soft - 1]] = True
    return exponents, everybody, torch.arange(len(exponents)) >= soft
