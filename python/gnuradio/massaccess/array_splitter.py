"""One array in, the antennas of each access point out."""

import numpy as np

from ._base import FrameBlock, guarded, item

BUFFER_FRAMES = 64


class array_splitter(FrameBlock):
    """Divides the antennas of frames [frame_len, antennas] among ``of`` outputs [frame_len, antennas / of], contiguous groups in order.

    All tags pass to every output.
    Raises ConfigError when the antennas cannot be divided evenly.
    """

    def __init__(self, frame_len=280, antennas=64, of=4):
        from massaccess.errors import ConfigError

        if of < 1 or antennas % of:
            raise ConfigError(f"{antennas} antennas for {of} access points: choose numbers that divide evenly")
        own = antennas // of
        super().__init__(
            "massaccess_array_splitter",
            in_sig=[item(np.complex64, frame_len, antennas)],
            out_sig=[item(np.complex64, frame_len, own)] * of,
        )
        for port in range(of):
            self.set_min_output_buffer(port, BUFFER_FRAMES)
        self._shape = (frame_len, of, own)

    @guarded
    def general_work(self, input_items, output_items):
        count = min(len(input_items[0]), *(len(out) for out in output_items))
        frames = input_items[0][:count].reshape(count, *self._shape)
        indices = self.frame_indices(0, count)
        for port, out in enumerate(output_items):
            out[:count] = frames[:, :, port].reshape(out[:count].shape)
            self.pass_tags(0, port, count)
            self.tag_frames(port, indices)
        self.consume(0, count)
        return count
