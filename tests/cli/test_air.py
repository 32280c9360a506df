"""The virtual air as people run it: one command, its parts, and recordings of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from massaccess.cli import group
from massaccess.cli._processes import Process, end_all, last_line
from massaccess.errors import ConfigError, UnknownNameError

SYSTEM = ["--users", "8", "--antennas", "8", "--pilots", "16", "--data", "32", "--activity", "0.25", "--channel", "rayleigh"]
SYSTEM += ["--timing-offset", "0.2", "--cfo-hz", "100"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "python"), "OMP_NUM_THREADS": "1"}
LONG = 100.0


def command(*arguments):
    return [sys.executable, "-m", "massaccess", *map(str, arguments)]


def run(*arguments):
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    return done


def children(pid):
    """{verb or first user: process} of the processes that a launcher has started."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    found = {}
    for line in listed.splitlines():
        number, arguments = line.split(None, 1)
        for name in ("air broker", "receive", "--who 0-"):
            if f" {name}" in arguments:
                found[name] = int(number)
    return found


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_one_command_runs_it_all_and_its_recording_gives_the_same_answers(tmp_path):
    run("air", *SYSTEM, "--slots", 60, "--processes", 2, "--seed", 3, "--record", tmp_path / "array", "--json", tmp_path / "air.json")
    report = json.loads((tmp_path / "air.json").read_text())
    monitor = report["monitor"]
    assert report["failures"] == [] and report["broker"]["silent_slots"] == 0
    assert report["base"]["frames"] == 60 and monitor["slots"] > 30
    assert monitor["bursts"] > 50 and monitor["p_md"] < 0.05 and monitor["ber"] < 0.02
    run("receive", tmp_path / "array", "--threads", 1, "--max-batch", 8, "--json", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["flowgraph"]["digest"] == report["base"]["digest"]
    assert again["seed"] == 3 and again["flowgraph"]["synchronizer"]["gaps"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "again"), [("--who 0-", False), ("--who 0-", True), ("air broker", True), ("receive", True), ("receive", False)]
)
def test_a_process_that_is_killed_is_reported(tmp_path, who, again):
    """The rest go on, or all ends in order where nothing can; nobody is left over."""
    process = subprocess.Popen(
        command("air", *SYSTEM, "--processes", 2, "--patience", 0.5, "--json", tmp_path / "air.json", *(["--restart"] if again else [])),
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: len(children(process.pid)) == 3 and list(tmp_path.glob("massaccess-air-*/found")))  # the base station is up
    time.sleep(5)
    before = children(process.pid)
    os.kill(before[who], signal.SIGKILL)
    if again or who == "--who 0-":
        until(lambda: not alive(before[who]) and (who in children(process.pid)) == again)
        time.sleep(10)
        after = children(process.pid)
        assert (who in after and after[who] != before[who]) if again else who not in after
        assert {name: pid for name, pid in after.items() if name != who} == {name: pid for name, pid in before.items() if name != who}
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "was ended by SIGKILL" in said
    assert not any(alive(pid) for pid in before.values())
    assert json.loads((tmp_path / "air.json").read_text())["processes"]["broker"]["deaths"] == (who == "air broker")


def until(condition):
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_ctrl_c_ends_everything(tmp_path):
    process = subprocess.Popen(
        command("air", *SYSTEM, "--processes", 1, "--json", tmp_path / "air.json"), env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    until(lambda: len(children(process.pid)) == 3)
    there = children(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG) == 130
    assert not any(alive(pid) for pid in there.values())


def test_the_source_is_a_switch(tmp_path):
    """A simulation in the flowgraph, and the recording of it: the same receiver and the same answers."""
    simulated = run("receive", "--source", "sim", *SYSTEM, "--frames", 60, "--threads", 1, "--record", tmp_path / "array", "--json", "-")
    replayed = run("receive", tmp_path / "array", "--threads", 1, "--json", "-")
    one, two = json.loads(simulated.stdout), json.loads(replayed.stdout)
    assert one["flowgraph"]["frames"] == 60
    assert one["flowgraph"]["digest"] == two["flowgraph"]["digest"]
    assert one["config"] == two["config"]


@pytest.mark.parametrize(
    ("arguments", "error", "cure"),
    [
        (["receive"], ConfigError, "--source zmq, sim or uhd"),
        (["receive", "--source", "sim", "--set", "colour=red"], UnknownNameError, "path_loss_db"),
        (["receive", "--source", "sim", "--set", "path_loss_db=red"], ConfigError, "pass a number"),
        (["run", "--set", "path_loss_db=3"], ConfigError, "--samples-per-symbol 4"),
        (["air", "broker", "--user", "5"], ConfigError, "5=tcp://"),
        (["air", "user", "--who", "x"], ConfigError, "0-3,7"),
        (["air", "user", "--who", "500"], ConfigError, "user 500"),
        (["air", "user", "--who", "0", "--bind", "tcp://0.0.0.0:*"], ConfigError, "other machines"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(arguments, error, cure):
    done = CliRunner().invoke(group, arguments)
    assert isinstance(done.exception, error) and cure in str(done.exception)


def test_without_radios_the_twin_is_named(tmp_path):
    pytest.importorskip("gnuradio.uhd")
    done = subprocess.run(command("receive", "--source", "uhd", *SYSTEM), env=ENVIRONMENT, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 1 and "--source sim" in done.stderr


def test_processes_say_why_they_ended(tmp_path):
    fine, wrong = (Process(name, arguments, tmp_path / name) for name, arguments in (("fine", ["--version"]), ("wrong", ["nonsense"])))
    for process in (fine, wrong):
        process.start()
        assert process.wait(LONG)
    assert (fine.died(), wrong.died(), wrong.died()) == (False, True, False)
    assert "exit code 2" in wrong.reason and "nonsense" in wrong.reason
    endless = Process("endless", ["air", "user", "--who", "0", "--bind", f"ipc://{tmp_path}/u"], tmp_path / "endless")
    endless.start()
    endless.end(signal.SIGSTOP)
    end_all([endless])
    assert endless.wait(0) and not endless.pid
    assert last_line(tmp_path / "nothing") == ""
