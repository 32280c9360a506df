"""Sink: what a receiver found, to whoever listens."""

import numpy as np

from ._base import item
from ._messages import Messages


class zmq_publisher(Messages):
    """Publishes activity float32 [users], symbols complex64 [data_len, users] and channel complex64 [users, antennas], one frame an item.

    Each message holds up to ``max_batch`` frames: arrays ``frame`` uint64 [K], ``activity`` [K, users], ``symbols`` [K, data_len, users],
    ``channel`` [K, users, antennas], and the metadata of the tags (see `massaccess.link.wire`). ``data_len=0`` has no symbols, and
    ``antennas=0`` no channel, and no such input. ``mode`` "pub" never holds up the flowgraph and may lose messages, which listeners count;
    "push" waits for a listener and loses none. ``endpoint`` is the address that was bound: "tcp://127.0.0.1:*" picks a free port.
    Frames leave as soon as they come: no latency is added.
    """

    def __init__(
        self,
        users=128,
        antennas=64,
        data_len=37,
        endpoint="tcp://127.0.0.1:5555",
        mode="pub",
        max_batch=16,
        high_water_mark=32,
        linger=2.0,
        allow_remote=False,
    ):
        shapes = {"activity": (users,)}
        if data_len:
            shapes["symbols"] = (data_len, users)
        if antennas:
            shapes["channel"] = (users, antennas)
        arrays = {name: (shape, item(np.float32 if name == "activity" else np.complex64, *shape)) for name, shape in shapes.items()}
        options = {"mode": mode, "high_water_mark": high_water_mark, "linger_s": linger, "allow_remote": allow_remote}
        super().__init__("massaccess_zmq_publisher", arrays, endpoint, max_batch, options)
