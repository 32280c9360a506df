"""Calibrator, corrector and health of an array stream, behind a simulated array."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pmt
import pytest
import torch

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess import _base
from gnuradio.massaccess import _simulated_usrp as sim

from massaccess import SystemConfig
from massaccess.calibration import Book, compare, filling, tone_response
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.channels import make_channel

ANTENNAS = 16


@pytest.fixture(autouse=True)
def fresh():
    sim.reset()
    _base.armed.clear()


def array(more="", **changes):
    boards = ",".join(f"B{board}" for board in range(ANTENNAS // 2))
    return massaccess.usrp_array_source(**{"addresses": boards, "channels": 2, "driver": "sim", "more_args": f"seed=5{more}", **changes})


def run(*chain, messages=()):
    """Runs blocks in a row; ``messages`` are (sender, port, receiver, port)."""
    tb = gr.top_block()
    if len(chain) > 1:
        tb.connect(*chain)
    for message in messages:
        tb.msg_connect(*message)
    massaccess.run(tb)


@pytest.fixture
def calibrated(tmp_path):
    """A file of the simulated array."""
    path = str(tmp_path / "array.toml")
    run(array(), massaccess.array_calibrator(ANTENNAS, path=path))
    return path


def vectors(end):
    return np.array(end.data(), np.complex64).reshape(-1, ANTENNAS)


def phases(samples):
    """Phases [degrees] of a tone in vectors, up to a common one."""
    found = tone_response(torch.from_numpy(samples[:4096])[None], frequency=0.1)
    return compare(found.gain, torch.ones_like(found.gain))[0][0].numpy()


class TestCalibrator:
    @pytest.mark.parametrize("signal", ["tone", "preamble"])
    def test_what_it_writes_corrects_the_array_to_below_two_degrees(self, tmp_path, signal):
        path, end = str(tmp_path / "array.toml"), blocks.vector_sink_c(ANTENNAS)
        calibrator = massaccess.array_calibrator(ANTENNAS, signal=signal, search_hz=1e3, path=path)
        run(array(f",signal={signal}"), calibrator)
        found = calibrator.measurement
        assert found.residual_deg < 1 < 60 < found.uncalibrated_deg
        assert found.calibration.entries[3].key.name == "B1:1"
        run(array(",samples=8192"), massaccess.array_corrector(4, 4, path), end)
        assert np.abs(phases(vectors(end))).max() < 2
        level = np.abs(tone_response(torch.from_numpy(vectors(end))[None], frequency=0.1).gain[0].numpy())
        assert level.std() / level.mean() < 0.02

    def test_delays_are_measured_and_filtered_away(self, tmp_path):
        path, end = str(tmp_path / "array.toml"), blocks.vector_sink_c(ANTENNAS)
        calibrator = massaccess.array_calibrator(ANTENNAS, signal="preamble", search_hz=0.0, path=path, captures=16)
        run(array(",signal=preamble,delay_spread=0.6"), calibrator)
        run(
            array(",samples=20000,signal=preamble,delay_spread=0.6,snr_db=60"), massaccess.array_corrector(4, 4, path, least_delay=0.1), end
        )
        samples = vectors(end)
        assert 19980 < len(samples) < 20000  # what the filter still held
        mean = samples.mean(1, keepdims=True)
        assert np.abs(samples - mean).std() < 0.05 * np.abs(mean).std() + 0.03 * np.abs(samples).std()

    def test_a_pdu_says_what_was_found(self, tmp_path):
        calibrator, debug = massaccess.array_calibrator(ANTENNAS, path=""), blocks.message_debug()
        run(array(), calibrator, messages=[(calibrator, "calibration", debug, "store")])
        message = debug.get_message(0)
        facts = pmt.to_python(pmt.car(message))
        assert facts["id"] == calibrator.measurement.calibration.id
        assert facts["residual_low_deg"] < facts["residual_deg"] < facts["residual_high_deg"]
        book = Book.parse(bytes(pmt.u8vector_elements(pmt.cdr(message))).decode(), "message")
        assert book.entries == calibrator.measurement.calibration.entries

    def test_a_file_keeps_what_it_has_of_other_settings(self, calibrated):
        run(array(freq=2.4e9), massaccess.array_calibrator(ANTENNAS, path=calibrated))
        assert len(Book.load(calibrated).entries) == 2 * ANTENNAS

    def test_captures_do_not_reach_over_gaps(self, tmp_path):
        calibrator = massaccess.array_calibrator(ANTENNAS, path="", length=1024, captures=4)
        run(array(",overflow_every=3000,overflow_len=333"), calibrator)
        assert calibrator.measurement.residual_deg < 1

    def test_without_a_tone_it_ends_with_the_reason(self):
        with pytest.raises(_base.BlockFailure, match="no tone within"):
            run(array(",signal=silence"), massaccess.array_calibrator(ANTENNAS, path=""))

    def test_what_cannot_be_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="no folder"):
            massaccess.array_calibrator(path=str(tmp_path / "nowhere" / "a.toml"))
        with pytest.raises(ConfigError, match="2 or more"):
            massaccess.array_calibrator(captures=1)
        with pytest.raises(UnknownNameError, match="calibration signal"):
            massaccess.array_calibrator(signal="chirp")
        with pytest.raises(_base.BlockFailure, match="tag rx_channels is of 16 channels, this block has 8"):
            run(array(), of_eight())


def of_eight():
    """A block of 8 antennas that takes vectors of 16: only its tags are wrong."""
    block = massaccess.array_calibrator(ANTENNAS, path="")
    block._state = dataclasses.replace(block._state, antennas=8)
    return block


class TestCorrector:
    def test_its_tag_names_the_calibration(self, calibrated):
        end, corrector = blocks.vector_sink_c(ANTENNAS), massaccess.array_corrector(4, 4, calibrated)
        run(array(",samples=4096"), corrector, end)
        tags = {str(tag.key): (tag.offset, pmt.to_python(tag.value)) for tag in end.tags()}
        assert tags["calibration"] == (0, Book.load(calibrated).only().id)
        assert tags["rx_freq"] == (0, 3.5e9)
        assert corrector.calibration_id == Book.load(calibrated).only().id

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"freq": 2.4e9}, "for another frequency"),
            ({"rate": 2e6}, "for another rate"),
            ({"gain": 5.0}, "for another gain"),
            ({"addresses": ",".join(f"C{board}" for board in range(ANTENNAS // 2))}, "of other devices: C0:0"),
        ],
    )
    def test_a_foreign_calibration_ends_the_flowgraph_with_the_reason(self, calibrated, changes, words):
        with pytest.raises(_base.BlockFailure, match=words):
            run(array(",samples=4096", **changes), massaccess.array_corrector(4, 4, calibrated), blocks.null_sink(8 * ANTENNAS))

    def test_a_foreign_calibration_may_be_passed_by(self, calibrated):
        end = blocks.vector_sink_c(ANTENNAS)
        corrector = massaccess.array_corrector(4, 4, calibrated, foreign="pass")
        with pytest.warns(Warning, match="samples pass uncorrected"):
            run_in_this_thread(corrector)
        run(array(",samples=4096"), massaccess.array_corrector(4, 4), end)
        assert np.abs(phases(vectors(end))).max() > 60

    def test_a_stale_calibration_is_used_with_a_warning(self, calibrated):
        old = (datetime.now(UTC) - timedelta(hours=30)).isoformat(timespec="seconds")
        book = Book(tuple(dataclasses.replace(entry, date=old) for entry in Book.load(calibrated).entries))
        book.save(calibrated)
        corrector = massaccess.array_corrector(4, 4, calibrated)
        corrector._state = corrector._state.told(
            [tag_of("rx_channels", " ".join(f"B{b}:0,1" for b in range(8))), tag_of("rx_freq", 3.5e9), tag_of("rx_rate", 1e6)]
        )
        corrector._state = dataclasses.replace(corrector._state, rx_gain=20.0)
        with pytest.warns(Warning, match="30.0 hours old and 12 are allowed"):
            corrector._choose()
        assert corrector.calibration_id == book.only().id

    def test_a_fresh_calibration_is_used_as_it_comes(self):
        """From the calibrator's message, without a file."""
        calibrator = massaccess.array_calibrator(ANTENNAS, path="", captures=2, length=2048, repeat=True)
        corrector, end, source = massaccess.array_corrector(4, 4), blocks.vector_sink_c(ANTENNAS), array(",samples=120000,throttle=1")
        tb = gr.top_block()
        tb.connect(source, corrector, end)
        tb.connect(source, calibrator)
        tb.msg_connect(calibrator, "calibration", corrector, "calibration")
        massaccess.run(tb)
        ids = [pmt.to_python(tag.value) for tag in end.tags() if str(tag.key) == "calibration"]
        assert ids[0] == "none"
        assert len(ids) > 1
        assert np.abs(phases(vectors(end)[-4096:])).max() < 3

    def test_masked_antennas_are_filled_in_from_the_others(self):
        cov = make_channel(SystemConfig(rows=8, columns=8)).covariance
        mask = np.ones(64, bool)
        mask[[3, 40]] = False
        corrector, end = massaccess.array_corrector(8, 8, channel_cov="uma", snr_db=10.0), blocks.vector_sink_c(64)
        corrector.set_mask(mask)
        rng = np.random.default_rng(0)
        sent = (rng.standard_normal((500, 64)) + 1j * rng.standard_normal((500, 64))).astype(np.complex64)
        run(blocks.vector_source_c(sent.ravel().tolist(), False, 64), corrector, end)
        got = np.array(end.data(), np.complex64).reshape(-1, 64)
        weights = filling(torch.from_numpy(mask), cov, 0.1).numpy()
        assert np.array_equal(got[:, mask], sent[:, mask])
        assert np.allclose(got[:, ~mask], sent[:, mask] @ weights.T, atol=1e-4)

    def test_without_a_covariance_masked_antennas_are_silent(self):
        corrector, end = massaccess.array_corrector(2, 2), blocks.vector_sink_c(4)
        corrector.set_mask([True, False, True, True])
        run(blocks.vector_source_c(np.ones(400).tolist(), False, 4), corrector, end)
        assert np.array_equal(np.array(end.data()).reshape(-1, 4)[0], [1, 0, 1, 1])
        with pytest.raises(ConfigError, match="has no covariance"):
            massaccess.array_corrector(2, 2, channel_cov="rayleigh")
        with pytest.raises(UnknownNameError, match="foreign"):
            massaccess.array_corrector(2, 2, foreign="ignore")


def tag_of(key, value):
    tag = gr.tag_t()
    tag.key, tag.value = pmt.intern(key), _base.to_pmt(value)
    return tag


def run_in_this_thread(corrector):
    """Takes in the tags of a setting that no calibration is for."""
    corrector._state = corrector._state.told([tag_of("rx_freq", 1e9), tag_of("rx_rate", 1e6)])
    corrector._choose()


class TestHealth:
    FAULTS = ",dead=3,loud=11,hot=7,swapped=5;9"

    def test_faults_are_found_and_masked_with_a_tone(self, calibrated):
        health = massaccess.array_health(ANTENNAS, every=8192, signal="tone", path=calibrated)
        corrector, end = massaccess.array_corrector(4, 4, calibrated), blocks.null_sink(8 * ANTENNAS)
        source = array(f",samples=80000{self.FAULTS}")
        tb = gr.top_block()
        tb.connect(source, health)
        tb.connect(source, corrector, end)
        tb.msg_connect(health, "health", corrector, "health")
        massaccess.run(tb)
        found = {antenna: verdict for antenna, verdict in enumerate(health.verdicts) if verdict != "ok"}
        assert found == {3: "dead", 11: "noisy", 7: "saturated", 5: "swapped", 9: "swapped"}
        assert health.last.swaps == {5: 9, 9: 5}
        assert list(np.nonzero(~corrector.mask)[0]) == sorted(found)

    def test_traffic_alone_shows_what_is_dead_noisy_or_saturated(self):
        health, debug = massaccess.array_health(ANTENNAS, every=8192), blocks.message_debug()
        run(array(f",samples=40000,signal=noise{self.FAULTS}"), health, messages=[(health, "health", debug, "store")])
        found = {antenna: verdict for antenna, verdict in enumerate(health.verdicts) if verdict != "ok"}
        assert found == {3: "dead", 11: "noisy", 7: "saturated"}
        last = pmt.to_python(debug.get_message(debug.num_messages() - 1))
        assert (last["masked"], last["dead"], last["ok"], last["sure"]) == (3, 1, ANTENNAS - 3, True)
        assert list(last["mask"]) == [0 if antenna in found else 1 for antenna in range(ANTENNAS)]
        assert last["verdicts"].split()[7] == "saturated"
        assert len(last["power_db"]) == ANTENNAS

    def test_a_verdict_counts_only_when_looks_agree(self):
        health = massaccess.array_health(ANTENNAS, every=4096, persist=3)
        run(array(",samples=8192,signal=noise,dead=3"), health)
        assert set(health.verdicts) == {"ok"}
        assert health.last.of("dead") == [3]

    def test_slow_drift_is_found_against_the_calibration(self, calibrated):
        health = massaccess.array_health(ANTENNAS, every=8192, signal="tone", path=calibrated)
        run(array(",samples=120000,drifting=6,drift_deg=300"), health)
        assert health.verdicts[6] == "drifting"
        assert health.verdicts.count("ok") == ANTENNAS - 1

    def test_parameters_that_cannot_be_are_refused(self):
        with pytest.raises(ConfigError, match="64 or more"):
            massaccess.array_health(length=10)
        with pytest.raises(UnknownNameError, match="calibration signal"):
            massaccess.array_health(signal="chirp")
