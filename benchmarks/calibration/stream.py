"""The same through GNU Radio, from users' bursts to packets: ``python benchmarks/calibration/stream.py --json FILE``.

128 users in a simulated air, 8x8 antennas whose chains have random phases, corrector, synchronizer, receiver: with and without a
calibration (whose phases are off by 0.6 degrees rms, as one preamble at 20 dB leaves them), and with eight antennas masked.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from gnuradio import gr, massaccess

from massaccess import SystemConfig, __version__
from massaccess.calibration import Book, Entry
from massaccess.forward.air import Air

SIZES = {"pilot_len": 32, "data_len": 96}
BURST = {**SIZES, "preamble_len": 16, "guard_len": 8, "samples_per_symbol": 4}
OFFSETS = {"timing_offset": 0.5, "cfo_hz": 100.0, "common_cfo_hz": 1000.0, "chain_phase_deg": 104.0}
ARRAY = {"rows": 8, "columns": 8}
ERROR_DEG = 0.6
CASES = ("uncalibrated", "calibrated", "calibrated, 8 masked: zeros", "calibrated, 8 masked: neighbours")


def book(snr_db, seed):
    """A calibration of the simulated chains, with the errors of a measurement."""
    config = SystemConfig(users=128, activity=0.125, snr_db=snr_db, sample_rate_hz=1e6, **ARRAY, **BURST, **OFFSETS)
    turn = np.exp(1j * np.deg2rad(ERROR_DEG) * np.random.default_rng(seed).standard_normal(64))
    gain, now = Air(config, seed).chains.gain.numpy() * turn, datetime.now(UTC).isoformat(timespec="seconds")
    setting, quality = ("array", 3.5e9, 1e6, 0.0), (now, "preamble", 20.0, ERROR_DEG, ERROR_DEG)
    name, *numbers = setting
    return Book(tuple(Entry(name, m, *numbers, float(abs(g)), float(np.degrees(np.angle(g))), 0.0, *quality) for m, g in enumerate(gain)))


def run(case, snr_db, frames, seed, path):
    """Counters of the receiver."""
    tb = gr.top_block()
    users = massaccess.population(users=128, activity=0.125, frames=frames, seed=seed, **SIZES)
    air = massaccess.air_simulator(users=128, activity=0.125, snr_db=snr_db, channel="uma", seed=seed, **ARRAY, **BURST, **OFFSETS)
    known = {"channel_cov": "uma" if "neighbours" in case else "", "snr_db": snr_db}
    corrector = massaccess.array_corrector(8, 8, "" if case == "uncalibrated" else path, **known)
    if "masked" in case:
        corrector.set_mask(np.random.default_rng(seed).permutation(64) >= 8)
    synchronizer = massaccess.synchronizer(antennas=64, epoch=0.0, sample_rate_hz=1e6, **BURST)
    told = {"timing_offset": 0.5, "cfo_hz": 100.0, "sample_rate_hz": 1e6, "channel_cov": "uma"}
    receiver = massaccess.receiver("jcedd", users=128, activity=0.125, **ARRAY, **BURST, **told)
    tb.connect(users, air, corrector, synchronizer, receiver)
    massaccess.run(tb)
    return {name: receiver.stats()[name] for name in ("frames", "active", "packets")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snr-db", default="7,9")
    parser.add_argument("--json")
    chosen = parser.parse_args()
    rows = []
    for snr_db in map(float, chosen.snr_db.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "array.toml")
            book(snr_db, chosen.seed).save(path)
            for case in CASES:
                rows.append({"snr_db": snr_db, "case": case, **run(case, snr_db, chosen.frames, chosen.seed, path)})
                print(rows[-1], flush=True)
    if chosen.json:
        with open(chosen.json, "w") as stream:
            json.dump({"version": __version__, "frames": chosen.frames, "seed": chosen.seed, "results": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
