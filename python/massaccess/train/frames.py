"""Frames that activity detectors are trained on, made on the fly where the network is, every batch from a generator of its own."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..forward.pilots import pilot_book
from ..rng import complex_normal, generator
from .data import Drawer, Rows, rows_of
from .recipe import Recipe

HELD = 1 / 8  # of a bank's channels, for validation
QUIETEST = 1e-3  # active users a frame, for the noise of one that expects next to nobody


@dataclass(frozen=True)
class Batch:
    """rx [B L M], pilots [B L N] times the root of each user's mean gain, noise_var [B], activity [B] (the prior's), grid (rows, columns):
    what a network is given; active [B N]: what it ought to say."""

    rx: Tensor
    pilots: Tensor
    noise_var: Tensor
    activity: Tensor
    grid: tuple[int, int]
    active: Tensor

    @property
    def given(self) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int]]:
        return self.rx, self.pilots, self.noise_var, self.activity, self.grid


@dataclass(frozen=True, eq=False)
class FrameData:
    """Where frames come from: ``drawers`` of channel rows with their ``shares``; ``held``: by the name of a source, channels that are never
    trained on, for validation."""

    recipe: Recipe
    drawers: tuple[Drawer, ...]
    shares: tuple[float, ...]
    held: dict[str, Drawer]
    device: torch.device

    @classmethod
    def of(cls, recipe: Recipe, *, device: torch.device) -> FrameData:
        """ConfigError when a source is missing or too small."""
        drawers: list[Drawer] = []
        held: dict[str, Drawer] = {}
        for source in recipe.data.sources:
            drawer, name = rows_of(recipe, source, device), source.channel.rpartition("/")[2]
            if isinstance(drawer, Rows):
                kept = int(len(drawer.h) * (1 - HELD))
                if len(drawer.h) - kept < max(recipe.frames.users):
                    raise ConfigError(f"{name} has {len(drawer.h)} training channels, too few to hold some out: make a larger bank")
                held[name], drawer = Rows(drawer.h[kept:]), Rows(drawer.h[:kept])
            drawers.append(drawer)
            if name not in held:
                held[name] = drawer
        return cls(recipe, tuple(drawers), tuple(one.weight for one in recipe.data.sources), held, device)

    def batch(self, step: int) -> Batch:
        """That of step ``step``: frames of one pilot length, number of users and array; each of one source."""
        recipe, frames = self.recipe, self.recipe.frames
        draw = generator(recipe.seed, "train", step, device=self.device)
        dice = generator(recipe.seed, "sizes", step)
        pilot_len = int(torch.randint(frames.pilots[0], frames.pilots[1] + 1, (1,), generator=dice))
        users = frames.users[int(torch.randint(len(frames.users), (1,), generator=dice))]
        arrays = frames.arrays or ((recipe.rows, recipe.columns),)
        grid = arrays[int(torch.randint(len(arrays), (1,), generator=dice))]
        count = recipe.optimiser.batch
        picks = torch.multinomial(torch.tensor(self.shares), count, replacement=True, generator=dice)
        counts = torch.bincount(picks, minlength=len(self.shares)).tolist()
        activity, snr_db = (_between(low, high, count, draw) for low, high in (frames.activity, frames.snr_db))
        gain_db = frames.gain_db * _between(0.0, 1.0, count, draw)[:, None] * _between(-1.0, 1.0, count * users, draw).view(count, users)
        book = self._book(count, pilot_len, users, draw) * 10 ** (gain_db / 20)[:, None]
        made = _received(self.drawers, counts, book, activity, snr_db, self._shape(), draw)
        return _corner(made, self._shape(), grid)

    def check(self, name: str, pilot_len: int, start: int, count: int) -> Batch:
        """Validation frames of the source ``name``, always the same: the recipe's first number of users, its whole array, equal gains."""
        recipe, wanted = self.recipe, self.recipe.validation
        draw = generator(recipe.seed, "check", name, pilot_len, start, device=self.device)
        book = self._book(count, pilot_len, recipe.frames.users[0], draw)
        activity, snr_db = (torch.full((count,), value, device=self.device) for value in (wanted.activity, wanted.snr_db))
        return _received((self.held[name],), [count], book, activity, snr_db, self._shape(), draw)

    def _shape(self) -> tuple[int, int]:
        return self.recipe.rows, self.recipe.columns

    def _book(self, count: int, pilot_len: int, users: int, draw: torch.Generator) -> Tensor:
        frames = self.recipe.frames
        if frames.book == "fixed":
            book = _fixed(max(frames.users), frames.longest, frames.book_seed, self.device)
            return book[:pilot_len, :users].expand(count, -1, -1)
        signs = torch.randint(0, 2, (count, pilot_len, users, 2), generator=draw, device=self.device)
        return torch.view_as_complex((2.0 * signs - 1) * 0.5**0.5)


@functools.lru_cache(maxsize=4)
def _fixed(users: int, pilot_len: int, seed: int, device: torch.device) -> Tensor:
    return pilot_book(users=users, pilot_len=pilot_len, seed=seed).to(device)


def _received(
    drawers: tuple[Drawer, ...],
    counts: list[int],
    book: Tensor,
    activity: Tensor,
    snr_db: Tensor,
    grid: tuple[int, int],
    draw: torch.Generator,
) -> Batch:
    """Frames of which the first counts[0] have channels of the first drawer, and so on; channels are drawn for active users only."""
    frames, length, users = book.shape
    active = torch.rand(frames, users, generator=draw, device=book.device) < activity[:, None]
    most = max(int(active.sum(1).max()), 1)
    chosen = active.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    present = active.gather(1, chosen)
    channel = book.new_zeros(frames, most, grid[0] * grid[1])
    rows = [
        drawer.draw(needed, generator=draw)
        for drawer, mine in zip(drawers, present.split(counts), strict=True)
        if (needed := int(mine.sum()))
    ]
    if rows:
        channel[present] = torch.cat(rows)
    sent = book.gather(2, chosen[:, None].expand(-1, length, -1))
    noise_var = (activity * users).clamp_min(QUIETEST) * 10 ** (-snr_db / 10)
    noise = noise_var.sqrt()[:, None, None] * complex_normal(frames, length, channel.shape[2], generator=draw)
    return Batch(sent @ channel + noise, book, noise_var, activity, grid, active)


def _corner(batch: Batch, grid: tuple[int, int], wanted: tuple[int, int]) -> Batch:
    """The same frames at a corner of the array."""
    if wanted == grid:
        return batch
    rx = batch.rx.unflatten(2, grid)[:, :, : wanted[0], : wanted[1]].flatten(2)
    return Batch(rx, batch.pilots, batch.noise_var, batch.activity, wanted, batch.active)


def _between(low: float, high: float, count: int, draw: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=draw, device=draw.device)
