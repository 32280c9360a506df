"""The samples that the converters' bits stand for."""

import numpy as np

from ._base import guarded, item
from ._converter import ConverterBlock, packed_item


class sample_unpacker(ConverterBlock):
    """Unpacks what `sample_packer` packed: frames complex64 [frame_len, antennas], to the last bit those of the quantizer.

    ``scale``, ``offset`` and ``dither`` are those of the quantizer, 0 follows the tags adc_scale, adc_offset and adc_dither. All tags pass.
    """

    def __init__(self, frame_len=65, antennas=64, bits=1, scale=0.0, offset=0.0, dither=0.0):
        packed, self._width = packed_item(frame_len, antennas, bits)
        signatures = (packed, item(np.complex64, frame_len, antennas))
        shape = (frame_len, antennas)
        super().__init__("massaccess_sample_unpacker", signatures, bits=bits, scale=scale, offset=offset, dither=dither, shape=shape)

    @guarded
    def general_work(self, input_items, output_items):
        from massaccess.forward.packing import unpack

        count = min(len(input_items[0]), len(output_items[0]))
        for rows, converter in self.pieces(count):
            packed = input_items[0][rows].reshape(-1, self._shape[0], self._width)
            output_items[0][rows] = unpack(packed, converter, self._shape[1]).reshape(output_items[0][rows].shape)
        return self.move(count)
