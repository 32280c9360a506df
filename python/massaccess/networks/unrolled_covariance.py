"""Covariance descent, unrolled: a few parallel updates of all users' activities, with learned steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from . import covariance_statistics as physics
from .sectors import SectorStage, sectors

OF_USER = 7  # features


class UnrolledCovariance(nn.Module):
    """Log odds of being active for every user of a frame, from ``stages`` of S = sum_n power_n p_n p_n^H + noise I, inverted anew in each.

    A stage judges every user in the light of all others (`covariance_statistics`): its evidence, and what a small network of ``hidden``
    neurons, the same for all users, makes of evidence, earlier log odds and the frame, give new log odds, and a damped new power. So users
    may be numbered in any way, and the model fits every pilot length, number of antennas, noise variance and pilot book.

    The last ``sectored`` stages tell the directions of the array apart (`SectorStage`): users of correlated channels disturb one another in
    few of them. They take several times as long as the others; 0 leaves the array alone.

    Untrained it is plain damped descent on the likelihood of independent antennas.

    >>> network = UnrolledCovariance(stages=2, sectored=1)
    >>> rx, pilots = torch.ones(3, 6, 4, dtype=torch.complex64), torch.ones(3, 6, 5, dtype=torch.complex64)
    >>> network(rx, pilots, torch.ones(3), torch.full((3,), 0.1), (2, 2)).shape
    torch.Size([3, 5])
    """

    longest = None  # it takes any number of pilot symbols

    def __init__(self, *, stages: int = 8, hidden: int = 16, sectored: int = 0) -> None:
        super().__init__()
        if stages < 1 or not 0 <= sectored <= stages:
            raise ConfigError("unrolled-covariance: pass 1 stage or more, of which 0 or more are sectored")
        self.stages = nn.ModuleList(Stage(hidden) for _ in range(stages - sectored))
        self.sectored = nn.ModuleList(SectorStage(hidden) for _ in range(sectored))

    def forward(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """rx [B L M], pilots [B L N] (times the root of each user's mean gain), noise_var [B], prior activity [B] in (0, 1), ``grid`` rows
        and columns of the array (only for sectored stages): log odds [B N]."""
        return self.trace(rx, pilots, noise_var, activity, grid)[-1]

    def trace(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor, grid: tuple[int, int] | None = None) -> list[Tensor]:
        """The log odds after each stage."""
        seen = physics.whitened(rx, pilots, noise_var)
        prior, sizes = torch.logit(activity)[:, None].expand(-1, pilots.shape[2]), physics.sizes_of(seen)
        power, log_odds, said = torch.sigmoid(prior), prior, []
        for stage in self.stages:
            log_odds, power = stage(seen, power, log_odds, prior, sizes)
            said.append(log_odds)
        if len(self.sectored):
            groups = sectors(seen.rx, grid)
            power = power[:, None].expand(-1, len(groups.looks), -1)
            for stage in self.sectored:
                log_odds, power = stage(seen.book, groups, power, log_odds, prior, sizes)
                said.append(log_odds)
        return said


class Stage(nn.Module):
    """One update of log odds and powers [B N]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(OF_USER + physics.OF_FRAME, hidden)
        self.last = nn.Linear(hidden, 4)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, seen: physics.Whitened, power: Tensor, log_odds: Tensor, prior: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        antennas = seen.rx.shape[2]
        found = physics.statistics(seen, power)
        level = antennas * physics.evidence(found.precision, found.energy)
        own = torch.stack([physics.squashed(log_odds), 2 * power - 1, prior / 2], -1)
        told = torch.cat([physics.features(found.precision, found.energy, antennas), own], -1)
        frame = physics.of_frame(power, log_odds, found.fit, sizes)
        shared = functional.linear(frame, self.first.weight[:, OF_USER:])
        inside = functional.linear(told, self.first.weight[:, :OF_USER], self.first.bias)
        scale, shift, strength, damping = self.last(functional.silu(inside + shared[:, None])).unbind(-1)
        log_odds = prior + level * torch.exp(scale.clamp(-4, 4)) + 4 * torch.sinh(shift.clamp(-5, 5))
        fresh = torch.sigmoid(log_odds) * torch.exp(strength.clamp(-3, 3))
        return log_odds, torch.lerp(power, fresh, torch.sigmoid(damping))
