"""What uncalibrated chains cost: ``python benchmarks/calibration/link.py --json FILE``.

The default system; its 64 chains have random phases and gains, another array every sixteen frames. Calibrated: from one capture of a
splitter's tone, or from one preamble, at 20 dB.
"""

import argparse
import json
from dataclasses import replace

import numpy as np
import torch
from arrays import CFO, TONE, chains, known_waveform, seeded, tone, with_preamble

from massaccess import SystemConfig, __version__
from massaccess.calibration import broadband_response, correction_of, tone_response
from massaccess.evaluate.metrics import Tally
from massaccess.forward.simulate import Simulation
from massaccess.registry import create
from massaccess.rng import generator

CASES = ("ideal", "uncalibrated", "tone", "preamble")


def factor_of(case, draw):
    """What chains and their correction do to the antennas, [M]."""
    gain = chains(1, 64, draw)
    if case == "ideal":
        return torch.ones(64, dtype=torch.complex64)
    if case == "uncalibrated":
        return gain[0]
    if case == "tone":
        found = tone_response(tone(gain, 1024, 20.0, draw), frequency=TONE)
    else:
        found = broadband_response(with_preamble(gain, 20.0, draw)[0], known_waveform(), max_frequency=2 * CFO)
    return gain[0] * torch.from_numpy(correction_of(found.gain[0].numpy().astype(np.complex128)).factor)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=208)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    rows = []
    for snr_db in (5.0, 10.0):
        config = SystemConfig(snr_db=snr_db)
        simulation = Simulation(config, chosen.seed)
        for weights in ("auto", "gaussian"):
            for case in CASES:
                receiver, tally = create("jcedd", weights=weights), Tally()
                for start in range(0, chosen.frames, 16):
                    frame, obs = simulation.frames(start, 16)
                    factor = factor_of(case, seeded(chosen.seed, "link", start))
                    factor = factor / factor.abs().square().mean().sqrt()
                    seen = replace(obs, pilot_rx=obs.pilot_rx * factor, data_rx=obs.data_rx * factor)
                    with torch.inference_mode():
                        found = receiver(seen, generator=generator(chosen.seed, "receiver", start))
                    tally.add(config, replace(frame, channel=frame.channel * factor), found)
                rates = tally.summary()
                rows.append({"snr_db": snr_db, "case": case, "prior": weights, **rates})
                told = " ".join(f"{name} {rates[name]:.3g}" for name in ("aep", "nmse_db", "ser", "fer"))
                print(f"{snr_db:4g} dB {case:14}{weights:10}{told}", flush=True)
    if chosen.json:
        with open(chosen.json, "w") as stream:
            json.dump({"version": __version__, "frames": chosen.frames, "seed": chosen.seed, "results": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
