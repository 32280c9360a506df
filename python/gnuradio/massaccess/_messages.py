"""What blocks that publish over ZMQ share."""

import numpy as np

from ._base import guarded
from ._metadata import MetadataSink

WAIT_SECONDS = 0.05  # a longer wait inside work would delay the stop of the flowgraph


class Messages(MetadataSink):
    """Publishes what comes in at its ports. ``arrays``: name -> (shape of a frame, signature of the port)."""

    def __init__(self, name, arrays, endpoint, max_batch, options):
        from massaccess.errors import ConfigError
        from massaccess.link.publisher import Publisher

        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}: pass the frames of one message, 1 or more")
        super().__init__(name, [signature for _, signature in arrays.values()])
        self._shapes = {array: shape for array, (shape, _) in arrays.items()}
        self._max_batch, self._options = max_batch, options
        self._publisher = Publisher(endpoint, **options)
        self._waiting = None
        self.more = {}  # arrays [size] that go with every frame of a message

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
        arrays |= {name: np.repeat(value[None], len(indices), 0) for name, value in self.more.items()}
        if not self._publisher.send(arrays, metadata, timeout_s=WAIT_SECONDS) and self._options["mode"] == "push":
            return 0  # nobody took it: the same again, unless the flowgraph stops
        for port in range(len(input_items)):
            self.consume(port, len(indices))
        self._waiting = None
        return 0

    def finish(self):
        self._publisher.close()
