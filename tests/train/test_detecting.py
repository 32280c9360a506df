"""Training of activity detectors, through the loop of every training."""

from __future__ import annotations

import json
import math

import pytest
import torch

from massaccess import weights
from massaccess.errors import ConfigError
from massaccess.train.loop import Training, rate_at
from massaccess.train.recipe import from_dict, read

TINY = {
    "name": "tiny",
    "network": "unrolled-covariance",
    "kind": "activity",
    "rows": 2,
    "columns": 4,
    "config": {"stages": 3, "hidden": 8, "sectored": 1},
    "data": {"sources": [{"channel": "rayleigh"}, {"channel": "paths", "weight": 0.3}]},
    "frames": {"pilots": [4, 8], "users": [16], "gain_db": 3.0},
    "optimiser": {"steps": 12, "batch": 16, "rate": 1e-2, "warmup": 2, "ema": 0.9, "early": 0.3},
    "validation": {"channels": 64, "every": 5, "pilots": [4, 8]},
}
PHYSICS = {"network": "vpl-audnet", "config": {"features": "physics", "layers": 2, "width": 16, "heads": 2, "stages": 1}}
RAW = {"network": "vpl-audnet", "config": {"layers": 2, "width": 16, "heads": 2, "max_len": 8, "scm": True}}


def train(folder, changes=None, *, resume=False, **options):
    folder.mkdir(exist_ok=True)
    values = {**TINY, **(changes or {})}
    if values["network"] == "vpl-audnet":
        values["optimiser"] = {**values["optimiser"], "early": 0.0}
    return Training(from_dict(values), folder / "tiny.safetensors", **options).run(resume=resume)


@pytest.mark.parametrize("changes", [{}, PHYSICS, RAW])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, changes):
    whole = train(tmp_path / "whole", changes)

    def stop(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", changes, on_step=stop)
    parts = train(tmp_path / "parts", changes, resume=True)
    assert (tmp_path / "parts/tiny.safetensors").read_bytes() == (tmp_path / "whole/tiny.safetensors").read_bytes()
    assert parts["metrics"] == whole["metrics"]


def test_the_weights_file_says_what_it_is(tmp_path):
    result = train(tmp_path)
    header = weights.load(tmp_path / "tiny.safetensors").header
    assert header.kind == "activity" and header.antennas == 0 and header.recipe == "tiny"
    assert header.pilots == {"book": "redrawn", "shortest": 4, "longest": 8}
    metrics = header.metrics
    assert (
        metrics["channels"] == ["rayleigh", "paths"]
        and metrics["pilots"] == [4, 8]
        and metrics["steps"] == 12
        and metrics["device"] == "cpu"
    )
    assert metrics["prior_aep"] == 0.1 and metrics["prior_log_loss"] == pytest.approx(0.3251, abs=1e-4)
    assert set(metrics["aep"]) == set(metrics["log_loss"]) == {"rayleigh", "paths"}
    assert metrics["aep"]["rayleigh"][1] < metrics["aep"]["rayleigh"][0] < 0.1
    curves = json.loads((tmp_path / "tiny.curves.json").read_text())
    assert [one["step"] for one in curves["validation"]] == [5, 10, 12]
    assert (tmp_path / "tiny.curves.png").stat().st_size > 0 and result["finished"]


def test_learned_steps_beat_those_it_begins_with(tmp_path):
    """Log loss on held-out frames, 8 pilots, after 150 steps of 3 stages."""
    settings = {**TINY["optimiser"], "batch": 32, "rate": 2e-2}
    checks = {**TINY["validation"], "channels": 512, "every": 1000}
    before, after = (
        train(tmp_path / str(steps), {"optimiser": {**settings, "steps": steps}, "validation": checks})["metrics"] for steps in (1, 150)
    )
    assert after["log_loss"]["rayleigh"][1] < 0.9 * before["log_loss"]["rayleigh"][1]


def test_a_transformer_of_raw_pilots_learns_at_least_the_prior(tmp_path):
    metrics = train(tmp_path, {**RAW, "optimiser": {**TINY["optimiser"], "steps": 40}})["metrics"]
    assert metrics["log_loss"]["rayleigh"][0] < 1.1 * metrics["prior_log_loss"]


def test_a_transformer_has_no_stages_to_train_early(tmp_path):
    with pytest.raises(ConfigError, match="early"):
        Training(from_dict({**TINY, **RAW}), tmp_path / "x.safetensors").run()


def test_steps_of_the_rate():
    recipe = read("vpl-audnet")
    rates = [rate_at(recipe, step, step / recipe.steps) for step in (0, 3749, 7499, 37_499, 37_500, 75_000, 99_999)]
    assert rates == pytest.approx([1e-4 / 7500, 5e-5, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6], rel=1e-3)


def test_the_paper_s_scale():
    """64,000 channels x 200 epochs in batches of 128."""
    recipe = read("vpl-audnet")
    assert recipe.steps == 200 * 64_000 // recipe.optimiser.batch and recipe.optimiser.decay == 75 * 500 == recipe.optimiser.warmup * 5
    for name, config in (("vpl-audnet-no-plam", {"plam": False}), ("vpl-audnet-no-scm", {"scm": False})):
        assert read(name).config == {**recipe.config, **config}
    assert math.prod(read("vpl-audnet-fixed").frames.pilots) == 15**2


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, PHYSICS, RAW])
def test_on_a_gpu_compiled_and_with_mixed_precision(tmp_path, changes):
    raw = changes is RAW
    optimiser = {**TINY["optimiser"], "autocast": raw, "compile": raw}
    result = train(tmp_path, {**changes, "optimiser": optimiser}, device=torch.device("cuda"))
    assert all(math.isfinite(value) for value in result["metrics"]["log_loss"]["rayleigh"])
