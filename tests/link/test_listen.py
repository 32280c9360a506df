"""``massaccess listen``: shows, records, ends cleanly, and needs no GNU Radio."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from massaccess.cli.listen import command
from massaccess.link.metadata import Metadata
from massaccess.link.publisher import Publisher

USERS = 6


def arrays(start, count):
    rng = np.random.default_rng(start)
    return {"frame": np.arange(start, start + count, dtype=np.uint64), "activity": rng.random((count, USERS), np.float32)}


def publish(publisher, frames, batch=8, stop=None):
    """Sends batches once somebody listens; then says the end, unless ``stop`` is to come first."""
    publisher.wait_for_listener(20)
    for start in range(0, frames, batch):
        publisher.send(arrays(start, batch), Metadata(frame=start, receiver="jcedd", noise_var=0.5), timeout_s=20)
    if stop is not None:
        stop.wait(20)
    publisher.close()


@pytest.fixture
def on_air():
    """Starts a publisher of so many frames in the background, and returns its endpoint."""
    threads, stops = [], []

    def start(frames, *, end=True, **options):
        publisher, stop = Publisher(linger_s=0.5, **options), threading.Event()
        if end:
            stop.set()
        stops.append(stop)
        threads.append(threading.Thread(target=publish, args=(publisher, frames), kwargs={"stop": stop}))
        threads[-1].start()
        return publisher.endpoint

    yield start
    for stop in stops:
        stop.set()
    for thread in threads:
        thread.join()


def listen(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("mode", ["pub", "push"])
def test_it_records_what_is_published(on_air, tmp_path, mode):
    endpoint = on_air(80, mode=mode)
    answer = listen(endpoint, "--mode", mode, "--out", tmp_path / "x.npz", "--json", tmp_path / "x.json")
    assert answer.exit_code == 0, answer.output
    assert "80 frames" in answer.output and "0 messages lost" in answer.output
    with np.load(tmp_path / "x.npz") as found:
        assert np.array_equal(found["activity"], np.concatenate([arrays(start, 8)["activity"] for start in range(0, 80, 8)]))
    summary = json.loads((tmp_path / "x.json").read_text())
    assert (summary["ended"], summary["frames"], summary["messages"], summary["lost"], summary["bad"]) == ("publisher", 80, 10, 0, 0)
    assert summary["metadata"]["receiver"] == "jcedd" and summary["users"] == USERS


def test_packed_samples_are_recorded_as_they_come(tmp_path):
    packed = np.random.default_rng(0).integers(0, 256, (40, 16, 4), np.uint8)
    publisher = Publisher(mode="push", linger_s=0.5)

    def send():
        for start in range(0, 40, 8):
            frame = np.arange(start, start + 8, dtype=np.uint64)
            known = Metadata(frame=start, adc_bits=1, adc_scale=0.7, adc_dither=0.1)
            publisher.send({"frame": frame, "packed": packed[start : start + 8]}, known, timeout_s=20)
        publisher.close()

    thread = threading.Thread(target=send)
    thread.start()
    answer = listen(publisher.endpoint, "--mode", "push", "--out", tmp_path / "x.npz")
    thread.join()
    assert answer.exit_code == 0, answer.output
    assert "40 frames" in answer.output and "72 octets a frame" in answer.output
    with np.load(tmp_path / "x.npz") as found:
        assert np.array_equal(found["packed"], packed)
        assert json.loads(found["metadata.jsonl"])["adc_dither"] == 0.1


def test_it_stops_after_so_many_frames(on_air, tmp_path):
    answer = listen(on_air(80), "--frames", 21, "--out", tmp_path / "x.jsonl", "--quiet")
    assert (answer.exit_code, answer.output) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines if "frame" in line] == list(range(21))


def test_silence_is_an_error_with_a_reason(tmp_path):
    with Publisher() as publisher:
        answer = listen(publisher.endpoint, "--timeout", 0.3, "--json", tmp_path / "x.json", "--out", tmp_path / "x.npz")
    assert answer.exit_code != 0 and "silent" in str(answer.exception)
    assert json.loads((tmp_path / "x.json").read_text())["ended"] == "timeout" and not (tmp_path / "x.npz").exists()


def test_a_publisher_that_stalls_is_an_error_but_nothing_is_lost(on_air, tmp_path):
    answer = listen(on_air(24, end=False), "--timeout", 0.5, "--out", tmp_path / "x.npz")
    assert answer.exit_code != 0 and "for 0.5 s" in str(answer.exception)
    with np.load(tmp_path / "x.npz") as found:
        assert len(found["frame"]) == 24


def test_a_publisher_that_ends_without_a_frame_is_an_error(on_air):
    answer = listen(on_air(0))
    assert answer.exit_code != 0 and "before" in str(answer.exception)


def test_a_publisher_of_something_else_is_an_error(tmp_path):
    with Publisher(mode="push", linger_s=0.1) as publisher:
        thread = threading.Thread(target=publisher.send, args=({"x": np.zeros(1)}, Metadata()))
        thread.start()
        answer = listen(publisher.endpoint, "--mode", "push")
        thread.join()
    assert answer.exit_code != 0 and "right publisher" in str(answer.exception)


def test_a_file_of_an_unknown_kind_is_refused_at_once():
    answer = listen("tcp://127.0.0.1:9", "--out", "x.csv")
    assert answer.exit_code == 2 and ".npz or .jsonl" in answer.output


WITHOUT_GNURADIO = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gnuradio", "pmt"):
            raise ImportError(f"{name} was asked for")
sys.meta_path.insert(0, Refuse())
from massaccess.cli import main
main()
"""


def start(*arguments):
    program = [sys.executable, "-c", WITHOUT_GNURADIO, "listen", *map(str, arguments)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})


def test_ctrl_c_without_gnuradio_leaves_a_complete_file(on_air, tmp_path):
    process = start(on_air(40, end=False), "--out", tmp_path / "x.jsonl", "--timeout", 30)
    lines = tmp_path / "x.jsonl"
    for _ in range(400):
        if process.poll() is not None or (lines.exists() and lines.read_text().count("\n") == 41):
            break
        threading.Event().wait(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert "40 frames" in output
    assert [json.loads(line).get("frame") for line in lines.read_text().splitlines()[1:]] == list(range(40))


def test_the_reason_is_one_line_on_standard_error():
    with Publisher() as publisher:
        process = start(publisher.endpoint, "--timeout", 0.2)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and output == ""
    assert errors.startswith("massaccess: nothing from") and errors.count("\n") == 1
