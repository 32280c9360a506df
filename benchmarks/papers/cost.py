"""Time of learned-ep against P1's Algorithm 2 at all 1500 steps, same network, frames and batch: ``python benchmarks/papers/cost.py``."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from massaccess.core import Frame, Observation, SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.registry import create
from massaccess.rng import generator

CONFIG = SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=10.0, channel="uma")
FRAMES = 16
RUNS = {"learned-ep": 15, "iterative-lmmse-ep": 15, "pc-jcedd": 1}


def main() -> None:
    """Writes cost.json beside this file."""
    torch.set_num_threads(1)
    frame, obs = Simulation(CONFIG, 0).frames(0, FRAMES)
    rows = {name: measure(name, runs, frame, obs) for name, runs in RUNS.items()}
    ratio = rows["pc-jcedd"]["seconds_per_frame"] / rows["learned-ep"]["seconds_per_frame"]
    result = {"config": CONFIG.to_dict(), "frames": FRAMES, "batch": FRAMES, "threads": 1, "seed": 0, "results": rows, "ratio": ratio}
    Path(__file__).with_name("cost.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(rows, indent=2), f"\nAlgorithm 2 over learned-ep: {ratio:.0f}")


def measure(name: str, runs: int, frame: Frame, obs: Observation) -> dict[str, Any]:
    """Median time of ``runs`` calls, processor time and wall clock alike; a call before them warms up."""
    receiver = create(name)
    with torch.inference_mode():
        if runs > 1:
            receiver(obs, generator=generator(0, name))
        spent = []
        for _ in range(runs):
            started, ran = time.perf_counter(), time.process_time()
            estimate = receiver(obs, generator=generator(0, name))
            spent.append((time.process_time() - ran, time.perf_counter() - started))
    error = (estimate.channel - frame.channel).abs().square().sum() / frame.channel.abs().square().sum()
    cpu, wall = (statistics.median(column) / FRAMES for column in zip(*spent, strict=True))
    nfe = estimate.info.get("nfe")
    return {"seconds_per_frame": cpu, "wall_seconds_per_frame": wall, "runs": runs, "nfe": nfe, "nmse_db": 10 * float(error.log10())}


if __name__ == "__main__":
    main()
