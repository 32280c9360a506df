"""The converters of the array."""

import threading
from dataclasses import replace

import numpy as np

from ._base import FrameBlock, guarded, item

BUFFER_FRAMES = 64
SETTLING_FRAMES = 1000  # frames that the gain control averages over once it has settled
TAGS = ("adc_bits", "adc_scale", "adc_offset", "adc_dither")
STEP_DB = 0.25  # the gain changes only when the power has drifted by this much


class quantizer(FrameBlock):
    """Rounds each real part to ``bits`` bits with the best uniform step for Gaussian input; ``bits=0`` passes samples unchanged.

    ``scale`` is the root mean square per real part that the converter is set for. 0 means a slow gain control: it averages the power
    over 1,000 frames and moves in steps of 0.25 dB, so that a receiver sees a constant converter for long stretches.
    ``offset`` is the threshold of all comparators and ``dither`` the root mean square of a known dither, both as a fraction of ``scale``.
    Outputs are in input units (see `massaccess.forward.front_end`). All tags pass; ``adc_bits``, ``adc_scale``, ``adc_offset`` and
    ``adc_dither`` are added to the first item and whenever they change.
    """

    def __init__(self, vlen=4160, bits=1, scale=0.0, offset=0.0, dither=0.0):
        super().__init__("massaccess_quantizer", in_sig=[item(np.complex64, vlen)], out_sig=[item(np.complex64, vlen)])
        self.set_min_output_buffer(0, BUFFER_FRAMES)
        self._lock = threading.Lock()
        self._vlen, self._scale = vlen, float(scale)
        self._power = 0.0
        self._seen = 0
        self._converter = None
        self._set = None  # what the converter was made of: bits, scale, offset, dither
        self._told = None
        self.set_bits(bits)
        self.set_offset(offset)
        self.set_dither(dither)

    def set_bits(self, bits):
        """Bits per real part of the frames to come, 0 for an ideal converter."""
        from massaccess.errors import ConfigError

        if not 0 <= int(bits) <= 16:
            raise ConfigError(f"bits is {bits}: pass 1 to 16, or 0 for an ideal converter")
        with self._lock:
            self._bits = int(bits)

    def set_offset(self, offset):
        """Threshold of all comparators for the frames to come."""
        from massaccess.errors import ConfigError

        if not np.isfinite(offset):
            raise ConfigError(f"offset is {offset}: pass the threshold of the comparators as a fraction of the scale")
        with self._lock:
            self._offset = float(offset)

    def set_dither(self, dither):
        """Root mean square of the dither for the frames to come."""
        from massaccess.errors import ConfigError

        if not 0 <= dither < np.inf:
            raise ConfigError(f"dither is {dither}: pass its root mean square as a fraction of the scale, 0 for none")
        with self._lock:
            self._dither = float(dither)

    def start(self):
        self._told = None  # whoever was connected while the flowgraph was locked has not heard it
        return True

    @guarded
    def general_work(self, input_items, output_items):
        import torch

        from massaccess.forward.front_end import quantize

        count = min(len(input_items[0]), len(output_items[0]))
        y = input_items[0][:count]
        self.pass_tags(0, 0, count, skip=TAGS)
        self.tag_frames(0, self.frame_indices(0, count))
        with self._lock:
            wanted = self._bits, self._offset, self._dither
        for rows, converter in self._pieces(count, wanted, y):
            output_items[0][rows] = quantize(torch.from_numpy(y[rows]), converter).numpy()
        self.consume(0, count)
        return count

    def _pieces(self, count, wanted, y):
        """(rows, converter) of ``count`` frames at hand, as many in one go as have the same converter."""
        first = 0
        for row in range(count):
            before = self._converter
            self._follow(row, *wanted, y[row])
            if row > first and self._converter is not before:
                yield slice(first, row), before
                first = row
        if count:
            yield slice(first, count), self._converter

    def _follow(self, row, bits, offset, dither, samples):
        """Sets the converter for one frame, and tags it where it differs from the last one's."""
        told = (bits, self._scale or self._settle(samples), offset, dither)
        if self._set != told:
            self._converter, self._set = self._made(*told), told
        if told != self._told:
            self._told = told
            for key, value in zip(TAGS, told, strict=True):
                self.tag(0, row, key, value)

    def _made(self, bits, scale, offset, dither):
        from massaccess.forward.front_end import front_end

        made = front_end(bits=bits or None, power=2 * scale**2, threshold=offset, dither=dither, frame=(1, self._vlen))
        return made if made.offset is None else replace(made, offset=made.offset[0])  # frames are rows here: the numbers are the same

    def _settle(self, samples):
        power = float(np.mean(np.abs(samples) ** 2))
        if np.isfinite(power) and power > 0:
            self._seen = min(self._seen + 1, SETTLING_FRAMES)
            self._power += (power - self._power) / self._seen
        if self._power <= 0:
            return 1.0
        settled = 2 * self._set[1] ** 2 if self._set else 0.0
        drifted = not settled or abs(10 * np.log10(self._power / settled)) > STEP_DB
        return float(np.sqrt(self._power / 2)) if drifted else self._set[1]
