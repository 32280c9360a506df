"""``massaccess doctor``: finds what is broken, names the cure, and says so in its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from massaccess import weights
from massaccess.cli import doctor, group
from massaccess.cli.doctor import Finding, companion, companion_paths, examine, flowgraphs, gnuradio, yml_folder
from massaccess.networks import build


def test_this_installation_is_sound(massaccess, tmp_path: Path) -> None:
    answer = massaccess("doctor", "--quick", "--json", str(tmp_path / "out.json"))
    findings = json.loads((tmp_path / "out.json").read_text())["findings"]
    assert answer.returncode == 0, answer.stdout
    assert {"python", "massaccess", "numpy", "torch", "numba", "pyzmq", "sigmf", "device", "bank", "gnuradio", "blocks", "grc"} <= {
        finding["topic"] for finding in findings
    }
    assert all(finding["cure"] for finding in findings if finding["level"] != "OK")


def report(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> tuple[int, str]:
    def check() -> Iterator[Finding]:
        yield from findings

    monkeypatch.setattr(doctor, "CHECKS", (check,))
    answer = CliRunner().invoke(group, ["doctor"])
    return answer.exit_code, answer.output


def test_a_failure_is_exit_code_1_and_shows_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown = report(monkeypatch, Finding("OK", "a", "fine"), Finding("FAIL", "b", "broken [red]", "mend it"))
    assert code == 1
    assert "FAIL b           broken [red]" in shown
    assert "-> mend it" in shown


def test_a_warning_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(monkeypatch, Finding("WARN", "a", "hm", "do this"))[0] == 0


def test_a_check_that_breaks_is_a_finding() -> None:
    def torn() -> Iterator[Finding]:
        raise RuntimeError("no such thing")
        yield

    (finding,) = examine((torn,))
    assert (finding.level, finding.topic) == ("FAIL", "torn")
    assert "no such thing" in finding.text


def ships(monkeypatch: pytest.MonkeyPatch, path: Path, sha256: str) -> None:
    monkeypatch.setattr(weights, "available", lambda: {"toy": weights.Shipped("toy", path, sha256, "a toy")})


def test_weights_that_ship_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = {"width": 8, "multipliers": [1], "depth": 1}
    path = weights.save(tmp_path / "toy.safetensors", build("refinenet", config), weights.Header("refinenet", config, kind="matrix"))
    sha256 = weights.load(path).sha256
    ships(monkeypatch, path, sha256)
    (finding,) = doctor.weights()
    assert (finding.level, finding.text) == ("OK", f"toy: refinenet for any array, sha256 {sha256[:16]}")
    ships(monkeypatch, path, "0" * 64)
    (finding,) = doctor.weights()
    assert finding.level == "FAIL" and "not the file that shipped" in finding.text and "install" in finding.cure
    path.write_bytes(path.read_bytes()[:-1])
    ships(monkeypatch, path, sha256)
    (finding,) = doctor.weights()
    assert finding.level == "FAIL" and "not a whole safetensors file" in finding.text


RADIO = {"version": "3.10", "prefix": "/usr", "numpy": "1.24", "grc_paths": ["", ""], "package": "here", "blocks": {}}


FLOWGRAPH = """
options: {parameters: {id: broken, output_language: python, generate_options: no_gui}, states: {state: enabled}}
blocks: [{name: source, id: blocks_null_source, parameters: {type: complex}, states: {state: enabled}}]
connections: []
metadata: {file_format: 1}
"""


def with_probe(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: RADIO | changes)


def test_wrong_numpy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_probe(monkeypatch, error="ImportError: A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1")
    (finding,) = gnuradio()
    assert finding.level == "FAIL"
    assert "numpy<2" in finding.cure


def test_broken_block_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_probe(monkeypatch, blocks={"quantizer": "", "receiver": "AttributeError: gone"})
    found = list(gnuradio())
    assert [finding.text for finding in found if finding.level == "FAIL"] == ["receiver does not import: AttributeError: gone"]
    assert any("1 of 2" in finding.text for finding in found)


def descriptions(folder: Path, *blocks: str) -> Path:
    folder.mkdir(parents=True)
    for block in blocks:
        (folder / f"massaccess_{block}.block.yml").touch()
    return folder


def test_companion_finds_the_descriptions_where_it_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = descriptions(tmp_path / "grc", "quantizer")
    monkeypatch.setattr(doctor, "yml_folder", lambda: folder)
    monkeypatch.setenv("GRC_HIER_PATH", str(tmp_path / "none"))
    with_probe(monkeypatch, blocks={"quantizer": ""})
    monkeypatch.delenv("GRC_BLOCKS_PATH", raising=False)
    assert any(finding.level == "WARN" and f"GRC_BLOCKS_PATH={folder}" in finding.cure for finding in companion())
    monkeypatch.setenv("GRC_BLOCKS_PATH", str(folder))
    assert any(finding.text == "GNU Radio Companion looks there" for finding in companion())


def test_second_installation_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, other = descriptions(tmp_path / "grc", "quantizer"), descriptions(tmp_path / "old", "quantizer")
    monkeypatch.setattr(doctor, "yml_folder", lambda: folder)
    monkeypatch.setenv("GRC_HIER_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("GRC_BLOCKS_PATH", f"{other}:{folder}")
    with_probe(monkeypatch, blocks={"quantizer": ""})
    assert any(finding.level == "WARN" and str(other) in finding.text for finding in companion())


def test_block_without_description_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = descriptions(tmp_path / "grc", "quantizer")
    monkeypatch.setattr(doctor, "yml_folder", lambda: folder)
    with_probe(monkeypatch, blocks={"quantizer": "", "receiver": ""})
    assert any(finding.level == "FAIL" and "receiver" in finding.text for finding in companion())


def test_description_without_block_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = descriptions(tmp_path / "grc", "quantizer", "old_name")
    monkeypatch.setattr(doctor, "yml_folder", lambda: folder)
    with_probe(monkeypatch, blocks={"quantizer": ""})
    assert any(finding.level == "FAIL" and "old_name" in finding.text for finding in companion())


def test_flowgraph_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    descriptions(tmp_path / "grc")
    (tmp_path / "grc" / "massaccess_quantizer.block.yml").write_text("id: massaccess_quantizer\n")
    (tmp_path / "flowgraphs").mkdir()
    (tmp_path / "flowgraphs" / "broken.grc").write_text(FLOWGRAPH)
    monkeypatch.setattr(doctor, "TREE", tmp_path)
    with_probe(monkeypatch)
    (finding,) = flowgraphs()
    assert finding.level == "FAIL"
    assert "broken.grc" in finding.text
    assert "Port is not connected" in finding.text
    assert "massaccess_quantizer.block.yml" in finding.text


def test_companion_paths_are_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRC_HIER_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("GRC_BLOCKS_PATH", f"{tmp_path}:{tmp_path / 'gone'}:{tmp_path}")
    assert companion_paths(["", ""]) == [tmp_path.resolve()]


def test_descriptions_of_the_source_tree_come_first() -> None:
    assert yml_folder() == Path(doctor.__file__).resolve().parents[3] / "grc"
