"""Sink: packed samples, to whoever listens."""

from ._converter import packed_item
from ._messages import Messages


class zmq_sample_publisher(Messages):
    """Publishes packed frames uint8 [frame_len, octets], as `sample_packer` makes them, for `zmq_sample_listener` or `massaccess listen`.

    Each message holds up to ``max_batch`` frames: arrays ``frame`` uint64 [K] and ``packed`` [K, frame_len, octets], and the metadata of
    the tags. ``bits`` per real part and the other parameters are those of `sample_packer` and `zmq_publisher`.
    """

    def __init__(
        self,
        frame_len=65,
        antennas=64,
        bits=1,
        endpoint="tcp://127.0.0.1:5556",
        mode="pub",
        max_batch=16,
        high_water_mark=32,
        linger=2.0,
        allow_remote=False,
    ):
        signature, width = packed_item(frame_len, antennas, bits)
        options = {"mode": mode, "high_water_mark": high_water_mark, "linger_s": linger, "allow_remote": allow_remote}
        super().__init__("massaccess_zmq_sample_publisher", {"packed": ((frame_len, width), signature)}, endpoint, max_batch, options)
