"""Trainings of kind "channel" and "matrix": a denoiser of channels, by score matching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import weights
from ..errors import ConfigError
from ..priors.beams import Beams
from ..weights import Header
from . import policy, validation
from .data import TrainingData, linear
from .objective import loss, noise_levels, weigh
from .recipe import Recipe


@dataclass(frozen=True, eq=False)
class Denoising:
    """What `loop.Task` promises; ``beams``: where the network's errors are nearly uncorrelated, its own basis where it has one."""

    recipe: Recipe
    data: TrainingData
    beams: Beams

    @classmethod
    def of(cls, recipe: Recipe, network: nn.Module, device: torch.device) -> Denoising:
        """Buffers of the network that depend on the channel are set by its own ``prepare(covariance)``."""
        data = TrainingData.of(recipe, device=device)
        if hasattr(network, "prepare"):
            if data.covariance is None:
                raise ConfigError(f"{recipe.network} is for rows of channels: train it with kind='channel'")
            network.prepare(data.covariance.cpu())  # type: ignore[operator]
        if recipe.policy.rows and not getattr(network, "coloured", False):
            raise ConfigError(f"{recipe.network} takes white noise only: leave out the table [policy]")
        network.to(device)
        plain = data.covariance is None
        return cls(recipe, data, linear(data) if plain else weights.beams_of(network, data.covariance, like=data.held))  # type: ignore[arg-type]

    def loss(self, network: Callable[..., Any], bare: nn.Module, step: int) -> tuple[Tensor, Tensor]:
        """What step ``step`` descends, and the weighted squared error in it."""
        settings = self.recipe.optimiser
        clean, white, draw = self.data.batch(self.recipe, step)
        noise_var = noise_levels(self.recipe.noise, len(clean), generator=draw)
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=settings.autocast and clean.is_cuda):
            total, parts = loss(network, clean, white, noise_var, noise=self.recipe.noise, beams=self.beams, nll=settings.nll)
            if self.recipe.policy.rows:
                total = total + self._in_use(bare, draw)
        return total, parts["error"]

    def _in_use(self, network: nn.Module, draw: torch.Generator) -> Tensor:
        """The loss of rows out of the receiver's iterations, their share of the step's rows over that of the others."""
        recipe, beams = self.recipe, replace(self.beams, basis=None)
        channels = self.beams.into(self.data.mixture.draw(recipe.policy.rows, generator=draw))
        x, noise_var, clean = policy.rows(network, channels, recipe.policy, generator=draw)
        mean, head = network.in_beams(x, noise_var)  # type: ignore[operator]
        total, _ = weigh(mean - clean, head, noise_var, noise=recipe.noise, beams=beams, nll=recipe.optimiser.nll)
        return total * (recipe.policy.rows / recipe.optimiser.batch)

    def check(self, network: nn.Module) -> dict[str, Any]:
        return validation.denoising(network, self.data.held, linear(self.data), seed=self.recipe.seed)

    def point(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {"nmse_db": metrics["nmse_db"]}

    def save(self, out: Path, network: nn.Module, header: Header) -> None:
        rows = self.recipe.kind == "channel"
        table = validation.calibration(network, self.data.held, self.beams, seed=self.recipe.seed) if rows else None
        weights.save(out, network, header, covariance=self.data.covariance, calibration=table)
