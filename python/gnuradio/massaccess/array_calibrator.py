"""Array stream in: measures the chains from a calibration signal, and writes a calibration."""

import threading
from pathlib import Path

import numpy as np
import pmt

from ._array_tags import ArrayState
from ._base import FrameBlock, guarded, item, to_dict_pmt
from ._captures import Captures
from ._signals import Signal


class array_calibrator(FrameBlock):
    """Measures the chains of an array from a signal that a splitter, or a known user, feeds to all of them.

    In: sample vectors [antennas], tagged as an array stream is. ``signal`` is "tone", ``tone_hz`` from the centre and at most ``search_hz``
    away, or "preamble": once in every ``length`` vectors at least, with a carrier offset of at most ``search_hz``; the waveform follows
    from ``preamble_len``, ``samples_per_symbol`` and ``roll_off``. ``captures`` stretches of ``length`` vectors without a gap make a
    measurement, one half of which checks the other. ``path`` (empty: no file) is updated with it.

    Ends after the first measurement, and with it whoever listens to its port, unless ``repeat``. Port ``calibration``: a PDU of each,
    dictionary ``id``, ``residual_deg``, ``residual_low_deg``, ``residual_high_deg``, ``uncalibrated_deg``, ``snr_db``, ``deaf``, and the
    text of the book as octets.
    Raises BlockFailure's reason when no signal is there.
    """

    def __init__(
        self,
        antennas=64,
        signal="tone",
        tone_hz=100e3,
        search_hz=10e3,
        captures=8,
        length=2048,
        path="calibration.toml",
        repeat=False,
        preamble_len=16,
        samples_per_symbol=4,
        roll_off=0.25,
    ):
        from massaccess.errors import ConfigError

        if captures < 2 or length < 64:
            raise ConfigError(f"captures is {captures} and length {length}: pass 2 or more of 64 vectors or more")
        super().__init__("massaccess_array_calibrator", in_sig=[item(np.complex64, antennas)])
        if path and not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"{Path(path).parent} is no folder: make it first, or choose another path")
        self._signal = Signal(signal, tone_hz, search_hz, preamble_len, samples_per_symbol, roll_off)
        self._captures, self._path, self._repeat = captures, path, repeat
        self._collect, self._stack = Captures(length, antennas), []
        self._state, self._lock, self._last = ArrayState(antennas), threading.Lock(), None
        self.message_port_register_out(pmt.intern("calibration"))

    @property
    def measurement(self):
        """The last `massaccess.calibration.Measurement`; ``None`` before the first."""
        with self._lock:
            return self._last

    def start(self):
        self._collect.clear()
        self._stack = []
        return True

    @guarded
    def general_work(self, input_items, output_items):
        samples = input_items[0]
        count = self._change(len(samples))
        taken, capture = self._collect.take(samples[:count].reshape(count, -1))
        self.consume(0, taken)
        if capture is not None:
            self._stack.append(capture)
        if len(self._stack) == self._captures:
            self._measure(np.stack(self._stack))
            self._stack = []
            if not self._repeat:
                return -1
        return 0

    def _change(self, count):
        """Takes in the tags of the first vector; returns how many vectors follow before the next gap or setting."""
        read, found = self.nitems_read(0), [tag for tag in self.tags(0, count) if str(tag.key).startswith("rx_")]
        first = [tag for tag in found if tag.offset == read]
        if first:
            self._collect.clear()
            state = self._state.told(first)
            if state is not self._state:
                self._stack, self._state = [], state
        return min((tag.offset - read for tag in found if tag.offset > read), default=count)

    def _measure(self, captures):
        from massaccess.calibration import Book, measure
        from massaccess.errors import ConfigError

        if not self._state.rx_rate > 0:
            raise ConfigError("the stream does not say its rate: tag rx_rate and rx_freq are missing, take an array source")
        response = self._signal.response(captures, self._state.rx_rate)
        found = measure(response, self._state.keys(), method=self._signal.kind)
        fresh = Book(found.calibration.entries)
        if self._path:
            known = Book.load(self._path) if Path(self._path).exists() else Book()
            known.update(fresh.entries).save(self._path)
        with self._lock:
            self._last = found
        if self.heard("calibration"):
            facts = {
                "id": found.calibration.id,
                "residual_deg": found.residual_deg,
                "residual_low_deg": found.residual_ci95[0],
                "residual_high_deg": found.residual_ci95[1],
                "uncalibrated_deg": found.uncalibrated_deg,
                "snr_db": found.snr_db,
                "deaf": len(found.deaf),
            }
            octets = fresh.text().encode()
            self.message_port_pub(pmt.intern("calibration"), pmt.cons(to_dict_pmt(facts), pmt.init_u8vector(len(octets), list(octets))))
