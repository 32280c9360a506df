#!/usr/bin/env bash
# Sets up everything for `make run` and `make test` on Debian 12 or Ubuntu 24.04: system packages, then .venv.
# Does nothing when nothing changed. Variables: PYTHON (GNU Radio's Python), PIP_* (pip's own settings, for instance an index).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-/usr/bin/python3} # never the python3 on PATH: that one may not see GNU Radio
VENV=.venv
PACKAGES=(gnuradio gnuradio-dev cmake g++ python3-venv xvfb xauth gir1.2-gtk-3.0)

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
say() { printf 'setup: %s\n' "$*"; }

fingerprint() { { pwd; echo "$PYTHON"; cat pyproject.toml constraints.txt tools/setup.sh; } | sha256sum; }
up_to_date() { [ -x "$VENV/bin/massaccess" ] && [ "$(cat "$VENV/.setup" 2>/dev/null)" = "$(fingerprint)" ]; }

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

install_packages() {
    command -v dpkg-query >/dev/null || { say "no apt here: taking GNU Radio, CMake and a compiler for installed"; return; }
    local missing sudo=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "apt-get is missing: install ${missing[*]} with your package manager"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "needs root to install ${missing[*]} and there is no sudo: run 'apt-get install ${missing[*]}' as root, then this again"
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -q || die "apt-get update failed: check the network and the apt sources"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" ||
        die "apt-get could not install ${missing[*]}: the lines above say why"
}

check_python() {
    [ -x "$PYTHON" ] || die "no Python at $PYTHON: set PYTHON to the interpreter that GNU Radio was built for"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is $("$PYTHON" -V 2>&1) and 3.11 or newer is needed: use Debian 12, Ubuntu 24.04 or newer"
    "$PYTHON" -c 'from gnuradio import gr' 2>/dev/null ||
        die "$PYTHON cannot import gnuradio: install the distribution's gnuradio package, or set PYTHON to the interpreter that can"
}

make_venv() {
    "$VENV/bin/python" -c 'from gnuradio import gr' 2>/dev/null && return
    say "making $VENV on $PYTHON"
    "$PYTHON" -m venv --clear --system-site-packages "$VENV" || die "cannot make $VENV: is python3-venv installed, and the folder writable?"
}

# GNU Radio is compiled against one NumPy: pip must leave it, and the SciPy that goes with it, as the distribution has them.
pin_system_arrays() {
    "$PYTHON" - <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version
for name in ("numpy", "scipy"):
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
PYTHON
}

install_python_packages() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --no-input)
    pin_system_arrays >"$VENV/system-constraints.txt"
    say "installing Python packages (a few minutes the first time; PyTorch is the large one)"
    "${pip[@]}" install -q 'setuptools>=77' 'packaging>=24.2' wheel &&
        "${pip[@]}" install -q --no-build-isolation -c constraints.txt -c "$VENV/system-constraints.txt" -e '.[dev,compare]' ||
        die "pip failed: check the network, or point PIP_INDEX_URL or PIP_FIND_LINKS at a mirror"
    "$VENV/bin/python" -c 'import numpy, torch; from gnuradio import gr' || die "$VENV does not work: remove it and run this again"
}

up_to_date && exit 0
install_packages
check_python
make_venv
install_python_packages
fingerprint >"$VENV/.setup"
say "ready"
