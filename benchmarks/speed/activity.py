"""Milliseconds a frame of the activity detectors, over batch size and pilot length, beside AMP and OMP in the same process.

``python benchmarks/speed/activity.py [--detectors A,B] [--pilots 10,14,18,22,28] [--batches 1,32,128] [--threads 1] [--device auto]
[--repetitions 5] [--channel uma] [--json FILE]``. Every repetition hands each detector the same new frames, one detector after the other,
so that a machine that slows down slows down all; medians of the repetitions (of 16 or more for single frames, whose costs differ), and
their quartiles. On the CPU and, where there is one, on CUDA.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from massaccess import SystemConfig, __version__
from massaccess.forward.simulate import Simulation
from massaccess.registry import RECEIVERS, create
from massaccess.rng import generator

AMP, OMP = "mmv-amp", "somp"
LEAST_FRAMES = 16


def measure(names: list[str], config: SystemConfig, device: str, batch: int, repetitions: int) -> list[dict[str, Any]]:
    """A row for each detector, at one pilot length and batch size."""
    detectors = {name: create(name) for name in names}
    rounds = max(repetitions, -(-LEAST_FRAMES // batch))
    simulation = Simulation(config, 1)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        obs = simulation.frames(number * batch, batch)[1].to(device)
        for name, detector in detectors.items():
            seconds[name].append(timed(detector, obs, device))
    seconds = {name: values[1:] for name, values in seconds.items()}  # the first call compiles
    medians = {name: 1e3 * statistics.median(values) / batch for name, values in seconds.items()}
    about = {"device": label(device), "batch": batch, "pilots": config.pilot_len, "channel": config.channel, "rounds": rounds}
    return [
        {
            "detector": name,
            **about,
            "ms_per_frame": medians[name],
            "ms_quartiles": [1e3 * value / batch for value in statistics.quantiles(seconds[name], n=4)[::2]],
            "to_amp": medians[name] / medians[AMP] if AMP in medians else None,
            "to_omp": medians[name] / medians[OMP] if OMP in medians else None,
        }
        for name in names
    ]


def timed(detector: Any, obs: Any, device: str) -> float:
    """Seconds of one call."""
    draw = generator(0, "speed", device=torch.device(device))
    wait(device)
    began = time.perf_counter()
    detector(obs, generator=draw)
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def label(device: str) -> str:
    """The device in words."""
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    """Prints the results as JSON, or writes them."""
    everybody = [name for name, entry in RECEIVERS.items() if entry.kind == "activity" and name != "score-jadce"]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--detectors", default=",".join(everybody))
    options.add_argument("--pilots", type=numbers, default=[10, 14, 18, 22, 28])
    options.add_argument("--batches", type=numbers, default=[1, 32, 128])
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options.add_argument("--channel", default="uma")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    devices = (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]) if chosen.device == "auto" else [chosen.device]
    rows = []
    with torch.inference_mode():
        for device in devices:
            for length in chosen.pilots:
                config = SystemConfig(pilot_len=length, data_len=0, snr_db=10.0, channel=chosen.channel)
                for batch in chosen.batches:
                    rows += measure(chosen.detectors.split(","), config, device, batch, chosen.repetitions)
    about = {
        "repetitions": chosen.repetitions,
        "seed": 1,
        "version": __version__,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    text = json.dumps({**about, "latency": rows}, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
