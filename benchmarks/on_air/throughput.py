"""Where the time goes from samples to payloads: CPU time of each stage, on one thread, for one slot of 16 of 128 users."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gnuradio.massaccess import fec_decoder

from massaccess import SystemConfig
from massaccess.forward.air import Air
from massaccess.forward.framing import Framing
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import BLOCK, Population, Simulation, observe
from massaccess.registry import create
from massaccess.rng import generator
from massaccess.synchronisation import Synchronizer

HERE = Path(__file__).parent
CELLS = ((64, "uma", 5.0), (32, "rayleigh", 3.75), (16, "rayleigh", 8.75))
BATCH = 32


class Clock:
    """CPU time by stage [s]."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        answer = work()
        self.spent[stage] = self.spent.get(stage, 0.0) + time.process_time() - began
        return answer


def cell(antennas: int, channel: str, snr_db: float, slots: int) -> dict[str, Any]:
    base = SystemConfig.from_toml(HERE / "on_air.toml")
    config = base.replace(rows=4 if antennas < 64 else 8, columns=antennas // (4 if antennas < 64 else 8), channel=channel, snr_db=snr_db)
    burst, clock = config.burst, Clock()
    population, air = Population(config, 1), Air(config, 1)
    sync = Synchronizer(burst, antennas, sample_rate_hz=config.sample_rate_hz, epoch=(0, 0.0))
    frames = []
    for block in range(-(-slots // BLOCK)):
        sent = clock("users", lambda block=block: population.transmit(block))
        samples = clock("air", lambda sent=sent: air.push_frames(sent.samples)).numpy()
        frames += clock("synchronizer", lambda samples=samples, block=block: sync.push(samples, time=(0, 0.0) if not block else None))
    frames += clock("synchronizer", lambda: sync.flush())
    simulation = Simulation(config, 1)
    receiver, detector = create("jcedd"), create("activity")
    framing, points = Framing(config.users, config.data_len * 2, config.code), constellation(config.modulation)
    decode = fec_decoder(config.code, framing.bits)
    known = {"noise_var": config.noise_var, "activity": config.activity_prior, "burst": burst}
    known |= {"timing_range": 0.55, "cfo_range": 1.1e-3, "array": (config.rows, config.columns)}
    known["channel_cov"] = simulation.propagation.model.covariance
    payloads = 0
    for first in range(0, len(frames), BATCH):
        rows = torch.stack([torch.as_tensor(frame.rows) for frame in frames[first : first + BATCH]])
        seen = observe(rows, population.pilots, **known)
        if not first:
            receiver(seen.only(torch.arange(2)), generator=generator(0, "warm"))
        with torch.inference_mode():
            clock("of it: activity", lambda seen=seen: detector(seen))
            found = clock("receiver", lambda seen=seen: receiver(seen, generator=generator(0, "r")))
            users = found.active.nonzero()[:, 1]
            llrs = points.llr(found.symbols.mT[found.active], found.symbol_var.mT[found.active])
            soft = framing.soft(llrs, users)
            info = clock("decoder", lambda soft=soft, users=users: decode(soft, framing.holds))
        payloads += int(framing.holds(torch.as_tensor(info)).sum())
    per_slot = {stage: round(1e3 * spent / len(frames), 3) for stage, spent in clock.spent.items()}
    return {"antennas": antennas, "channel": channel, "snr_db": snr_db, "slots": len(frames), "payloads": payloads, "ms_per_slot": per_slot}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--slots", type=int, default=192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = [cell(*each, options.slots) for each in CELLS]
    (options.out / "throughput.json").write_text(json.dumps({"threads": 1, "cells": cells}, indent=1) + "\n")
    for each in cells:
        print(each)


if __name__ == "__main__":
    main()
