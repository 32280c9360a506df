"""Residual phases of a simulated splitter: ``python benchmarks/calibration/residual.py --json FILE``.

Random arrays with IQ imbalance, constants and gain spread (`arrays`). A calibration from one capture corrects another capture of the same
array, with noise of its own; what is left of the true phases is measured too. Intervals: 95 %, the array being the independent unit.
"""

import argparse
import json

import torch
from arrays import CFO, TONE, chains, known_waveform, seeded, tone, with_preamble

from massaccess import __version__
from massaccess.calibration import broadband_response, compare, tone_response

DELAY = 0.5  # samples, of the preamble's chains, at most


def capture(method, gain, length, snr_db, draw, delay):
    if method == "tone":
        return tone_response(tone(gain, length, snr_db, draw), frequency=TONE, search=2 * TONE_SEARCH)
    return broadband_response(with_preamble(gain, snr_db, draw, delay)[0], known_waveform(), max_frequency=2 * CFO)


TONE_SEARCH = 0.005  # cycles per sample


def rms(phase):
    """Root mean square over arrays [B M] and its interval, from the spread of the arrays' mean squares."""
    square = phase.square().mean(1)
    mean, half = float(square.mean()), 1.96 * float(square.std()) / len(square) ** 0.5
    return mean**0.5, (max(0.0, mean - half) ** 0.5, (mean + half) ** 0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrays", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    rows = []
    for antennas in (16, 64):
        for snr_db in (0.0, 10.0, 20.0):
            for method, length, delay in (("tone", 256, 0.0), ("tone", 2048, 0.0), ("preamble", 64, 0.0), ("preamble", 64, DELAY)):
                draw = seeded(chosen.seed, antennas, round(snr_db), method, length, round(10 * delay))
                parts = {"uncalibrated": [], "residual": [], "truth": []}
                for _ in range(0, chosen.arrays, 20):
                    gain = chains(20, antennas, draw)
                    first = capture(method, gain, length, snr_db, draw, delay)
                    second = first if delay else capture(method, gain, length, snr_db, draw, delay)
                    parts["uncalibrated"].append(compare(gain, torch.ones_like(gain))[0])
                    parts["residual"].append(compare(second.gain, first.gain)[0])
                    parts["truth"].append(compare(first.gain, gain)[0])
                row = {"antennas": antennas, "snr_db": snr_db, "method": method, "samples": length, "delay": delay}
                for name, found in parts.items():
                    if not (delay and name == "residual"):
                        row[f"{name}_deg"], row[f"{name}_ci95"] = rms(torch.cat(found))
                row["worst_deg"] = float(torch.cat(parts["truth"]).abs().max())
                rows.append(row)
                print({key: value if not isinstance(value, float) else round(value, 3) for key, value in row.items()}, flush=True)
    if chosen.json:
        with open(chosen.json, "w") as stream:
            json.dump({"version": __version__, "arrays": chosen.arrays, "seed": chosen.seed, "results": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
