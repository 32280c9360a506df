"""``massaccess transmit``: files hold what users send, sockets answer, and without a radio the error names the twin."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
import zmq

from massaccess import SystemConfig
from massaccess.cli.transmit import users_of
from massaccess.errors import ConfigError
from massaccess.forward.transmit import Sender

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

CELL = ("--users", "6", "--pilots", "8", "--data", "24", "--activity", "0.5", "--preamble", "8", "--seed", "3")
CONFIG = SystemConfig(users=6, pilot_len=8, data_len=24, activity=0.5, samples_per_symbol=4, preamble_len=8, guard_len=8)
SLOT = CONFIG.burst.slot_samples


def sent(user_list, slots):
    sender = Sender(CONFIG, 3, user_list)
    return np.concatenate([sender.slot(slot).samples for slot in range(slots)])


def test_files_hold_what_users_send(massaccess, tmp_path):
    path = str(tmp_path / "user-{user}.cf32")
    line = ("transmit", *CELL, "--sink", "file", "--play", "1,4", "--to", path, "--frames", "20")
    answer = massaccess(*line, "--json", "-")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    wanted = sent((1, 4), 20)
    for column, user in enumerate((1, 4)):
        np.testing.assert_array_equal(np.fromfile(path.replace("{user}", str(user)), np.complex64), wanted[:, column])
    assert told["users"] == [1, 4]
    assert told["flowgraph"]["slots"] == 20
    again = massaccess(*line)
    assert (again.returncode, "--overwrite" in again.stderr) == (1, True)


def test_a_recording_has_a_capture_for_each_burst(massaccess, tmp_path):
    line = ("--play", "2", "--to", str(tmp_path / "user"), "--frames", "20", "--slotted", "time", "--epoch", "1700000000.5")
    answer = massaccess("transmit", *CELL, "--sink", "sigmf", *line)
    assert answer.returncode == 0, answer.stderr
    meta = json.loads((tmp_path / "user.sigmf-meta").read_text())
    samples = np.fromfile(tmp_path / "user.sigmf-data", np.complex64)
    wanted = sent((2,), 20).reshape(20, SLOT)
    awake = np.flatnonzero(np.abs(wanted).any(1))
    length = SLOT - 2 * 4
    np.testing.assert_array_equal(samples.reshape(-1, length), wanted[awake, :length])
    assert [capture["core:sample_start"] for capture in meta["captures"]] == [length * row for row in range(len(awake))]
    for capture, slot in zip(meta["captures"], awake, strict=True):
        seconds, fraction = capture["massaccess:rx_time"]
        assert (seconds - 1_700_000_000) + fraction == pytest.approx(0.5 + slot * SLOT / 1e6, abs=1e-7)


def test_sockets_give_samples_to_whoever_asks():
    """As a virtual air does: a request tells how many samples are wanted."""
    line = [sys.executable, "-c", "from massaccess.cli import main; main()", "transmit", *CELL, "--sink", "zmq", "--play", "0-1"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        context = zmq.Context()
        try:
            endpoints = []
            while len(endpoints) < 2:
                told = process.stderr.readline()
                assert told, "it ended"
                endpoints += [told.split(": ")[1].strip()] if told.startswith("user ") else []
            wanted = sent((0, 1), 8)
            seen = [[], []]
            sockets = [context.socket(zmq.REQ) for _ in endpoints]
            for socket, endpoint in zip(sockets, endpoints, strict=True):
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.RCVTIMEO, 60_000)
                socket.connect(endpoint)
            while min(map(sum, ([len(part) for part in parts] for parts in seen))) < len(wanted):
                for socket, parts in zip(sockets, seen, strict=True):
                    socket.send(struct.pack("<I", 500))
                    parts.append(np.frombuffer(socket.recv(), np.complex64))
            for column, parts in enumerate(seen):
                np.testing.assert_array_equal(np.concatenate(parts)[: len(wanted)], wanted[:, column])
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
            context.destroy(0)


def test_without_a_radio_the_error_names_the_twin(massaccess):
    answer = massaccess("transmit", *CELL, "--sink", "uhd", "--frames", "2")
    assert answer.returncode == 1
    assert "--sink zmq" in answer.stderr


def test_a_simulated_radio_takes_timed_bursts(massaccess):
    answer = massaccess("transmit", *CELL, "--sink", "uhd", "--driver", "sim", "--play", "0,1", "--frames", "30", "--json", "-")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["flowgraph"]["slots"] == 30


@pytest.mark.parametrize("options", [("--play", "0,1", "--to", "one.cf32", "--sink", "file"), ("--slotted", "time", "--sink", "file")])
def test_options_that_contradict_one_another(massaccess, options, tmp_path):
    answer = massaccess("transmit", *CELL, *options, cwd=tmp_path)
    assert answer.returncode == 1
    assert "--combine" in answer.stderr or "--slotted count" in answer.stderr


def test_users_by_number_and_range():
    assert users_of("all", 3) == (0, 1, 2)
    assert users_of("5", 6) == (5,)
    for wrong in ("6", "2-", "", "3-2", "x"):
        with pytest.raises(ConfigError, match="0 to 5"):
            users_of(wrong, 6)
