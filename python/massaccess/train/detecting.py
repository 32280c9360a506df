"""Trainings of kind "activity": who is active in frames that are made on the fly, by binary cross-entropy (P1 eq. 9, signs put right)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import weights
from ..errors import ConfigError
from ..weights import Header
from .frames import FrameData
from .recipe import Recipe

CHUNK = 128  # validation frames at once


@dataclass(frozen=True, eq=False)
class Detecting:
    """What `loop.Task` promises."""

    recipe: Recipe
    data: FrameData

    @classmethod
    def of(cls, recipe: Recipe, network: nn.Module, device: torch.device) -> Detecting:
        if recipe.optimiser.early and not hasattr(network, "trace"):
            raise ConfigError(f"{recipe.network} says nothing before its end: leave out optimiser.early")
        network.to(device)
        return cls(recipe, FrameData.of(recipe, device=device))

    def loss(self, network: Callable[..., Any], bare: nn.Module, step: int) -> tuple[Tensor, Tensor]:
        """What step ``step`` descends, and the log loss of a user in nats. Networks with a method ``trace`` also answer for what they say
        before the end, with a share ``optimiser.early``."""
        early, batch = self.recipe.optimiser.early, self.data.batch(step)
        target = batch.active.to(batch.noise_var.dtype)
        enabled = self.recipe.optimiser.autocast and target.is_cuda
        with torch.autocast(target.device.type, torch.bfloat16, enabled=enabled):
            said = bare.trace(*batch.given) if early else [network(*batch.given)]  # type: ignore[operator]
        losses = [functional.binary_cross_entropy_with_logits(one.float(), target) for one in said]
        before = torch.stack(losses[:-1]).mean() if len(losses) > 1 else 0.0
        return losses[-1] + early * before, losses[-1].detach()

    @torch.no_grad()
    def check(self, network: nn.Module) -> dict[str, Any]:
        """``aep`` (activity error probability at even odds) and ``log_loss`` [nat] by source, one for each of ``pilots``; beside them those
        of the prior alone, ``prior_aep`` (whoever says "nobody") and ``prior_log_loss``."""
        wanted, rate = self.recipe.validation, self.recipe.validation.activity
        aep: dict[str, list[float]] = {name: [] for name in self.data.held}
        log_loss: dict[str, list[float]] = {name: [] for name in self.data.held}
        for name in self.data.held:
            for pilot_len in wanted.pilots:
                errors, surprise = self._frames(network, name, pilot_len)
                aep[name].append(errors)
                log_loss[name].append(surprise)
        prior = -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)
        at = {"pilots": list(wanted.pilots), "frames": wanted.channels, "activity": rate, "snr_db": wanted.snr_db}
        return at | {"aep": aep, "log_loss": log_loss, "prior_aep": rate, "prior_log_loss": prior}

    def _frames(self, network: nn.Module, name: str, pilot_len: int) -> tuple[float, float]:
        errors = surprise = 0.0
        frames, users = self.recipe.validation.channels, self.recipe.frames.users[0]
        for start in range(0, frames, CHUNK):
            batch = self.data.check(name, pilot_len, start, min(CHUNK, frames - start))
            log_odds, target = network(*batch.given).float(), batch.active.float()
            errors += float(((log_odds > 0) != batch.active).sum())
            surprise += float(functional.binary_cross_entropy_with_logits(log_odds, target, reduction="sum"))
        return errors / (frames * users), surprise / (frames * users)

    def point(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {"aep": metrics["aep"], "log_loss": metrics["log_loss"]}

    def save(self, out: Path, network: nn.Module, header: Header) -> None:
        weights.save(out, network, header)
