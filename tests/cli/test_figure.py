"""``massaccess figure`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from massaccess.cli import group
from massaccess.cli.figure import Files


def run(*arguments: str, code: int = 0) -> str:
    answer = CliRunner().invoke(group, ["figure", *arguments], catch_exceptions=code == 0)
    assert answer.exit_code == code, answer.output
    return answer.output


def test_the_list() -> None:
    assert "p1-fig10" in run()
    assert {one["id"] for one in json.loads(run("--json", "-"))["figures"]} >= {"p0-fig5", "p1-table2", "p2-fig4"}


def test_two_points_of_a_figure(tmp_path: Path) -> None:
    arguments = ("p1-fig10", "--only", "ls-zf,iterative-lmmse-oamp", "--points", "4,8", "--frames", "8", "--device", "cpu")
    shown = run(*arguments, "--out", str(tmp_path / "new"))
    for text in ("Pilot LS-CE & ZF-DD", "not reached", "Our Iter SDE CE & DD outperforms", "quick run: 8 frames", "p1-fig10.png"):
        assert text in shown
    result = json.loads((tmp_path / "new" / "p1-fig10.json").read_text())
    assert [(row["curve"], row["x"], row["frames"]) for row in result["results"]] == [
        (curve, x, 8) for curve in ("ls-zf", "iterative-lmmse-oamp") for x in (4, 8)
    ]
    assert (tmp_path / "new" / "p1-fig10.png").exists()
    run(*arguments, "--out", str(tmp_path / "new"), "--resume", "--json", str(tmp_path / "copy.json"))
    assert json.loads((tmp_path / "copy.json").read_text()) == result


def test_a_training(tmp_path: Path) -> None:
    path = tmp_path / "x.curves.json"
    path.write_text(json.dumps({"loss": [{"step": step, "loss": 1 / (1 + step)} for step in range(30)]}))
    assert "agrees" in run("p0-fig4", "--curves", str(path), "--out", str(tmp_path))
    assert (tmp_path / "p0-fig4.png").exists()


def test_curves_over_false_alarms_and_what_is_left_out(tmp_path: Path) -> None:
    arguments = ("p1-fig7", "--only", "covariance,covariance-144,audnet", "--frames", "30", "--books", "2", "--points", "0.01,0.1")
    shown = run(*arguments, "--device", "cpu", "--out", str(tmp_path))
    for text in ("p_md", "M = 144", "left out: audnet, ", "of 2 pilot books"):
        assert text in shown
    result = json.loads((tmp_path / "p1-fig7.json").read_text())
    assert [(row["curve"], row["x"], row["antennas"]) for row in result["results"]] == [
        (key, x, antennas) for key, antennas in (("covariance", 64), ("covariance-144", 144)) for x in (0.01, 0.1)
    ]
    assert "roc" not in result["results"][0]


def test_weights_go_to_one_curve_or_to_all() -> None:
    convert = Files().convert
    assert convert("a=one.safetensors, b=two.safetensors", None, None) == {"a": "one.safetensors", "b": "two.safetensors"}
    assert convert("one.safetensors", None, None) == {"": "one.safetensors"}
    assert convert("", None, None) == {}


def test_an_unknown_figure_is_named() -> None:
    answer = CliRunner().invoke(group, ["figure", "p1-fig99"])
    assert answer.exit_code == 1
    assert "p1-fig10" in str(answer.exception)
