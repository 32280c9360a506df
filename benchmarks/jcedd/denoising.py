"""Denoising in white noise on the test half of the shipped bank, and on channels of another city: every channel prior that ships."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

from massaccess import __version__, weights
from massaccess.core import Observation, SystemConfig
from massaccess.forward.channels import make_channel
from massaccess.rng import complex_normal, generator

SNR_DB = (0, 5, 10, 15, 20)


def main() -> None:
    """Writes the NMSE of each prior at each SNR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    believed = make_channel(SystemConfig(channel="uma")).covariance
    names = ["gaussian", *(name for name in weights.available() if weights.load(name).header.kind == "channel")]
    results = []
    with torch.inference_mode():
        for channel in ("uma", "florence"):
            rows = make_channel(SystemConfig(channel=channel)).rows
            empty = torch.zeros(1, 1, rows.shape[1], dtype=rows.dtype)
            obs = Observation(empty, empty[:, :0], torch.ones(1, 1, dtype=rows.dtype), 1.0, activity=1.0, channel_cov=believed)
            for name in names:
                prior = weights.choose(name, obs)
                for snr_db in SNR_DB:
                    results.append({"prior": name, "channel": channel, **denoise(prior, rows, snr_db, arguments.seed)})
                    print(results[-1], flush=True)
    document = {"version": __version__, "seed": arguments.seed, "threads": torch.get_num_threads(), "denoising": results}
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def denoise(prior: object, rows: torch.Tensor, snr_db: float, seed: int) -> dict[str, float]:
    """NMSE with its 95 % interval (over channels), predicted over measured error, and the time of a row in batches of 384."""
    sigma = torch.tensor(10 ** (-snr_db / 20))
    noisy = rows + sigma * complex_normal(*rows.shape, generator=generator(seed, "denoise", snr_db))
    began = time.perf_counter()
    parts = [prior.moments(part, sigma.expand(len(part))) for part in noisy.split(384)]  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    miss = (torch.cat([mean for mean, _ in parts]) - rows).abs().square().sum(1)
    power = rows.abs().square().sum(1).mean()
    ratio, spread = float(miss.mean() / power), float(miss.std() / math.sqrt(len(miss)) / power)
    return {
        "snr_db": snr_db,
        "channels": len(rows),
        "nmse_db": 10 * math.log10(ratio),
        "nmse_db_ci95": [10 * math.log10(ratio + side * 1.96 * spread) for side in (-1, 1)],
        "error_ratio": float(torch.cat([var for _, var in parts]).mean() * rows.shape[1] / miss.mean()),
        "ms_per_row": 1e3 * seconds / len(rows),
    }


if __name__ == "__main__":
    main()
