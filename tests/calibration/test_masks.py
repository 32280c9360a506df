"""What masked antennas cost a receiver: filled in from the others, as much as an array that never had them, and less than zeros."""

from __future__ import annotations

from dataclasses import replace

import torch

from massaccess import SystemConfig
from massaccess.calibration import fill, filling
from massaccess.forward.simulate import Simulation
from massaccess.registry import create


def test_filling_in_costs_no_more_than_losing_the_antennas():
    """Linear estimation with the covariance that belongs to each array; channel errors on the antennas that are left."""
    config = SystemConfig(active_users=12, users=12, pilot_len=16, data_len=8, snr_db=10.0)
    frame, obs = Simulation(config, 3).frames(0, 64)
    mask = torch.ones(64, dtype=torch.bool)
    mask[torch.randperm(64, generator=torch.Generator().manual_seed(1))[:8]] = False
    receiver = create("lmmse-lmmse")
    cut = {"pilot_rx": obs.pilot_rx[..., mask], "data_rx": obs.data_rx[..., mask], "channel_cov": obs.channel_cov[mask][:, mask]}
    errors = {"lost": error(receiver(replace(obs, **cut, array=None)).channel, frame.channel[..., mask])}
    for name, covariance in (("zero", None), ("neighbours", obs.channel_cov)):
        weights = filling(mask, covariance, 0.1)
        seen = replace(obs, pilot_rx=fill(obs.pilot_rx, mask, weights), data_rx=fill(obs.data_rx, mask, weights))
        errors[name] = error(receiver(seen).channel[..., mask], frame.channel[..., mask])
    assert errors["neighbours"] < 1.03 * errors["lost"]
    assert errors["zero"] > 1.1 * errors["lost"]


def error(found, true):
    return float((found - true).abs().square().sum() / true.abs().square().sum())
