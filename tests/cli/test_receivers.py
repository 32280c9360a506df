"""``massaccess receivers``."""

from __future__ import annotations

import json

from click.testing import CliRunner

from massaccess.cli import group
from massaccess.registry import RECEIVERS


def invoke(*arguments: str) -> str:
    answer = CliRunner().invoke(group, ["receivers", *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_table_names_every_receiver() -> None:
    shown = invoke()
    assert all(name in shown for name in RECEIVERS)


def test_json_has_the_whole_registry() -> None:
    rows = json.loads(invoke("--json", "-"))["receivers"]
    assert [row["name"] for row in rows] == list(RECEIVERS)
    assert all(row["summary"] and row["source"] for row in rows)


def test_one_kind() -> None:
    kind = next(iter(RECEIVERS.values())).kind
    rows = json.loads(invoke("--kind", kind, "--json", "-"))["receivers"]
    assert {row["kind"] for row in rows} == {kind}


def test_unknown_kind_lists_the_known() -> None:
    answer = CliRunner().invoke(group, ["receivers", "--kind", "magic"])
    assert answer.exit_code == 2
    assert next(iter(RECEIVERS.values())).kind in answer.output


def test_receivers_with_a_trained_prior_are_marked() -> None:
    rows = {row["name"]: row["weights"] for row in json.loads(invoke("--json", "-"))["receivers"]}
    assert rows["jcedd"] and rows["learned-ep"] and not rows["covariance"] and not rows["perfect-csi-ep"]
    shown = invoke()
    assert "jcedd†" in shown and "see `massaccess weights`" in " ".join(shown.split())
