"""Sink: an access point of a distributed array, which sends factors to a fusion centre, not samples."""

import threading
import time

import numpy as np
import pmt

from ._base import FrameBlock, failures, guarded, item, system, to_dict_pmt
from ._queue import OVERFLOW, WAIT_SECONDS

STATS_SECONDS = 0.5
FAREWELL_SECONDS = 30.0  # how long a stream that has ended waits for the centre to finish its last frames


class access_point(FrameBlock):
    """Holds frames [pilot_len + data_len, antennas] of its own antennas and answers the fusion centre at ``endpoint`` with Gaussian factors
    of the symbols (see `massaccess.link.fusion_wire`); everybody is active. Only signs of the samples are used.

    It is access point ``index`` of ``of``, counted from 0. ``noise_var``, ``adc_scale``, ``adc_offset`` (threshold of the comparators) and
    ``adc_dither`` (both as a fraction of ``adc_scale``) of 0 follow the tags of the stream; what they say last holds for all frames that
    wait, so converters with an offset want a fixed scale. Offset and dither are those of a `quantizer` of its own, after the splitter.

    ``overflow="block"`` makes the source wait while ``queue_frames`` frames have not been asked for; ``"drop_oldest"`` drops and counts
    them. The centre fuses frames by number: frames that this access point does not have it does without. ``timeout`` seconds without a
    centre are an error; 0 waits for ever. Message port ``stats``: a dictionary of counters twice a second.
    """

    def __init__(
        self,
        endpoint="tcp://127.0.0.1:5560",
        index=0,
        of=4,
        users=20,
        antennas=16,
        pilot_len=80,
        data_len=200,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        noise_var=0.0,
        adc_scale=0.0,
        adc_offset=0.0,
        adc_dither=0.0,
        overflow="block",
        queue_frames=64,
        timeout=30.0,
    ):
        from massaccess.errors import ConfigError, unknown

        if overflow not in OVERFLOW:
            raise unknown("overflow policy", overflow, OVERFLOW)
        if not 0 <= index < of:
            raise ConfigError(f"index is {index} of {of} access points: count from 0")
        if not queue_frames >= 1 or not timeout >= 0 or not noise_var >= 0:
            raise ConfigError(
                f"queue_frames {queue_frames}, timeout {timeout}, noise_var {noise_var}: pass 1 or more, 0 or more, 0 or more"
            )
        known = {"users": users, "rows": 1, "columns": antennas, "pilot_len": pilot_len, "data_len": data_len, "active_users": users}
        self._config = system(**known, modulation=modulation, pilot_kind=pilot_kind, pilot_seed=pilot_seed)
        super().__init__("massaccess_access_point", in_sig=[item(np.complex64, pilot_len + data_len, antennas)])
        self._place, self._overflow, self._capacity, self._timeout = (endpoint, index, of), overflow, queue_frames, timeout
        fixed = {"noise_var": noise_var, "adc_scale": adc_scale, "adc_offset": adc_offset, "adc_dither": adc_dither}
        self._fixed, self._tagged = {key: float(value) for key, value in fixed.items()}, {}
        self._buffer = self._peer = self._thread = None
        self._ended, self._stop = threading.Event(), threading.Event()
        self._published = time.monotonic()
        self.message_port_register_out(pmt.intern("stats"))

    @guarded(result=True)
    def start(self):
        from massaccess.forward.simulate import Population
        from massaccess.link.fusion_peer import Peer
        from massaccess.link.fusion_source import FrameBuffer

        endpoint, index, of = self._place
        c = self._config
        pilots = Population(c).pilots
        self._buffer = FrameBuffer(pilots, c.data_len, c.antennas, capacity=self._capacity, modulation=c.modulation)
        self._peer = Peer(self._buffer, endpoint, index=index, of=of)
        self._stop.clear()
        self._ended.clear()
        self._thread = threading.Thread(target=self._serve, name=f"access point {index}", daemon=True)
        self._thread.start()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        import torch

        if self._ended.is_set():
            return -1
        room = self._buffer.room(WAIT_SECONDS) if self._overflow == "block" else self._capacity
        count = min(len(input_items[0]), room)
        if count:
            self._listen(count)
            known = self._known()
            c = self._config
            samples = input_items[0][:count].reshape(count, c.frame_len, c.antennas)
            indices = self.frame_indices(0, count)
            finite = np.isfinite(samples.view(np.float32)).all((1, 2))
            for row in np.flatnonzero(finite):
                self._buffer.push(torch.from_numpy(samples[row : row + 1]), int(indices[row]), **known)
            self.consume(0, count)
        if time.monotonic() - self._published > STATS_SECONDS:
            self._publish()
        return 0

    def interrupt(self):
        self._stop.set()

    def stop(self):
        """At the end of the frames waits for the centre to finish with them; at the end of the flowgraph, for nothing."""
        if self._thread is None:
            return True
        self._buffer.end()
        if self.detail().done():
            self._ended.wait(FAREWELL_SECONDS)
        self._stop.set()
        self._thread.join(10.0)
        self._thread = None
        self._publish()
        return True

    def stats(self):
        """index, and so far: frames that came, dropped ones, answers, bad messages; queue: frames that wait; fused: whether a centre
        is there."""
        if self._peer is None:
            return {"index": self._place[1]}
        return {
            "index": self._place[1],
            "frames": self._buffer.span()[1],
            "dropped": self._buffer.dropped,
            "answers": self._peer.answered,
            "bad": self._peer.bad,
            "queue": self._capacity - self._buffer.room(),
            "fused": self._peer.welcome is not None,
        }

    def _serve(self):
        try:
            with self._peer:
                self._peer.run(stop=self._stop.is_set, patience_s=self._timeout or None)
        except Exception as error:
            failures.record(self.alias(), error)
        finally:
            self._ended.set()

    def _listen(self, count):
        for tag in self.tags(0, count):
            if (key := str(tag.key)) in self._fixed:
                self._tagged[key] = pmt.to_python(tag.value)

    def _known(self):
        """What tags and parameters say by now."""
        from massaccess.errors import ConfigError
        from massaccess.forward.front_end import front_end

        now = {key: value or self._tagged.get(key, 0.0) for key, value in self._fixed.items()}
        if not now["noise_var"] > 0:
            raise ConfigError("the noise variance is not known: pass noise_var, or tag the first frame with it")
        shape, scale = (self._config.frame_len, self._config.antennas), now["adc_scale"] or 1.0
        converter = front_end(bits=1, power=2 * scale**2, threshold=now["adc_offset"], dither=now["adc_dither"], frame=shape)
        return {"noise_var": now["noise_var"], "front_end": converter}

    def _publish(self):
        self._published = time.monotonic()
        self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))
