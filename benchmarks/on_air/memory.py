"""Memory of every process of a virtual air over half an hour: sampled, and compared between the second and the last fifth."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
AIR = (
    "--users",
    "32",
    "--active-users",
    "4",
    "--antennas",
    "16",
    "--channel",
    "rayleigh",
    "--snr-db",
    "9",
    "--code",
    "conv",
    "--seed",
    "1",
)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def resident(pid: int) -> tuple[str, float] | None:
    """Command line and resident memory [MiB]."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return command, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MIB
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    result = options.out / "memory-air.json"
    command = [shutil.which("massaccess") or "massaccess", "air", *AIR, "--slots", "0", "--json", str(result)]
    air = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    began, seen = time.monotonic(), {}
    try:
        while time.monotonic() - began < 60 * options.minutes and air.poll() is None:
            for pid in family(air.pid):
                if (found := resident(pid)) is not None:
                    seen.setdefault(pid, {"command": found[0], "seconds": [], "mib": []})
                    seen[pid]["seconds"].append(round(time.monotonic() - began, 1))
                    seen[pid]["mib"].append(round(found[1], 2))
            time.sleep(10)
    finally:
        air.send_signal(signal.SIGTERM)  # SIGINT is ignored by whatever a script starts in the background
        code = air.wait(120)
    lines = list(seen.values())
    for line in lines:
        fifth = max(len(line["mib"]) // 5, 1)
        early, late = line["mib"][fifth : 2 * fifth] or line["mib"], line["mib"][-fifth:]
        line["growth_mib"] = round(sum(late) / len(late) - sum(early) / len(early), 2)
    counted = json.loads(result.read_text()) if result.exists() else None
    (options.out / "memory.json").write_text(
        json.dumps({"minutes": options.minutes, "exit": code, "air": counted, "processes": lines}, indent=1) + "\n"
    )
    result.unlink(missing_ok=True)
    for line in lines:
        print(f"{line['growth_mib']:+8.2f} MiB  {max(line['mib']):8.1f} MiB at most  {line['command'][:100]}")


if __name__ == "__main__":
    main()
