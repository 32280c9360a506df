"""``massaccess calibrate``: a simulated array is measured, shown and checked; what does not fit is refused."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from click.testing import CliRunner

from massaccess.calibration import Book
from massaccess.cli.calibrate import command
from massaccess.errors import MassaccessError

ARRAY = ("--source", "sim", "--addresses", "B1,B2")


def call(*arguments):
    """What the command prints; its errors are raised."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False, standalone_mode=False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "array.toml"
    call("estimate", *ARRAY, "--out", path)
    return path


def test_an_estimate_reports_and_writes(tmp_path):
    path = tmp_path / "array.toml"
    done = call("estimate", *ARRAY, "--out", path, "--json", tmp_path / "a.json")
    assert "4 channels from a tone, SNR" in done.output
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["residual_deg"] < 1 < report["uncalibrated_deg"]
    assert report["id"] == Book.load(path).only().id


def test_a_preamble_and_another_frequency_are_added(file):
    call("estimate", *ARRAY, "--signal", "preamble", "--search-hz", "1000", "--freq", "2.4e9", "--out", file)
    book = Book.load(file)
    assert {(entry.freq_hz, entry.method) for entry in book.entries} == {(3.5e9, "tone"), (2.4e9, "preamble")}
    shown = call("show", file).output
    assert "2400 MHz, 1 MS/s, 20 dB: 4 channels" in shown
    assert "B2:1" in shown


def test_show_writes_json(file, tmp_path):
    call("show", file, "--json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["entries"]) == 4
    assert found["settings"][0]["channels"] == 4


def test_check_passes_what_fits(file):
    done = call("check", file, "--channels", "B2:1,0", "--freq", "3.5e9")
    assert "2 channels, residual" in done.output
    assert "warning" not in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--freq", "1e9"), "another frequency"),
        (("--rate", "2e6"), "another rate"),
        (("--gain", "0"), "another gain"),
        (("--channels", "X:0"), "other devices"),
        (("--channels", "X"), "pass 'SERIAL:0,1"),
    ],
)
def test_check_refuses_what_is_foreign(file, options, words):
    with pytest.raises(MassaccessError, match=words):
        call("check", file, *options)


def test_check_warns_of_what_is_stale_or_dead(file):
    call("estimate", *ARRAY, "--args", "dead=2", "--out", file)
    done = call("check", file, "--max-age-hours", "0")
    assert "hours old and 0 are allowed" in done.output
    assert "B2:0 heard nothing and will be masked" in done.output


def test_sources_say_what_they_lack(tmp_path):
    with pytest.raises(MassaccessError, match=r"which boards.*--source sim"):
        call("estimate", "--out", tmp_path / "a.toml")
    with pytest.raises(MassaccessError, match="pass --recording FILE"):
        call("estimate", "--source", "sigmf", "--out", tmp_path / "a.toml")
    with pytest.raises(MassaccessError, match="ended before 8 captures"):
        call("estimate", *ARRAY, "--args", "samples=4000", "--out", tmp_path / "a.toml")
