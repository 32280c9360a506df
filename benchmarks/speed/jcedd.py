"""Frames per second of the receivers with a trained prior, and where their time goes.

``python benchmarks/speed/jcedd.py [--frames 640] [--batch 32] [--threads 2] [--device auto] [--weights auto] [--json FILE]`` times
``learned-ep`` (12 users, all known to be active) and ``jcedd`` (128 users, a tenth of them awake), on the CPU and, where there is one, on
CUDA; milliseconds a frame of each stage. Stages are waited for one by one, so on CUDA they add up to more than the whole.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from massaccess import Observation, SystemConfig, __version__
from massaccess.forward.simulate import Simulation
from massaccess.receivers import jcedd
from massaccess.registry import create
from massaccess.weights.fit import fit

CASES = {
    "learned-ep": SystemConfig(users=12, active_users=12, pilot_len=15, data_len=50, snr_db=10.0),
    "jcedd": SystemConfig(snr_db=10.0),
}


@dataclass(frozen=True)
class Timed:
    """Adds up the seconds spent in a part, on the device as well."""

    part: Callable[..., Any]
    cuda: bool
    seconds: list[float] = field(default_factory=list)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._wait()
        began = time.perf_counter()
        result = self.part(*args, **options)
        self._wait()
        self.seconds.append(time.perf_counter() - began)
        return result

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def stages(receiver: Any, cuda: bool) -> tuple[Any, dict[str, Timed], Any]:
    """The receiver with its parts timed, these parts, and a context in which they are."""
    coherent = getattr(receiver, "coherent", receiver)
    parts = {
        "data detection in the rounds": Timed(coherent.detector, cuda),
        "final data detection": Timed(coherent.final, cuda),
        "linear channel estimation": Timed(jcedd.combine, cuda),
        "prior": Timed(lambda prior, *given: prior.in_beams(*given), cuda),
    }
    timed = replace(coherent, detector=parts["data detection in the rounds"], final=parts["final data detection"])
    if coherent is not receiver:
        parts["activity detection"] = Timed(receiver.detector, cuda)
        timed = replace(receiver, detector=parts["activity detection"], coherent=timed)
    return timed, parts, inside(parts)


def inside(parts: dict[str, Timed]) -> Any:
    """Times what the receiver looks up by itself: the linear estimation, and the prior that it chooses."""
    choose = jcedd.choose

    class Prior:
        def __init__(self, prior: Any) -> None:
            self.prior, self.beams = prior, prior.beams

        def in_beams(self, *given: Any) -> Any:
            return parts["prior"](self.prior, *given)

    def chosen(name: str, obs: Observation) -> Any:
        prior = choose(name, obs)
        return prior if isinstance(prior, jcedd.Gaussian) else Prior(prior)

    return mock.patch.multiple(jcedd, combine=parts["linear channel estimation"], choose=chosen)


def measure(name: str, config: SystemConfig, device: str, *, frames: int, batch: int, weights: str) -> dict[str, Any]:
    """Frames per second, then the stages, on the same frames."""
    cuda, simulation = device == "cuda", Simulation(config, 1)
    observations = [simulation.frames(start, min(batch, frames - start))[1].to(device) for start in range(0, frames, batch)]
    receiver = create(name, weights=weights)
    whole = Timed(receiver, cuda)
    receiver(observations[0])  # compilation
    evaluations = [whole(obs).info["nfe"] * obs.frames for obs in observations]
    timed, parts, context = stages(receiver, cuda)
    with context:
        for obs in observations:
            timed(obs)
    seconds = sum(whole.seconds)
    spent = {stage: 1e3 * sum(item.seconds) / frames for stage, item in parts.items()}
    found = fit(weights, rows=config.rows, columns=config.columns, covariance=simulation.propagation.model.covariance)
    return {
        "receiver": name,
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        "weights": found.weights,
        "weights_hash": found.digits,
        "config": config.to_dict(),
        "frames_per_second": frames / seconds,
        "evaluations_per_frame": sum(evaluations) / frames,
        "milliseconds_per_frame": {"all": 1e3 * seconds / frames, **spent},
    }


def main() -> None:
    """Prints the results as JSON, or writes them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--frames", type=int, default=640)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options.add_argument("--weights", default="auto")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    devices = (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]) if chosen.device == "auto" else [chosen.device]
    known = {"frames": chosen.frames, "batch": chosen.batch, "weights": chosen.weights}
    with torch.inference_mode():
        results = [measure(name, config, device, **known) for device in devices for name, config in CASES.items()]
    about = {"frames": chosen.frames, "batch": chosen.batch, "version": __version__, "machine": platform.machine()}
    text = json.dumps({**about, "torch": torch.__version__, "results": results}, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
