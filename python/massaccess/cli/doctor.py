"""``massaccess doctor``: what is wrong with this installation, and the cure."""

from __future__ import annotations

import functools
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from .. import __version__
from ._json import json_option, write_json

TREE = Path(__file__).resolve().parents[3]  # the source tree, when this is run from one
LIBRARIES = ("numpy", "scipy", "torch", "numba", "pyzmq", "sigmf", "safetensors", "matplotlib")
MODULES = {"pyzmq": "zmq"}  # where the import has another name than the package
COLOURS = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}

# Runs in a process of its own: a GNU Radio that was built for another NumPy may take its process with it.
PROBE = """
import importlib, json, os
found = {"blocks": {}}
from gnuradio import gr
import numpy, pmt
pmt.to_python(pmt.init_c32vector(1, [1j]))
prefs = gr.prefs()
found.update(version=gr.version(), numpy=numpy.__version__, prefix=gr.prefix())
found["grc_paths"] = [prefs.get_string("grc", name, "") for name in ("local_blocks_path", "global_blocks_path")]
try:
    package = importlib.import_module("gnuradio.massaccess")
    found["package"] = os.path.dirname(package.__file__)
    for name in package.BLOCKS:
        try:
            found["blocks"][name] = "" if callable(getattr(package, name)) else "is not callable"
        except Exception as error:
            found["blocks"][name] = f"{type(error).__name__}: {error}"
except Exception as error:
    found["package_error"] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``level`` is OK, WARN (something will not work) or FAIL (something is broken)."""

    level: str
    topic: str
    text: str
    cure: str = ""


@click.command()
@click.option("--quick", is_flag=True, help="Leave out compiling the flowgraphs, which takes seconds each.")
@json_option
def command(quick: bool, json_path: Path | None) -> None:
    """Check versions, paths, blocks, channel banks, weights and flowgraphs. Exit code 1 when something is broken."""
    found: list[Finding] = []
    console = Console(stderr=json_path == Path("-"))
    for finding in examine(CHECKS[:-1] if quick else CHECKS):
        found.append(finding)
        show(console, finding)
    if json_path is not None:
        write_json(json_path, {"version": __version__, "findings": [asdict(finding) for finding in found]})
    if any(finding.level == "FAIL" for finding in found):
        sys.exit(1)


def show(console: Console, finding: Finding) -> None:
    colour = COLOURS[finding.level]
    console.print(f"[{colour}]{finding.level:4}[/] {finding.topic:11} {escape(finding.text)}", soft_wrap=True, highlight=False)
    if finding.cure:
        console.print(f"{'':16} -> {escape(finding.cure)}", soft_wrap=True, highlight=False)


def examine(checks: tuple[Callable[[], Iterator[Finding]], ...]) -> Iterator[Finding]:
    """The findings of all checks; a check that breaks is a finding too."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # the doctor reports whatever it meets
            yield Finding("FAIL", check.__name__, f"the check itself failed: {type(error).__name__}: {error}", "report this line")


def interpreter() -> Iterator[Finding]:
    """Which Python runs, and from where massaccess is imported."""
    yield Finding("OK", "python", f"{platform.python_version()} at {sys.executable}")
    yield Finding("OK", "massaccess", f"{__version__} at {Path(__file__).parents[1]}")


def libraries() -> Iterator[Finding]:
    """Whether each library imports, and its version."""
    for name in LIBRARIES:
        try:
            importlib.import_module(MODULES.get(name, name))
            yield Finding("OK", name, metadata.version(name))
        except Exception as error:
            yield Finding("FAIL", name, f"does not import: {error}", f"{sys.executable} -m pip install {name}, or run make setup again")


def device() -> Iterator[Finding]:
    """Where networks would run."""
    import torch

    if not torch.cuda.is_available():
        yield Finding("OK", "device", f"CPU, {torch.get_num_threads()} threads; no CUDA device")
        return
    for index in range(torch.cuda.device_count()):
        yield Finding("OK", "device", f"cuda:{index} {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}")


def banks() -> Iterator[Finding]:
    """Whether the shipped channel banks are there and readable."""
    from ..forward.banks import describe_bank
    from ..forward.channels import DATA

    paths = sorted(DATA.glob("*.npz"))
    if not paths:
        yield Finding("FAIL", "bank", f"no channel banks in {DATA}", "install massaccess again: its data files are missing")
    for path in paths:
        try:
            bank = describe_bank(path)
        except Exception as error:
            yield Finding("FAIL", "bank", f"{path.name}: {error}", "install massaccess again: the file is damaged")
            continue
        yield Finding(
            "OK", "bank", f"{path.name}: {bank['channels']} channels of {bank['antennas']} antennas, sha256 {bank['sha256'][:16]}"
        )


def weights() -> Iterator[Finding]:
    """Whether each network that ships is the one that was meant, and loads."""
    from ..weights import available
    from .weights import check_shipped

    for name in available():
        try:
            found = check_shipped(name)
        except Exception as error:
            yield Finding("FAIL", "weights", f"{name}: {error}", "install massaccess again: the file is damaged")
            continue
        array = f"{found['rows']}x{found['columns']} antennas" if found["kind"] == "channel" else "any array"
        yield Finding("OK", "weights", f"{name}: {found['network']} for {array}, sha256 {found['sha256'][:16]}")


def gnuradio() -> Iterator[Finding]:
    """Whether this Python sees GNU Radio, with which NumPy, and every block."""
    radio = probe()
    if "error" in radio:
        yield _no_gnuradio(radio["error"])
        return
    yield Finding("OK", "gnuradio", f"{radio['version']} in {radio['prefix']}, with NumPy {radio['numpy']}")
    if "package_error" in radio:
        yield Finding("FAIL", "blocks", f"gnuradio.massaccess does not import: {radio['package_error']}", _cure_for_package())
        return
    broken = {name: reason for name, reason in radio["blocks"].items() if reason}
    for name, reason in broken.items():
        yield Finding("FAIL", "blocks", f"{name} does not import: {reason}", _cure_for_package())
    yield Finding("OK", "blocks", f"{len(radio['blocks']) - len(broken)} of {len(radio['blocks'])} import from {radio['package']}")


def _cure_for_package() -> str:
    return (
        "install massaccess into this Python (make setup, or pip install .), and see that no folder on its path has a gnuradio/__init__.py"
    )


def _no_gnuradio(reason: str) -> Finding:
    if "NumPy" in reason or "numpy" in reason or "_ARRAY_API" in reason:
        return Finding("FAIL", "gnuradio", f"does not import with this NumPy: {reason}", f"{sys.executable} -m pip install 'numpy<2'")
    system = "/usr/bin/python3"
    if Path(system).exists() and subprocess.run([system, "-c", "import gnuradio.gr"], capture_output=True).returncode == 0:
        cure = f"{system} sees GNU Radio: make the environment with '{system} -m venv --system-site-packages', or run make setup"
        return Finding("FAIL", "gnuradio", f"not visible to this Python: {reason}", cure)
    cure = "install it (apt-get install gnuradio); without it evaluate, channels and listen work, run and receive do not"
    return Finding("WARN", "gnuradio", f"not installed: {reason}", cure)


def companion() -> Iterator[Finding]:
    """Whether GNU Radio Companion would find the block descriptions and, when it runs a flowgraph, the blocks."""
    radio, folder = probe(), yml_folder()
    if "error" in radio:
        return
    if folder is None:
        yield Finding(
            "FAIL",
            "grc",
            "no block descriptions (massaccess_*.block.yml) beside this package",
            "install massaccess again: they ship with it",
        )
        return
    described = {path.name.removeprefix("massaccess_").removesuffix(".block.yml") for path in folder.glob("massaccess_*.block.yml")}
    for name in sorted(set(radio["blocks"]) - described):
        yield Finding(
            "FAIL", "grc", f"block {name} has no description in {folder}", "install massaccess again: block and description come together"
        )
    for name in sorted(described - set(radio["blocks"])) if radio["blocks"] else ():
        yield Finding("FAIL", "grc", f"{folder} describes {name}, which is no block of this version", "remove the file: it is left over")
    yield Finding("OK", "grc", f"{len(described)} block descriptions in {folder}")
    yield _found_by_companion(folder, companion_paths(radio["grc_paths"]))
    yield from _companion_python()


def _found_by_companion(folder: Path, paths: list[Path]) -> Finding:
    holding = [path for path in paths if any(path.rglob("massaccess_*.block.yml"))]
    if folder not in holding and not holding:
        cure = f"make grc, or: export GRC_BLOCKS_PATH={folder}"
        return Finding("WARN", "grc", "GNU Radio Companion does not look there", cure)
    if holding != [folder]:
        others = ", ".join(str(path) for path in holding if path != folder)
        return Finding(
            "WARN", "grc", f"GNU Radio Companion also finds massaccess blocks in {others}", "remove the installation that is not in use"
        )
    return Finding("OK", "grc", "GNU Radio Companion looks there")


def _companion_python() -> Iterator[Finding]:
    """Companion runs flowgraphs with its own Python, whatever environment is active."""
    script = shutil.which("gnuradio-companion")
    if script is None:
        yield Finding(
            "WARN", "grc", "gnuradio-companion is not on PATH", "install it if you want to edit flowgraphs; running them works without"
        )
        return
    with open(script, "rb") as stream:
        shebang = stream.readline().decode(errors="replace")
    runner = shebang.removeprefix("#!").split() if shebang.startswith("#!") else []
    if runner and subprocess.run([*runner, "-c", "import massaccess, gnuradio.massaccess"], capture_output=True).returncode:
        cure = f"make grc, or: {sys.executable} {script}"
        yield Finding(
            "WARN", "grc", f"started plainly, {script} runs flowgraphs with {' '.join(runner)}, which does not see massaccess", cure
        )


def flowgraphs() -> Iterator[Finding]:
    """Whether grcc compiles each flowgraph of the source tree."""
    grcc, folder, graphs = shutil.which("grcc"), yml_folder(), sorted((TREE / "flowgraphs").glob("*.grc"))
    if grcc is None or folder is None or not graphs or "error" in probe():
        return
    environment = os.environ | {"GRC_BLOCKS_PATH": str(folder)}
    for graph in graphs:
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run([sys.executable, grcc, "-o", out, str(graph)], env=environment, capture_output=True, text=True)
        if done.returncode:
            complaint = _complaint(f"{done.stderr}\n{done.stdout}")
            yield Finding("FAIL", "flowgraph", f"{graph.name} does not compile: {complaint}", f"grcc {graph} shows all of it")
        else:
            yield Finding("OK", "flowgraph", f"{graph.name} compiles")


def _complaint(output: str) -> str:
    """What grcc says is wrong, among all else that it says: "...: error: ..." of a description, or lines below "errors from flowgraph"."""
    head, _, tail = output.partition("errors from flowgraph:")
    lines = [line for line in head.splitlines() if " error: " in line] + tail.splitlines()[:4]
    return "; ".join(" ".join(line.split()) for line in lines if line.strip(" *")) or "grcc does not say why"


@functools.cache
def probe() -> dict[str, Any]:
    """What GNU Radio says of itself, or its ``error``."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def yml_folder() -> Path | None:
    """Where the block descriptions of this very package are: in the source tree, or where its installation put them."""
    if any((TREE / "grc").glob("massaccess_*.block.yml")):
        return TREE / "grc"
    try:
        files = metadata.files("massaccess") or []
    except metadata.PackageNotFoundError:
        files = []
    installed = [Path(str(file.locate())).resolve() for file in files if file.name.endswith(".block.yml")]
    beside = [parent / "share/gnuradio/grc/blocks" for parent in Path(__file__).resolve().parents]  # put there by CMake
    folders = [path.parent for path in installed] + [path for path in beside if any(path.glob("massaccess_*.block.yml"))]
    return folders[0] if folders else None


def companion_paths(from_preferences: list[str]) -> list[Path]:
    """Existing folders in which GNU Radio Companion looks, in its order: hierarchical blocks, GRC_BLOCKS_PATH, preferences."""
    home = os.environ.get("GRC_HIER_PATH", "~/.grc_gnuradio")
    joined = os.pathsep.join([home, os.environ.get("GRC_BLOCKS_PATH", ""), *from_preferences])
    paths = [Path(os.path.expandvars(path)).expanduser().resolve() for path in joined.split(os.pathsep) if path.strip()]
    return list(dict.fromkeys(path for path in paths if path.is_dir()))


CHECKS = (interpreter, libraries, device, banks, weights, gnuradio, companion, flowgraphs)
