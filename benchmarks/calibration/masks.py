"""What a receiver should be told of antennas that do not work: ``python benchmarks/calibration/masks.py --json FILE``.

The default system on an 8x8 array; in every frame, other antennas are dead. The bar is an array that lost them: the Gaussian prior of the
antennas that are left, its covariance cut, which needs no filling, and the same prior with each filling.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch

from massaccess import SystemConfig, __version__
from massaccess.evaluate.metrics import Tally
from massaccess.forward.simulate import Simulation
from massaccess.registry import create
from massaccess.rng import complex_normal, generator

FILLS = ("noise", "zero", "neighbours", "neighbours and noise")


def interpolation(cov, alive, noise):
    """What the dead antennas most likely receive, given those that are alive: [dead alive], for white signals of unit power."""
    inside = cov[alive][:, alive] + noise * torch.eye(int(alive.sum()))
    return torch.linalg.solve(inside, cov[alive][:, ~alive]).mH


def filled(obs, alive, fill, cov, users, draw):
    """``obs`` of one set of antennas, those that are not ``alive`` [M] filled in."""
    parts = []
    for rx in (obs.pilot_rx, obs.data_rx):
        rx = rx.clone()
        noise = complex_normal(*rx[..., ~alive].shape, generator=draw) * obs.noise_var**0.5
        if fill == "noise":
            rx[..., ~alive] = noise
        elif fill == "zero":
            rx[..., ~alive] = 0
        else:
            weights = interpolation(cov, alive, obs.noise_var / users)
            rx[..., ~alive] = rx[..., alive] @ weights.mT + (noise if "noise" in fill else 0)
        parts.append(rx)
    return replace(obs, pilot_rx=parts[0], data_rx=parts[1])


def lost(obs, alive):
    """``obs`` of the antennas that are left."""
    cov = obs.channel_cov[alive][:, alive]
    return replace(obs, pilot_rx=obs.pilot_rx[..., alive], data_rx=obs.data_rx[..., alive], channel_cov=cov, array=None)


def case(config, dead, fill, weights, frames, seed):
    """Error rates over frames, each sixteenth of which has its own dead antennas; channel errors are counted on antennas that are alive."""
    simulation, tally = Simulation(config, seed), Tally()
    for start in range(0, frames, 16):
        frame, obs = simulation.frames(start, 16)
        alive = torch.ones(config.antennas, dtype=torch.bool)
        alive[torch.randperm(config.antennas, generator=generator(seed, "dead", start))[:dead]] = False
        draw = generator(seed, "fill", start)
        if fill == "lost":
            seen = lost(obs, alive)
        else:
            seen = filled(obs, alive, fill, obs.channel_cov, config.users * config.activity, draw) if dead else obs
        receiver = create("jcedd", **({"weights": weights} if weights else {}))
        with torch.inference_mode():
            found = receiver(seen, generator=generator(seed, "receiver", start))
        channel = found.channel if fill == "lost" else found.channel[..., alive]
        tally.add(config, replace(frame, channel=frame.channel[..., alive]), replace(found, channel=channel))
    return tally.summary()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=208)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snr-db", default="5,10")
    parser.add_argument("--dead", default="0,1,4,8")
    parser.add_argument("--json")
    chosen = parser.parse_args()
    rows = []
    for snr_db in map(float, chosen.snr_db.split(",")):
        config = SystemConfig(snr_db=snr_db)
        for dead in map(int, chosen.dead.split(",")):
            cases = [(fill, weights) for weights in ("", "gaussian") for fill in FILLS] + [("lost", "gaussian")]
            for fill, weights in cases if dead else [("none", ""), ("none", "gaussian")]:
                rates = case(config, dead, fill, weights, chosen.frames, chosen.seed)
                row = {"snr_db": snr_db, "dead": dead, "fill": fill, "prior": weights or "learned", **rates}
                rows.append(row)
                told = " ".join(f"{name} {rates[name]:.3g}" for name in ("aep", "nmse_db", "ser", "fer"))
                print(f"{snr_db:4g} dB {dead} {fill:22}{row['prior']:10}{told}", flush=True)
    if chosen.json:
        with open(chosen.json, "w") as stream:
            json.dump({"version": __version__, "frames": chosen.frames, "seed": chosen.seed, "results": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
