"""A user of a virtual air that knows nothing of massaccess: ``python air_user.py ENDPOINT SLOT_SAMPLES [octets of a reply]``.

In its slot n all samples have the value n + 1, so that whoever receives them sees which ones they are.
"""

import struct
import sys

import numpy as np
import zmq


def main(endpoint: str, slot_samples: int, most: int = 1 << 14) -> None:
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(endpoint)
    print("ready", flush=True)
    sent = 0
    while True:
        (wanted,) = struct.unpack_from("<I", socket.recv())
        index = np.arange(sent, sent + min(wanted, most // 8))
        sent += len(index)
        socket.send((index // slot_samples + 1).astype("<c8").tobytes())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
