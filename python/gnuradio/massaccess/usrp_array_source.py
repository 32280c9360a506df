"""Source: any number of USRP motherboards as one array."""

import threading

import numpy as np
from gnuradio import gr

from ._array_setup import Array, Settings
from ._array_tags import gain_pmt, name_channels
from ._base import armed, io_signature, item
from ._interleaver import BUFFER_VECTORS, Interleaver
from ._uhd import addresses_of, device_args, make, stream, uhd_of

PATIENCE_SECONDS = 5.0


class usrp_array_source(gr.hier_block2):
    """Sample vectors complex64 [antennas] of USRP motherboards that run in step: one stream, all channels of the first board first.

    ``addresses`` of the boards, separated by commas, in the order of the antennas (network addresses or serial numbers), each with
    ``channels`` channels. ``reference``: where 10 MHz and PPS come from ("external", "internal" for one board, "mimo" for two, "gpsdo").
    All channels get ``rate``, ``freq`` (tuned at one instant, with the oscillator ``lo_offset`` away), ``gain`` (gain control off),
    ``antenna``, ``bandwidth`` (0: as it is) and ``subdev``; ``master_clock_rate`` (0: as it is) is that of all boards. ``more_args`` are
    further device arguments. ``boards_per_device`` (0: all) splits large arrays into several streamers, each with a thread of its own.
    The stream starts ``start_seconds`` after the last call of `arm`, or after construction; `run` calls it.

    ``driver`` is "uhd", or "sim" for a simulated array, told what to do by ``more_args`` (see `_simulated_usrp`).

    Tags: ``rx_time``, ``rx_rate``, ``rx_freq`` on the first vector, behind every gap, and where a retune takes effect; with them
    ``rx_channels`` (serial number and channel of each antenna) and ``rx_gain`` [dB], which calibrations are found by. Boards that lost
    different packets are put back in step. Message port ``stats``: counts, as `stats` gives them.

    Raises MassaccessError when a device does not answer, or the boards cannot be brought into step; ConfigError for settings they lack.
    """

    def __init__(
        self,
        addresses="192.168.10.2",
        channels=2,
        rate=1e6,
        freq=3.5e9,
        gain=20.0,
        reference="external",
        master_clock_rate=0.0,
        lo_offset=0.0,
        antenna="",
        bandwidth=0.0,
        subdev="",
        more_args="num_recv_frames=512",
        boards_per_device=0,
        start_seconds=1.0,
        driver="uhd",
    ):
        from massaccess.errors import ConfigError

        if channels < 1 or boards_per_device < 0:
            raise ConfigError(f"channels is {channels} and boards_per_device {boards_per_device}: pass 1 or more, and 0 or more")
        uhd, boards = uhd_of(driver), addresses_of(addresses)
        settings = Settings(rate, freq, gain, lo_offset, antenna, bandwidth, subdev, reference)
        each = boards_per_device or len(boards) or 1
        groups = [boards[first : first + each] for first in range(0, len(boards), each)] or [[]]
        gr.hier_block2.__init__(
            self,
            "massaccess_usrp_array_source",
            gr.io_signature(0, 0, 0),
            io_signature([item(np.complex64, channels * max(1, len(boards)))]),
        )
        self.devices = [
            make("usrp_source", uhd, device_args(group, master_clock_rate, more_args), stream(uhd, channels * len(group)))
            for group in groups
        ]
        self._start_seconds, self._lock = start_seconds, threading.Lock()
        self.array = Array(uhd, self.devices, [len(group) for group in groups], channels, settings, boards)
        self.array.bring_up()
        self.channels = self.array.serials()
        self._interleaver = Interleaver(channels * len(boards), float(rate), float(freq), start_seconds + PATIENCE_SECONDS)
        self._interleaver.tell(rx_channels=name_channels(self.channels), rx_gain=gain_pmt(gain))
        for port, (device, index, _) in enumerate(self.array.channels()):
            device.set_min_output_buffer(index, BUFFER_VECTORS)
            self.connect((device, index), (self._interleaver, port))
        self.connect(self._interleaver, self)
        self.message_port_register_hier_out("stats")
        self.msg_connect(self._interleaver, "stats", self, "stats")
        self.arm()
        armed.add(self)

    def arm(self, seconds=None):
        """Sets the common start to so long from now; to be called just before the flowgraph starts, `run` does."""
        with self._lock:
            return self.array.start_together(self._start_seconds if seconds is None else seconds)

    def set_freq(self, freq):
        """Tunes all channels at one instant; vectors from then on carry the new frequency. Raises as the constructor does."""
        with self._lock:
            self._interleaver.retune(self.array.tune(freq), float(freq))

    def set_gain(self, gain):
        """Sets the gain of all channels [dB]."""
        with self._lock:
            self.array.set_gain(float(gain))
            self._interleaver.tell(rx_gain=gain_pmt(gain))

    def stats(self):
        """Vectors, gaps, lost vectors, disagreements of boards, samples dropped to realign them, retunes."""
        return self._interleaver.stats()
