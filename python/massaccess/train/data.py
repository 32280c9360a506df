"""What networks are trained on: every batch comes from a generator of its own, so that any step can be drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..core import SystemConfig
from ..errors import ConfigError
from ..forward.channels import Bank, ChannelModel, make_channel
from ..priors.beams import Beams
from ..rng import complex_normal, generator
from .recipe import Recipe, Source

PATHS = 12  # at most, of a random plane-wave channel
COVARIANCE_DRAWS = 16_384  # to estimate the covariance of a model that states none


class Drawer(Protocol):
    """Draws ``count`` samples, [count M] rows or [count users antennas] matrices, on the generator's device."""

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Channels of a list h [n M], each turned by a random phase."""

    h: Tensor

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(self.h), (count,), generator=generator, device=generator.device)
        return _turned(self.h[index], generator)


@dataclass(frozen=True)
class Modelled:
    """Rows of a channel model, made on the fly."""

    model: ChannelModel

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        return _turned(self.model.draw(1, count, generator=generator)[0][0], generator)


@dataclass(frozen=True)
class PlaneWaves:
    """A few plane waves around a random direction, on a half-wavelength array: 1 to `PATHS` paths of random powers that sum to 1, with
    angular spreads from 1/100 of the visible range to all of it. What a prior ought to have met besides its own cell."""

    rows: int
    columns: int

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        device = generator.device
        uniform = torch.rand(count, 4, generator=generator, device=device)
        centre = 2 * uniform[:, None, :2] - 1
        spread = 10 ** (-2 * uniform[:, 2])[:, None, None]
        aim = (centre + spread * torch.randn(count, PATHS, 2, generator=generator, device=device)).clamp(-1, 1)
        taken = torch.arange(PATHS, device=device) < 1 + (uniform[:, 3:] * PATHS)
        power = -torch.rand(count, PATHS, generator=generator, device=device).clamp_min(1e-9).log() * taken
        gain = (power / power.sum(1, keepdim=True)).sqrt() * complex_normal(count, PATHS, generator=generator)
        return torch.einsum("np,npr,npc->nrc", gain, _steering(aim[..., 0], self.rows), _steering(aim[..., 1], self.columns)).flatten(1)


@dataclass(frozen=True)
class Matrices:
    """Channel matrices [users antennas] of a model, whose users are awake with probability ``activity``: rows of zeros where not."""

    make: Callable[[int], ChannelModel]
    activity: float
    sizes: tuple[tuple[int, int], ...]

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        device = generator.device
        users, antennas = self.sizes[int(torch.randint(len(self.sizes), (1,), generator=generator, device=device))]
        channel = self.make(antennas).draw(count, users, generator=generator)[0]
        return channel * (torch.rand(count, users, 1, generator=generator, device=device) < self.activity)


@dataclass(frozen=True)
class Mixture:
    """Drawers and their shares. Every sample of rows picks one; a batch of matrices comes from one, as its sizes may differ."""

    drawers: tuple[Drawer, ...]
    shares: tuple[float, ...]
    power_jitter_db: float = 0.0
    whole: bool = False

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        device = generator.device
        shares = torch.tensor(self.shares, device=device)
        pick = torch.multinomial(shares, 1 if self.whole else count, replacement=True, generator=generator)
        counts = torch.bincount(pick, minlength=len(shares)).tolist()
        parts = [
            drawer.draw(count if self.whole else taken, generator=generator)
            for drawer, taken in zip(self.drawers, counts, strict=True)
            if taken
        ]
        samples = torch.cat(parts)
        swing = 2 * torch.rand(count, generator=generator, device=device) - 1
        scale = 10 ** (self.power_jitter_db * swing / 20)
        return samples * scale.reshape(-1, *[1] * (samples.ndim - 1))


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a recipe draws from; ``held`` is the validation set, never drawn: [V M] rows or [V users antennas] matrices; covariance [M M] of
    the first source, ``None`` for matrices."""

    mixture: Mixture
    held: Tensor
    covariance: Tensor | None

    @classmethod
    def of(cls, recipe: Recipe, *, device: torch.device | str = "cpu") -> TrainingData:
        """The data of ``recipe`` on ``device``; ConfigError when a source is missing or too small."""
        parts = [_drawer(recipe, source, index, device) for index, source in enumerate(recipe.data.sources)]
        shares = tuple(source.weight for source in recipe.data.sources)
        matrix = recipe.kind == "matrix"
        mixture = Mixture(tuple(drawer for drawer, _ in parts), shares, recipe.data.power_jitter_db, whole=matrix)
        first, held = parts[0]
        if held is None:
            held = first.draw(recipe.validation.channels, generator=generator(recipe.seed, "held", device=device))
        return cls(mixture, held, None if matrix else _covariance(recipe, first).to(device))

    def batch(self, recipe: Recipe, step: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Clean samples, noisy samples' standard CN(0, 1) part, and the generator of step ``step``, for what else the step draws."""
        draw = generator(recipe.seed, "train", step, device=self.held.device)
        clean = self.mixture.draw(recipe.optimiser.batch, generator=draw)
        return clean, complex_normal(*clean.shape, generator=draw), draw


def linear(data: TrainingData) -> Beams:
    """Where the linear estimator is diagonal: eigenvectors of the channels' covariance; for matrices, the scalar one."""
    if data.covariance is None:
        return Beams(None, data.held.abs().square().mean()[None])
    return Beams.of(data.covariance, antennas=len(data.covariance), like=data.held)


def _drawer(recipe: Recipe, source: Source, index: int, device: torch.device | str) -> tuple[Drawer, Tensor | None]:
    """A drawer, and the held-out rows where it is the first source and a bank."""
    if recipe.kind == "matrix":
        return Matrices(lambda antennas: _model(source, 1, antennas), source.activity, recipe.data.sizes), None
    drawer = rows_of(recipe, source, device)
    if not isinstance(drawer, Rows):
        return drawer, None
    h, held = drawer.h, recipe.validation.channels if index == 0 else 0
    if len(h) <= held:
        raise ConfigError(f"{source.channel} has {len(h)} training channels and {held} are held out: lower validation.channels")
    return Rows(h[: len(h) - held]), h[len(h) - held :] if held else None


def rows_of(recipe: Recipe, source: Source, device: torch.device | str) -> Drawer:
    """Channel rows of ``source`` for the recipe's array; `Rows` where it is a bank."""
    if source.channel == "paths":
        return PlaneWaves(recipe.rows, recipe.columns)
    model = _model(source, recipe.rows, recipe.columns)
    if not isinstance(model, Bank):
        return Modelled(model)
    return Rows(model.rows[: source.limit or None].to(device))


def _model(source: Source, rows: int, columns: int) -> ChannelModel:
    if source.channel == "florence":
        raise ConfigError("florence is for tests of mismatch only: train on another channel")
    system = SystemConfig(rows=rows, columns=columns, channel=source.channel, power_control=source.power_control)
    return make_channel(system, split="train")


def _covariance(recipe: Recipe, first: Drawer) -> Tensor:
    """Of the rows in a bank that are trained on; of a model, what it states, or a sample."""
    h = first.h if isinstance(first, Rows) else None
    if isinstance(first, Modelled) and first.model.covariance is not None:
        return first.model.covariance
    if h is None:
        h = first.draw(COVARIANCE_DRAWS, generator=generator(recipe.seed, "covariance"))
    return h.T @ h.conj() / len(h)


def _steering(sine: Tensor, size: int) -> Tensor:
    phase = math.pi * sine[..., None] * torch.arange(size, device=sine.device)
    return torch.polar(torch.ones_like(phase), phase)


def _turned(rows: Tensor, generator: torch.Generator) -> Tensor:
    turn = 2 * math.pi * torch.rand(len(rows), 1, generator=generator, device=rows.device)
    return rows * torch.polar(torch.ones_like(turn), turn)
