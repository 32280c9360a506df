"""Array stream in and out: undoes the chains' responses, and fills in for antennas that do not work."""

import threading
import warnings

import numpy as np
import pmt

from ._array_tags import ArrayState
from ._base import FrameBlock, guarded, item

BUFFER_VECTORS = 4096
FOREIGN = ("refuse", "pass")


class array_corrector(FrameBlock):
    """Multiplies sample vectors [rows * columns] with the factors of a calibration, and replaces masked antennas.

    ``path`` is a file of `massaccess.calibration.Book` (empty: no calibration, only masks). What fits is looked up by the tags
    ``rx_channels``, ``rx_freq``, ``rx_rate`` and ``rx_gain``, now and after every retune. Where nothing fits, ``foreign`` "refuse" ends the
    flowgraph with the reason, "pass" passes samples as they are and says so in the log. A calibration older than ``max_age_hours`` is
    used, with a warning. ``amplitude`` equalises levels too. Delays are filtered away only beyond ``least_delay`` samples; the output is
    then some samples late, its tags stay at their instants, and the last few samples of a stream that ends are lost.

    Masked antennas (of tag ``mask`` of `array_health`, from that sample on, or of messages at port ``health``, as soon as they come, unless
    ``masking`` is off; of the calibration; or `set_mask`) are filled in from the
    others with the covariance of the channel model ``channel_cov`` and the expected ``snr_db`` of all users together; without one they
    are 0. See `massaccess.calibration.masking`.

    Port ``calibration`` (in): PDUs of `array_calibrator`, used from then on. Tags out: those that came, and ``calibration`` with the id.
    """

    def __init__(
        self,
        rows=8,
        columns=8,
        path="",
        foreign="refuse",
        max_age_hours=12.0,
        amplitude=True,
        least_delay=0.1,
        masking=True,
        channel_cov="",
        snr_db=10.0,
    ):
        from massaccess.calibration import Book
        from massaccess.errors import unknown

        antennas = rows * columns
        if foreign not in FOREIGN:
            raise unknown("way with foreign calibrations", foreign, FOREIGN)
        super().__init__("massaccess_array_corrector", in_sig=[item(np.complex64, antennas)], out_sig=[item(np.complex64, antennas)])
        self.set_min_output_buffer(0, BUFFER_VECTORS)
        self._foreign, self._max_age_hours = foreign, max_age_hours
        self._how = {"amplitude": amplitude, "least_delay": least_delay}
        self._masking, self._noise = masking, 10 ** (-snr_db / 10)
        self._covariance = _covariance(channel_cov, rows, columns)
        self._book = Book.load(path) if path else None
        self._lock = threading.Lock()
        self._state, self._given = ArrayState(antennas), np.ones(antennas, bool)
        self._id, self._correction, self._taps, self._past = None, None, None, None
        self._pending = True
        self._plan()
        for port, handler in (("calibration", self._on_calibration), ("health", self._on_health)):
            self.message_port_register_in(pmt.intern(port))
            self.set_msg_handler(pmt.intern(port), handler)

    def set_mask(self, mask):
        """Antennas [M] bool to use; the others are filled in."""
        with self._lock:
            self._given = np.asarray(mask, bool).copy()
            self._plan()

    @property
    def mask(self):
        """Antennas that are used, [M] bool."""
        with self._lock:
            return self._mask.copy()

    @property
    def calibration_id(self):
        """The id of the calibration in use, ``None`` without one."""
        return self._id

    def start(self):
        self._pending, self._past = True, None
        return True

    def forecast(self, noutput_items, ninputs):
        return [1 + self._ahead] * ninputs

    @property
    def _ahead(self):
        return 0 if self._taps is None else len(self._taps) // 2

    @guarded
    def general_work(self, input_items, output_items):
        samples, output = input_items[0], output_items[0]
        with self._lock:
            count = self._change(len(samples))
            whole = count < len(samples)  # up to the next change, what comes after it does not belong to it
            usable = count if whole else count - self._ahead
            usable = min(usable, len(output))
            if usable <= 0:
                return 0
            self._apply(samples[:count], output[:usable])
            if self._pending:
                self.tag(0, 0, "calibration", self._id or "none")
                self._pending = False
        self.pass_tags(0, 0, usable, skip=("calibration", "mask"))
        self.consume(0, usable)
        return usable

    def _change(self, count):
        """Takes in the tags of the first vector; returns how many vectors follow before the next that could change anything."""
        read, found = self.nitems_read(0), self.tags(0, count)
        first = [tag for tag in found if tag.offset == read]
        if any(str(tag.key) == "rx_time" for tag in first):
            self._past = None
        state = self._state.told(first)
        if state is not self._state or (self._pending and self._book is not None and self._correction is None):
            self._state = state
            self._choose()
        for tag in first:
            if str(tag.key) == "mask":
                self._follow(tag.value)
        later = [tag.offset - read for tag in found if tag.offset > read and (str(tag.key).startswith("rx_") or str(tag.key) == "mask")]
        return min(later, default=count)

    def _choose(self):
        """The calibration for what the tags say now."""
        from massaccess.errors import ConfigError, MassaccessWarning

        state, chosen = self._state, None
        if self._book is not None:
            try:
                gains = [state.gain_of(antenna) for antenna in range(state.antennas)]
                chosen = self._book.select(state.channels, freq_hz=state.rx_freq, rate_hz=state.rx_rate, gain_db=gains)
            except ConfigError as error:
                if self._foreign == "refuse":
                    raise
                warnings.warn(f"samples pass uncorrected: {error}", MassaccessWarning, stacklevel=2)
        if chosen is not None:
            chosen.warn_if_stale(self._max_age_hours)
        self._id = chosen.id if chosen is not None else None
        self._correction = chosen.correction(**self._how) if chosen is not None else None
        self._pending = True
        self._plan()

    def _plan(self):
        """Factors, filters and weights for the calibration and the mask as they are."""
        import torch

        from massaccess.calibration import delay_taps, filling

        correction = self._correction
        good = correction.mask if correction is not None else np.ones_like(self._given)
        self._mask = good & self._given
        self._factor = correction.factor if correction is not None else None
        self._taps = delay_taps(correction.delay) if correction is not None and correction.delay is not None else None
        self._weights = None
        if not self._mask.all():
            cov = None if self._covariance is None else torch.from_numpy(self._covariance)
            self._weights = filling(torch.from_numpy(self._mask), cov, self._noise).numpy().T.copy()

    def _apply(self, samples, output):
        count = len(output)
        samples = self._filtered(samples, count) if self._taps is not None else samples[:count]
        output, samples = (part.reshape(count, -1) for part in (output, samples))
        if self._factor is None:
            output[:] = samples
        else:
            np.multiply(samples, self._factor, out=output)
        if self._weights is not None:
            output[:, ~self._mask] = output[:, self._mask] @ self._weights

    def _filtered(self, samples, count):
        """``count`` vectors of ``samples`` without the chains' delays; before a gap, and behind the end, there is silence."""
        half = self._ahead
        before = np.zeros((half, samples.shape[1]), np.complex64) if self._past is None else self._past
        window = np.concatenate([before, samples[: count + half]])
        window = np.concatenate([window, np.zeros((max(0, count + 2 * half - len(window)), samples.shape[1]), np.complex64)])
        result = np.zeros((count, samples.shape[1]), np.complex64)
        for index, taps in enumerate(self._taps):
            shift = 2 * half - index
            result += window[shift : shift + count] * taps
        self._past = window[count : count + half].copy()
        return result

    def _follow(self, mask):
        """Takes on a mask that `array_health` has said; one that would leave no antenna is none."""
        if self._masking and pmt.is_u8vector(mask) and pmt.length(mask) == len(self._given) and any(pmt.u8vector_elements(mask)):
            self._given = np.array(pmt.u8vector_elements(mask), bool)
            self._plan()

    @guarded
    def _on_health(self, message):
        with self._lock:
            self._follow(pmt.dict_ref(_dictionary(message), pmt.intern("mask"), pmt.PMT_NIL))

    @guarded
    def _on_calibration(self, message):
        """A PDU whose octets are the text of a book."""
        from massaccess.calibration import Book

        if not pmt.is_pair(message) or not pmt.is_u8vector(pmt.cdr(message)):
            return
        fresh = Book.parse(bytes(pmt.u8vector_elements(pmt.cdr(message))).decode(), "a calibration message")
        with self._lock:
            self._book = (self._book or Book()).update(fresh.entries)
            self._choose()


def _dictionary(message):
    part = pmt.car(message) if pmt.is_pair(message) and not pmt.is_dict(message) else message
    return part if pmt.is_dict(part) else pmt.make_dict()


def _covariance(name, rows, columns):
    if not name:
        return None
    from massaccess import SystemConfig
    from massaccess.errors import ConfigError
    from massaccess.forward.channels import make_channel

    found = make_channel(SystemConfig(rows=rows, columns=columns, channel=name)).covariance
    if found is None:
        raise ConfigError(f"channel {name} has no covariance, its antennas are independent: leave channel_cov empty")
    return found.numpy()
