"""``massaccess train`` and ``massaccess weights``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from massaccess.cli import group
from massaccess.errors import MassaccessError
from massaccess.forward.banks import save_bank
from massaccess.rng import complex_normal, generator

RECIPE = """
summary = "toy"
network = "ncsnpp"
rows = 4
columns = 4
[config]
width = 8
multipliers = [1, 2]
attention = []
[[data.sources]]
channel = "kronecker"
[optimiser]
steps = 6
batch = 8
[validation]
channels = 32
every = 3
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE)
    return path


def run(*arguments: object, code: int = 0) -> str:
    answer = CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)
    assert answer.exit_code == code, answer.output
    return answer.output


def test_a_recipe_becomes_weights(recipe):
    shown = run("train", recipe, "--device", "cpu")
    assert "LMMSE" in shown and "6 steps" in shown
    assert {path.name for path in recipe.parent.iterdir()} == {
        "toy.toml",
        "toy.safetensors",
        "toy.checkpoint.safetensors",
        "toy.curves.json",
        "toy.curves.png",
    }


def test_json_resume_and_overrides(recipe):
    first = json.loads(run("train", recipe, "--steps", 3, "--seed", 5, "--out", "x.safetensors", "--json", "-"))
    assert first["steps"] == 3 and first["recipe"]["seed"] == 5 and first["finished"]
    assert len(first["metrics"]["nmse_db"]) == len(first["metrics"]["snr_db"]) == 5
    again = json.loads(run("train", recipe, "--steps", 3, "--seed", 5, "--out", "x.safetensors", "--resume", "--json", "-"))
    assert again["metrics"] == first["metrics"]


def test_time_limit(recipe):
    result = json.loads(run("train", recipe, "--steps", 10**6, "--time-limit", 0.5, "--by-clock", "--json", "-"))
    assert not result["finished"] and result["steps"] < 10**6 and result["seconds"] < 60


def test_own_channels(recipe):
    h = complex_normal(100, 16, generator=generator(0)).numpy()
    bank = save_bank(recipe.parent / "mine.npz", h, np.zeros(100), 60, {})
    run("train", recipe, "--data", bank)
    assert json.loads(run("weights", "show", "toy.safetensors", "--json", "-"))["channel"] == "mine.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("uma-gat",), "uma-gate"),
        (("toy.toml", "--out", "toy.pt"), "safetensors"),
        (("toy.toml", "--resume"), "no checkpoint"),
        (("toy.toml", "--device", "abacus"), "pass cpu"),
        (("toy.toml", "--by-clock"), "time limit"),
    ],
)
def test_errors_name_the_cure(recipe, arguments, message):
    with pytest.raises(MassaccessError, match=message):
        run("train", *arguments)


def test_weights_are_listed_shown_and_checked(recipe):
    run("train", recipe)
    assert "ncsnpp" in run("weights", "show", "toy.safetensors")
    assert "whole" in run("weights", "check", "toy.safetensors")
    document = json.loads(run("weights", "check", "toy.safetensors", "--json", "-"))
    assert document["whole"] and document["kind"] == "channel" and document["parameters"] > 1000
    content = Path("toy.safetensors").read_bytes()
    Path("toy.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(MassaccessError, match="not a whole"):
        run("weights", "check", "toy.safetensors")


def test_list_names_what_ships():
    from massaccess import weights

    rows = json.loads(run("weights", "list", "--json", "-"))["weights"]
    assert [row["name"] for row in rows] == list(weights.available())
    assert all(name in run("weights") for name in weights.available())
    with pytest.raises(MassaccessError, match="unknown weights"):
        run("weights", "show", "nothing")
