"""Bounds of the diffusion receivers: the same samplers, told the data or the channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core import Estimate, Frame, Observation
from .sampling import Sampling, Scene, draws


@dataclass(frozen=True)
class SampledChannel(Sampling):
    """P1 Algorithm 1, or with ``method="ald"`` P2's Langevin chain, with all data symbols known: "SDE-CE & Perfect-Data"."""

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        """The symbols it returns are the true ones, with a small variance. info: nfe, error_var [B N], cut.

        Raises NotFiniteError when the sampler diverges.
        """
        scene = Scene.of(obs, truth.active, self.weights)
        known = scene.slots.take(truth.symbols.mT).mT
        x = self.sample_channel(scene, scene.known(known), draws(generator, obs), lambda i, x: obs.late)
        found = scene.estimate(x, known, nfe=float(self.n_h * self.cost), cut=obs.late)
        true = scene.slots.estimate(found.activity, scene.link.beams.back(scene.channel(x)), known, torch.zeros_like(known.real) + 1e-6)
        return Estimate(true.activity, true.channel, true.symbols, true.symbol_var, found.info)


@dataclass(frozen=True)
class SampledData(Sampling):
    """The data sampler of P1 and P2 with the channels known: "Perfect-CSI & SDE-DD"."""

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        """info: nfe (0: the data's prior needs no network), cut.

        Raises NotFiniteError when the sampler diverges.
        """
        scene = Scene.of(obs, truth.active, self.weights)
        channel = scene.link.beams.into(scene.slots.take(truth.channel))
        symbols = self.sample_data(scene, channel, draws(generator, obs), lambda i, x: obs.late)
        x = channel / scene.root_gain.clamp_min(1e-15)[..., None]
        return scene.estimate(x, symbols, clean=self.clean, nfe=0.0, cut=obs.late)
