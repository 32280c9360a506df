"""The receiver of DL-mAMPnet: what the contract tests ask of every name, on the one cell that its weights are for; and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, FormatError, UnknownNameError
from massaccess.evaluate.metrics import Tally
from massaccess.forward.simulate import Simulation
from massaccess.registry import create, entry
from massaccess.train.loop import Training
from massaccess.train.recipe import from_dict

SYSTEM = SystemConfig(
    users=10,
    rows=2,
    columns=2,
    pilot_len=12,
    data_len=0,
    index_bits=2,
    pilot_kind="gaussian",
    pilot_energy="sequence",
    channel="pathloss-uniform",
    power_control=False,
    placement_seed=1,
    snr_convention="link-budget",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """After sixty steps."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    recipe = {
        "name": "tiny",
        "network": "dl-mampnet",
        "kind": "noncoherent",
        "config": {"layers": 3, "hidden": 8, "denoiser": "row"},
        "cell": {"system": SYSTEM.to_dict(), "frames": 256},
        "optimiser": {"steps": 60, "batch": 32, "ema": 0.9, "phases": [[1, 2e-3], [1, 2e-3], [1, 2e-3], [3, 3e-3], [3, 2e-3]]},
        "validation": {"channels": 10},
    }
    Training(from_dict(recipe), path).run()
    return str(path)


def observed(frames=6, **changes):
    return Simulation(SYSTEM.replace(**changes), 3).frames(0, frames)


def test_it_finds_devices_and_their_bits(weights):
    frame, obs = observed(400)
    estimate = create("dl-mampnet", weights=weights)(obs)
    assert estimate.sequence_odds.shape == (400, 10, 4) and estimate.activity.shape == (400, 10)
    assert estimate.activity.dtype == estimate.sequence_odds.dtype == torch.float32
    assert bool(((estimate.activity >= 0) & (estimate.activity <= 1)).all())
    tally = Tally()
    tally.add(SYSTEM, frame, estimate)
    assert tally.summary()["ser_devices"] < 0.06  # "nobody" scores 0.1
    assert entry("dl-mampnet").kind == "noncoherent"


def test_frames_are_answered_alone_and_inputs_left_alone(weights):
    _, obs = observed()
    before = obs.pilot_rx.clone()
    receiver = create("dl-mampnet", weights=weights)
    whole = receiver(obs).sequence_odds
    assert torch.equal(whole, receiver(obs).sequence_odds) and torch.equal(before, obs.pilot_rx)
    for index in range(3):
        alone = dataclasses.replace(
            obs, pilot_rx=obs.pilot_rx[index : index + 1], data_rx=obs.data_rx[:1], user_gain=obs.user_gain[index : index + 1]
        )
        torch.testing.assert_close(receiver(alone).sequence_odds[0], whole[index], rtol=1e-3, atol=1e-3)


def test_permuting_users_permutes_the_answer(weights):
    _, obs = observed()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    pilots = obs.pilots.unflatten(1, (10, 4))[:, order].flatten(1)
    receiver = create("dl-mampnet", weights=weights)
    plain, mixed = receiver(obs), receiver(dataclasses.replace(obs, pilots=pilots))
    torch.testing.assert_close(mixed.sequence_odds, plain.sequence_odds[:, order], rtol=1e-3, atol=1e-3)


def test_silence(weights):
    _, obs = observed()
    receiver = create("dl-mampnet", weights=weights)
    assert not bool(receiver(dataclasses.replace(obs, pilot_rx=0.1 * obs.pilot_rx / obs.pilot_rx.abs().max())).active.any())
    nothing = receiver(dataclasses.replace(obs, pilot_rx=torch.zeros_like(obs.pilot_rx)))
    assert bool(torch.isfinite(nothing.sequence_odds).all()) and not bool(nothing.active.any())
    none = dataclasses.replace(obs, pilot_rx=obs.pilot_rx[:0], data_rx=obs.data_rx[:0], user_gain=None)
    assert receiver(none).sequence_odds.shape == (0, 10, 4)


def test_double_precision_and_unknown_gains(weights):
    _, obs = observed()
    receiver = create("dl-mampnet", weights=weights)
    plain = receiver(obs).sequence_odds
    assert torch.equal(plain, receiver(dataclasses.replace(obs, user_gain=None)).sequence_odds)
    fine = [getattr(obs, name).to(torch.complex128) for name in ("pilot_rx", "data_rx", "pilots")]
    double = receiver(dataclasses.replace(obs, pilot_rx=fine[0], data_rx=fine[1], pilots=fine[2])).sequence_odds
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": 11}, "users"),
        ({"pilot_len": 11}, "pilots"),
        ({"index_bits": 1}, "sequences"),
        ({"rows": 4}, "antennas"),
        ({"pilot_seed": 5}, "seed 0"),
        ({"pilot_kind": "qpsk"}, "gaussian pilot book"),
        ({"pilot_energy": "symbol"}, "gaussian pilot book"),
    ],
)
def test_another_cell_is_refused(weights, changes, message):
    _, obs = observed(2, **changes)
    with pytest.raises(ConfigError, match=message):
        create("dl-mampnet", weights=weights)(obs)


def test_sequences_that_were_mixed_up_are_refused(weights):
    """Two users may change places, not two sequences of a user: they would tell other bits."""
    _, obs = observed(2)
    pilots = obs.pilots.clone()
    pilots[:, [0, 1]] = pilots[:, [1, 0]]
    with pytest.raises(ConfigError, match="and no other"):
        create("dl-mampnet", weights=weights)(dataclasses.replace(obs, pilots=pilots))


def test_other_weights_are_refused(weights, tmp_path):
    _, obs = observed(2)
    for name, error, message in (
        ("auto", ConfigError, "massaccess train"),
        ("unrolled-covariance", ConfigError, "choose weights of dl-mampnet"),
        ("none-such", UnknownNameError, "choose one of"),
    ):
        with pytest.raises(error, match=message):
            create("dl-mampnet", weights=name)(obs)
    damaged = tmp_path / "x.safetensors"
    with safe_open(weights, "pt") as stored:
        document, tensors = json.loads(stored.metadata()["massaccess"]), {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    for changes in ({"id": None}, {"energy": 3}):
        pilots = {**document["pilots"], **changes}
        save_file(tensors, damaged, {"massaccess": json.dumps({**document, "pilots": pilots})})
        with pytest.raises(FormatError, match="of pilots"):
            create("dl-mampnet", weights=str(damaged))(obs)
    damaged.write_bytes(b"x" * 99)
    with pytest.raises(FormatError):
        create("dl-mampnet", weights=str(damaged))(obs)
