"""More than a thousand overflows in one run of the on-air cell: which slots come through the synchronizer, and where."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from massaccess import SystemConfig
from massaccess.forward.air import Air
from massaccess.forward.impairments import Overflows
from massaccess.forward.simulate import BLOCK, Population
from massaccess.forward.waveform import matched
from massaccess.synchronisation import Synchronizer

HERE = Path(__file__).parent
SEED, SLOTS, CHANCE, LONGEST = 1, 6400, 0.22, 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = SystemConfig.from_toml(HERE.parent / "on_air" / "on_air.toml")
    config = base.replace(rows=2, columns=4, channel="rayleigh", snr_db=10.0)
    burst, size = config.burst, config.burst.slot_samples
    population, air = Population(config, SEED), Air(config, SEED)
    losses = Overflows(CHANCE, LONGEST, size, SEED)
    sync = Synchronizer(burst, config.antennas, sample_rate_hz=config.sample_rate_hz, epoch=(0, 0.0))
    frames, kept, first, heard = [], np.zeros(SLOTS * size, bool), 0, 0
    gaps = lost = 0
    for block in range(SLOTS // BLOCK):
        told = population.transmit(block)
        samples = air.push_frames(told.samples)
        for index, piece in losses.cut(samples, first):
            if index != heard:
                gaps, lost = gaps + 1, lost + index - heard
            heard = index + len(piece)
            kept[index:heard] = True
            whole, rest = divmod(index, int(config.sample_rate_hz))
            frames += sync.push(piece.numpy(), time=(whole, rest / config.sample_rate_hz))
        first += len(samples)
    frames += sync.flush()
    whole = {int(slot) for slot in np.flatnonzero(kept.reshape(SLOTS, size).all(1))}
    found = [frame.frame for frame in frames]
    misplaced = sum(not _is(air, torch.as_tensor(frame.rows), frame.frame, population, burst) for frame in frames)
    counted = {name: int(sync.counters[name]) for name in ("gaps", "lost_samples", "frames", "partial", "missing", "locks", "lock_lost")}
    result = {
        "config": config.to_dict(),
        "seed": SEED,
        "slots": SLOTS,
        "injected": {"gaps": gaps, "lost_samples": lost, "whole_slots": len(whole)},
        "counted": counted,
        "whole_slots_missed": len(whole - set(found)),
        "frames_twice": len(found) - len(set(found)),
        "frames_misplaced": misplaced,
        "accounted": counted["frames"] + counted["partial"] + counted["missing"],
    }
    (options.out / "gaps.json").write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name != "config"})


def _is(air: Air, rows: torch.Tensor, slot: int, population: Population, burst: object) -> bool:
    """Whether rows hold the pilots of the users that are active in ``slot``, rather than of a neighbour: least squares over each."""
    seen = matched(rows[None], burst)[0, : population.config.pilot_len]  # type: ignore[arg-type]
    left = []
    for other in (slot, slot - 1, slot + 1):
        if other < 0:
            continue
        active = population.transmit(other // BLOCK).active[other % BLOCK]
        book = population.pilots[:, active]
        fit = book @ torch.linalg.lstsq(book, seen).solution
        left.append(float((seen - fit).abs().square().sum()))
    return left[0] == min(left)


if __name__ == "__main__":
    main()
