"""Sink: what a receiver found, to whoever listens."""

import numpy as np
import pmt

from ._base import guarded, item
from ._messages import Messages

REAL = ("activity", "odds")


class zmq_publisher(Messages):
    """Publishes activity float32 [users], symbols complex64 [data_len, users] and channel complex64 [users, antennas], one frame an item.

    Each message holds up to ``max_batch`` frames: arrays ``frame`` uint64 [K], ``activity`` [K, users], ``symbols`` [K, data_len, users],
    ``channel`` [K, users, antennas], and the metadata of the tags (see `massaccess.link.wire`). ``data_len=0`` has no symbols, and
    ``antennas=0`` no channel, and no such input. With ``index_bits`` (then ``data_len`` is 0) the second input is that of a
    `noncoherent_receiver`: odds float32 [users, 2 ** index_bits], array ``odds`` [K, users, 2 ** index_bits].
    ``mode`` "pub" never holds up the flowgraph and may lose messages, which listeners count; "push" waits for a listener and loses none.
    ``endpoint`` is the address that was bound: "tcp://127.0.0.1:*" picks a free port.
    With ``monitor`` messages also hold the arrays of `massaccess.link.monitor.FIELDS`, [K, size] each, as an `air_monitor` last told them
    on message port ``monitor``; listeners that do not know them leave them alone.
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
        index_bits=0,
        monitor=False,
    ):
        from massaccess.errors import ConfigError

        if index_bits and (data_len or not 0 < index_bits <= 8):
            raise ConfigError(f"index_bits is {index_bits} and data_len {data_len}: pass 1 to 8 and data_len=0, or index_bits=0")
        shapes = {"activity": (users,)}
        if index_bits:
            shapes["odds"] = (users, 2**index_bits)
        if data_len:
            shapes["symbols"] = (data_len, users)
        if antennas:
            shapes["channel"] = (users, antennas)
        arrays = {name: (shape, item(np.float32 if name in REAL else np.complex64, *shape)) for name, shape in shapes.items()}
        options = {"mode": mode, "high_water_mark": high_water_mark, "linger_s": linger, "allow_remote": allow_remote}
        super().__init__("massaccess_zmq_publisher", arrays, endpoint, max_batch, options)
        if monitor:
            from massaccess.link.monitor import blank

            self.more = blank(users, antennas)
        self.message_port_register_in(pmt.intern("monitor"))
        self.set_msg_handler(pmt.intern("monitor"), self.take_monitor)

    @guarded
    def take_monitor(self, message):
        """Handler of port ``monitor``: arrays of another size, or that nobody knows, are left alone."""
        known = pmt.to_python(message) if pmt.is_dict(message) else {}
        for name, kept in self.more.items():
            if name in known and np.shape(known[name]) == kept.shape:
                kept[:] = known[name]
