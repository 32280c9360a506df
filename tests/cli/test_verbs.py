"""What all verbs have in common: help, errors and exit codes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import massaccess
from massaccess.cli import VERBS, group


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    answer = CliRunner().invoke(group, [verb, "--help"])
    assert answer.exit_code == 0, answer.output
    assert f"{verb} [OPTIONS]" in answer.output


def test_help_lists_every_verb() -> None:
    answer = CliRunner().invoke(group, ["--help"])
    assert answer.exit_code == 0
    assert all(f"  {verb} " in answer.output for verb in VERBS)


def test_version() -> None:
    answer = CliRunner().invoke(group, ["--version"])
    assert massaccess.__version__ in answer.output


def test_unknown_verb_is_a_usage_error(massaccess) -> None:
    answer = massaccess("recieve")
    assert answer.returncode == 2
    assert "No such command 'recieve'" in answer.stderr
    assert answer.stdout == ""


def test_errors_of_the_house_are_one_line_on_standard_error(massaccess) -> None:
    answer = massaccess("channels", "inspect", "nowhere.npz")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("massaccess: no channel bank at nowhere.npz")
    assert answer.stderr.count("\n") == 1
