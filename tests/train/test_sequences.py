"""Training of DL-mAMPnet, phase by phase, through the loop of every training."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess import weights
from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, MassaccessError
from massaccess.forward.pilots import book_id, book_of
from massaccess.forward.simulate import Simulation
from massaccess.networks import build
from massaccess.networks.dl_mampnet import DlMampNet
from massaccess.train.loop import Training, rate_at
from massaccess.train.phases import phase_at
from massaccess.train.recipe import from_dict, read
from massaccess.train.sequences import Sequences

SYSTEM = {
    "users": 10,
    "rows": 2,
    "columns": 2,
    "pilot_len": 12,
    "data_len": 0,
    "index_bits": 1,
    "pilot_kind": "gaussian",
    "pilot_energy": "sequence",
    "channel": "pathloss-uniform",
    "power_control": False,
    "placement_seed": 1,
    "snr_convention": "link-budget",
}
TINY = {
    "name": "tiny",
    "network": "dl-mampnet",
    "kind": "noncoherent",
    "config": {"layers": 2, "hidden": 8},
    "cell": {"system": SYSTEM, "frames": 256},
    "optimiser": {"steps": 12, "batch": 32, "warmup": 1, "ema": 0.9, "phases": [[1, 2e-3], [1, 2e-3], [1, 3e-3], [3, 2e-3]]},
    "validation": {"channels": 300, "every": 5},
}


def train(folder, changes=None, *, resume=False, **options):
    folder.mkdir(exist_ok=True)
    return Training(from_dict({**TINY, **(changes or {})}), folder / "tiny.safetensors", **options).run(resume=resume)


def task_of(**changes):
    recipe = from_dict({**TINY, **changes})
    network = build(recipe.network, recipe.network_config)
    return Sequences.of(recipe, network, torch.device("cpu")), network


@pytest.mark.parametrize("stop_at", [3, 7])  # between two phases, and within the last
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, stop_at):
    whole = train(tmp_path / "whole")

    def stop(step: int, loss: float) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", on_step=stop)
    parts = train(tmp_path / "parts", resume=True)
    assert (tmp_path / "parts/tiny.safetensors").read_bytes() == (tmp_path / "whole/tiny.safetensors").read_bytes()
    assert parts["metrics"] == whole["metrics"]


def test_phases_share_out_steps_and_rates():
    recipe = from_dict({**TINY, "optimiser": {**TINY["optimiser"], "schedule": "constant"}})
    assert [phase_at(recipe.optimiser, step).index for step in range(12)] == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert [rate_at(recipe, step, step / 12) for step in (0, 3, 5, 11)] == [2e-3, 2e-3, 3e-3, 2e-3]
    falling = recipe.replace(optimiser=dataclasses.replace(recipe.optimiser, schedule="cosine"))
    assert rate_at(falling, 1, 1 / 12) < rate_at(falling, 2, 2 / 12) == 2e-3  # each phase begins anew


def test_a_phase_moves_its_part_alone(tmp_path):
    """After the steps of the first phase, the second layer and the refinement are where they began."""
    _, begun = task_of()
    optimiser = {**TINY["optimiser"], "phases": [[1, 2e-3], [1e-9, 1.0], [1e-9, 1.0], [1e-9, 1.0]]}
    train(tmp_path, {"optimiser": optimiser})
    found = weights.load(tmp_path / "tiny.safetensors").state
    for name, value in begun.half().state_dict().items():
        same = torch.equal(found[name], value)
        assert same != (name.startswith("layers.0.")) or name.startswith("refinement.inner"), name  # whose start is drawn


def test_the_weights_file_says_what_it_is_for(tmp_path):
    train(tmp_path)
    header = weights.load(tmp_path / "tiny.safetensors").header
    cell = SystemConfig.from_dict(SYSTEM)
    assert (header.kind, header.network, header.channel, header.recipe) == ("noncoherent", "dl-mampnet", "pathloss-uniform", "tiny")
    assert header.config == {"users": 10, "sequences": 2, "pilot_len": 12, "antennas": 4, "layers": 2, "hidden": 8}
    assert header.pilots["id"] == book_id(book_of(cell)) and header.pilots["longest"] == 12
    assert SystemConfig.from_dict(header.metrics["system"]) == cell
    assert header.metrics["ser"] < header.metrics["prior_ser"] == 0.1
    state = weights.load(tmp_path / "tiny.safetensors").state
    assert all(value.dtype == torch.float16 for value in state.values())


def test_it_learns(tmp_path):
    """Squared error and symbol errors of a small cell, against those that the network begins with."""
    task, network = task_of()
    before = task.check(network)
    after = train(tmp_path, {"optimiser": {**TINY["optimiser"], "steps": 240, "ema": 0.98}})["metrics"]
    assert after["mse"] < 0.8 * before["mse"]
    assert after["ser"] < before["ser"] < before["prior_ser"]
    assert after["log_loss"] < 0.5 * before["log_loss"]


def test_frames_are_those_of_the_simulation():
    """Received power, activity and book: as `Simulation` makes them."""
    task, _ = task_of()
    batch = task.draw(4000, "here")
    frame, obs = Simulation(task.cell, 0).frames(0, 4000)
    torch.testing.assert_close(obs.pilots, task.book)
    assert float(batch.rx.abs().square().mean()) == pytest.approx(float(obs.pilot_rx.abs().square().mean()), rel=0.15)
    assert float(batch.chosen.any(-1).float().mean()) == pytest.approx(float(frame.active.float().mean()), abs=0.01)
    assert int(batch.chosen.sum(-1).max()) == 1
    quiet = (batch.rx - task.book @ batch.rows).abs().square().mean()
    assert float(quiet) == pytest.approx(obs.noise_var, rel=0.02)


def test_where_gains_begin():
    task, network = task_of()
    gain = Simulation(task.cell, 0).frames(0, 1)[1].user_gain[0].repeat_interleave(2)
    ratio = task.power() / gain
    assert float(ratio.min()) > 0.7 and float(ratio.max()) < 1.4
    torch.testing.assert_close(network.layers[0].gain(torch.ones(1))[:20, 0], task.power() / 2, rtol=1e-4, atol=1e-6)
    mean = task_of(cell={**TINY["cell"], "start": "mean"})[0].power()
    assert len(mean.unique()) == 1 and float(mean[0]) == pytest.approx(float(gain.mean()), rel=0.3)


def test_the_paper_s_scale():
    """Section VI: 80,000 frames in batches of 500, epochs and rates of the six phases."""
    recipe = read("dl-mampnet")
    epochs = [phase_at(recipe.optimiser, 0)]
    while epochs[-1].first + epochs[-1].steps < recipe.steps:
        epochs.append(phase_at(recipe.optimiser, epochs[-1].first + epochs[-1].steps))
    assert [(one.steps * 500 // 80_000, one.rate) for one in epochs] == [
        (2000, 2e-5),
        (1500, 2e-5),
        (1000, 2e-5),
        (1000, 2e-5),
        (1500, 1e-5),
        (5000, 1e-5),
    ]
    small = read("dl-mampnet-small")
    assert small.cell.system == recipe.cell.system and small.network_config["layers"] == 4


def test_what_does_not_go_is_named(tmp_path):
    with pytest.raises(ConfigError, match="by-clock"):
        train(tmp_path, time_limit_s=5.0, by_clock=True)
    for changes, message in (
        ({"kind": "channel", "data": {"sources": [{"channel": "uma"}]}}, "noncoherent"),
        ({"cell": {"system": {**SYSTEM, "index_bits": 0, "data_len": 4}}}, "data_len=0"),
        ({"cell": {"system": SYSTEM, "start": "everywhere"}}, "start of a cell"),
        ({"data": {"sources": [{"channel": "uma"}]}}, "leave out"),
        ({"optimiser": {"phases": [[1, 0.0]]}}, "phases"),
    ):
        with pytest.raises(MassaccessError, match=message):
            from_dict({**TINY, **changes})


def test_the_printed_form_learns_too(tmp_path):
    assert isinstance(task_of(config={"printed": True})[1], DlMampNet)
    metrics = train(tmp_path, {"config": {"layers": 2, "hidden": 8, "printed": True}})["metrics"]
    assert metrics["ser"] < 0.2
