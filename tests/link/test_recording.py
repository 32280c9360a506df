"""SigMF recordings: bit-exact round trips, runs instead of one annotation a frame, and every damage named with its cure."""

import json
import os

import numpy as np
import pytest
import sigmf
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, FormatError, ShapeError
from massaccess.forward.front_end import front_end
from massaccess.forward.packing import octets, pack
from massaccess.forward.simulate import Simulation
from massaccess.link.metadata import Metadata, metadata_of
from massaccess.link.recorder import Recorder
from massaccess.link.recording import open_recording
from massaccess.link.recording_format import data_file, meta_file

CONFIG = SystemConfig(users=8, rows=2, columns=2, pilot_len=6, data_len=10, channel="rayleigh", adc_bits=3, snr_db=7.0)
SECONDS = CONFIG.frame_len / CONFIG.sample_rate_hz


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((count, CONFIG.frame_len, CONFIG.antennas, 2)).astype(np.float32)
    return parts.view(np.complex64)[..., 0]


@pytest.fixture
def capture(tmp_path):
    with Recorder(tmp_path / "air", CONFIG, seed=3) as recorder:
        recorder.write(frames(20), metadata_of(CONFIG, frame=5))
    return tmp_path / "air"


def document(path):
    return json.loads(meta_file(path).read_text())


def rewrite(path, change):
    whole = document(path)
    change(whole)
    meta_file(path).write_text(json.dumps(whole))


def test_round_trip_is_bit_exact(capture):
    recording = open_recording(capture)
    assert recording.config == CONFIG and recording.seed == 3 and len(recording) == 20
    assert np.array_equal(recording.samples, frames(20))
    assert recording.metadata == metadata_of(CONFIG, frame=5)


@pytest.mark.parametrize("name", ["air.sigmf-meta", "air.sigmf-data", "air"])
def test_any_of_its_names_opens_it(capture, name):
    assert len(open_recording(capture.parent / name)) == 20


def test_the_sigmf_package_reads_the_same_samples(capture):
    handle = sigmf.fromfile(str(meta_file(capture)))
    handle.validate()
    assert np.array_equal(handle[:], frames(20).reshape(-1, CONFIG.antennas))


def test_chunks_are_the_recording(capture):
    pieces = list(open_recording(capture).chunks(7))
    assert [len(samples) for _, samples in pieces] == [7, 7, 6]
    assert [metadata.frame for metadata, _ in pieces] == [5, 12, 19]
    assert np.array_equal(np.concatenate([samples for _, samples in pieces]), frames(20))


def test_one_annotation_for_frames_in_a_row(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        for index in range(0, 50, 5):
            recorder.write(frames(5), Metadata(frame=index, noise_var=1.0))
        recorder.write(frames(5), Metadata(frame=60, noise_var=1.0))
        recorder.write(frames(5), Metadata(frame=65, noise_var=2.0))
    assert [row["massaccess:frame"] for row in document(tmp_path / "air")["annotations"]] == [0, 60, 65]
    recording = open_recording(tmp_path / "air")
    assert [(run.first, run.count, run.metadata.noise_var) for run in recording.runs] == [(0, 50, 1.0), (50, 5, 1.0), (55, 5, 2.0)]


def test_time_goes_into_captures_and_breaks_a_run_only_when_it_jumps(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(frames(2), Metadata(frame=0, rx_time=(1_700_000_000, 0.999), rx_freq=3.5e9))
        recorder.write(frames(2), Metadata(frame=2, rx_time=(1_700_000_001, 0.999 + 2 * SECONDS - 1), rx_freq=3.5e9))
        recorder.write(frames(2), Metadata(frame=4, rx_time=(1_700_000_009, 0.25), rx_freq=3.6e9))
    captures = document(tmp_path / "air")["captures"]
    assert [item["core:datetime"] for item in captures] == ["2023-11-14T22:13:20.999000000Z", "2023-11-14T22:13:29.250000000Z"]
    first, second = open_recording(tmp_path / "air").runs
    assert (first.count, first.metadata.rx_time, second.metadata.rx_time) == (4, (1_700_000_000, 0.999), (1_700_000_009, 0.25))
    assert second.metadata.rx_freq == 3.6e9


def test_chunks_carry_the_time_on(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(frames(4), Metadata(frame=0, rx_time=(7, 0.9995)))
    times = [metadata.rx_time for metadata, _ in open_recording(tmp_path / "air").chunks(2)]
    assert times[1][0] == 8 and times[1][1] == pytest.approx(0.9995 + 2 * SECONDS - 1)


def test_nothing_is_there_before_the_end_and_nothing_else_after(tmp_path):
    recorder = Recorder(tmp_path / "air", CONFIG)
    recorder.write(frames(2), Metadata(frame=0))
    assert not meta_file(tmp_path / "air").exists() and not data_file(tmp_path / "air").exists()
    recorder.close()
    recorder.close()
    assert sorted(os.listdir(tmp_path)) == ["air.sigmf-data", "air.sigmf-meta"]


def test_an_empty_recording_leaves_nothing(tmp_path):
    Recorder(tmp_path / "air", CONFIG).close()
    assert not os.listdir(tmp_path)


def test_an_exception_leaves_what_was_written_so_far(tmp_path):
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(frames(3), Metadata(frame=0))
        raise KeyboardInterrupt
    assert len(open_recording(tmp_path / "air")) == 3


def test_a_write_that_is_cut_short_keeps_whole_frames_and_a_right_hash(tmp_path, monkeypatch):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(frames(3), Metadata(frame=0))
        monkeypatch.setattr(recorder, "_extend", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            recorder.write(frames(2), Metadata(frame=3))
    assert np.array_equal(open_recording(tmp_path / "air").samples, frames(3))


def test_an_old_recording_is_safe(capture):
    with pytest.raises(ConfigError, match="overwrite=True"):
        Recorder(capture, CONFIG)
    with Recorder(capture, CONFIG, overwrite=True) as recorder:
        recorder.write(frames(1), Metadata(frame=0))
    assert len(open_recording(capture)) == 1


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        Recorder(tmp_path / "no" / "air", CONFIG)


def test_frames_of_another_size(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder, pytest.raises(ShapeError, match=r"\[count, 16, 4\]"):
        recorder.write(np.zeros((2, 16, 5), np.complex64), Metadata(frame=0))


def test_a_recording_has_one_sample_rate(tmp_path):
    with Recorder(tmp_path / "air", CONFIG) as recorder:
        recorder.write(frames(1), Metadata(frame=0, rx_rate=1e3))
        with pytest.raises(ConfigError, match="start another"):
            recorder.write(frames(1), Metadata(frame=1, rx_rate=2e3))


# --- packed ---------------------------------------------------------------------------------------------------------------------------


def quantized(config, count):
    _, obs = Simulation(config, 1).frames(0, count)
    converter = Simulation(config, 1).front_end
    return torch.cat([obs.pilot_rx, obs.data_rx], 1).numpy(), converter


@pytest.mark.parametrize("changes", [{}, {"adc_bits": 1, "rows": 8, "columns": 8}, {"adc_bits": 1, "adc_dither": 0.4, "adc_offset": 0.1}])
def test_packed_frames_come_back_to_the_last_bit(tmp_path, changes):
    config = CONFIG.replace(**changes)
    samples, converter = quantized(config, 20)
    with Recorder(tmp_path / "air", config, packed=True) as recorder:
        recorder.write(pack(samples[:13], converter), metadata_of(config, frame=5))
        recorder.write(pack(samples[13:], converter).reshape(7, -1), metadata_of(config, frame=18))
    recording = open_recording(tmp_path / "air")
    assert np.array_equal(recording.samples.view(np.uint32), samples.view(np.uint32))
    assert np.array_equal(np.concatenate([piece for _, piece in recording.chunks(6)]), samples)
    whole = document(tmp_path / "air")["global"]
    found = octets(config.antennas, config.adc_bits)
    assert (whole["core:datatype"], whole["core:num_channels"]) == ("ru8", found)
    assert whole["massaccess:packing"]["bits"] == config.adc_bits
    assert data_file(tmp_path / "air").stat().st_size == 20 * config.frame_len * found
    sigmf.fromfile(str(meta_file(tmp_path / "air"))).validate()
    (row,) = document(tmp_path / "air")["annotations"]
    assert row["core:sample_count"] == 20 * config.frame_len


def test_each_run_is_unpacked_with_its_own_converter(tmp_path):
    samples, converter = quantized(CONFIG, 4)
    louder = front_end(bits=3, power=8 * converter.scale**2)
    with Recorder(tmp_path / "air", CONFIG, packed=True) as recorder:
        recorder.write(pack(samples, converter), Metadata(frame=0, adc_bits=3, adc_scale=converter.scale))
        recorder.write(pack(2 * samples, louder), Metadata(frame=4, adc_bits=3, adc_scale=louder.scale))
    recording = open_recording(tmp_path / "air")
    assert len(recording.runs) == 2
    np.testing.assert_allclose(recording.samples, np.concatenate([samples, 2 * samples]), rtol=1e-6)


def test_what_cannot_be_packed_is_refused(tmp_path):
    samples, converter = quantized(CONFIG, 2)
    with pytest.raises(ConfigError, match="need adc_bits"):
        Recorder(tmp_path / "air", CONFIG.replace(adc_bits=None), packed=True)
    with Recorder(tmp_path / "air", CONFIG, packed=True) as recorder:
        with pytest.raises(ShapeError, match=r"pass uint8 \[count, 16, 3\]"):
            recorder.write(samples, metadata_of(CONFIG, frame=0))
        with pytest.raises(ConfigError, match="frames of 1 bits in a recording of 3"):
            recorder.write(pack(samples, converter), Metadata(frame=0, adc_bits=1))


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (lambda w: w["global"].pop("massaccess:packing"), "convert it to cf32_le"),
        (lambda w: w["global"]["massaccess:packing"].update(bits=1), "convert it to ru8 with 1 channels"),
        (lambda w: w["global"]["massaccess:packing"].update(bits="x"), "not known here"),
        (lambda w: w["global"]["massaccess:packing"].update(order="backwards"), "not known here"),
        (lambda w: w["global"].update({"massaccess:packing": 3}), "not known here"),
        (lambda w: w["annotations"][0].update({"massaccess:adc_bits": 2}), "correct adc_bits"),
    ],
)
def test_packings_that_do_not_hold(tmp_path, change, cure):
    samples, converter = quantized(CONFIG, 2)
    with Recorder(tmp_path / "air", CONFIG, packed=True) as recorder:
        recorder.write(pack(samples, converter), metadata_of(CONFIG, frame=0))
    rewrite(tmp_path / "air", change)
    with pytest.raises(FormatError, match=cure):
        open_recording(tmp_path / "air")


# --- what goes wrong ------------------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        open_recording(tmp_path / "air")


def test_a_folder_is_no_recording():
    with pytest.raises(ConfigError, match="folder"):
        open_recording(".")


def test_data_that_was_cut_off(capture):
    size = data_file(capture).stat().st_size
    os.truncate(data_file(capture), size - 100)
    with pytest.raises(FormatError, match="salvage=True"):
        open_recording(capture)
    assert np.array_equal(open_recording(capture, salvage=True).samples, frames(20)[:19])


def test_data_that_was_cut_off_at_a_frame(capture):
    os.truncate(data_file(capture), 5 * CONFIG.frame_len * CONFIG.antennas * 8)
    with pytest.raises(FormatError, match="sha512 differs"):
        open_recording(capture)
    with pytest.raises(FormatError, match="20 frames and the data file holds 5"):
        open_recording(capture, check_hash=False)
    assert [run.count for run in open_recording(capture, salvage=True).runs] == [5]


def test_data_with_nothing_in_it(capture):
    os.truncate(data_file(capture), 0)
    with pytest.raises(FormatError, match="no whole frame"):
        open_recording(capture, salvage=True)


def test_altered_data_is_found_unless_nobody_looks(capture):
    with open(data_file(capture), "r+b") as stream:
        stream.write(b"\x01")
    with pytest.raises(FormatError, match="sha512 differs"):
        open_recording(capture)
    assert len(open_recording(capture, check_hash=False)) == 20


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"global": {}, "captures": [], "annotations": []}', "[" * 5000, "\x00\x01"])
def test_foreign_metadata(capture, text):
    meta_file(capture).write_text(text)
    with pytest.raises(FormatError, match="sigmf-meta"):
        open_recording(capture)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (lambda w: w["global"].update({"core:num_channels": 3}), "3 channels .* 4 antennas"),
        (lambda w: w["global"].update({"core:datatype": "ci16_le"}), "convert it to cf32_le"),
        (lambda w: w["global"].pop("core:sample_rate"), "core:sample_rate"),
        (lambda w: w["global"].update({"core:sample_rate": 0}), "not valid SigMF"),
        (lambda w: w["global"].pop("massaccess:config"), "pass config="),
        (lambda w: w["global"]["massaccess:config"].update(users=0), "users is 0"),
        (lambda w: w["global"]["massaccess:config"].update(surprise=0), "surprise"),
        (lambda w: w["global"]["massaccess:config"].update(users="many"), "massaccess:config"),
        (lambda w: w["global"]["massaccess:config"].update(pilot_seed=None), "pilot_seed is None"),
        (lambda w: w["global"]["massaccess:config"].update(snr_db="loud"), "snr_db is 'loud'"),
        (lambda w: w["global"].update({"core:dataset": "other.bin"}), "non-conforming"),
        (lambda w: w["global"].update({"massaccess:seed": "x"}), "massaccess:seed"),
        (lambda w: w["annotations"][0].update({"core:sample_start": 3}), "whole frames"),
        (lambda w: w["annotations"][0].update({"core:sample_count": 5}), "whole frames"),
        (lambda w: w["annotations"][0].update({"massaccess:noise_var": -1}), "noise_var"),
        (lambda w: w["annotations"][0].update({"massaccess:frame": "x"}), "frame"),
        (lambda w: w["captures"][0].update({"massaccess:rx_time": 3}), "rx_time"),
    ],
)
def test_metadata_that_does_not_hold(capture, change, cure):
    rewrite(capture, change)
    with pytest.raises(FormatError, match=cure):
        open_recording(capture)


def test_a_bank_that_stayed_behind_is_not_missed(tmp_path):
    with Recorder(tmp_path / "air", CONFIG.replace(channel="elsewhere.npz")) as recorder:
        recorder.write(frames(3), Metadata(frame=0))
    assert open_recording(tmp_path / "air").config.channel == "elsewhere.npz"


def test_a_recording_of_another_program_needs_a_config(capture):
    def strip(whole):
        whole["annotations"] = []
        del whole["global"]["massaccess:config"]

    rewrite(capture, strip)
    recording = open_recording(capture, config=CONFIG)
    assert recording.metadata == metadata_of(CONFIG, frame=0) and len(recording) == 20
