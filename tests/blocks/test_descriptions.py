"""Files, classes, GRC descriptions and signatures of the blocks are one list."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from gnuradio import massaccess

from massaccess.forward.channels import CHANNELS
from massaccess.forward.coding import NAMES as CODES
from massaccess.forward.modulation import MODULATIONS
from massaccess.forward.pilots import PILOT_KINDS
from massaccess.registry import RECEIVERS

ROOT = Path(__file__).resolve().parents[2]
OWN_DEFAULTS = {
    "sigmf_replay": {"path", "vlen"},
    "array_replay": {"path", "vlen"},
}  # the file dialogue wants an ending, and ports want a length; the class finds both
DESCRIPTIONS = {path.name.removesuffix(".block.yml").removeprefix("massaccess_"): path for path in (ROOT / "grc").glob("*.block.yml")}


def described(name):
    return yaml.safe_load(DESCRIPTIONS[name].read_text())


def signature(name):
    """Parameters of a block; those of `receiver` behind the ** of activity_detector."""
    found = {}
    for base in (getattr(massaccess, name), massaccess.receiver):
        parameters = inspect.signature(base.__init__).parameters.values()
        found = {
            **{item.name: item.default for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD and item.name != "self"},
            **found,
        }
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            return found
    return found


def test_every_block_has_a_file_a_class_and_a_description():
    folder = ROOT / "python/gnuradio/massaccess"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "station", "uplink"}
    assert {name for name in files if not name.startswith("_")} == set(massaccess.BLOCKS) == set(DESCRIPTIONS)
    for name in massaccess.BLOCKS:
        assert getattr(massaccess, name).__name__ == name
        assert getattr(massaccess, name).__doc__


def test_import_is_quick_and_without_torch():
    program = "import sys; from gnuradio import massaccess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT / "python")}).returncode == 0


@pytest.mark.parametrize("name", sorted(set(DESCRIPTIONS) - {"supervisor"}))  # that one takes the flowgraph itself
class TestParameters:
    def test_parameters_are_those_of_the_class(self, name):
        found, parameters = described(name), signature(name)
        assert [item["id"] for item in found["parameters"]] == list(parameters)
        made = re.findall(r"(\w+)=\$\{\s*(\w+)\s*\}", found["templates"]["make"])
        assert made == [(item, item) for item in parameters]

    def test_defaults_are_those_of_the_class(self, name):
        parameters = signature(name)
        for item in described(name)["parameters"]:
            if item["id"] in OWN_DEFAULTS.get(name, ()):
                continue
            default = item["default"]
            value = default if item["dtype"] in ("string", "file_open", "file_save") else ast.literal_eval(str(default))
            assert value == (parameters[item["id"]] if parameters[item["id"]] is not None else {}), item["id"]


@pytest.mark.parametrize("name", sorted(DESCRIPTIONS))
class TestDescription:
    def test_says_who_it_is(self, name):
        found = described(name)
        assert found["id"] == f"massaccess_{name}"
        assert found["category"].startswith("[MassAccess]/")
        assert found["flags"] == ["python"]
        assert found["file_format"] == 1

    def test_documentation_names_everything(self, name):
        found = described(name)
        ports = [port.get("id") or port["label"] for side in ("inputs", "outputs") for port in found.get(side, [])]
        for item in [*ports, *(item["id"] for item in found.get("parameters", []))]:
            assert f"    {item}: " in found["documentation"], item

    def test_callbacks_are_methods(self, name):
        for callback in described(name)["templates"].get("callbacks", []):
            assert callable(getattr(getattr(massaccess, name), callback.split("(")[0]))

    def test_message_ports_are_optional(self, name):
        for side in ("inputs", "outputs"):
            assert all(port["optional"] for port in described(name).get(side, []) if port["domain"] == "message")

    def test_hidden_ports_come_last(self, name):
        """Companion numbers hidden ports as well, so one in the middle would shift the others."""
        for side in ("inputs", "outputs"):
            hidden = ["hide" in port for port in described(name).get(side, []) if port["domain"] == "stream"]
            assert hidden == sorted(hidden)

    def test_choices_are_those_of_the_library(self, name):
        known = {"channel": list(CHANNELS), "code": list(CODES), "modulation": list(MODULATIONS), "pilot_kind": list(PILOT_KINDS)}
        for item in described(name).get("parameters", []):
            if item["id"] in known and "options" in item:
                assert item["options"] == [name for name in known[item["id"]] if name != "none" or "none" in item["options"]]
            assert len(item.get("options", [])) == len(item.get("option_labels", item.get("options", [])))


@pytest.mark.parametrize(("block", "kind"), [("activity_detector", "activity"), ("noncoherent_receiver", "noncoherent")])
def test_receivers_to_choose_from_are_in_the_registry(block, kind):
    (item,) = (item for item in described(block)["parameters"] if item["id"] == "receiver")
    kinds = {name: RECEIVERS[name].kind for name in item["options"]}
    assert set(kinds.values()) == {kind}
