"""Trainings of kind "noncoherent": who sends which of its sequences, in frames of one cell that are made on the fly (P3 section V-B)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import weights
from ..core import SystemConfig
from ..forward.channels import ChannelModel, make_channel
from ..forward.pilots import book_of
from ..rng import complex_normal, generator
from ..weights import Header
from .phases import phase_at
from .recipe import Recipe

CHUNK = 250  # validation frames at once


@dataclass(frozen=True)
class Batch:
    """rx [B L M], noise_var [B]; what was sent: chosen [B N Q] bool, rows [B NQ M], the channel of each sequence that is on the air."""

    rx: Tensor
    noise_var: Tensor
    chosen: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """What `loop.Task` promises: Algorithm 1. Phases 1 to T descend the squared error (58) of one layer after the other, phase T + 1 the
    cross-entropy (59) of the refinement alone, the last that of everything. Without phases, everything at once."""

    recipe: Recipe
    cell: SystemConfig
    model: ChannelModel
    book: Tensor

    @classmethod
    def of(cls, recipe: Recipe, network: nn.Module, device: torch.device) -> Sequences:
        cell = recipe.cell.config
        made = cls(recipe, cell, make_channel(cell, split="train"), book_of(cell).to(device))
        network.begin(made.book.cpu(), power=made.power().cpu(), activity=cell.activity_prior)  # type: ignore[operator]
        network.to(device)
        return made

    def power(self) -> Tensor:
        """Mean power [NQ] of an entry of each sequence's channel, as far as the network is told at first."""
        first = self.draw(self.recipe.cell.frames, "first")
        if self.recipe.cell.start == "mean":
            energy = first.rx.abs().square().sum((1, 2)).mean()
            active = self.cell.activity_prior * self.cell.users
            return ((energy / self.cell.antennas - self.cell.pilot_len * self.cell.noise_var) / active).expand(self.book.shape[1])
        sent = first.chosen.any(-1).sum(0)
        energy = first.rows.abs().square().mean(-1).unflatten(1, first.chosen.shape[1:]).sum((0, 2))
        known = energy[sent > 0] / sent[sent > 0]
        power = torch.where(sent > 0, energy / sent.clamp_min(1), known.mean())
        return power.repeat_interleave(self.cell.sequences)

    def draw(self, frames: int, *path: str | int) -> Batch:
        """Frames from a generator of their own."""
        cell, device = self.cell, self.book.device
        draw = generator(self.recipe.seed, *path, device=device)
        active = torch.rand(frames, cell.users, generator=draw, device=device) < cell.activity_prior
        index = torch.randint(cell.sequences, active.shape, generator=draw, device=device)
        chosen = functional.one_hot(index, cell.sequences).bool() & active[..., None]
        channel = self.model.draw(frames, cell.users, generator=draw)[0]
        rows = (chosen[..., None] * channel[:, :, None]).flatten(1, 2)
        noise = math.sqrt(cell.noise_var) * complex_normal(frames, cell.pilot_len, cell.antennas, generator=draw)
        return Batch(self.book @ rows + noise, torch.full((frames,), cell.noise_var, device=device), chosen, rows)

    def loss(self, network: Callable[..., Any], bare: nn.Module, step: int) -> tuple[Tensor, Tensor]:
        """What step ``step`` descends."""
        batch, layers = self.draw(self.recipe.optimiser.batch, "train", step), len(bare.layers)  # type: ignore[arg-type]
        phase = phase_at(self.recipe.optimiser, step).index if self.recipe.optimiser.phases else layers + 1
        bare.phase(phase)  # type: ignore[operator]
        if phase >= layers:
            value = functional.binary_cross_entropy_with_logits(network(batch.rx, self.book, batch.noise_var), batch.chosen.float())
        else:
            found = bare.estimate(batch.rx, self.book, batch.noise_var, phase + 1)[0]  # type: ignore[operator]
            value = (found - _stacked(batch)).square().mean()
        return value, value.detach()

    @torch.no_grad()
    def check(self, network: nn.Module) -> dict[str, Any]:
        """On held-out frames, of the network as it is stored: ``ser`` of all users (P3's), with ``errors``; ``log_loss`` of a sequence
        [nat]; ``mse`` of the last estimate, relative to the noise. ``prior_ser`` is that of whoever says "nobody"."""
        network = copy.deepcopy(network).half().float()
        errors, surprise, excess, frames = 0, 0.0, 0.0, self.recipe.validation.channels
        for start in range(0, frames, CHUNK):
            batch = self.draw(min(CHUNK, frames - start), "check", start)
            log_odds = network(batch.rx, self.book, batch.noise_var)
            found = functional.one_hot(log_odds.argmax(-1), self.cell.sequences).bool() & (log_odds > 0)
            errors += int((found != batch.chosen).any(-1).sum())
            surprise += float(functional.binary_cross_entropy_with_logits(log_odds, batch.chosen.float())) * len(batch.rx)
            estimate = network.estimate(batch.rx, self.book, batch.noise_var)[0]  # type: ignore[operator]
            excess += float((estimate - _stacked(batch)).square().mean()) * len(batch.rx)
        return {
            "frames": frames,
            "ser": errors / (frames * self.cell.users),
            "errors": errors,
            "log_loss": surprise / frames,
            "mse": excess / frames,
            "prior_ser": self.cell.activity_prior,
        }

    def point(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {name: metrics[name] for name in ("ser", "log_loss", "mse")}

    def save(self, out: Path, network: nn.Module, header: Header) -> None:
        """In half precision, of which `check` speaks."""
        weights.save(out, copy.deepcopy(network).half(), header)


def _stacked(batch: Batch) -> Tensor:
    """What the layers are to find [2NQ B M]: real above imaginary parts, in units of the noise's deviation."""
    return torch.cat([batch.rows.real, batch.rows.imag], 1).transpose(0, 1) / batch.noise_var.sqrt()[:, None]
