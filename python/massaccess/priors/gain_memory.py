"""What earlier frames tell of the gains of devices that stay where they are.

>>> memory = GainMemory(users=2, range_db=(0.0, 1.9))
>>> len(memory.levels_db), memory.frames
(3, 0)
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..errors import ConfigError
from .profiles import gain_levels

LEAST = 1e-12  # probability that a frame leaves to a level that it speaks against: no single frame rules one out for good
FLOOR = -40.0  # of a level's evidence below the best


class GainMemory:
    """A distribution of each device's gain over the levels of a range [dB], sharpened by every frame that a receiver has decoded.

    Frames are independent given the gains: the posterior of a level is its prior times, for each frame, the probability of silence plus
    that of being active at the level over the level's prior. Receivers whose info has ``level_mass`` and ``silence`` feed it
    (`noncoherent`), and take from the observation what it knows. ``forget``: share of the evidence that a frame leaves to the next, below
    1 for devices that move: 0.999 remembers about a thousand frames.
    """

    def __init__(self, *, users: int, range_db: tuple[float, float], forget: float = 1.0) -> None:
        if not 0 < forget <= 1:
            raise ConfigError(f"forget is {forget}: pass more than 0, up to 1 (remembers all)")
        self.range_db, self.forget, self.frames = range_db, forget, 0
        self.levels_db, self._prior = gain_levels(*range_db)
        self._evidence = torch.zeros(users, len(self.levels_db), dtype=torch.float64)

    def tell(self, obs: Observation) -> Observation:
        """``obs`` with what is known of the gains by now; observations whose gains are known stay as they are."""
        if obs.user_gain is not None:
            return obs
        return dataclasses.replace(obs, gain_range_db=self.range_db, level_evidence=self._evidence.to(obs.pilot_rx.device))

    def learn(self, estimate: Estimate) -> None:
        """Takes in what the frames of ``estimate`` say, decoded with what `tell` told last."""
        if "level_mass" not in estimate.info:
            raise ConfigError("this receiver does not tell levels of gain: pass noncoherent, or gains that are known")
        mass, silence = estimate.info["level_mass"].double().cpu(), estimate.info["silence"].double().cpu()
        factor = (silence[..., None] + mass / self.weight).clamp_min(LEAST).log()  # [B N G]
        age = self.forget ** torch.arange(len(factor) - 1, -1, -1, dtype=torch.float64)
        evidence = self.forget ** len(factor) * self._evidence + (age[:, None, None] * factor).sum(0)
        self._evidence = (evidence - evidence.amax(1, keepdim=True)).clamp_min(FLOOR)
        self.frames += len(factor)

    @property
    def weight(self) -> Tensor:
        """Probability of each level [N G]."""
        return torch.softmax(self._prior.double().log() + self._evidence, 1)

    @property
    def gain(self) -> Tensor:
        """Posterior mean of the gains [N]."""
        return self.weight @ (10 ** (self.levels_db.double() / 10))
