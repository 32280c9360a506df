"""Sink: what a receiver found, to whoever listens."""

import numpy as np

from ._base import guarded, item
from ._metadata import MetadataSink

WAIT_SECONDS = 0.05  # a longer wait inside work would delay the stop of the flowgraph


class zmq_publisher(MetadataSink):
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
        from massaccess.errors import ConfigError
        from massaccess.link.publisher import Publisher

        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}: pass the frames of one message, 1 or more")
        self._shapes = {"activity": (users,)}
        if data_len:
            self._shapes["symbols"] = (data_len, users)
        if antennas:
            self._shapes["channel"] = (users, antennas)
        super().__init__(
            "massaccess_zmq_publisher",
            [item(np.float32 if name == "activity" else np.complex64, *shape) for name, shape in self._shapes.items()],
        )
        self._max_batch = max_batch
        self._options = {"mode": mode, "high_water_mark": high_water_mark, "linger_s": linger, "allow_remote": allow_remote}
        self._publisher = Publisher(endpoint, **self._options)
        self._waiting = None

    @property
    def endpoint(self):
        return self._publisher.endpoint

    @property
    def sent(self):
        """Messages that went to a listener."""
        return self._publisher.sent

    @property
    def dropped(self):
        """Messages sent while nobody listened."""
        return self._publisher.dropped

    def wait_for_listener(self, timeout):
        """Whether somebody listens within ``timeout`` seconds; call it before the flowgraph starts, to miss nothing in mode "pub"."""
        return self._publisher.wait_for_listener(timeout)

    @guarded(result=False)
    def start(self):
        from massaccess.link.publisher import Publisher

        if self._publisher.closed:  # the flowgraph starts for the second time
            self._publisher = Publisher(self._publisher.endpoint, **self._options)
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if self._waiting is None:
            self._waiting = self.take(0, min(self._max_batch, *map(len, input_items)))
        indices, metadata = self._waiting
        arrays = {"frame": indices.astype(np.uint64)}
        for items, (name, shape) in zip(input_items, self._shapes.items(), strict=True):
            arrays[name] = items[: len(indices)].reshape(-1, *shape)
        if not self._publisher.send(arrays, metadata, timeout_s=WAIT_SECONDS) and self._options["mode"] == "push":
            return 0  # nobody took it: the same again, unless the flowgraph stops
        for port in range(len(input_items)):
            self.consume(port, len(indices))
        self._waiting = None
        return 0

    def finish(self):
        self._publisher.close()
