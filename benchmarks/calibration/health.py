"""How often health is right: ``python benchmarks/calibration/health.py --json FILE``.

Random arrays of 64 antennas, each with one fault of every kind in turn, or none. Looks of 4096 samples: traffic of 16 users on the shipped
urban channels, or the splitter's tone and a stored calibration, at 20 and at 0 dB per sample. Counted: the faulty antenna gets its verdict
(detected), or any but ok (masked); other antennas are not ok (false alarms, per antenna).
"""

import argparse
import json
import math
from collections import Counter

import numpy as np
import torch
from arrays import TONE, chains, seeded, tone

from massaccess import SystemConfig, __version__
from massaccess.calibration import examine, tone_response
from massaccess.forward.channels import make_channel
from massaccess.rng import complex_normal

ANTENNAS, LENGTH, LEVEL, USERS = 64, 4096, 0.1, 16
FAULTS = {"traffic": ("none", "dead", "saturated", "noisy"), "tone": ("none", "dead", "saturated", "noisy", "drifting", "swapped")}


def traffic(model, gain, snr_db, draw):
    """Samples [T M] of users who send noise-like signals, behind the chains ``gain`` [M]; their power together is 1."""
    channel = model.draw(1, USERS, generator=draw)[0][0]
    sent = complex_normal(LENGTH, USERS, generator=draw) / math.sqrt(USERS)
    return (sent @ channel) * gain + 10 ** (-snr_db / 20) * complex_normal(LENGTH, ANTENNAS, generator=draw)


def broken(samples, fault, snr_db, draw):
    """Faults of antenna 0 (and 1, for a swap) that live in its samples: 10 dB more noise, its cable off, 30 dB too much gain."""
    spread = 10 ** (-snr_db / 20)
    noise = spread * complex_normal(LENGTH, generator=draw)
    samples = samples * LEVEL
    if fault == "dead":
        samples[:, 0] = LEVEL * noise
    if fault == "noisy":
        samples[:, 0] += 3 * LEVEL * noise
    if fault == "saturated":
        samples[:, 0] *= 10**1.5
    return torch.complex(samples.real.clamp(-1, 1), samples.imag.clamp(-1, 1))


def look(kind, fault, snr_db, model, draw):
    gain = chains(1, ANTENNAS, draw)
    stored, now = gain[0].numpy().astype(np.complex128), gain.clone()
    if fault == "drifting":
        turn = math.radians(float(20 + 140 * torch.rand((), generator=draw))) * (1 if torch.rand((), generator=draw) < 0.5 else -1)
        now[0, 0] *= complex(math.cos(turn), math.sin(turn))
    if fault == "swapped":
        now[0, :2] = gain[0, :2].flip(0)
    samples = traffic(model, now[0], snr_db, draw) if kind == "traffic" else tone(now, LENGTH, snr_db, draw)[0]
    samples = broken(samples, fault, snr_db, draw)
    if kind == "traffic":
        return examine(samples), stored
    return examine(samples, response=tone_response(samples[None], frequency=TONE), stored=stored), stored


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrays", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    model, rows = make_channel(SystemConfig()), []
    for kind, faults in FAULTS.items():
        for snr_db in (20.0, 0.0):
            for fault in faults:
                draw, found, alarms = seeded(chosen.seed, kind, round(snr_db), fault), Counter(), Counter()
                guilty = 0 if fault == "none" else 2 if fault == "swapped" else 1
                for _ in range(chosen.arrays):
                    verdicts = look(kind, fault, snr_db, model, draw)[0].verdicts
                    found.update(verdicts[:guilty])
                    alarms.update(verdict for verdict in verdicts[guilty:] if verdict != "ok")
                looks, others = chosen.arrays * guilty, chosen.arrays * (ANTENNAS - guilty)
                row = {"signal": kind, "snr_db": snr_db, "fault": fault, "arrays": chosen.arrays, "verdicts": dict(found)}
                row |= {"detected": found[fault] / looks if looks else None, "masked": 1 - found["ok"] / looks if looks else None}
                row |= {"false_alarms": dict(alarms), "false_alarm_rate": sum(alarms.values()) / others, "antennas": others}
                rows.append(row)
                print(row, flush=True)
    if chosen.json:
        with open(chosen.json, "w") as stream:
            json.dump({"version": __version__, "seed": chosen.seed, "results": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
