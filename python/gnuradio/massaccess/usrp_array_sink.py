"""Sink: any number of USRP motherboards as one transmitting array."""

import threading

import numpy as np
import pmt
from gnuradio import blocks, gr

from ._array_setup import Array, Settings
from ._base import FrameBlock, guarded, io_signature, item, to_dict_pmt
from ._uhd import addresses_of, device_args, make, stream, uhd_of

BUFFER_SAMPLES = 8192
EVENTS = {
    "underflow": "underflows",
    "underflow_in_packet": "underflows",
    "time_error": "late",
    "seq_error": "lost_packets",
    "seq_error_in_burst": "lost_packets",
    "burst_ack": "bursts",
}


class usrp_array_sink(gr.hier_block2):
    """Sends sample vectors complex64 [channels of all boards], each antenna's entry from its port, at the times that their tags say.

    Bursts are marked by ``tx_sob`` and ``tx_eob``, or, with ``length_tag``, by a tag of that name with the number of vectors; ``tx_time``
    (uint64 s, double frac) on the first says when it is sent. The other parameters are those of `usrp_array_source`.

    Message port ``stats``: bursts sent, late ones (their time had passed), underflows and lost packets, as the devices report them.
    """

    def __init__(
        self,
        addresses="192.168.10.2",
        channels=2,
        rate=1e6,
        freq=3.5e9,
        gain=10.0,
        reference="external",
        master_clock_rate=0.0,
        lo_offset=0.0,
        antenna="",
        bandwidth=0.0,
        subdev="",
        more_args="num_send_frames=512",
        boards_per_device=0,
        length_tag="packet_len",
        driver="uhd",
    ):
        from massaccess.errors import ConfigError

        if channels < 1 or boards_per_device < 0:
            raise ConfigError(f"channels is {channels} and boards_per_device {boards_per_device}: pass 1 or more, and 0 or more")
        uhd, boards = uhd_of(driver), addresses_of(addresses)
        each = boards_per_device or len(boards) or 1
        groups = [boards[first : first + each] for first in range(0, len(boards), each)] or [[]]
        antennas = channels * max(1, len(boards))
        gr.hier_block2.__init__(self, "massaccess_usrp_array_sink", io_signature([item(np.complex64, antennas)]), gr.io_signature(0, 0, 0))
        self.devices = [
            make("usrp_sink", uhd, device_args(group, master_clock_rate, more_args), stream(uhd, channels * len(group)), length_tag)
            for group in groups
        ]
        self._lock = threading.Lock()
        settings = Settings(rate, freq, gain, lo_offset, antenna, bandwidth, subdev, reference)
        self.array = Array(uhd, self.devices, [len(group) for group in groups], channels, settings, boards)
        self.array.bring_up()
        self.channels = self.array.serials()
        self._reports = _Reports()
        self._connect(antennas)
        self.message_port_register_hier_out("stats")
        self.msg_connect(self._reports, "stats", self, "stats")

    def _connect(self, antennas):
        if antennas == 1:
            self.connect(self, self.devices[0])
        else:
            self._split = blocks.vector_to_streams(np.dtype(np.complex64).itemsize, antennas)
            self.connect(self, self._split)
            for port, (device, index, _) in enumerate(self.array.channels()):
                self._split.set_min_output_buffer(port, BUFFER_SAMPLES)
                self.connect((self._split, port), (device, index))
        for device in self.devices:
            self.msg_connect(device, "async_msgs", self._reports, "reports")

    def time_now(self):
        """Time of the first board, (seconds, fraction): what ``tx_time`` counts in."""
        now = self.devices[0].get_time_now(0)
        return now.get_full_secs(), now.get_frac_secs()

    def set_freq(self, freq):
        """Tunes all channels at one instant."""
        with self._lock:
            self.array.tune(freq)

    def set_gain(self, gain):
        """Sets the gain of all channels [dB]."""
        with self._lock:
            self.array.set_gain(float(gain))

    def stats(self):
        """bursts, late, underflows, lost_packets so far."""
        return self._reports.stats()


class _Reports(FrameBlock):
    """Counts what the devices say of the bursts."""

    def __init__(self):
        super().__init__("massaccess_usrp_reports")
        self._counts = dict.fromkeys(EVENTS.values(), 0)
        self._guard = threading.Lock()
        self.message_port_register_in(pmt.intern("reports"))
        self.message_port_register_out(pmt.intern("stats"))
        self.set_msg_handler(pmt.intern("reports"), self._heard)

    def stats(self):
        with self._guard:
            return dict(self._counts)

    @guarded
    def _heard(self, message):
        """A report is (uhd_async_msg, dictionary), whose ``event_code`` is a list of names."""
        if not pmt.is_pair(message) or not pmt.is_dict(pmt.cdr(message)):
            return
        codes = pmt.dict_ref(pmt.cdr(message), pmt.intern("event_code"), pmt.PMT_NIL)
        names = [codes] if pmt.is_symbol(codes) else [pmt.nth(index, codes) for index in range(pmt.length(codes))]
        with self._guard:
            for name in names:
                if pmt.is_symbol(name) and str(name) in EVENTS:
                    self._counts[EVENTS[str(name)]] += 1
        if self.heard("stats"):
            self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))
