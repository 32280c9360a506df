"""Samples per second of the packed path in GNU Radio: quantizer, packer, unpacker, and the wire between two flowgraphs.

``python benchmarks/speed/packed.py [--frames 6000] [--antennas 64] [--bits 1] [--repetitions 3] [--json FILE]``. Frames of 65 symbols from
memory, in one process, each block in its thread; the best of the repetitions, complex samples of all antennas together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gnuradio import blocks, gr, massaccess

from massaccess import __version__
from massaccess.forward.packing import octets

SYMBOLS, BUFFER = 65, 256


def chain(*parts: Any) -> Any:
    """A flowgraph of blocks in a row, which keeps them alive; large buffers behind the first two, GNU Radio's own blocks."""
    for part in parts[:2]:
        part.set_min_output_buffer(0, BUFFER)
    tb = gr.top_block()
    tb.kept = parts
    tb.connect(*parts)
    return tb


def samples(antennas: int, frames: int) -> tuple[Any, Any]:
    """Frames of noise: a source that goes round, and a head that ends it."""
    noise = np.random.default_rng(0).standard_normal((BUFFER, SYMBOLS * antennas, 2)).astype(np.float32).view(np.complex64)
    length = SYMBOLS * antennas
    return blocks.vector_source_c(noise.ravel().tolist(), True, length), blocks.head(8 * length, frames)


def packed(antennas: int, bits: int, frames: int) -> tuple[Any, Any]:
    """The same, packed."""
    length = SYMBOLS * octets(antennas, bits)
    found = np.random.default_rng(0).integers(0, 256, BUFFER * length, np.uint8)
    return blocks.vector_source_b(found.tolist(), True, length), blocks.head(length, frames)


def in_a_row(name: str, antennas: int, bits: int, frames: int) -> float:
    """Seconds that the blocks called ``name`` take."""
    sizes, length = (SYMBOLS, antennas, bits), SYMBOLS * antennas
    parts = list(packed(antennas, bits, frames) if name == "unpacker" else samples(antennas, frames))
    if "quantizer" in name:
        parts.append(massaccess.quantizer(length, bits, 1.0))
    if "+ packer" in name:
        parts.append(massaccess.sample_packer(*sizes))
    if "unpacker" in name:
        parts.append(massaccess.sample_unpacker(*sizes))
    wide = "unpacker" in name or "packer" not in name
    tb = chain(*parts, blocks.null_sink(8 * length if wide else SYMBOLS * octets(antennas, bits)))
    began = time.perf_counter()
    massaccess.run(tb)
    return time.perf_counter() - began


def over_the_wire(antennas: int, bits: int, frames: int) -> float:
    """Seconds from a publisher in one flowgraph to an unpacker in another; nothing is lost."""
    sizes = (SYMBOLS, antennas, bits)
    publisher = massaccess.zmq_sample_publisher(*sizes, endpoint="tcp://127.0.0.1:*", mode="push")
    listener = massaccess.zmq_sample_listener(*sizes, endpoint=publisher.endpoint, mode="push")
    far = gr.top_block()
    far.kept = listener, massaccess.sample_unpacker(*sizes), blocks.null_sink(8 * SYMBOLS * antennas)
    far.connect(*far.kept)
    near = chain(*packed(antennas, bits, frames), publisher)
    far.start()
    publisher.wait_for_listener(10)
    began = time.perf_counter()
    near.run()
    far.wait()
    return time.perf_counter() - began


CASES = ("quantizer", "quantizer + packer", "quantizer + packer + unpacker", "unpacker", "publisher + listener + unpacker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for flag, default in (("--frames", 6000), ("--antennas", 64), ("--bits", 1), ("--repetitions", 3)):
        parser.add_argument(flag, type=int, default=default)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in CASES:
        run = over_the_wire if name.startswith("publisher") else lambda *sizes, name=name: in_a_row(name, *sizes)
        seconds = min(run(asked.antennas, asked.bits, asked.frames) for _ in range(asked.repetitions))
        rows.append({"blocks": name, "frames_per_second": asked.frames / seconds})
        rows[-1]["samples_per_second"] = rows[-1]["frames_per_second"] * SYMBOLS * asked.antennas
        print(f"{name}: {rows[-1]['samples_per_second'] / 1e6:.1f} million samples per second")
    about = {"version": __version__, "cpus": os.cpu_count(), "machine": platform.machine(), "gnuradio": gr.version(), "symbols": SYMBOLS}
    about |= {name: getattr(asked, name) for name in ("frames", "antennas", "bits", "repetitions")}
    if asked.json:
        asked.json.write_text(json.dumps({**about, "octets_per_vector": octets(asked.antennas, asked.bits), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
