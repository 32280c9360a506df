"""``massaccess ap`` and ``massaccess fuse`` as processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

SYSTEM = [
    "--users",
    "4",
    "--active-users",
    "4",
    "--rows",
    "4",
    "--columns",
    "4",
    "--pilots",
    "16",
    "--data",
    "24",
    "--snr-db",
    "10",
    "--snr-convention",
    "per-user",
    "--adc-bits",
    "1",
    "--channel",
    "rayleigh",
]
CONFIG = SystemConfig(
    users=4,
    active_users=4,
    rows=4,
    columns=4,
    pilot_len=16,
    data_len=24,
    snr_db=10,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)


@pytest.fixture
def endpoint() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def access_point(endpoint: str, index: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-c", "from massaccess.cli import main; main()", "ap", *SYSTEM, "--index", str(index), "--of", "2"]
    process = subprocess.Popen([*line, "--seed", "7", "--connect", endpoint, *more], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_processes_give_the_answer_of_one_and_survive_a_kill(massaccess, endpoint, tmp_path) -> None:
    report = tmp_path / "report.json"
    line = ["fuse", *SYSTEM, "--of", "2", "--seed", "7", "--bind", endpoint, "--frames", "120", "--batch", "2", "--json", str(report)]
    line += ["--deadline", "20", "--lost", "2", "--sweeps", "2", "--refinements", "1"]
    with access_point(endpoint, 0) as first, access_point(endpoint, 1) as second:
        centre = subprocess.Popen(
            [sys.executable, "-c", "from massaccess.cli import main; main()", *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        while "frame 1 done; access points 0 1" not in said:
            line = centre.stderr.readline()
            assert line, said
            said += line
        second.send_signal(signal.SIGKILL)
        out, err = centre.communicate(timeout=60)
        assert centre.returncode == 0, err
        first.wait(10)
        assert "ended by bye" in first.stderr.read()
    assert "access point 1 lost" in err
    assert "120 frames from 2 access points" in out
    found = json.loads(report.read_text())
    assert found["reports"] == {"joined": 2, "lost": 1}
    rows = found["results"]
    assert [row["frame"] for row in rows] == list(range(120))
    assert (rows[0]["contributed"], rows[-1]["contributed"]) == ([0, 1], [0])
    assert rows[-1]["bit_errors"] >= 0
    assert sum(row["missing"] == [1] for row in rows) in (0, 2)  # the batch in which it was lost
    _, obs = Simulation(CONFIG, 7).frames(0, 2)
    expected = torch.view_as_real(create("pvi-sequential", clients=2, sweeps=2, refinements=1)(obs).symbols)
    torch.testing.assert_close(torch.tensor([rows[0]["symbols"], rows[1]["symbols"]]), expected, rtol=1e-3, atol=1e-3)


def test_nobody_comes(massaccess, endpoint) -> None:
    done = massaccess("fuse", *SYSTEM, "--of", "2", "--bind", endpoint, "--timeout", "0.3")
    assert done.returncode == 1
    assert "no access point" in done.stderr.splitlines()[-1]
    done = massaccess("ap", *SYSTEM, "--index", "0", "--of", "2", "--connect", endpoint, "--timeout", "0.3")
    assert done.returncode == 1
    assert "massaccess fuse" in done.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (["ap", *SYSTEM, "--index", "2", "--of", "2"], "count from 0"),
        (["ap", "--index", "0", "--of", "2", "--activity", "0.5"], "who is active"),
        (["fuse", "--of", "2"], "who is active"),
        (["fuse", *SYSTEM, "--data", "0", "--of", "2"], "agree on symbols"),
        (["fuse", *SYSTEM, "--of", "2", "--bind", "tcp://0.0.0.0:0"], "other machines"),
    ],
)
def test_what_cannot_be_is_named(massaccess, line: list[str], reason: str) -> None:
    done = massaccess(*line)
    assert done.returncode == 1
    assert reason in done.stderr
