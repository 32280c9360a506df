"""Who is active, then everything else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..core import Estimate, Observation, Receiver
from .coherent import Coherent


@dataclass(frozen=True)
class TwoStage:
    """An activity detector, then a coherent receiver for the users it found (the two stages of P1, Fig. 1)."""

    detector: Receiver
    coherent: Coherent

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with the detector's activity and the coherent receiver's channel and symbols; info of both."""
        found = self.detector(obs, generator=generator)
        estimate = self.coherent(obs, active=found.active, generator=generator)
        return replace(estimate, activity=found.activity, info={**found.info, **estimate.info})
