"""Imports point one way. The order stands in `LAYERS`; a checker reads the sources, and planted violations show that it sees them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PYTHON = Path(__file__).resolve().parent.parent / "python"

# Lowest first. A module may import from layers below its own; parts of one layer do not know one another, except at the bottom.
LAYERS = (
    {"burst", "core", "errors", "lanes", "parallel", "rng"},
    {"forward"},
    {"networks"},
    {"likelihoods", "priors"},
    {"samplers"},
    {"weights"},
    {"activity", "calibration", "detection", "estimation", "synchronisation"},
    {"receivers"},
    {"registry"},
    {"evaluate", "link", "train"},
    {"cli", "__main__"},
)
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
BLOCKS_MAY_USE = {
    "",
    "burst",
    "core",
    "errors",
    "parallel",
    "rng",
    "forward",
    "registry",
    "weights",
    "link",
    "calibration",
    "synchronisation",
}
BLOCKS_MAY_USE |= {"priors.gain_memory", "evaluate.metrics"}  # modules, of layers that they may not use
USES_GNURADIO = {
    "massaccess.cli.run",
    "massaccess.cli.receive",
    "massaccess.cli.doctor",
    "massaccess.cli.calibrate",
}  # inside functions only
RADIO = {"gnuradio", "pmt"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute dotted target and whether it is at module level, for every import statement and constant `import_module`."""
    tree = ast.parse(path.read_text(), str(path))
    lazy = {inner for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) for inner in ast.walk(outer)}
    package = module_name(path, root).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree):
        for target in targets(node, package):
            yield node.lineno, target, node not in lazy  # type: ignore[attr-defined]


def targets(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        base = [*base, *([node.module] if node.module else [])]
        return [".".join([*base, alias.name]) for alias in node.names]
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module" and node.args:
        name = node.args[0]
        return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith(".") else []
    return []


def part(dotted: str) -> str:
    """`massaccess.forward.channels` -> `forward`; names of the package itself (`massaccess.__version__`) -> the empty string."""
    first = dotted.split(".")[1] if "." in dotted else ""
    return first if first in RANK else ""


def violation(importer: str, target: str, at_module_level: bool) -> str | None:
    top, own = target.split(".")[0], part(importer)
    if importer.startswith("gnuradio."):
        inside = target.removeprefix("massaccess").removeprefix(".")
        allowed = (
            top != "massaccess"
            or not part(target)
            or any(inside == name or inside.startswith(f"{name}.") for name in BLOCKS_MAY_USE if name)
        )
        return None if allowed else "the blocks use registry, weights, link, forward, priors.gain_memory and evaluate.metrics only"
    if top in RADIO:
        if importer not in USES_GNURADIO:
            return "the library never imports GNU Radio"
        return "import GNU Radio inside the function that needs it" if at_module_level else None
    if top != "massaccess" or part(target) == own or not part(target):
        return None
    if own == "":
        return None if RANK[part(target)] == 0 else "the package itself knows only the bottom layer"
    if RANK[part(target)] > RANK[own]:
        return f"{own} is below {part(target)}"
    if RANK[part(target)] == RANK[own] != 0 and own != "__main__":
        return f"{own} and {part(target)} are siblings: pass the part in as an argument"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        importer = module_name(path, root)
        if importer.split(".")[0] == "massaccess" and len(importer.split(".")) > 1 and not part(importer) and path.name != "__main__.py":
            found.append(f"{importer}: has no layer; give it one in LAYERS")
        for line, target, at_module_level in imports(path, root):
            if reason := violation(importer, target, at_module_level):
                found.append(f"{importer}:{line} imports {target}: {reason}")
    return found


def test_imports_point_one_way() -> None:
    assert violations(PYTHON) == []


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("massaccess/forward/air.py", "from ..receivers import genie", "forward is below receivers"),
        ("massaccess/forward/air.py", "def f():\n    from massaccess.cli.run import command", "forward is below cli"),
        ("massaccess/activity/omp.py", "from ..detection.zf import ZeroForcing", "siblings"),
        ("massaccess/link/wire.py", "import massaccess.evaluate.metrics", "siblings"),
        ("massaccess/evaluate/sweep.py", "from gnuradio import gr", "never imports GNU Radio"),
        ("massaccess/evaluate/sweep.py", "import importlib\nimportlib.import_module('gnuradio.gr')", "never imports GNU Radio"),
        ("massaccess/cli/evaluate.py", "def f():\n    import pmt", "never imports GNU Radio"),
        ("massaccess/cli/run.py", "from gnuradio import gr", "inside the function"),
        ("massaccess/__init__.py", "from .receivers import genie", "bottom layer"),
        ("massaccess/helpers.py", "", "no layer"),
        ("gnuradio/massaccess/receiver.py", "from massaccess.receivers.genie import PerfectCsi", "the blocks use"),
        ("gnuradio/massaccess/receiver.py", "from massaccess.evaluate import sweep", "the blocks use"),
        ("gnuradio/massaccess/receiver.py", "from massaccess import receivers", "the blocks use"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, name: str, source: str, reason: str) -> None:
    plant(tmp_path, name, source)
    assert len(violations(tmp_path)) == 1
    assert reason in violations(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("massaccess/core.py", "from .errors import ConfigError"),
        ("massaccess/receivers/two_stage.py", "from ..activity import omp\nfrom ..core import Estimate\nfrom .. import __version__"),
        ("massaccess/forward/simulate.py", "from .channels import make_channel"),
        ("massaccess/cli/run.py", "def f():\n    from gnuradio import gr"),
        (
            "gnuradio/massaccess/metrics.py",
            "from gnuradio import gr\nfrom massaccess import SystemConfig\nfrom massaccess.evaluate.metrics import score",
        ),
        (
            "gnuradio/massaccess/source.py",
            "from massaccess.forward.simulate import Simulation\nfrom massaccess import forward, registry\nfrom ._base import Block",
        ),
    ],
)
def test_proper_import_passes(tmp_path: Path, name: str, source: str) -> None:
    plant(tmp_path, name, source)
    assert violations(tmp_path) == []


def plant(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(source)
