"""Files of what was heard: complete whenever they are there."""

import json
import os

import numpy as np
import pytest

from massaccess.errors import ConfigError, FormatError
from massaccess.link.archive import active, open_archive, results
from massaccess.link.metadata import Metadata
from massaccess.link.wire import decode, encode


def heard(start, count, users=5):
    rng = np.random.default_rng(start)
    symbols = rng.standard_normal((count, 3, users, 2)).astype(np.float32).view(np.complex64)[..., 0]
    activity = rng.random((count, users), np.float32)
    return {"frame": np.arange(start, start + count, dtype=np.uint64), "activity": activity, "symbols": symbols}


def test_npz_holds_the_arrays_bit_by_bit(tmp_path):
    parts = [heard(0, 4), heard(4, 1), heard(9, 3)]
    with open_archive(tmp_path / "x.npz") as archive:
        for part, variance in zip(parts, (1.0, 1.0, 2.0), strict=True):
            archive.write(part, Metadata(frame=int(part["frame"][0]), noise_var=variance))
        assert not (tmp_path / "x.npz").exists()
    with np.load(tmp_path / "x.npz") as found:
        for name in parts[0]:
            assert np.array_equal(found[name], np.concatenate([part[name] for part in parts]))
        lines = [json.loads(line) for line in found["metadata.jsonl"].splitlines()]
    assert lines == [{"row": 0, "frame": 0, "noise_var": 1.0}, {"row": 5, "frame": 9, "noise_var": 2.0}]
    assert os.listdir(tmp_path) == ["x.npz"]


def test_jsonl_is_there_as_it_comes(tmp_path):
    part = heard(6, 2)
    with open_archive(tmp_path / "x.jsonl") as archive:
        archive.write(part, Metadata(frame=6, receiver="jcedd"))
        lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines[0] == {"metadata": {"frame": 6, "receiver": "jcedd"}}
    for line, frame, activity in zip(lines[1:], part["frame"], part["activity"], strict=True):
        assert line["frame"] == frame and line["active"] == np.flatnonzero(activity > 0.5).tolist()
        assert line["activity"] == pytest.approx(activity[activity > 0.5], abs=1e-4)


def test_sequences_are_told_by_their_odds(tmp_path):
    """A device is active when a sequence is likelier than silence, whatever its activity is."""
    odds = np.array([[[-1.0, 2.0], [-0.1, -0.1], [3.0, 4.0]]], np.float32)
    part = {"frame": np.array([7], np.uint64), "activity": np.array([[0.9, 0.64, 1.0]], np.float32), "odds": odds}
    assert active(part).tolist() == [[True, False, True]]
    with open_archive(tmp_path / "x.jsonl") as archive:
        archive.write(part, Metadata(frame=7))
    line = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[-1])
    assert (line["active"], line["sequence"], line["activity"]) == ([0, 2], [1, 1], [0.9, 1.0])


@pytest.mark.parametrize("odds", [np.zeros((3, 5, 2)), np.zeros((3, 5), np.float32), np.zeros((3, 4, 2), np.float32)])
def test_odds_of_something_else_are_refused(odds):
    with pytest.raises(FormatError, match="not from a receiver"):
        results(decode(encode({**heard(0, 3), "odds": odds}, Metadata(), sequence=0)))


def test_without_frames_no_npz(tmp_path):
    open_archive(tmp_path / "x.npz").close()
    assert not os.listdir(tmp_path)


def test_an_interrupted_write_leaves_whole_frames(tmp_path, monkeypatch):
    archive = open_archive(tmp_path / "x.npz")
    archive.write(heard(0, 3), Metadata(frame=0))
    monkeypatch.setattr(archive._files["symbols"], "write", lambda _: (_ for _ in ()).throw(KeyboardInterrupt), raising=False)
    with pytest.raises(KeyboardInterrupt), archive:
        archive.write(heard(3, 2), Metadata(frame=3))
    with np.load(tmp_path / "x.npz") as found:
        assert found["activity"].shape == (3, 5) and found["symbols"].shape == (3, 3, 5)


def test_a_publisher_that_changes_ends_the_file(tmp_path):
    with open_archive(tmp_path / "x.npz") as archive:
        archive.write(heard(0, 3), Metadata(frame=0))
        with pytest.raises(FormatError, match="another file"):
            archive.write(heard(3, 2, users=6), Metadata(frame=3))
    with np.load(tmp_path / "x.npz") as found:
        assert found["frame"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("name", "cure"), [("x.csv", r"\.npz for arrays"), ("no/x.npz", "no folder"), ("no/x.jsonl", "no folder")])
def test_names_that_cannot_be(tmp_path, name, cure):
    with pytest.raises(ConfigError, match=cure):
        open_archive(tmp_path / name)


def test_results_cuts_to_the_frames_asked_for():
    message = decode(encode(heard(0, 4), Metadata(), sequence=0))
    assert [len(array) for array in results(message, 3).values()] == [3, 3, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"frame": np.zeros(4, np.int32)},
        {"frame": np.zeros((4, 1), np.uint64)},
        {"activity": np.zeros(4, np.float32)},
        {"activity": np.zeros((4, 5))},
        {"symbols": np.zeros((3, 2), np.complex64)},
        {"scalar": np.zeros((), np.float32)},
    ],
)
def test_messages_of_something_else(change):
    with pytest.raises(FormatError, match="not from a receiver"):
        results(decode(encode({**heard(0, 4), **change}, Metadata(), sequence=0)))
