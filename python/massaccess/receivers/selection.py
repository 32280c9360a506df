"""From all users to the active ones and back: coherent receivers work on [B K], K the most active users in any frame of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, Observation


@dataclass(frozen=True)
class Selection:
    """index [B K]: user in each slot; present [B K] bool: whether the slot is taken; users: N."""

    index: Tensor
    present: Tensor
    users: int

    @staticmethod
    def of(active: Tensor) -> Selection:
        """The active users of each frame, active [B N] bool, in rising order; at least one slot."""
        slots = max(int(active.sum(1).max()), 1)
        index = torch.argsort(~active, dim=1, stable=True)[:, :slots]
        return Selection(index, active.gather(1, index), active.shape[1])

    def where(self, kept: Tensor) -> Selection:
        """Without the slots that ``kept`` [B K] leaves out: only for putting answers back, since empty slots are no longer the last."""
        return Selection(self.index, self.present & kept, self.users)

    def rows(self, frames: Tensor) -> Selection:
        """Those of the frames that ``frames`` (indices or a mask) picks."""
        return Selection(self.index[frames], self.present[frames], self.users)

    def pilots(self, obs: Observation) -> Tensor:
        """[B L K], zero in empty slots."""
        return obs.pilots.T[self.index].transpose(1, 2) * self.present[:, None, :]

    def gain(self, obs: Observation) -> Tensor:
        """Mean channel power [B K], zero in empty slots."""
        ones = self.present.to(obs.pilot_rx.real.dtype)
        return ones if obs.user_gain is None else ones * obs.user_gain.gather(1, self.index)

    def take(self, rows: Tensor) -> Tensor:
        """rows [B N ...] of the slots, [B K ...], zero in empty ones."""
        return rows[torch.arange(len(rows), device=rows.device)[:, None], self.index] * self.present[..., None]

    def put(self, values: Tensor) -> Tensor:
        """values [B K] of the slots among all users [B N], zero elsewhere."""
        return values.new_zeros(len(values), self.users).scatter(1, self.index, values * self.present)

    def estimate(self, activity: Tensor, channel: Tensor, symbols: Tensor, symbol_var: Tensor, **info: object) -> Estimate:
        """Puts channel [B K M], symbols and symbol_var [B D K] back among all users."""
        frames, times, slots = symbols.shape
        spot = self.index[:, None, :].expand(frames, times, slots)
        here = self.present[:, None, :]
        everyone = symbols.new_zeros(frames, times, self.users).scatter(2, spot, symbols * here)
        var = symbol_var.new_full((frames, times, self.users), torch.inf).scatter(2, spot, symbol_var.masked_fill(~here, torch.inf))
        rows = channel.new_zeros(frames, self.users, channel.shape[2])
        rows = rows.scatter(1, self.index[..., None].expand_as(channel), channel * self.present[..., None])
        return Estimate(activity, rows, everyone, var, info)
