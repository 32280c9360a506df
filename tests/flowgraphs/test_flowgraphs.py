"""Every flowgraph opens, compiles, and runs; programs from GRC fail visibly."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gnuradio.grc", reason="GNU Radio Companion is not installed")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "flowgraphs"
GRAPHS = sorted(path.stem for path in FOLDER.glob("*.grc"))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "python"), "GRC_BLOCKS_PATH": str(ROOT / "grc"), "OMP_NUM_THREADS": "1"}

OPEN = """
import sys
from gnuradio import gr
from gnuradio.grc.core.platform import Platform
platform = Platform(version=gr.version(), version_parts=(gr.major_version(), gr.api_version(), gr.minor_version()), prefs=gr.prefs())
platform.build_library()
"""

LOAD = (
    OPEN
    + """
for path in sys.argv[1:]:
    import yaml
    stored = {block["name"]: block["parameters"] for block in yaml.safe_load(open(path))["blocks"]}
    graph = platform.make_flow_graph(path)
    graph.rewrite()
    graph.validate()
    bad = [str(error) for error in graph.iter_error_messages()]
    for block in graph.blocks:
        if block.is_dummy_block:
            bad.append(f"{block.name}: no such block")
        elif block.name in stored:
            bad += [f"{block.name}: no parameter {name}" for name in stored[block.name] if name not in block.params]
            if block.key.startswith("massaccess_"):
                bad += [f"{block.name}: {name} is not stored" for name in block.params if name not in stored[block.name] and name != "id"]
    if not any(block.key == "massaccess_supervisor" for block in graph.blocks):
        bad.append("no supervisor")
    print(path, bad)
    if bad:
        sys.exit(1)
"""
)

DROP = (
    OPEN
    + """
names = [name for name in platform.blocks if name.startswith("massaccess_")]
print(len(names), "blocks")
for name in names:
    graph = platform.make_flow_graph()
    block = graph.new_block(name)
    block.params["id"].set_value("block")
    block.rewrite()
    block.validate()
    bad = [(str(part), message) for part, message in block.iter_error_messages() if message != "Port is not connected."]
    print(name, bad)
    if bad:
        sys.exit(1)
"""
)

PRELUDE = """
import runpy, sys, types
from dataclasses import dataclass
from massaccess.registry import RECEIVERS, Entry
module = sys.modules["massaccess._fakes"] = types.ModuleType("massaccess._fakes")
@dataclass(frozen=True)
class Poisoned:
    def __call__(self, obs, *, generator=None):
        raise ZeroDivisionError("the model is poisoned")
module.Poisoned = Poisoned
RECEIVERS["poisoned"] = Entry("_fakes:Poisoned", "joint", "", "")
"""


def run(*command, cwd=None, **more):
    return subprocess.run([sys.executable, *command], cwd=cwd, env=ENVIRONMENT | more, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A folder with the program of every flowgraph."""
    out = tmp_path_factory.mktemp("programs")
    grcc = shutil.which("grcc")
    if grcc is None:
        pytest.skip("grcc is not installed")
    done = run(grcc, "-o", str(out), *(str(FOLDER / f"{name}.grc") for name in GRAPHS))
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_each_is_listed_with_a_picture():
    text = (FOLDER / "README.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == sorted(GRAPHS, key=text.index)
    pictures = re.findall(r"\((pictures/\w+\.png)\)", text)
    assert set(pictures) == {f"pictures/{path.name}" for path in (FOLDER / "pictures").iterdir()}
    assert {f"pictures/{name}.png" for name in GRAPHS} <= set(pictures)


def test_each_opens_without_missing_blocks_or_parameters():
    done = run("-c", LOAD, *(str(FOLDER / f"{name}.grc") for name in GRAPHS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_can_be_dropped_into_a_flowgraph_as_it_is():
    done = run("-c", DROP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list((ROOT / 'grc').glob('*.block.yml')))} blocks" in done.stdout


def test_each_compiles_into_a_program_that_shows_its_options(compiled):
    assert {path.stem for path in compiled.glob("*.py")} == set(GRAPHS)


@pytest.mark.parametrize("name", ["uplink_nogui", "one_bit_link_nogui", "activity_detection_nogui"])
def test_simulations_run_and_report(compiled, name):
    done = run(str(compiled / f"{name}.py"), "--frames", "48", cwd=compiled)
    assert done.returncode == 0, done.stderr
    report = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (report["compared"], report["lost"]) == ("48", "0")
    assert float(report["aep"]) < 0.05


def test_non_coherent_access_runs_and_reports(compiled):
    done = run(str(compiled / "noncoherent_access_nogui.py"), "--frames", "48", "--tx-power-dbm", "33", cwd=compiled)
    assert done.returncode == 0, done.stderr
    report = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (report["compared"], report["lost"]) == ("48", "0")
    assert float(report["ser_devices"]) < 0.05 < 1 - float(report["ser"])
    assert "device" in report["most errors"]
    assert "allocate" not in done.stderr


@pytest.mark.parametrize("code", ["conv", "polar"])
def test_payloads_come_off_the_air(compiled, code):
    done = run(str(compiled / "on_air_nogui.py"), "--frames", "64", "--code", code, cwd=compiled)
    assert done.returncode == 0, done.stderr
    report = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (report["frames"], report["locks"], report["missing"], report["dropped"]) == ("64", "1", "0", "0")
    assert int(report["failed_crc"]) < 0.05 * int(report["codewords"])
    assert float(report["cfo_hz"]) == pytest.approx(2000, abs=100)
    assert report["antennas"] == "64 of 64 ok"
    assert "allocate" not in done.stderr


def test_access_points_run_and_report(compiled):
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    done = run(str(compiled / "access_points_nogui.py"), "--frames", "8", "--endpoint", where, cwd=compiled)
    assert done.returncode == 0, done.stderr
    report = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (report["frames"], report["joined"], report["bad"]) == ("8", "4", "0")
    assert int(report["packets"]) > 0.85 * int(report["packets sent"])


def test_the_one_bit_link_reports_both_receivers_of_the_same_frames(compiled):
    done = run(str(compiled / "one_bit_link_nogui.py"), "--frames", "64", "--bits", "1", "--dither", "0.1", cwd=compiled)
    assert done.returncode == 0, done.stderr
    report = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert report["compared"] == report["unquantised compared"] == "64"
    assert float(report["unquantised ber"]) < float(report["ber"]) < 0.1
    assert report["octets per frame"] == str(65 * 16)
    assert "allocate" not in done.stderr


def report_of(done):
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def test_a_simulated_array_is_calibrated_and_looked_at(compiled, tmp_path):
    path = str(tmp_path / "array.toml")
    found = report_of(run(str(compiled / "usrp_calibrate_sim_nogui.py"), "--path", path, cwd=tmp_path))
    assert float(found["residual"].split()[0]) < 1 < 60 < float(found["uncalibrated"].split()[0])
    seen = report_of(run(str(compiled / "usrp_calibration_view_sim_nogui.py"), "--path", path, "--vectors", "200000", cwd=tmp_path))
    assert float(seen["corrected"].split()[0]) < 1 < 60 < float(seen["as they are"].split()[0])
    assert seen["calibration"] in found["calibration"]
    assert seen["health"].split() == ["ok"] * 16
    foreign = run(str(compiled / "usrp_calibration_view_sim_nogui.py"), "--path", path, "--freq", "2.4e9", cwd=tmp_path)
    assert foreign.returncode == 1
    assert "for another frequency" in foreign.stderr


def test_the_simulated_receive_chain_finds_its_users(compiled, tmp_path):
    found = report_of(run(str(compiled / "usrp_receive_sim_nogui.py"), "--frames", "12", cwd=tmp_path))
    assert found["health"].split() == ["ok"] * 16
    assert found["locked"] == "True"
    assert int(found["packets"]) > 20


def test_usrp_flowgraphs_without_hardware_name_their_twin(compiled, tmp_path):
    pytest.importorskip("gnuradio.uhd", reason="GNU Radio came without UHD")
    done = run(str(compiled / "usrp_calibrate_nogui.py"), "--addresses", "127.0.0.1", cwd=tmp_path)
    assert done.returncode == 1
    assert "no USRP answers to 'addr0=127.0.0.1" in done.stderr
    assert "flowgraphs have a twin, NAME_sim" in done.stderr


def test_usrp_flowgraphs_and_their_twins_differ_in_the_source_alone():
    """Except usrp_receive, whose twin has users as well."""
    for name in [name for name in GRAPHS if name.startswith("usrp_cal") and "_sim" not in name]:
        stem, nogui = (name.removesuffix("_nogui"), "_nogui") if name.endswith("_nogui") else (name, "")
        own, twin = (yaml.safe_load((FOLDER / f"{each}.grc").read_text()) for each in (name, f"{stem}_sim{nogui}"))
        assert own["connections"] == twin["connections"]
        blocks, twins = ({block["name"]: block for block in graph["blocks"]} for graph in (own, twin))
        assert {block for block in blocks if blocks[block] != twins[block]} == {"source", "addresses"}
    own, twin = (yaml.safe_load((FOLDER / f"usrp_receive{each}_nogui.grc").read_text()) for each in ("", "_sim"))
    assert all(wire in twin["connections"] for wire in own["connections"])


def test_what_is_recorded_can_be_replayed(compiled, tmp_path):
    recorded = run(str(compiled / "record_nogui.py"), "--frames", "16", "--path", str(tmp_path / "air"), cwd=tmp_path)
    assert recorded.returncode == 0, recorded.stderr
    assert "frames recorded: 16" in recorded.stdout
    replayed = run(str(compiled / "replay_nogui.py"), "--path", str(tmp_path / "air"), cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    assert "frames: 16" in replayed.stdout
    assert "digest: " in replayed.stdout


def test_a_poisoned_model_ends_the_program_with_a_reason(compiled):
    path = str(compiled / "uplink_nogui.py")
    program = PRELUDE + f"sys.argv = ['x', '--frames', '0', '--receiver-name', 'poisoned']\nrunpy.run_path({path!r}, run_name='__main__')"
    done = run("-c", program, cwd=compiled)
    assert done.returncode == 1
    assert "failed: ZeroDivisionError: the model is poisoned" in done.stderr


PHASES = """
import importlib.util, sys
sys.argv = ["x", "--path", {file!r}]
specification = importlib.util.spec_from_file_location("view", {path!r})
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)
from PyQt5 import Qt
def look():
    (window,) = [widget for widget in Qt.QApplication.topLevelWidgets() if isinstance(widget, program.usrp_calibration_view_sim)]
    if window.after.rms_deg < 2:
        picture = window.grab().toImage()
        places = [(x, y) for x in range(picture.width()) for y in range(picture.height())]
        blue = [place for place in places if Qt.QColor(picture.pixel(*place)).getRgb()[:3] == (0, 0, 255)]
        print("blue", len(blue))
        if len(blue) > 400:
            window.close()
def execute(*application):
    timer = Qt.QTimer()
    timer.timeout.connect(look)
    timer.start(300)
    return original()
original, Qt.QApplication.exec_ = Qt.QApplication.exec_, execute
program.main()
"""


def test_the_window_of_phases_shows_them(compiled, tmp_path):
    pytest.importorskip("PyQt5", reason="Qt is not installed")
    file = str(tmp_path / "array.toml")
    report_of(run(str(compiled / "usrp_calibrate_sim_nogui.py"), "--path", file, cwd=tmp_path))
    program = PHASES.format(file=file, path=str(compiled / "usrp_calibration_view_sim.py"))
    done = run("-c", program, cwd=compiled, QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 0, done.stderr
    assert "corrected: 0." in done.stdout


WINDOW = """
import importlib.util, sys
sys.argv = [{name!r}, *{arguments}]
specification = importlib.util.spec_from_file_location({name!r}, {path!r})
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)
from PyQt5 import Qt
def look():
    (window,) = [widget for widget in Qt.QApplication.topLevelWidgets() if isinstance(widget, program.{name})]
    if {ready}:
        getattr(window, {slider!r})(0)
        picture = window.grab().toImage()
        colours = {{picture.pixel(x, y) for x in range(0, picture.width(), 5) for y in range(0, picture.height(), 5)}}
        print("colours", len(colours))
        window.close()
def execute(*application):
    timer = Qt.QTimer()
    timer.timeout.connect(look)
    timer.start(100)
    return original()
original, Qt.QApplication.exec_ = Qt.QApplication.exec_, execute
program.main()
"""


COMPARED = 'window.meter.summary()["compared"] >= 64'


def window(compiled, name, arguments, slider="set_snr_db", ready=COMPARED):
    return WINDOW.format(name=name, path=str(compiled / f"{name}.py"), arguments=arguments, slider=slider, ready=ready)


@pytest.mark.parametrize(
    ("name", "arguments", "slider"),
    [
        ("uplink", [], "set_snr_db"),
        ("activity_detection", ["--detector-name", "covariance"], "set_snr_db"),
        ("one_bit_link", ["--dither", "0.2"], "set_snr_db"),
        ("noncoherent_access", ["--placement-seed", "-1"], "set_tx_power_dbm"),
    ],
)
def test_the_window_opens_and_shows_something(compiled, name, arguments, slider):
    pytest.importorskip("PyQt5", reason="Qt is not installed")
    done = run("-c", window(compiled, name, arguments, slider), cwd=compiled, QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"colours (\d+)", done.stdout).group(1)) > 20


def test_the_window_of_the_air_opens_and_shows_something(compiled):
    pytest.importorskip("PyQt5", reason="Qt is not installed")
    ready = 'window.decoder.stats()["payloads"] >= 20 and "antennas: 64 of 64 ok" in window.monitor.text()'
    done = run("-c", window(compiled, "on_air", [], ready=ready), cwd=compiled, QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"colours (\d+)", done.stdout).group(1)) > 20


def test_the_window_closes_with_a_reason_when_a_block_fails(compiled):
    pytest.importorskip("PyQt5", reason="Qt is not installed")
    program = PRELUDE + window(compiled, "uplink", ["--receiver-name", "poisoned"])
    done = run("-c", program, cwd=compiled, QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 1, done.stderr
    assert "failed: ZeroDivisionError: the model is poisoned" in done.stderr
