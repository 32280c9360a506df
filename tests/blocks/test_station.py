"""A base station with USRPs, simulated: traffic of a simulated air through chains with phases and faults of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from click.testing import CliRunner
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess import _base
from gnuradio.massaccess import _simulated_usrp as sim

from massaccess import SystemConfig
from massaccess.cli import group
from massaccess.errors import ConfigError

BURST = {"pilot_len": 32, "data_len": 96, "samples_per_symbol": 4, "preamble_len": 16, "guard_len": 8, "sample_rate_hz": 1e6}
CELL = SystemConfig(users=12, rows=2, columns=4, activity=0.125, channel="rayleigh", snr_db=12.0, timing_offset=0.5, **BURST)
BOARDS = "B0,B1,B2,B3"
SLOTS = 120
ROOT_MEAN_SQUARE = 0.05  # of the samples of a USRP


@pytest.fixture(autouse=True)
def fresh():
    sim.reset()
    _base.armed.clear()


class Traffic:
    """The samples of a simulated air in a file, and what a receiver makes of them with an ideal array."""

    def __init__(self, config, path, slots=SLOTS):
        self.slots = slots
        tb = station("sim", config, where={"frames": slots}, record=str(path))
        massaccess.run(tb)
        self.config, self.file, self.ideal = config, f"{path}.sigmf-data", tb.receiver.stats()
        power = np.mean(np.abs(np.fromfile(self.file, np.complex64)) ** 2)
        self.level_db = 20 * np.log10(ROOT_MEAN_SQUARE) - 10 * np.log10(power)

    def device(self, more="snr_db=60"):
        played = f"signal=file,file={self.file},samples={self.slots * self.config.burst.slot_samples},level={ROOT_MEAN_SQUARE}"
        return {"addresses": BOARDS, "driver": "sim", "more_args": f"{played},{more}"}

    def off_the_air(self, more="snr_db=60", **changes):
        """A station behind simulated USRPs, after its run."""
        tb = station("uhd", self.config, where=self.device(more), **{"level_db": self.level_db, **changes})
        massaccess.run(tb)
        return tb


def station(*arguments, **changes):
    return massaccess.station(*arguments, seed=1, threads=1, max_batch=16, **changes)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    return Traffic(CELL, tmp_path_factory.mktemp("air") / "array")


def test_without_faults_the_array_does_as_the_ideal_one(traffic):
    """Antennas are independent: phases of their own change nothing. Samples that are too small do."""
    answer = traffic.off_the_air()
    packets = answer.receiver.stats()["packets"]
    assert packets > 50 and abs(packets - traffic.ideal["packets"]) <= 2
    assert answer.stats()["health"]["mask"].all() and answer.stats()["health"]["looks"] >= 2
    assert traffic.off_the_air(level_db=0.0).receiver.stats()["packets"] < 0.8 * packets


def test_antennas_that_do_not_work_are_masked_told_and_masked_again_in_a_replay(traffic, tmp_path):
    faults = "snr_db=5,loud=2;5"
    found = traffic.off_the_air(faults, record=str(tmp_path / "array"), publish="tcp://127.0.0.1:*")
    verdicts = ["ok", "ok", "noisy", "ok", "ok", "noisy", "ok", "ok"]
    assert found.stats()["health"]["verdicts"] == verdicts
    assert np.array_equal(found.corrector.mask, [word == "ok" for word in verdicts])
    assert "antennas: 6 of 8 ok, noisy 2 5" in found.monitor.text()
    without = traffic.off_the_air(faults, mask=False)
    assert "health" not in without.stats() and not hasattr(without, "corrector")
    assert found.receiver.stats()["packets"] > 4 * without.receiver.stats()["packets"]
    again = station("sigmf", where={"path": str(tmp_path / "array")}, level_db=traffic.level_db)
    massaccess.run(again)
    assert again.receiver.digest() == found.receiver.digest() != without.receiver.digest()


def test_simulations_are_not_masked_unless_asked_for():
    plain, asked = (station("sim", CELL, where={"frames": 30}, **how) for how in ({}, {"mask": True}))
    for tb in (plain, asked):
        massaccess.run(tb)
    assert plain.health is None
    assert set(asked.stats()["health"]["verdicts"]) == {"ok"}  # samples of a simulation may exceed 1, and none is clipped
    assert asked.receiver.digest() == plain.receiver.digest()


def test_a_calibration_gives_back_what_the_chains_phases_took(tmp_path):
    """A receiver that knows the array's covariance, at low signal-to-noise ratio."""
    correlated = Traffic(CELL.replace(users=24, channel="kronecker", snr_db=4.0), tmp_path / "array", 80)
    path = str(tmp_path / "array.toml")
    tone = massaccess.usrp_array_source(addresses=BOARDS, driver="sim", more_args="gain_spread_db=2")
    tb, calibrator = gr.top_block(), massaccess.array_calibrator(8, path=path)
    tb.connect(tone, calibrator)
    massaccess.run(tb)
    chains = "snr_db=60,gain_spread_db=2"
    without, with_it = (correlated.off_the_air(chains, calibration=file).receiver.stats()["packets"] for file in ("", path))
    assert without < 0.8 * correlated.ideal["packets"]
    assert abs(with_it - correlated.ideal["packets"]) <= 3


def test_the_command_says_which_antennas_do_not_work(traffic, tmp_path):
    system = "--users 12 --rows 2 --columns 4 --channel rayleigh --snr-db 12 --timing-offset 0.5 --cfo-hz 0 --common-cfo-hz 0"
    device = [part for name, value in traffic.device("snr_db=5,loud=2").items() for part in ("--set", f"{name}={value}")]
    line = ["receive", "--source", "uhd", *system.split(), *device, "--level-db", str(traffic.level_db), "--threads", "1"]
    done = CliRunner().invoke(group, [*line, "--json", str(tmp_path / "facts.json")], catch_exceptions=False)
    assert "7 of 8 ok, noisy 2" in done.stdout
    health = json.loads((tmp_path / "facts.json").read_text())["flowgraph"]["health"]
    assert health["mask"] == [index != 2 for index in range(8)] and health["verdicts"][2] == "noisy"


def test_the_simulated_array_refuses_files_that_do_not_fit(tmp_path):
    (tmp_path / "short").write_bytes(bytes(8 * 7))
    for name, words in (("short", "7 samples, and the device 2 channels"), ("none", "pass file=PATH")):
        with pytest.raises(ConfigError, match=words):
            massaccess.usrp_array_source("B0", reference="internal", driver="sim", more_args=f"signal=file,file={tmp_path / name}")


@pytest.mark.parametrize("most", [100, 8191])
def test_a_mask_begins_behind_the_look_that_found_it(most):
    """Whatever pieces the samples come in."""
    source = massaccess.usrp_array_source(BOARDS, driver="sim", more_args="signal=noise,dead=3,samples=20000,throttle=0")
    health, corrector = massaccess.array_health(8, length=4096, every=10000), massaccess.array_corrector(2, 4)
    raw, end, tb = blocks.vector_sink_c(8), blocks.vector_sink_c(8), gr.top_block()
    tb.connect(source, health, corrector, end)
    tb.connect(health, raw)
    health.set_max_noutput_items(most)
    massaccess.run(tb)
    came, went = (np.array(sink.data()).reshape(-1, 8) for sink in (raw, end))
    assert np.array_equal(np.delete(came, 3, 1), np.delete(went, 3, 1))
    assert [tag.offset for tag in raw.tags() if str(tag.key) == "mask"] == [2 * 4096]
    assert np.array_equal(came[: 2 * 4096, 3], went[: 2 * 4096, 3]) and not went[2 * 4096 :, 3].any()
