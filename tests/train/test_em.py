"""Fitting a mixture as a training: it gains, keeps the time, and goes on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from massaccess import weights
from massaccess.errors import ConfigError, FormatError, UnknownNameError
from massaccess.forward.banks import save_bank
from massaccess.priors.mixture import GaussianMixture
from massaccess.priors.mixture_fit import fit_mixture
from massaccess.rng import complex_normal, generator
from massaccess.train.loop import Training
from massaccess.train.recipe import Recipe, from_dict, read
from massaccess.weights.stored import read_tensors, write

TINY = from_dict(
    {
        "name": "tiny",
        "network": "mixture",
        "rows": 2,
        "columns": 3,
        "config": {"components": 3, "structure": "toeplitz"},
        "data": {"sources": [{"channel": "paths"}]},
        "em": {"iterations": 8, "tolerance": -math.inf, "channels": 400},
        "validation": {"channels": 64, "every": 3},
    }
)


def train(folder: Path, recipe: Recipe = TINY, *, resume: bool = False, **options: object) -> dict:
    folder.mkdir(exist_ok=True)
    return Training(recipe, folder / "tiny.safetensors", **options).run(resume=resume)  # type: ignore[arg-type]


def curves(folder: Path) -> dict:
    return json.loads((folder / "tiny.curves.json").read_text())


def test_it_becomes_weights_that_say_what_they_are(tmp_path):
    seen: list[int] = []
    result = train(tmp_path, on_step=lambda step, value: seen.append(step))
    found = weights.load(tmp_path / "tiny.safetensors")
    assert isinstance(weights.prior_of(found, torch.device("cpu"), torch.complex64), GaussianMixture)
    assert found.header.recipe == "tiny" and found.header.config["structure"] == "toeplitz"
    assert found.header.metrics == result["metrics"]
    assert set(result["metrics"]) >= {"snr_db", "nmse_db", "lmmse_db", "channels", "steps", "parameters", "error_ratio", "log_likelihood"}
    assert all(ours < linear for ours, linear in zip(result["metrics"]["nmse_db"], result["metrics"]["lmmse_db"], strict=True))
    assert result["finished"] and result["steps"] == 8 and seen == list(range(9))
    assert set(result["files"]) == {"weights", "checkpoint", "curves", "picture"}
    for path in result["files"].values():
        assert Path(path).stat().st_size > 0
    likelihood = [one["log_likelihood"] for one in curves(tmp_path)["log_likelihood"]]
    assert len(likelihood) == 9 and likelihood == sorted(likelihood)
    assert [one["step"] for one in curves(tmp_path)["validation"]] == [3, 6, 8]


@pytest.mark.parametrize("structure", ["full", "toeplitz", "circulant"])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(tmp_path, structure):
    recipe = dataclasses.replace(TINY, config={"components": 3, "structure": structure})
    whole = train(tmp_path / "whole", recipe)

    def stop(step: int, value: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", recipe, on_step=stop)
    assert not (tmp_path / "parts/tiny.safetensors").exists()
    parts = train(tmp_path / "parts", recipe, resume=True)
    assert parts["metrics"] == whole["metrics"]
    assert (tmp_path / "parts/tiny.safetensors").read_bytes() == (tmp_path / "whole/tiny.safetensors").read_bytes()
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_the_time_limit_is_kept_and_what_there_is_written(tmp_path):
    result = train(tmp_path, TINY.replace(steps=10**6), time_limit_s=0.5)
    assert not result["finished"] and result["steps"] < 10**6
    assert weights.load(tmp_path / "tiny.safetensors").header.metrics["steps"] == result["steps"]
    more = train(tmp_path, TINY.replace(steps=10**6), time_limit_s=0.2, resume=True)
    assert result["steps"] <= more["steps"] < 10**6


def test_it_ends_where_nothing_is_gained(tmp_path):
    result = train(tmp_path, dataclasses.replace(TINY, em=dataclasses.replace(TINY.em, iterations=500, tolerance=0.05)))
    assert result["finished"] and result["steps"] < 500


def test_a_bank_is_fitted_from_its_first_channel_on(tmp_path):
    h = complex_normal(300, 6, generator=generator(0)).numpy()
    bank = save_bank(tmp_path / "mine.npz", h, np.zeros(300), 200, {}, half=False)
    recipe = dataclasses.replace(TINY, em=dataclasses.replace(TINY.em, channels=100)).with_bank(str(bank))
    train(tmp_path, recipe)
    fit = fit_mixture(
        torch.from_numpy(h[:100]),
        3,
        generator=generator(0, "mixture"),
        structure="toeplitz",
        grid=(2, 3),
        iterations=8,
        tolerance=-math.inf,
    )
    state = weights.load(tmp_path / "tiny.safetensors").state
    assert all(torch.equal(state[name], value) for name, value in fit.mixture.to_tensors().items())


def test_resume_wants_the_same_recipe_and_a_whole_file(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(tmp_path, resume=True)
    train(tmp_path)
    with pytest.raises(ConfigError, match="seed differ"):
        train(tmp_path, TINY.replace(seed=1), resume=True)
    path = tmp_path / "tiny.checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    for damage in ({"weight": tensors["weight"][:2]}, {"parameters": tensors["parameters"][:, :5]}):
        write(path, tensors | damage, metadata)
        with pytest.raises(FormatError, match="does not hold this mixture"):
            train(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"components": 3, "structure": "banded"}}, "toeplitz"),
        ({"config": {"components": 3, "width": 3}}, "names of its options"),
        ({"config": {}}, "names of its options"),
        ({"config": {"components": 0}}, "components is 0"),
        ({"em": {"iterations": 0}}, "1 or more"),
        ({"em": {"channels": 0}}, "how many"),
        ({"em": {"rate": 1.0}}, "unknown field of em"),
        ({"policy": {"rows": 8}}, "leave out"),
        ({"kind": "matrix", "data": {"sources": [{"channel": "rayleigh"}], "sizes": [[8, 8]]}}, "fitted to rows"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        train(tmp_path, from_dict(TINY.to_dict() | change))


def test_the_clock_has_nothing_to_lower(tmp_path):
    with pytest.raises(ConfigError, match="--by-clock"):
        train(tmp_path, by_clock=True, time_limit_s=5)


def test_steps_are_iterations():
    assert read("uma-mixture").steps == 60
    assert read("uma-mixture").replace(steps=7).em.iterations == 7
    assert read("uma-gate").replace(steps=7).steps == 7


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    result = train(tmp_path, device=torch.device("cuda"))
    again = train(tmp_path, device=torch.device("cuda"), resume=True)
    assert again["metrics"]["nmse_db"] == pytest.approx(result["metrics"]["nmse_db"], abs=0.01)


def test_angular_profiles_are_fitted_and_gone_on_with_the_same_way(tmp_path):
    recipe = from_dict({**TINY.to_dict(), "network": "angles", "config": {"components": 3}})
    whole = train(tmp_path / "whole", recipe)
    found = weights.load(tmp_path / "whole" / "tiny.safetensors")
    assert (found.header.network, found.header.kind) == ("angles", "channel")
    assert whole["metrics"]["nmse_db"][2] < whole["metrics"]["lmmse_db"][2]
    history = curves(tmp_path / "whole")["log_likelihood"]
    assert history[-1]["log_likelihood"] > history[0]["log_likelihood"]
    again = train(tmp_path / "whole", recipe, resume=True)
    assert again["steps"] == whole["steps"]
