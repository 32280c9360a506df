"""A stage of unrolled covariance descent that tells directions apart: users of correlated channels are strong in a few sectors only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from . import covariance_statistics as physics

STRONG_ROWS = 2  # elevations in which sectors are told apart; the others are one group
OF_GROUP, OF_USER = 5, 3  # features


@dataclass(frozen=True)
class Sectors:
    """The beams of an array in groups: first the ``count`` azimuths, each in the `STRONG_ROWS` elevations that receive most, then all
    the rest in one. cov [B G L L] in units of the noise; looks [G], beams in each group."""

    cov: Tensor
    looks: Tensor
    count: int


def sectors(rx: Tensor, grid: tuple[int, int] | None) -> Sectors:
    """rx [B L M] of an array of ``grid`` = (rows, columns), after a unitary Fourier transform over both."""
    if grid is None:
        raise ConfigError("this network tells the sectors of the array apart: pass its rows and columns")
    beams = torch.fft.fft2(rx.unflatten(2, grid), norm="ortho").transpose(1, 2)  # [B rows L columns]
    order = beams.abs().square().mean((2, 3)).argsort(dim=1, descending=True, stable=True)
    beams = beams.gather(1, order[:, :, None, None].expand(beams.shape))
    near, rest = beams[:, :STRONG_ROWS].permute(0, 3, 2, 1), beams[:, STRONG_ROWS:].transpose(1, 2).flatten(2)
    cov = near @ near.mH / near.shape[3]
    looks = [float(near.shape[3])] * grid[1]
    if rest.shape[2]:
        cov, looks = torch.cat([cov, (rest @ rest.mH / rest.shape[2])[:, None]], 1), [*looks, float(rest.shape[2])]
    return Sectors(cov, torch.tensor(looks, device=rx.device), grid[1])


class SectorStage(nn.Module):
    """One update of log odds [B N] and powers [B G N], with one covariance model a group.

    A small network sees a user in each sector and in the two beside it, and says with which power an active user would be there; the
    evidence of all groups for these powers, scaled and shifted, gives the new log odds. Untrained all powers are 1.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.near, self.rest = nn.Linear(3 * OF_GROUP, hidden), nn.Linear(OF_GROUP, hidden)
        self.user, self.both = nn.Linear(OF_USER + physics.OF_FRAME, hidden), nn.Linear(3 * hidden, hidden)
        self.last, self.common, self.local = nn.Linear(hidden, 3), nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        for layer in (self.last, self.common, self.local):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, book: Tensor, groups: Sectors, power: Tensor, log_odds: Tensor, prior: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, looks = groups.count, groups.looks[:, None]
        folded = physics.Whitened(book, book.repeat_interleave(power.shape[1], 0), groups.cov.flatten(0, 1))
        found = physics.statistics(folded, power.flatten(0, 1))
        precision, energy = (one.unflatten(0, power.shape[:2]) for one in (found.precision, found.energy))
        told = physics.features(precision, energy, looks)
        told = torch.cat([told, torch.log(power + 0.1)[..., None] / 2], -1)
        near, rest = told[:, :count], told[:, count:]
        shares = groups.looks / groups.looks.sum()
        mean_power, fit = (power * shares[:, None]).sum(1), found.fit.unflatten(0, power.shape[:2]) @ shares
        own = torch.stack([physics.squashed(log_odds), 2 * mean_power - 1, prior / 2], -1)
        frame = physics.of_frame(mean_power, log_odds, fit, sizes)
        user = self.user(torch.cat([own, frame[:, None].expand(-1, own.shape[1], -1)], -1))
        around = functional.silu(self.near(torch.cat([near, near.roll(1, 1), near.roll(-1, 1)], -1)) + user[:, None])
        beyond = functional.silu(self.rest(rest) + user[:, None])
        far = beyond.mean(1) if beyond.shape[1] else torch.zeros_like(user)
        inside = functional.silu(self.both(torch.cat([around.mean(1), around.amax(1), far], -1)) + user)
        local = torch.cat([self.local(around), self.local(beyond)], 1) + self.common(inside)[:, None]
        would = torch.exp(local[..., 0].clamp(-5, 4))
        scale, shift, damping = self.last(inside).unbind(-1)
        level = (looks * physics.evidence(precision, energy, would)).sum(1)
        log_odds = prior + level * torch.exp(scale.clamp(-4, 4)) + 4 * torch.sinh(shift.clamp(-5, 5))
        return log_odds, torch.lerp(power, torch.sigmoid(log_odds)[:, None] * would, torch.sigmoid(damping)[:, None])
