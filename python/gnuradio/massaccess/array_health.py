"""Array stream in: which antennas work."""

import threading

import numpy as np
import pmt

from ._array_tags import ArrayState
from ._base import FrameBlock, guarded, item, to_dict_pmt
from ._captures import Captures
from ._decoder import check_side
from ._signals import Signal

BUFFER_VECTORS = 4096
CLIPPING = 0.99  # of full scale, and beyond
FLOATS = ("power_db", "clip_share", "coherence", "own_db", "noise_db", "phase_deg", "level_db")


class array_health(FrameBlock):
    """Looks at ``length`` vectors [antennas] out of every ``every``, after ``persist`` looks at the start, and says which antennas work.

    ``signal`` "traffic" judges by what users send: powers, clipping, and what the antennas share. "tone" and "preamble" also find noisy,
    drifting and swapped antennas, by the calibration signal (parameters as those of `array_calibrator`) and the calibration in ``path``.
    It must see the samples before they are corrected. A verdict counts after ``persist`` looks in a row that agree. ``full_scale`` is that
    of the samples, 0 where nothing clips.

    Out, where it is connected: the samples as they came, with tag ``mask`` (u8vector, 1: use it) on the first one behind a look that has
    changed the mask. `array_corrector` follows it at that very sample, so that a recording gives the same answers again; no latency is
    added.

    Port ``health``: after every look a dictionary with ``verdicts`` (words, by antenna), ``mask`` (u8vector, 1: use it), ``masked`` (how
    many are not), ``ok``, ``dead``, ``saturated``, ``noisy``, ``drifting``, ``swapped`` (counts), ``sure``, and f64vectors ``power_db``,
    ``clip_share``, ``coherence``, ``own_db``, and with a signal ``noise_db``, ``phase_deg``, ``level_db``. `array_corrector` takes it.
    """

    def __init__(
        self,
        antennas=64,
        length=4096,
        every=100000,
        persist=2,
        signal="traffic",
        tone_hz=100e3,
        search_hz=10e3,
        path="",
        preamble_len=16,
        samples_per_symbol=4,
        roll_off=0.25,
        full_scale=1.0,
    ):
        from massaccess.calibration import Book, Limits
        from massaccess.errors import ConfigError

        if length < 64 or every < length or persist < 1:
            raise ConfigError(f"length is {length}, every {every} and persist {persist}: pass 64 or more, no less, and 1 or more")
        check_side("full_scale", full_scale)
        stream = [item(np.complex64, antennas)]
        super().__init__("massaccess_array_health", in_sig=stream, out_sig=stream, required_outputs=0)
        self.set_min_output_buffer(0, BUFFER_VECTORS)
        self._limits = Limits(full_scale=CLIPPING * full_scale or np.inf)
        self._signal = None if signal == "traffic" else Signal(signal, tone_hz, search_hz, preamble_len, samples_per_symbol, roll_off)
        self._book = Book.load(path) if path else None
        self._every, self._persist = every, persist
        self._collect, self._length, self._skip = Captures(length, antennas), length, 0
        self._state, self._lock = ArrayState(antennas), threading.Lock()
        self._last, self._runs, self._before = None, np.zeros(antennas, int), ("ok",) * antennas
        self._verdicts = ("ok",) * antennas
        self._looks, self._told = 0, np.ones(antennas, bool)
        self.message_port_register_out(pmt.intern("health"))

    @property
    def verdicts(self):
        """The verdicts that count, by antenna."""
        with self._lock:
            return self._verdicts

    @property
    def mask(self):
        """Antennas to use, [M] bool."""
        return np.array([verdict == "ok" for verdict in self.verdicts])

    @property
    def looks(self):
        """How often it has looked since the start."""
        return self._looks

    @property
    def last(self):
        """`massaccess.calibration.Health` of the last look; ``None`` before the first."""
        with self._lock:
            return self._last

    def start(self):
        self._collect.clear()
        self._skip = self._looks = 0
        self._told[:] = True  # whoever was connected meanwhile has not heard of a mask
        return True

    @guarded
    def general_work(self, input_items, output_items):
        count = min(map(len, [*input_items, *output_items]))
        count = self._change(count)
        samples = input_items[0][:count]
        if output_items and not np.array_equal(self.mask, self._told):
            self._told = self.mask
            self.tag(0, 0, "mask", pmt.init_u8vector(len(self._told), self._told.astype(int).tolist()))
        count = self._examine(samples)
        if output_items:
            output_items[0][:count] = samples[:count]
            self.pass_tags(0, 0, count)
        self.consume(0, count)
        return count if output_items else 0

    def _examine(self, samples):
        """Looks at ``samples`` when it is time to; returns up to where: what a look says is for those behind it."""
        if self._skip:
            count = min(len(samples), self._skip)
            self._skip -= count
            return count
        count, capture = self._collect.take(samples.reshape(len(samples), -1))
        if capture is not None:
            self._look(capture)
            self._skip = 0 if self._looks < self._persist else self._every - self._length  # no waiting for the first verdict
        return count

    def _change(self, count):
        read, found = self.nitems_read(0), [tag for tag in self.tags(0, count) if str(tag.key).startswith("rx_")]
        first = [tag for tag in found if tag.offset == read]
        if first:
            self._collect.clear()
            self._state = self._state.told(first)
        return min((tag.offset - read for tag in found if tag.offset > read), default=count)

    def _look(self, capture):
        import torch

        from massaccess.calibration import examine

        response, stored = self._known(capture)
        found = examine(torch.from_numpy(capture), response=response, stored=stored, limits=self._limits)
        self._looks += 1
        verdicts = found.verdicts
        with self._lock:
            self._last = found
            same = np.array([now == before for now, before in zip(verdicts, self._before, strict=True)])
            self._runs = np.where(same, self._runs + 1, 1)
            self._before = verdicts
            settled = self._runs >= self._persist
            self._verdicts = tuple(now if fine else old for now, fine, old in zip(verdicts, settled, self._verdicts, strict=True))
        self._publish(found)

    def _known(self, capture):
        """Response to the calibration signal and the stored one, ``None`` where there is none."""
        from massaccess.errors import ConfigError

        if self._signal is None or not self._state.rx_rate > 0:
            return None, None
        try:
            response = self._signal.response(capture[None], self._state.rx_rate)
        except ConfigError:  # the signal is off: traffic alone then
            return None, None
        if self._book is None:
            return response, None
        state = self._state
        gains = [state.gain_of(antenna) for antenna in range(state.antennas)]
        return response, self._book.select(state.channels, freq_hz=state.rx_freq, rate_hz=state.rx_rate, gain_db=gains).gain

    def _publish(self, found):
        from massaccess.calibration.health import VERDICTS

        if not self.heard("health"):
            return
        verdicts, mask = self.verdicts, self.mask
        facts = {"verdicts": " ".join(verdicts), "masked": int((~mask).sum()), "sure": bool(found.sure)}
        facts |= {name: verdicts.count(name) for name in VERDICTS}
        facts["mask"] = pmt.init_u8vector(len(mask), mask.astype(int).tolist())
        for name in FLOATS:
            if name in found.measures:
                facts[name] = pmt.init_f64vector(len(mask), found.measures[name].tolist())
        self.message_port_pub(pmt.intern("health"), to_dict_pmt(facts))
