"""Approximate message passing for index-modulated pilots: who is active, and with which of its sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, Observation, sequence_estimate
from ..errors import unknown
from ..priors.one_of_rows import OneOfRows, gain_grid
from .message_passing import Messages, amp

DECISIONS = ("map", "paper")


@dataclass(frozen=True)
class IndexAmp:
    """MMV-AMP over the sequences of all devices (Ma, Wu, Gao, Shen 2023, "Model-driven deep learning for non-coherent mMTC", eq. 14-37).

    ``sections`` False is the paper's denoiser, rows independent and each alive with probability activity / Q (eq. 28-32); True takes the
    exact posterior mean of a section of which at most one row is alive, a softmax over Q + 1 cases, whose divergence counts the softmax in.

    ``decision`` "map" compares each sequence with silence by the posterior that the last pseudo-observation gives; "paper" drops the prior
    log(activity / Q / (1 - activity)) from it, eq. (36)-(37). Of rows equally likely the largest is best, eq. (35).

    Departures: the Onsager term is the mean divergence per antenna and the effective noise variance is measured, see
    `message_passing.amp`; messages are damped. The paper's 50 undamped iterations (``iterations=50, damping=1.0, tolerance=0.0``) run
    away in its own cell, where gains differ by up to 48 dB: 0.13 of 100 devices wrong at 40 symbols and 16 antennas, 0.001 with the
    defaults. Where of the gains only the range is known (``gain_range_db`` of the observation) the paper has no rule; here the posterior
    is averaged over those of `priors.one_of_rows.gain_grid`, which is not enough for few symbols.
    """

    sections: bool = False
    decision: str = "map"
    iterations: int = 100
    damping: float = 0.5
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise unknown("decision", self.decision, DECISIONS)

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``sequence_odds`` [B N Q]; info: iterations [B], effective_noise_var [B]."""
        power = self._powers(obs)
        found = self.messages(obs, power)
        odds = OneOfRows(obs.activity, power).log_odds(found.pseudo.unflatten(1, power.shape[1:3]), found.sigma[..., None])
        if self.decision == "paper":
            odds = odds - OneOfRows(obs.activity, power).log_prior(obs.sequences)
        return sequence_estimate(odds, info={"iterations": found.steps, "effective_noise_var": found.sigma[:, 0].square()})

    def messages(self, obs: Observation, power: Tensor | None = None, *, traced: bool = False) -> Messages:
        """Where message passing ends, rows [B NQ M] in units of the received sequences; ``traced``: with the noise level at every step."""
        power = self._powers(obs) if power is None else power
        activity = obs.activity
        if not self.sections:
            power, activity = power.flatten(1, 2).unsqueeze(2), activity / obs.sequences

        def denoise(frames: Tensor, pseudo: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            prior = OneOfRows(activity, power[frames])
            mean, var = prior.moments(pseudo.unflatten(1, power.shape[1:3]), sigma[..., None])
            return mean.flatten(1, 2), var.flatten(1, 2)

        book = obs.pilots / torch.linalg.vector_norm(obs.pilots, dim=0)
        steps, share, least = self.iterations, self.damping, self.tolerance
        return amp(obs, book, denoise, iterations=steps, damping=share, tolerance=least, traced=traced)

    def _powers(self, obs: Observation) -> Tensor:
        """Powers [B N Q K] that a received sequence may have."""
        energy = torch.linalg.vector_norm(obs.pilots, dim=0).square().view(1, obs.users, obs.sequences, 1)
        if obs.user_gain is not None:
            return energy * obs.user_gain[:, :, None, None]
        return (energy * gain_grid(*(obs.gain_range_db or (0.0, 0.0))).to(energy)).expand(obs.frames, -1, -1, -1)
