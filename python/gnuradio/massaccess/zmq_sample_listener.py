"""Source: packed samples that another flowgraph publishes."""

import dataclasses
import time
from collections import deque

from ._base import FrameBlock, buffer_items, guarded
from ._converter import BUFFER_FRAMES, packed_item
from ._metadata import tag_metadata

POLL_SECONDS = 0.05  # a longer wait inside work would delay the stop of the flowgraph


class zmq_sample_listener(FrameBlock):
    """Packed frames uint8 [frame_len, octets] of a `zmq_sample_publisher`, one an item, with the tags that they had there.

    ``mode`` is the publisher's: "pub" may lose messages, which `lost` counts and which leave a gap in the frame numbers; "push" loses none.
    ``bits`` per real part of the converters. Ends when the publisher ends; fails when nothing good has come for ``timeout`` seconds (0:
    waits for ever). Messages that are none, or frames of another size, are counted in `bad`.
    """

    def __init__(self, frame_len=65, antennas=64, bits=1, endpoint="tcp://127.0.0.1:5556", mode="pub", high_water_mark=32, timeout=10.0):
        from massaccess.link.listener import Listener

        signature, width = packed_item(frame_len, antennas, bits)
        super().__init__("massaccess_zmq_sample_listener", out_sig=[signature])
        self.set_min_output_buffer(0, buffer_items(signature, BUFFER_FRAMES))
        self._shape, self._timeout = (frame_len, width), timeout
        self._listener = Listener(endpoint, mode=mode, timeout_s=timeout or None, high_water_mark=high_water_mark)
        self._waiting = deque()  # (metadata of the first frame, indices, frames)
        self._known = None
        self._misfits = 0
        self._heard = time.monotonic()

    @property
    def lost(self):
        """Messages that a publisher in mode "pub" sent and that did not arrive."""
        return self._listener.lost

    @property
    def bad(self):
        """Messages that could not be used."""
        return self._listener.bad + self._misfits

    def start(self):
        self._known, self._heard = None, time.monotonic()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if not self._waiting and not self._hear():
            return -1 if self._listener.ended else 0
        metadata, indices, frames = self._waiting.popleft()
        count = min(len(indices), len(output_items[0]))
        output_items[0][:count] = frames[:count].reshape(output_items[0][:count].shape)
        tag_metadata(self, 0, 0, metadata, self._known)
        self._known = dataclasses.replace(metadata, rx_time=None)
        self.tag_frames(0, indices[:count])
        if count < len(indices):
            self._waiting.appendleft((self._known, indices[count:], frames[count:]))
        return count

    def stop(self):
        if self._listener.ended:
            self._listener.close()
        return True

    def _hear(self):
        """Whether frames came; raises SilentPeerError when none have for too long."""
        from massaccess.errors import FormatError
        from massaccess.link.listener import SilentPeerError

        message = self._listener.poll(POLL_SECONDS)
        if message is None:
            if self._timeout and not self._listener.ended and time.monotonic() - self._heard > self._timeout:
                raise SilentPeerError(self._listener.diagnosis())
            return False
        try:
            self._waiting.append((message.metadata, *self._checked(message)))
        except FormatError:
            self._misfits += 1
            return False
        self._heard = time.monotonic()
        return True

    def _checked(self, message):
        """(indices, frames) of a message; FormatError for frames of another size."""
        from massaccess.errors import FormatError
        from massaccess.link.archive import results

        found = results(message)
        if "packed" not in found or found["packed"].shape[1:] != self._shape or not len(found["frame"]):
            raise FormatError("no packed frames of this size")
        return found["frame"], found["packed"]
