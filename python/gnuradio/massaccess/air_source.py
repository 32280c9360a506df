"""Source: samples of an array from the broker of a virtual air."""

import time

import numpy as np

from ._array import Emitter, buffer_samples
from ._base import FrameBlock, guarded, item

POLL_SECONDS = 0.05  # a longer wait inside work would delay the stop of the flowgraph
MOST_SAMPLES = 8192
SECONDS_TO_ASK_AGAIN = 1.0


class air_source(FrameBlock):
    """Samples of an array, items of [rows * columns] complex64, of `massaccess air broker` at ``endpoint``.

    It asks, and the broker answers: a flowgraph that is slow holds the air up, and nothing is lost. When the broker is another process all
    of a sudden, it is asked again. Ends when the broker says so; fails when nothing has come for ``timeout`` seconds (0: waits for ever).

    Tags: ``rx_time``, ``rx_rate`` and ``rx_freq`` on the first sample, ``rx_time`` again on the first one after a gap. ``stats()`` counts.
    """

    def __init__(self, rows=8, columns=8, sample_rate_hz=1e6, carrier_hz=3.5e9, endpoint="tcp://127.0.0.1:5570", timeout=30.0):
        from massaccess import SystemConfig
        from massaccess.link.air_array import ArrayLine

        antennas = rows * columns
        super().__init__("massaccess_air_source", out_sig=[item(np.complex64, antennas)])
        self.set_min_output_buffer(0, buffer_samples(antennas))
        config = SystemConfig(rows=rows, columns=columns, sample_rate_hz=sample_rate_hz, carrier_hz=carrier_hz)
        self._line = ArrayLine(endpoint, antennas, most=MOST_SAMPLES, again_s=SECONDS_TO_ASK_AGAIN)
        self._out = Emitter(self, config, {"rx_rate": sample_rate_hz, "rx_freq": carrier_hz})
        self._endpoint, self._timeout = endpoint, timeout
        self._heard = time.monotonic()

    def stats(self):
        """received samples, gaps in their numbers, requests that were asked_again, malformed answers."""
        return {name: getattr(self._line, name) for name in ("received", "gaps", "asked_again", "malformed")}

    def start(self):
        self._out.restart()
        self._heard = time.monotonic()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if not self._out.waiting:
            found = self._line.poll(POLL_SECONDS)
            if found is None:
                return -1 if self._line.ended else self._wait()
            self._heard = time.monotonic()
            self._out.add(*found)
        return self._out.write(output_items[0])

    def stop(self):
        if self._line.ended:
            self._line.close()
        return True

    def _wait(self):
        from massaccess.errors import MassaccessError

        if self._timeout and time.monotonic() - self._heard > self._timeout:
            raise MassaccessError(
                f"nothing from {self._endpoint} for {self._timeout:g} s: start `massaccess air broker` there, correct the address, or look "
                "at what the broker says of its users"
            )
        return 0
