"""How well the synchroniser knows timing, carrier and noise, and how fast it is: ``python accuracy.py accuracy.json``.

Default burst on the air (16 preamble, 32 pilot and 96 data symbols, guard 8, 4 samples a symbol), Rayleigh channels that are new in every
slot, users spread over half a symbol and a per mille of the symbol rate either way, common carrier offset 1.7 % of the symbol rate. Errors
are root mean squares over 400 slots after the first 100, of what was taken away from the frames; the SNR is that of all users together.
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch

from massaccess import __version__
from massaccess.burst import Burst
from massaccess.forward.waveform import modulate, preamble, to_rows
from massaccess.rng import complex_normal
from massaccess.synchronisation import Synchronizer
from massaccess.synchronisation.preamble_meter import PreambleMeter

BURST = Burst(pilot_len=32, data_len=96)
SLOTS, FIRST, CFO, SHIFT, CHUNK = 500, 100, 0.017, 100, 4096


def stream(users: int, antennas: int, snr_db: float, seed: int) -> tuple[np.ndarray, float]:
    """Samples [n antennas], and their noise variance."""
    draw = torch.Generator().manual_seed(seed)
    noise_var, parts = users / 10 ** (snr_db / 10), [torch.zeros(SHIFT, antennas, dtype=torch.complex64)]
    for _ in range(SLOTS):
        bodies = torch.polar(torch.ones(()), math.pi / 2 * torch.randint(0, 4, (1, BURST.symbols, users), generator=draw) + math.pi / 4)
        bodies[:, : BURST.preamble_len] = preamble(BURST)[:, None]
        late = torch.rand(1, users, generator=draw) - 0.5
        turning = 0.001 * (2 * torch.rand(1, users, generator=draw) - 1)
        parts.append(modulate(bodies, BURST, delay=late, cfo=turning)[0] @ complex_normal(users, antennas, generator=draw))
    clean = torch.cat(parts)
    angle = 2 * math.pi * (CFO / BURST.samples_per_symbol * torch.arange(len(clean), dtype=torch.double) % 1)
    turned = clean * torch.polar(torch.ones_like(angle), angle)[:, None].to(torch.complex64)
    return (turned + math.sqrt(noise_var) * complex_normal(*clean.shape, generator=draw)).numpy(), noise_var


def measure(users: int, antennas: int, snr_db: float, seed: int = 0) -> dict[str, float]:
    samples, noise_var = stream(users, antennas, snr_db, seed)
    sync, frames = Synchronizer(BURST, antennas, sample_rate_hz=1e6), []
    began = time.process_time()
    for start in range(0, len(samples), CHUNK):
        frames += sync.push(samples[start : start + CHUNK])
    frames += sync.flush()
    seconds = time.process_time() - began
    place = [((frame.time[0] + frame.time[1]) * 1e6 - SHIFT) / BURST.slot_samples for frame in frames]
    late = np.array([(at - round(at)) * BURST.slot_len for at in place])
    cfo = np.array([frame.cfo - CFO for frame in frames])
    noise = np.array([10 * math.log10(frame.noise_var / noise_var) for frame in frames])
    one_late, one_cfo = single(samples, antennas)
    return {
        "users": users,
        "antennas": antennas,
        "snr_db": snr_db,
        "frames": len(frames),
        "preambles_found": sync.counters["active"],
        "one_slot_timing_symbols": one_late,
        "one_slot_cfo": one_cfo,
        "timing_symbols": rms(late[FIRST:]),
        "cfo": rms(cfo[FIRST:]),
        "first_timing_symbols": abs(float(late[0])),
        "first_cfo": abs(float(cfo[0])),
        "noise_db": float(noise[FIRST:].mean()),
        "samples_per_second_per_antenna": len(samples) / seconds,
    }


def single(samples: np.ndarray, antennas: int) -> tuple[float, float]:
    """Errors of the estimates of one slot, cut and turned back by the truth."""
    meter = PreambleMeter(BURST, antennas)
    slots = torch.from_numpy(samples[SHIFT:].reshape(SLOTS, BURST.slot_samples, antennas))
    seen = [meter(np.ascontiguousarray(to_rows(slot[None], BURST, cfo=CFO)[0].numpy())) for slot in slots]
    turns = np.angle([one.turn for one in seen]) / (2 * math.pi * meter.span)
    return rms([one.late for one in seen]), rms(turns)


def rms(values: object) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def noise_alone(slots: int = 2000, antennas: int = 16) -> dict[str, int]:
    """How often the slots of nobody are found in noise."""
    rng, sync = np.random.default_rng(0), Synchronizer(BURST, antennas, sample_rate_hz=1e6)
    for _ in range(slots):
        sync.push((rng.standard_normal((BURST.slot_samples, antennas, 2)) @ [1, 1j]).astype(np.complex64))
    sync.flush()
    return {"slots": slots, "antennas": antennas, "locks": sync.counters["locks"], "false_locks": sync.counters["false_locks"]}


def main(path: str) -> None:
    torch.set_num_threads(1)
    results = [measure(16, antennas, snr_db) for antennas in (16, 64) for snr_db in (-5, 0, 5, 10, 15, 20)]
    results += [measure(users, 16, 10) for users in (1, 4)]
    for one in results:
        print({name: round(value, 5) for name, value in one.items()}, flush=True)
    document = {"version": __version__, "seed": 0, "slots": SLOTS, "after": FIRST, "cfo": CFO, "results": results, "noise": noise_alone()}
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
