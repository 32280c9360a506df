"""Quantised samples as the converters' bits."""

import numpy as np

from ._base import guarded, item
from ._converter import ConverterBlock, packed_item


class sample_packer(ConverterBlock):
    """Packs frames complex64 [frame_len, antennas] of a `quantizer` of ``bits`` bits into octets [frame_len, octets], one frame an item.

    64 antennas of one bit are 16 octets a sample vector; the order is that of `massaccess.forward.packing`. ``scale``, ``offset`` and
    ``dither`` are those of the quantizer, 0 follows its tags. All tags pass, and `sample_unpacker` needs them, or the same parameters.
    """

    def __init__(self, frame_len=65, antennas=64, bits=1, scale=0.0, offset=0.0, dither=0.0):
        packed, self._width = packed_item(frame_len, antennas, bits)
        signatures = (item(np.complex64, frame_len, antennas), packed)
        shape = (frame_len, antennas)
        super().__init__("massaccess_sample_packer", signatures, bits=bits, scale=scale, offset=offset, dither=dither, shape=shape)

    @guarded
    def general_work(self, input_items, output_items):
        from massaccess.forward.packing import pack

        count = min(len(input_items[0]), len(output_items[0]))
        for rows, converter in self.pieces(count):
            samples = input_items[0][rows].reshape(-1, *self._shape)
            output_items[0][rows] = pack(samples, converter).reshape(output_items[0][rows].shape)
        return self.move(count)
