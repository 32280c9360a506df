"""State evolution: what approximate message passing does to index-modulated pilots, told without receiving any.

>>> from massaccess.core import SystemConfig
>>> cell = SystemConfig(users=100, rows=4, columns=4, pilot_len=60, data_len=0, index_bits=1, channel="rayleigh", snr_db=3.0)
>>> told = state_evolution(cell, generator=torch.Generator().manual_seed(0))
>>> bool(told.levels[0] > told.levels[-1] > cell.noise_var), told.ser < 1e-2
(True, True)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core import SystemConfig
from ..forward.channels import make_channel
from ..priors.one_of_rows import OneOfRows
from ..rng import complex_normal

NODES = 64  # of the quadrature over the energy of the sequence that was sent


@dataclass(frozen=True)
class Prediction:
    """levels [T + 1]: variance of the effective noise before each step of undamped message passing; ser: devices decided wrongly at the
    last level, over all devices (`metrics` calls it ser_devices)."""

    levels: Tensor
    ser: float


def state_evolution(
    config: SystemConfig,
    *,
    sections: bool = False,
    decision: str = "map",
    steps: int = 50,
    samples: int = 4000,
    generator: torch.Generator,
) -> Prediction:
    """Of `activity.index_amp.IndexAmp` with gains known, in the limit of many devices and symbols (Ma, Wu, Gao, Shen 2023, eq. 33-34):

        level_0 = noise_var + N / L E[active g],   level_t+1 = noise_var + N Q / L E[Var[x0 | x0 + sqrt(level_t) CN(0, I)]]

    over ``samples`` devices, their gains g as the channel model draws them, antennas independent. The posterior variance averages to the
    error since the denoiser is the posterior mean, with ``sections`` of the whole section. The expectation is Monte Carlo, with the same
    draws at every level; the symbol errors of the decision at the last level are exact for the gains that were drawn.
    """
    gain = _gains(config, samples, generator)
    noise_var, load = config.noise_var, config.users / config.pilot_len
    levels = [noise_var + load * config.activity_prior * float(gain.mean())]
    sent, noise = _draw(config, gain, generator)
    power = gain[:, None, None]
    prior = OneOfRows(config.activity_prior, power)
    if not sections:
        sent, noise, power = (rows.flatten(0, 1)[:, None] for rows in (sent, noise, power.expand(-1, config.sequences, -1)))
        prior = OneOfRows(config.activity_prior / config.sequences, power)
    for _ in range(steps):
        sigma = torch.tensor(levels[-1], dtype=torch.float64).sqrt()
        _, var = prior.moments(sent + sigma * noise, sigma)
        levels.append(noise_var + load * config.sequences * float(var.mean()))
    return Prediction(torch.tensor(levels), errors(config, gain.numpy(), levels[-1], decision))


def errors(config: SystemConfig, gain: np.ndarray, level: float, decision: str = "map") -> float:
    """Devices decided wrongly, over all devices of gains [S], from rows in white noise of variance ``level``: the "map" or the "paper"
    decision of `activity.index_amp.IndexAmp`."""
    from scipy.special import gammainc, gammaincinv

    antennas, sequences, active = config.antennas, config.sequences, config.activity_prior
    total = gain + level
    prior = OneOfRows(active, torch.ones(1)).log_prior(sequences) if decision == "map" else 0.0
    least = np.maximum(antennas * np.log(total / level) - prior, 0.0) / (1 / level - 1 / total)  # energy that beats silence
    alarm = 1 - gammainc(antennas, least / level) ** sequences
    missed = gammainc(antennas, least / total)
    share = missed[:, None] + (1 - missed[:, None]) * (np.arange(NODES) + 0.5) / NODES
    energy = total[:, None] * gammaincinv(antennas, share)
    found = (1 - missed) * (gammainc(antennas, energy / level) ** (sequences - 1)).mean(1)
    return float(np.mean((1 - active) * alarm + active * (1 - found)))


def _gains(config: SystemConfig, samples: int, generator: torch.Generator) -> Tensor:
    """Received power [S] of a unit column of the book, for devices of the cell."""
    energy = 1 if config.pilot_energy == "sequence" else config.pilot_len
    _, gain = make_channel(config.replace(placement_seed=None)).draw(1, samples, generator=generator)
    return energy * (torch.ones(samples, dtype=torch.float64) if gain is None else gain[0].double())


def _draw(config: SystemConfig, gain: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sections [S Q M] as they are sent, and unit noise like them."""
    shape = (len(gain), config.sequences, config.antennas)
    noise = complex_normal(*shape, generator=generator).to(torch.complex128)
    active = torch.arange(len(gain)) < config.activity_prior * len(gain)  # gains come in no order
    sent = complex_normal(len(gain), config.antennas, generator=generator) * (gain.sqrt() * active)[:, None]
    sections = torch.zeros_like(noise)
    sections[:, 0] = sent  # sequences are alike
    return sections, noise
