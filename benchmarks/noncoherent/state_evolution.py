"""What state evolution predicts of AMP, beside what AMP does, in P3's cell and in one of ten times its size:
``python benchmarks/noncoherent/state_evolution.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from massaccess.activity.index_amp import IndexAmp
from massaccess.core import SystemConfig
from massaccess.evaluate.figures.definition import load
from massaccess.evaluate.metrics import Tally
from massaccess.evaluate.state_evolution import state_evolution
from massaccess.forward.simulate import Simulation
from massaccess.rng import generator

CELL = SystemConfig.from_dict(load("p3-fig7").system).replace(placement_seed=None)
SYMBOLS = (20, 30, 40, 60, 80, 100)
FRAMES = {1: 512, 10: 24}  # by how much larger than the paper's cell
BATCH = {1: 64, 10: 8}
SAMPLES = 20_000
SEED = 0


def main() -> None:
    """Writes state_evolution.json beside this file."""
    torch.set_num_threads(1)
    rows = [row(size, symbols, sections) for size in FRAMES for symbols in SYMBOLS for sections in (False, True)]
    result = {"config": CELL.to_dict(), "seed": SEED, "samples": SAMPLES, "results": rows}
    Path(__file__).with_name("state_evolution.json").write_text(json.dumps(result, indent=2) + "\n")


def row(size: int, symbols: int, sections: bool) -> dict[str, Any]:
    """One system: effective noise over thermal noise and symbol errors, predicted and measured (median over frames of the noise)."""
    config = CELL.replace(users=100 * size, pilot_len=symbols * size)
    told = state_evolution(config, sections=sections, samples=SAMPLES, generator=generator(SEED, "state evolution"))
    amp, tally, levels = IndexAmp(sections=sections), Tally(), []
    simulation = Simulation(config, SEED)
    for start in range(0, FRAMES[size], BATCH[size]):
        frame, obs = simulation.frames(start, BATCH[size])
        with torch.inference_mode():
            estimate = amp(obs)
        tally.add(config, frame, estimate)
        levels.append(estimate.info["effective_noise_var"].double())
    measured = tally.summary()
    made = {
        "users": config.users,
        "pilot_len": config.pilot_len,
        "denoiser": "sections" if sections else "rows",
        "frames": FRAMES[size],
        "predicted_level": float(told.levels[-1]) / config.noise_var,
        "measured_level": float(torch.cat(levels).median()) / config.noise_var,
        "predicted_ser_devices": told.ser,
        **{f"measured_{name}": measured[name] for name in ("ser_devices", "ser_devices_ci95", "ser_devices_errors")},
    }
    print(made, flush=True)
    return made


if __name__ == "__main__":
    main()
