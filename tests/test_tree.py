"""The tree as a whole: what every file has, and what none may have."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = {"", ".c", ".cc", ".cff", ".cmake", ".grc", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".txt", ".yaml", ".yml"}
SKIP = {"build", "dist", "__pycache__"}
LARGE = 8 * 2**20

# Spelt in pieces, so that this file does not hold what it looks for.
LEFT_OVER = {
    "host of a package registry": re.compile(
        "|".join([r"pypi\." + "org", r"files\.python" + "hosted", r"download\.py" + "torch", r"registry\.npm" + "js"])
    ),
    "path of somebody's machine": re.compile(
        "|".join(["/" + r"home/\w+/", "/" + "root/", "/" + "work/", r"/" + r"tmp/\w+/", r"[A-Z]:\\" + "Users"])
    ),
    "unresolved merge": re.compile(r"^(<{7}|>{7}) ", re.MULTILINE),
    "debugger": re.compile(r"^\s*(breakpoint\(\)|import i?pdb\b)", re.MULTILINE),
}


def tree() -> list[Path]:
    """Every file that belongs to the project: what git knows or would add; without git, everything but build output."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0 and listing.stdout:
        return sorted({ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()})
    inside = [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*")) if path.is_file()]
    return [ROOT / path for path in inside if not any(part in SKIP or part[0] == "." for part in path.parts[:-1])]


FILES = tree()
SOURCES = [path for path in FILES if path.suffix == ".py"]


def show(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("what", LEFT_OVER)
def test_nothing_left_over(what: str) -> None:
    found = []
    for path in FILES:
        if path.suffix in TEXT and path.name != "LICENSE":
            text = path.read_text(encoding="utf-8")
            found += [f"{show(path)}:{text.count(chr(10), 0, hit.start()) + 1} {hit.group()!r}" for hit in LEFT_OVER[what].finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("host of a package registry", "https://download.py" + "torch.org/whl/cpu"),
        ("path of somebody's machine", "open('/" + "home/ada/x')"),
        ("unresolved merge", "<" * 7 + " HEAD"),
        ("debugger", "    break" + "point()"),
    ],
)
def test_left_over_is_recognised(what: str, text: str) -> None:
    assert LEFT_OVER[what].search(text)


def test_every_module_says_what_it_is() -> None:
    silent = [show(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_no_drawers() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py", "tools.py"}
    assert [show(path) for path in SOURCES if path.name in drawers] == []


def test_gnuradio_stays_a_namespace() -> None:
    assert not (ROOT / "python/gnuradio/__init__.py").exists(), "it would hide GNU Radio's own package"


def test_no_file_is_huge() -> None:
    assert [show(path) for path in FILES if path.stat().st_size > LARGE] == []


def test_version_is_said_once() -> None:
    import massaccess

    assert f"[{massaccess.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {massaccess.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert "activity error rate" in capsys.readouterr().out
