"""``massaccess run`` and ``massaccess receive`` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from massaccess import SystemConfig
from massaccess.cli import main
from massaccess.core import sequence_estimate
from massaccess.evaluate.montecarlo import Campaign, evaluate
from massaccess.link.recording import open_recording
from massaccess.registry import RECEIVERS, Entry

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "1"}
SMALL = (
    "--users",
    "16",
    "--rows",
    "4",
    "--columns",
    "4",
    "--pilots",
    "12",
    "--data",
    "20",
    "--channel",
    "rayleigh",
    "--snr-db",
    "20",
    "--threads",
    "1",
)


@pytest.fixture
def massaccess(monkeypatch, capsys):
    """Runs ``massaccess`` with arguments in this process, which saves its imports; what `subprocess.run` would return."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["massaccess", *arguments])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code or 0
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


def document(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_reports_rates_and_what_the_flowgraph_did(massaccess, tmp_path):
    done = massaccess("run", *SMALL, "--frames", "60", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "activity error rate" in done.stdout
    assert done.stderr == ""
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["config"]["users"] == 16
    assert found["results"][0]["frames"] == 60
    assert found["results"][0]["aep"] < 0.05
    assert found["flowgraph"]["frames"] == 60
    assert found["flowgraph"]["lost"] == 0
    assert found["flowgraph"]["peak_memory_mib"] > 10


def test_a_recording_is_received_with_the_same_digest(massaccess, tmp_path):
    sent = document(
        massaccess("run", *SMALL, "--adc-bits", "3", "--frames", "40", "--seed", "4", "--record", str(tmp_path / "air"), "--json", "-")
    )
    found = document(massaccess("receive", str(tmp_path / "air"), "--threads", "1", "--json", "-"))
    assert found["flowgraph"]["digest"] == sent["flowgraph"]["digest"]
    assert found["config"] == sent["config"]
    assert found["seed"] == 4
    assert found["results"] == []


def test_packed_frames_are_recorded_and_received_with_the_same_digest(massaccess, tmp_path):
    more = ("--adc-bits", "1", "--adc-dither", "0.2", "--adc-offset", "0.05", "--frames", "40", "--seed", "4", "--json", "-")
    sent = [
        document(massaccess("run", *SMALL, *more, "--record", str(tmp_path / name), *extra))
        for name, extra in (("plain", ()), ("packed", ("--packed",)))
    ]
    found = [document(massaccess("receive", str(tmp_path / name), "--threads", "1", "--json", "-")) for name in ("plain", "packed")]
    assert len({one["flowgraph"]["digest"] for one in (*sent, *found)}) == 1
    assert found[1]["config"]["adc_dither"] == 0.2
    plain, packed = (os.path.getsize(tmp_path / f"{name}.sigmf-data") for name in ("plain", "packed"))
    assert plain == 32 * packed


NONCOHERENT = (
    *("--users", "16", "--antennas", "16", "--pilots", "32", "--data", "0", "--index-bits", "2", "--pilot-kind", "gaussian"),
    *("--pilot-energy", "sequence", "--channel", "pathloss-uniform", "--no-power-control", "--snr-convention", "link-budget"),
    *("--tx-power-dbm", "30", "--threads", "1", "--frames", "40", "--seed", "4", "--receiver", "matched"),
)


@pytest.fixture
def matched(monkeypatch):
    """The registry knows "matched", which correlates with every sequence."""

    @dataclass(frozen=True)
    class Matched:
        def __call__(self, obs, *, generator=None):
            power = (obs.pilots.conj().T @ obs.pilot_rx).abs().square().mean(2)
            gain = obs.user_gain.repeat_interleave(obs.sequences, 1)
            return sequence_estimate(((power / gain - 0.5) * 20).unflatten(1, (obs.users, obs.sequences)))

    module = types.ModuleType("massaccess._fakes")
    module.Matched = Matched
    monkeypatch.setitem(sys.modules, "massaccess._fakes", module)
    monkeypatch.setitem(RECEIVERS, "matched", Entry("_fakes:Matched", "noncoherent", "", ""))


@pytest.mark.parametrize("more", [("--placement-seed", "2"), ()])
def test_index_modulated_frames_are_counted_recorded_and_received(massaccess, matched, tmp_path, more):
    sent = document(massaccess("run", *NONCOHERENT, *more, "--record", str(tmp_path / "air"), "--json", "-"))
    (result,) = sent["results"]
    assert (result["tx_power_dbm"], result["frames"], sent["config"]["index_bits"]) == (30, 40, 2)
    assert 0 < result["ser_devices"] < 0.5
    config = SystemConfig.from_dict(sent["config"])
    evaluated = evaluate(Campaign((config,), ("matched",), frames=40, seed=4))["results"][0]
    for name in ("ser_devices", "ser", "ber", "aep"):
        assert result[f"{name}_errors"] == evaluated[f"{name}_errors"]
    found = document(massaccess("receive", str(tmp_path / "air"), "--threads", "1", "--receiver", "matched", "--json", "-"))
    assert found["flowgraph"]["digest"] == sent["flowgraph"]["digest"]
    assert found["config"] == sent["config"]


def test_index_modulated_runs_say_what_they_are(massaccess, matched):
    done = massaccess("run", *NONCOHERENT)
    assert done.returncode == 0, done.stderr
    assert "32+0 symbols, 4 sequences each, 30 dBm, pathloss-uniform" in " ".join(done.stdout.split())
    assert "symbol error rate of all devices" in done.stdout


def test_options_override_the_file(massaccess, tmp_path):
    (tmp_path / "cell.toml").write_text(
        SystemConfig(users=16, rows=4, columns=4, pilot_len=12, data_len=0, channel="rayleigh", adc_bits=2).to_toml()
    )
    found = document(
        massaccess("run", "--config", str(tmp_path / "cell.toml"), "--users", "12", "--adc-bits", "inf", "--frames", "20", "--json", "-")
    )
    assert found["config"]["users"] == 12
    assert found["config"]["pilot_len"] == 12
    assert "adc_bits" not in found["config"]


def test_a_deadline_and_weights_are_told(massaccess):
    slow = (*SMALL, "--frames", "8", "--max-batch", "4", "--weights", "gaussian")
    found = document(massaccess("run", *slow, "--json", "-"))["flowgraph"]
    assert (found["cut"], found["weights"], found["weights_hash"]) == (0, "gaussian", "")
    hurried = massaccess("run", *slow, "--deadline-ms", "0.001", "--json", "-")
    assert document(hurried)["flowgraph"]["cut"] == 8
    shown = massaccess("run", *slow, "--deadline-ms", "0.001").stdout
    assert "cut short by the deadline" in shown and "8 frames" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_gives_what_it_has(tmp_path, number):
    """The signal comes once the recording has begun, so frames are flowing."""
    line = [sys.executable, "-c", "from massaccess.cli import main; main()"]
    line += ["run", *SMALL, "--frames", "0", "--record", str(tmp_path / "air"), "--json", str(tmp_path / "out.json")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not any(path.stat().st_size > 10**6 for path in tmp_path.glob(".air*")):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "(interrupted)" in out
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["flowgraph"]["interrupted"]
    assert found["flowgraph"]["lost"] == 0
    assert len(open_recording(tmp_path / "air")) >= found["flowgraph"]["frames"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--receiver", "nope"), "unknown receiver 'nope'"),
        (("run", "--receiver", "perfect-csi-zf"), "is a genie"),
        (("run", "--weights", "nope"), "unknown weights 'nope'"),
        (("run", "--receiver", "covariance+ls-zf", "--weights", "gaussian"), "no weights to choose"),
        (("run", "--users", "0"), "users is 0"),
        (("run", "--index-bits", "1"), "pass data_len=0 (--data 0)"),
        (("run", "--index-bits", "1", "--data", "0", "--receiver", "covariance"), "does not tell sequences apart"),
        (("ap", "--index-bits", "1", "--data", "0", "--active-users", "128", "--index", "0", "--of", "2"), "--index-bits 0"),
        (("run", "--packed"), "bits is 0: pass the bits per real part"),
        (("run", "--channel", "ether"), "unknown channel"),
        (("run", "--record", "nowhere/air"), "nowhere is no folder"),
        (("receive", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_1(massaccess, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = massaccess(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_block_that_fails_is_exit_code_1_with_the_reason(massaccess, monkeypatch):
    @dataclass(frozen=True)
    class Poisoned:
        def __call__(self, obs, *, generator=None):
            raise ZeroDivisionError("the model is poisoned")

    module = types.ModuleType("massaccess._fakes")
    module.Poisoned = Poisoned
    monkeypatch.setitem(sys.modules, "massaccess._fakes", module)
    monkeypatch.setitem(RECEIVERS, "poisoned", Entry("_fakes:Poisoned", "joint", "", ""))
    done = massaccess("run", *SMALL, "--receiver", "poisoned", "--frames", "0")
    assert done.returncode == 1
    assert "failed: ZeroDivisionError: the model is poisoned" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in massaccess("run", *SMALL, "--receiver", "poisoned", "--frames", "0", "--traceback").stderr


def test_without_gnuradio_it_says_how_to_get_it(tmp_path):
    (tmp_path / "gnuradio").mkdir()
    (tmp_path / "gnuradio/__init__.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'python'}"}
    line = [sys.executable, "-c", "from massaccess.cli import main; main()", "run"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    assert "massaccess doctor" in done.stderr
    assert "apt-get install gnuradio" in done.stderr
