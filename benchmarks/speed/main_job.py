"""Where the time of the classical receiver goes in the main job, in milliseconds a frame.

``python benchmarks/speed/main_job.py [--frames 640] [--threads 1]``; `jcedd.py` beside this file times the default receiver.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from massaccess import SystemConfig, __version__
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

BATCH = 32


@dataclass(frozen=True)
class Timed:
    """Adds up the seconds spent in a part."""

    part: Any
    seconds: list[float] = field(default_factory=list)

    def __call__(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = self.part(*args, **options)
        self.seconds.append(time.perf_counter() - began)
        return result


def main() -> None:
    """Times covariance+iterative-lmmse-ep, part by part, on the default system; `jcedd.py` times the default receiver."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=640)
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    receiver = create("covariance+iterative-lmmse-ep")
    coherent = receiver.coherent
    parts = {
        "simulation": Timed(Simulation(SystemConfig(), 1).frames),
        "activity detection": Timed(receiver.detector),
        "channel estimation": Timed(coherent.estimator),
        "data detection in the rounds": Timed(coherent.detector),
        "final data detection": Timed(coherent.final),
    }
    timed = replace(
        coherent,
        estimator=parts["channel estimation"],
        detector=parts["data detection in the rounds"],
        final=parts["final data detection"],
    )
    whole = Timed(replace(receiver, detector=parts["activity detection"], coherent=timed))
    rounds = []
    with torch.inference_mode():
        for start in range(-BATCH, chosen.frames, BATCH):
            _, obs = parts["simulation"](max(start, 0), BATCH)
            estimate = whole(obs)
            if start < 0:  # compilation
                for item in (*parts.values(), whole):
                    item.seconds.clear()
            else:
                rounds.append(float(estimate.info["rounds"].double().mean()))
    spent = {name: 1e3 * sum(item.seconds) / chosen.frames for name, item in parts.items()}
    spent["receiver, all"] = 1e3 * sum(whole.seconds) / chosen.frames
    inside = sum(value for name, value in spent.items() if name not in ("simulation", "receiver, all"))
    spent["receiver, the rest"] = spent["receiver, all"] - inside
    about = {"frames": chosen.frames, "threads": chosen.threads, "version": __version__, "machine": platform.machine()}
    print(json.dumps({**about, "rounds_per_frame": sum(rounds) / len(rounds), "milliseconds_per_frame": spent}, indent=2))


if __name__ == "__main__":
    main()
