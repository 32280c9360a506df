"""Covariance descent, unrolled: a few parallel updates of all users' activities, with learned steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from . import covariance_statistics as physics

OF_USER, OF_FRAME = 7, 6  # features


class UnrolledCovariance(nn.Module):
    """Log odds of being active for every user of a frame, from ``stages`` of S = sum_n power_n p_n p_n^H + noise I, inverted anew in each.

    A stage judges every user in the light of all others (`covariance_statistics`): its evidence, and what a small network of ``hidden``
    neurons, the same for all users, makes of evidence, earlier log odds and the frame, give new log odds, and a damped new power. So users
    may be numbered in any way, and the model fits every pilot length, number of antennas, noise variance and pilot book.

    The last ``looks`` stages also see how each user's energy spreads over the beams of the array (its 2-D Fourier transform): users of
    correlated channels fill few beams. `Looks` turns them into log-likelihood ratios; 0 leaves the array alone.

    Untrained it is plain damped descent on the likelihood of independent antennas.

    >>> network = UnrolledCovariance(stages=2, looks=1)
    >>> rx, pilots = torch.ones(3, 6, 4, dtype=torch.complex64), torch.ones(3, 6, 5, dtype=torch.complex64)
    >>> network(rx, pilots, torch.ones(3), torch.full((3,), 0.1), (2, 2)).shape
    torch.Size([3, 5])
    """

    def __init__(self, *, stages: int = 8, hidden: int = 16, looks: int = 0, profiles: int = 3) -> None:
        super().__init__()
        if not stages >= 1 or not 0 <= looks <= stages:
            raise ConfigError("unrolled-covariance: pass 1 stage or more, and looks from 0 to stages")
        self.stages = nn.ModuleList(Stage(hidden, profiles if index >= stages - looks else 0) for index in range(stages))
        self.looks = looks

    longest = None  # it takes any number of pilot symbols

    def forward(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """rx [B L M], pilots [B L N] (times the root of each user's mean gain), noise_var [B], prior activity [B] in (0, 1), ``grid`` rows
        and columns of the array (only for ``looks``): log odds [B N]."""
        return self.trace(rx, pilots, noise_var, activity, grid)[-1]

    def trace(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor, grid: tuple[int, int] | None = None) -> list[Tensor]:
        """The log odds after each stage."""
        seen, users, antennas = physics.whitened(rx, pilots, noise_var), pilots.shape[2], rx.shape[2]
        beams = in_beams(seen.rx, grid) if self.looks else None
        prior = torch.logit(activity)[:, None].expand(-1, users)
        power, log_odds, said = activity[:, None].expand(-1, users), prior, []
        sizes = torch.tensor([math.log(antennas) - 4, math.log(seen.book.shape[1]) - 3, math.log(users / seen.book.shape[1]) - 2])
        for stage in self.stages:
            log_odds, power = stage(seen, beams, power, log_odds, prior, sizes.to(prior))
            said.append(log_odds)
        return said


class Stage(nn.Module):
    """One update of log odds and powers [B N]."""

    def __init__(self, hidden: int, profiles: int) -> None:
        super().__init__()
        self.looks = Looks(profiles) if profiles else None
        self.first = nn.Linear(OF_USER + OF_FRAME + 2 * profiles, hidden)
        self.last = nn.Linear(hidden, 4)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, seen: physics.Whitened, beams: Tensor | None, power: Tensor, log_odds: Tensor, prior: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        antennas = seen.rx.shape[2]
        found = physics.statistics(seen, power)
        level = antennas * physics.evidence(found.precision, found.energy)
        told = [physics.features(found, antennas)]
        if self.looks is not None and beams is not None:
            told.append(self.looks(found, beams))
        own = torch.stack([physics.squashed(log_odds), 2 * power - 1, prior / 2], -1)
        load = torch.log(power.sum(1) / seen.rx.shape[1] + 1e-3)
        sure = torch.sigmoid(log_odds).mul(torch.sigmoid(-log_odds)).mean(1).mul(10)
        frame = torch.cat([torch.stack([found.fit.log().clamp(-3, 3), load, sure], -1), sizes.expand(len(power), -1)], -1)
        shared = functional.linear(frame, self.first.weight[:, -OF_FRAME:])
        inside = functional.linear(torch.cat([*told, own], -1), self.first.weight[:, :-OF_FRAME], self.first.bias)
        scale, shift, strength, damping = self.last(functional.silu(inside + shared[:, None])).unbind(-1)
        log_odds = prior + level * torch.exp(scale.clamp(-4, 4)) + 4 * torch.sinh(shift.clamp(-5, 5))
        fresh = torch.sigmoid(log_odds) * torch.exp(strength.clamp(-3, 3))
        return log_odds, torch.lerp(power, fresh, torch.sigmoid(damping))


class Looks(nn.Module):
    """How a user's energy spreads over beams: 2 ``profiles`` features [B N 2 profiles].

    Where a user is silent, the energy u of each beam over what the model expects is exponential of mean 1. Profile j says that an active
    user reaches each beam with a chance e_j, independently, and there with c_j times its mean power: beams then have the log-likelihood
    ratio log(1 - e_j + e_j exp(c q u / (1 + c q)) / (1 + c q)). Both their sum and its mean over beams are told.
    """

    def __init__(self, profiles: int) -> None:
        super().__init__()
        chance = torch.linspace(-2.5, 0.5, profiles)
        self.chance, self.strength = nn.Parameter(chance), nn.Parameter(-chance.clamp_max(0))

    def forward(self, found: physics.Statistics, beams: Tensor) -> Tensor:
        precision = found.precision.clamp_min(1e-12)[..., None]
        over = (found.filters.mH @ beams).abs().square() / precision
        sums = []
        for chance, strength in zip(self.chance, self.strength, strict=True):
            scale = torch.exp(strength) * precision
            inside = over * (scale / (1 + scale)) - torch.log1p(scale) + chance
            sums.append((functional.softplus(inside) - functional.softplus(chance)).sum(-1))
        ratio = torch.stack(sums, -1)
        return torch.cat([physics.squashed(ratio), (ratio / beams.shape[2]).clamp(-4, 8)], -1)


def in_beams(rx: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """rx [B L M] of a planar array in its directions: unitary 2-D Fourier transform over rows and columns."""
    if grid is None:
        raise ConfigError("this network looks at the beams of the array: pass its rows and columns")
    return torch.fft.fft2(rx.unflatten(2, grid), norm="ortho").flatten(2)
