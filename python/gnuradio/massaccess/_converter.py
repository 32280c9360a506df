"""What tags say of the converters, for the blocks that pack and unpack samples."""

import itertools

import numpy as np

from ._base import FrameBlock, buffer_items, item

BUFFER_FRAMES = 64
KEYS = ("adc_scale", "adc_offset", "adc_dither")


def packed_item(frame_len, antennas, bits):
    """(signature of a packed frame, octets of a sample vector)."""
    from massaccess.errors import ConfigError
    from massaccess.forward.packing import octets

    if not 1 <= bits <= 16:
        raise ConfigError(f"bits is {bits}: pass the bits per real part of the converters, 1 to 16; ideal ones have none")
    width = octets(antennas, bits)
    return item(np.uint8, frame_len, width), width


class ConverterBlock(FrameBlock):
    """Frames in, frames out, and a converter for each, as parameters (what is not 0) or tags say."""

    def __init__(self, name, signatures, *, bits, scale, offset, dither, shape):
        from massaccess.errors import ConfigError

        if not scale >= 0 or not dither >= 0:
            raise ConfigError(f"scale is {scale} and dither {dither}: pass positive numbers, or 0 to follow the tags")
        super().__init__(name, in_sig=[signatures[0]], out_sig=[signatures[1]])
        self.set_min_output_buffer(0, buffer_items(signatures[1], BUFFER_FRAMES))
        self._bits, self._shape = bits, shape
        self._fixed = {"adc_scale": float(scale), "adc_offset": float(offset), "adc_dither": float(dither)}
        self._tagged, self._made = {}, (None, None)

    def pieces(self, count):
        """(rows, converter) of ``count`` frames at hand: what tags say holds until they say otherwise."""
        changes = self._changes(count)
        edges = sorted({0, count, *changes})
        for first, last in itertools.pairwise(edges):
            self._tagged |= changes.get(first, {})
            yield slice(first, last), self._converter()

    def move(self, count):
        """Hands the tags of ``count`` frames on, numbers them and consumes them."""
        self.pass_tags(0, 0, count)
        self.tag_frames(0, self.frame_indices(0, count))
        self.consume(0, count)
        return count

    def _changes(self, count):
        import pmt

        changes = {}
        for tag in self.tags(0, count):
            key, row = str(tag.key), tag.offset - self.nitems_read(0)
            if key in KEYS:
                changes.setdefault(row, {})[key] = pmt.to_python(tag.value)
            elif key == "adc_bits":
                self._check_bits(pmt.to_python(tag.value))
        return changes

    def _check_bits(self, told):
        from massaccess.errors import ConfigError

        if told != self._bits:
            raise ConfigError(f"frames have {told} bits a part and this block expects {self._bits}: give it and the converters the same")

    def _converter(self):
        from massaccess.link.metadata import Metadata, converter_of

        known = {name: self._fixed[name] or self._tagged.get(name) for name in KEYS}
        if self._made[0] != known:
            self._made = known, converter_of(Metadata(adc_bits=self._bits, **known), self._shape)
        return self._made[1]
