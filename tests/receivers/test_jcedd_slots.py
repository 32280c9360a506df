"""Frames of a batch with different numbers of active users: empty slots do not reach the learned prior's answer."""

from __future__ import annotations

import pytest
import torch

from massaccess import SystemConfig, weights
from massaccess.forward.channels import make_channel
from massaccess.forward.simulate import Simulation
from massaccess.networks import build
from massaccess.registry import create

NETWORK = {"rows": 4, "columns": 4, "width": 8, "multipliers": [1, 2], "attention": []}
SYSTEM = SystemConfig(users=6, rows=4, columns=4, pilot_len=8, data_len=10, channel="kronecker", snr_db=15.0)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(1)
    table = torch.cat([torch.tensor([[0.01], [1.0]]), torch.tensor([[0.01], [0.5]]).expand(2, 16)], 1)
    header = weights.Header("ncsnpp", NETWORK, rows=4, columns=4)
    covariance = make_channel(SYSTEM).covariance
    return weights.save(tmp_path / "toy.safetensors", build("ncsnpp", NETWORK), header, covariance=covariance, calibration=table)


def test_a_frame_is_answered_alike_alone_and_beside_fuller_ones(file):
    _, obs = Simulation(SYSTEM, 3).frames(0, 2)
    active = torch.tensor([[True, False, True, False, False, False], [True] * 6])
    receiver = create("learned-ep", weights=str(file))
    both = receiver(obs, active=active)
    alone = receiver(Simulation(SYSTEM, 3).frames(0, 1)[1], active=active[:1])
    assert both.channel.isfinite().all() and both.symbols.isfinite().all()
    torch.testing.assert_close(both.channel[:1], alone.channel, rtol=1e-3, atol=1e-3)
    assert (both.info["error_var"] > 0).equal(active)
