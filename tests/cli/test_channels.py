"""``massaccess channels``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from massaccess.cli import group
from massaccess.forward.banks import save_bank
from massaccess.forward.channels import CHANNELS, DATA


def invoke(*arguments: object) -> str:
    answer = CliRunner().invoke(group, ["channels", *map(str, arguments)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_list_names_every_channel() -> None:
    assert all(name in invoke("list") for name in CHANNELS)


def test_list_as_json() -> None:
    assert [row["name"] for row in json.loads(invoke("list", "--json", "-"))["channels"]] == list(CHANNELS)


def test_inspect_shows_what_was_saved(tmp_path: Path) -> None:
    h = np.sqrt(0.5) * np.random.default_rng(0).normal(size=(20, 6, 2)).view(complex)[..., 0]
    path = save_bank(tmp_path / "small.npz", h, np.full(20, -80.0), 12, {"made": "here"})
    shown = dict(line.split(maxsplit=1) for line in invoke("inspect", path).splitlines())
    assert (shown["channels"], shown["antennas"], shown["train"]) == ("20", "6", "12")
    assert shown["gain_db_range"] == "-80 to -80"
    assert json.loads(shown["recipe"]) == {"made": "here"}


def test_inspect_as_json(tmp_path: Path) -> None:
    invoke("inspect", DATA / "florence_8x8.npz", "--json", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["antennas"] == 64


def test_inspect_refuses_another_file(massaccess, tmp_path: Path) -> None:
    (tmp_path / "not.npz").write_bytes(b"PK not really")
    answer = massaccess("channels", "inspect", str(tmp_path / "not.npz"))
    assert answer.returncode == 1
    assert "is not a readable channel bank" in answer.stderr


def test_generate_checks_its_options(massaccess, tmp_path: Path) -> None:
    assert massaccess("channels", "generate", "--count", "0", "--out", "x.npz").returncode == 2
    answer = massaccess("channels", "generate", "--count", "4", "--out", str(tmp_path / "x.mat"))
    assert answer.returncode == 2
    assert ".npz" in answer.stderr


@pytest.mark.skipif(importlib.util.find_spec("sionna") is not None, reason="Sionna is here")
def test_generate_without_sionna_names_the_cure(massaccess, tmp_path: Path) -> None:
    answer = massaccess("channels", "generate", "--count", "4", "--out", str(tmp_path / "x.npz"))
    assert answer.returncode == 1
    assert "massaccess[channels]" in answer.stderr
    assert not (tmp_path / "x.npz").exists()
