"""Training: it learns, stops in time, and goes on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from massaccess import weights
from massaccess.errors import ConfigError, FormatError, NotFiniteError
from massaccess.train.loop import Training, rate_at
from massaccess.train.recipe import Recipe, from_dict

TINY = from_dict(
    {
        "name": "tiny",
        "network": "ncsnpp",
        "rows": 4,
        "columns": 4,
        "config": {"width": 8, "multipliers": [1, 2], "attention": [2]},
        "data": {"sources": [{"channel": "kronecker", "weight": 0.9}, {"channel": "paths", "weight": 0.1}], "power_jitter_db": 1.0},
        "noise": {"least": 0.03, "greatest": 3.0, "weighting": "relative"},
        "optimiser": {"steps": 12, "batch": 16, "rate": 3e-3, "warmup": 2, "ema": 0.9},
        "validation": {"channels": 64, "every": 5},
    }
)


def train(folder: Path, recipe: Recipe = TINY, *, resume: bool = False, **options: object) -> dict:
    folder.mkdir(exist_ok=True)
    return Training(recipe, folder / "tiny.safetensors", **options).run(resume=resume)  # type: ignore[arg-type]


class Stop(Exception):
    """Thrown out of the middle of a training."""


def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path):
    whole = train(tmp_path / "whole")

    def stop(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", on_step=stop)
    assert not (tmp_path / "parts/tiny.safetensors").exists()
    parts = train(tmp_path / "parts", resume=True)
    assert (tmp_path / "parts/tiny.safetensors").read_bytes() == (tmp_path / "whole/tiny.safetensors").read_bytes()
    assert parts["metrics"] == whole["metrics"]
    read = [json.loads((tmp_path / name / "tiny.curves.json").read_text()) for name in ("parts", "whole")]
    assert read[0] == read[1]
    assert [one["step"] for one in read[0]["loss"]] == list(range(1, 13))
    assert [one["step"] for one in read[0]["validation"]] == [5, 10, 12]


def test_a_checkpoint_between_two_points_of_the_curve_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("massaccess.train.loop.POINTS", 4)
    whole = train(tmp_path / "whole", checkpoint_s=1e-9)
    assert whole["finished"]
    now = [0.0]
    monkeypatch.setattr("massaccess.train.loop.time.monotonic", lambda: now.__setitem__(0, now[0] + 1) or now[0])
    first = train(tmp_path / "parts", time_limit_s=20)
    assert 0 < first["steps"] < 12
    monkeypatch.undo()
    monkeypatch.setattr("massaccess.train.loop.POINTS", 4)
    train(tmp_path / "parts", resume=True)
    read = [json.loads((tmp_path / name / "tiny.curves.json").read_text()) for name in ("parts", "whole")]
    assert read[0]["loss"] == read[1]["loss"]


def test_it_learns_what_lmmse_knows(tmp_path):
    kronecker = dataclasses.replace(TINY.data, sources=TINY.data.sources[:1])
    recipe = TINY.replace(steps=150, data=kronecker, validation=dataclasses.replace(TINY.validation, every=150))
    result = train(tmp_path, recipe)
    losses = [one["loss"] for one in json.loads((tmp_path / "tiny.curves.json").read_text())["loss"]]
    assert sum(losses[-20:]) < 0.95 * sum(losses[:20])
    wiener = [10 * math.log10(1 / (1 + 10 ** (snr_db / 10))) for snr_db in result["metrics"]["snr_db"]]
    assert all(found < plain - 0.5 for found, plain in zip(result["metrics"]["nmse_db"][:3], wiener, strict=False))
    assert all(found > best - 0.1 for found, best in zip(result["metrics"]["nmse_db"], result["metrics"]["lmmse_db"], strict=True))


def test_the_weights_file_says_what_it_is(tmp_path):
    result = train(tmp_path)
    found = weights.load(tmp_path / "tiny.safetensors")
    assert found.header.recipe == "tiny" and found.header.channel == "kronecker" and found.header.config["rows"] == 4
    assert found.header.metrics == result["metrics"]
    assert set(result["metrics"]) >= {"snr_db", "nmse_db", "lmmse_db", "channels", "steps", "parameters"}
    assert found.calibration is not None and found.calibration.shape[1] == 17
    for path in result["files"].values():
        assert Path(path).stat().st_size > 0


def test_the_time_limit_is_kept(tmp_path):
    result = train(tmp_path, TINY.replace(steps=10**6), time_limit_s=1.0, by_clock=True)
    assert not result["finished"]
    assert 0 < result["steps"] < 10**6
    assert result["seconds"] < 30
    assert weights.load(tmp_path / "tiny.safetensors").header.metrics["steps"] == result["steps"]


def test_a_training_that_diverges_says_so(tmp_path):
    wild = dataclasses.replace(TINY, optimiser=dataclasses.replace(TINY.optimiser, rate=1e30, clip=1e30))
    with pytest.raises(NotFiniteError, match="rate"):
        train(tmp_path, wild)


def test_a_network_with_beams_of_its_own_and_an_error_head(tmp_path):
    values = TINY.to_dict() | {"network": "gate", "config": {"stages": 1, "hidden": 16}}
    values["policy"] = {"rows": 48, "users": [2, 4], "pilots_beyond_users": [-1, 4], "iterations": 2}
    setup = from_dict(values).replace(steps=60)
    result = train(tmp_path, setup)
    found = weights.load(tmp_path / "tiny.safetensors")
    assert all(0.5 < ratio < 2 for ratio in result["metrics"]["error_ratio"])
    assert all(ours < linear + 1 for ours, linear in zip(result["metrics"]["nmse_db"], result["metrics"]["lmmse_db"], strict=True))
    for dtype in (torch.complex64, torch.complex128):
        prior = weights.prior_of(found, torch.device("cpu"), dtype)
        assert prior.beams.basis is not None and prior.beams.basis.dtype == dtype
        x = torch.randn(3, 16, dtype=dtype)
        direct, _ = found.network(x.to(torch.complex64), torch.full((3,), 0.2))
        mean, _ = prior.moments(x, torch.full((3,), 0.2, dtype=x.real.dtype).sqrt())
        torch.testing.assert_close(mean.to(torch.complex64), direct, rtol=1e-3, atol=1e-4)


def test_matrices(tmp_path):
    values = TINY.to_dict() | {
        "network": "refinenet",
        "kind": "matrix",
        "config": {"width": 8, "multipliers": [1, 1], "depth": 1, "power": 0.2},
        "data": {"sources": [{"channel": "rayleigh", "activity": 0.2}, {"channel": "pathloss"}], "sizes": [[8, 8], [12, 8]]},
    }
    train(tmp_path, from_dict(values).replace(steps=4))
    header = weights.load(tmp_path / "tiny.safetensors").header
    assert header.kind == "matrix" and header.antennas == 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["ncsnpp", "gate"])
def test_on_a_gpu_with_mixed_precision(tmp_path, name):
    values = TINY.to_dict() | ({"network": "gate", "config": {"stages": 1, "hidden": 16}} if name == "gate" else {})
    values["optimiser"] = {**values["optimiser"], "autocast": True}
    result = train(tmp_path, from_dict(values), device=torch.device("cuda"))
    assert all(math.isfinite(value) for value in result["metrics"]["nmse_db"])
    again = train(tmp_path, from_dict(values), device=torch.device("cuda"), resume=True)
    assert again["metrics"] == result["metrics"]


def test_resume_wants_the_same_recipe_and_a_whole_file(tmp_path):
    train(tmp_path)
    with pytest.raises(ConfigError, match="seed differ"):
        train(tmp_path, TINY.replace(seed=1), resume=True)
    path = tmp_path / "tiny.checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="whole"):
        train(tmp_path, resume=True)
    path.unlink()
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(tmp_path, resume=True)


def test_output_is_checked_before_the_work(tmp_path):
    with pytest.raises(ConfigError, match="folder that exists"):
        Training(TINY, tmp_path / "no" / "x.safetensors")
    with pytest.raises(ConfigError, match="above 0"):
        Training(TINY, tmp_path / "x.safetensors", time_limit_s=0)


def test_schedules():
    constant = dataclasses.replace(TINY, optimiser=dataclasses.replace(TINY.optimiser, schedule="constant"))
    assert rate_at(constant, 0, 0) == pytest.approx(1.5e-3)
    assert rate_at(constant, 11, 1) == pytest.approx(3e-3)
    assert rate_at(TINY, 11, 1.0) == pytest.approx(3e-5)
    assert rate_at(TINY, 6, 0.5) == pytest.approx(3e-3 * 0.505)


def test_global_generator_is_left_alone(tmp_path):
    state = torch.get_rng_state()
    train(tmp_path, TINY.replace(steps=2))
    assert torch.equal(state, torch.get_rng_state())
