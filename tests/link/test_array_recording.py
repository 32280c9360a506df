"""Recordings of an array's samples: numbered by time, a capture after every gap, and bit for bit what came."""

from __future__ import annotations

import json

import numpy as np
import pytest

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, ShapeError
from massaccess.link.metadata import Metadata
from massaccess.link.recorder import Recorder
from massaccess.link.recording import open_recording
from massaccess.link.recording_format import meta_file

CONFIG = SystemConfig(
    users=8, rows=2, columns=2, pilot_len=6, data_len=10, channel="rayleigh", samples_per_symbol=4, guard_len=8, sample_rate_hz=1e6
)


def samples(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32).view(np.complex64)


def test_samples_come_back_whole_frames_or_not(tmp_path):
    with Recorder(tmp_path / "array", CONFIG, seed=5) as recorder:
        for start in range(0, 777, 100):
            part = samples(777)[start : start + 100]
            recorder.write(part, Metadata(frame=start, rx_time=(3, 0.25) if not start else None, rx_freq=2.4e9))
    recording = open_recording(tmp_path / "array")
    assert (recording.config, recording.seed, len(recording), len(recording.runs)) == (CONFIG, 5, 777, 1)
    np.testing.assert_array_equal(recording.samples[:, 0], samples(777))
    assert recording.metadata == Metadata(frame=0, rx_time=(3, 0.25), rx_rate=1e6, rx_freq=2.4e9)


def test_there_is_a_capture_after_every_gap(tmp_path):
    with Recorder(tmp_path / "array", CONFIG) as recorder:
        recorder.write(samples(50), Metadata(frame=2_500_000, rx_time=(2, 0.5), rx_freq=2.4e9))
        recorder.write(samples(50), Metadata(frame=2_500_050, rx_time=(2, 0.50005 + 1e-8), rx_freq=2.4e9))  # nothing lost: said again
        recorder.write(samples(50), Metadata(frame=2_500_103, rx_time=(2, 0.500103), rx_freq=2.4e9))
    document = json.loads(meta_file(tmp_path / "array").read_text())
    assert [(row["core:sample_start"], row["core:global_index"], row["massaccess:rx_time"]) for row in document["captures"]] == [
        (0, 2_500_000, [2, 0.5]),
        (100, 2_500_103, [2, 0.500103]),
    ]
    assert document["global"]["core:num_channels"] == 4 and document["global"]["core:datatype"] == "cf32_le"
    chunks = list(open_recording(tmp_path / "array").chunks(80))
    assert [(known.frame, len(part)) for known, part in chunks] == [(2_500_000, 80), (2_500_080, 20), (2_500_103, 50)]
    assert chunks[1][0].rx_time == (2, pytest.approx(0.50008, abs=1e-12))


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not packed"):
        Recorder(tmp_path / "array", CONFIG.replace(adc_bits=1), packed=True)
    with Recorder(tmp_path / "array", CONFIG) as recorder, pytest.raises(ShapeError, match=r"\[count, 1, 4\]"):
        recorder.write(np.zeros((10, 5), np.complex64), Metadata())
