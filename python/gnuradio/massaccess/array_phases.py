"""Array stream in: the phases of its chains, as a calibration signal shows them, for displays."""

import threading

import numpy as np

from ._array_tags import ArrayState
from ._base import FrameBlock, guarded, item
from ._captures import Captures
from ._signals import Signal


class array_phases(FrameBlock):
    """Phases [degrees] of all antennas, float [antennas] an item, one item every ``length`` sample vectors.

    The phase of the calibration signal (parameters as those of `array_calibrator`) in each antenna, up to one phase common to all. After
    an `array_corrector` all are 0, but for noise. Where there is no signal, nothing comes out. ``rms_deg`` is that of the last item.
    """

    def __init__(
        self, antennas=16, signal="tone", tone_hz=100e3, search_hz=10e3, length=4096, preamble_len=16, samples_per_symbol=4, roll_off=0.25
    ):
        super().__init__("massaccess_array_phases", in_sig=[item(np.complex64, antennas)], out_sig=[item(np.float32, antennas)])
        self._signal = Signal(signal, tone_hz, search_hz, preamble_len, samples_per_symbol, roll_off)
        self._collect, self._state = Captures(length, antennas), ArrayState(antennas)
        self._lock, self._last, self._missing = threading.Lock(), None, 0

    @property
    def rms_deg(self):
        """Root mean square of the last phases [degrees]; NaN before there are any."""
        with self._lock:
            return float("nan") if self._last is None else float(np.sqrt(np.mean(self._last**2)))

    @property
    def missing(self):
        """How many stretches had no signal in them."""
        return self._missing

    def start(self):
        self._collect.clear()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        read, found = self.nitems_read(0), [tag for tag in self.tags(0, len(input_items[0])) if str(tag.key).startswith("rx_")]
        first = [tag for tag in found if tag.offset == read]
        if first:
            self._collect.clear()
            self._state = self._state.told(first)
        count = min((tag.offset - read for tag in found if tag.offset > read), default=len(input_items[0]))
        taken, capture = self._collect.take(input_items[0][:count].reshape(count, -1))
        self.consume(0, taken)
        phases = None if capture is None else self._phases(capture)
        if phases is None:
            return 0
        output_items[0][0] = phases
        with self._lock:
            self._last = phases
        return 1

    def _phases(self, capture):
        from massaccess.calibration import compare
        from massaccess.errors import ConfigError

        if not self._state.rx_rate > 0:
            raise ConfigError("the stream does not say its rate: tags rx_rate and rx_freq are missing, take an array source")
        try:
            gain = self._signal.response(capture[None], self._state.rx_rate).gain
        except ConfigError:  # no signal: nothing to show
            self._missing += 1
            return None
        return compare(gain, gain.abs().to(gain.dtype))[0][0].numpy().astype(np.float32)
