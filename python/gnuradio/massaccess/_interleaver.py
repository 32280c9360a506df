"""One stream of sample vectors out of a stream for each antenna, in step by their time tags.

Each stream says its time with tag ``rx_time``, on its first sample and behind every gap. Boards may lose different packets; then streams
disagree, and the later ones wait: what the others have from before is dropped, so that every vector is of one instant.
"""

import threading
import time

import numpy as np
import pmt

from ._base import FrameBlock, failures, guarded, item, to_dict_pmt

BUFFER_VECTORS = 8192
ROWS_AT_ONCE = 1024  # vectors interleaved in one go: fewer cost calls, more fall out of the cache
STATS_SECONDS = 1.0


class Interleaver(FrameBlock):
    """In: ``antennas`` streams of complex64; out: vectors [antennas]. Tags out: ``rx_time``, ``rx_rate``, ``rx_freq`` on the first vector
    and behind every gap, ``rx_freq`` also from the instant of a retune on; those of devices, which say when a retune was asked for and not
    when it happened, are left out. ``patience`` [s] is how long the first sample may take."""

    def __init__(self, antennas, rate, freq, patience):
        super().__init__("massaccess_interleaver", in_sig=[np.complex64] * antennas, out_sig=[item(np.complex64, antennas)])
        self.set_min_output_buffer(0, BUFFER_VECTORS)
        self._rate, self._freq, self._patience = rate, freq, patience
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._facts = {}  # further tags on the first vector, and behind gaps
        self._changed = False
        self._restart()
        self._counts = {"vectors": 0, "gaps": 0, "lost_vectors": 0, "disagreements": 0, "dropped_samples": 0, "retunes": 0, "stalls": 0}
        self.message_port_register_out(pmt.intern("stats"))

    def _restart(self):
        antennas = len(self._next_frame)
        self._epoch = None  # (seconds, fraction) of tick 0
        self._ticks = np.zeros(antennas, np.int64)  # of the next sample of each stream
        self._due = None  # tick of the next vector; None: say everything with it
        self._told, self._apart = -1.0, False
        self._tunings = []  # (seconds, fraction), frequency: of the future

    @guarded(result=False)
    def start(self):
        self._restart()
        self._stopped.clear()
        threading.Thread(target=self._watch, args=(self._counts["vectors"],), daemon=True).start()
        return True

    def stop(self):
        self._stopped.set()
        return True

    def retune(self, when, freq):
        """Vectors from time ``when`` on, (seconds, fraction), are tagged with another centre frequency."""
        with self._lock:
            if self._epoch is None:
                self._freq = freq
            else:
                self._tunings.append((when, freq))
            self._counts["retunes"] += 1

    def tell(self, **facts):
        """Tags the next vector, and the first behind every gap, with ``facts`` by name."""
        with self._lock:
            self._facts |= facts
            self._changed = True

    def stats(self):
        """vectors passed on; gaps, and the vectors lost in them; disagreements of the streams, and the samples dropped to put them back in
        step; retunes; stalls, spans of some seconds in which nothing came."""
        with self._lock:
            return dict(self._counts)

    def forecast(self, noutput_items, ninputs):
        return [1] * ninputs

    @guarded
    def general_work(self, input_items, output_items):
        with self._lock:
            count = self._work(input_items, output_items[0])
        if time.monotonic() - self._told > STATS_SECONDS and self.heard("stats"):
            self._told = time.monotonic()
            self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))
        return count

    def _work(self, inputs, output):
        runs = np.array([self._run(port, len(items)) for port, items in enumerate(inputs)])
        target = self._ticks.max()
        behind = np.minimum(target - self._ticks, runs)
        if behind.any():
            for port in np.nonzero(behind)[0]:
                self._consume(int(port), int(behind[port]))
            self._counts["dropped_samples"] += int(behind.sum())
            if not self._apart:
                self._counts["disagreements"] += 1
            self._apart = True
            return 0
        self._apart = False
        count = int(min(len(output), runs.min()))
        if count:
            self._tag(int(target), count)
            for first in range(0, count, ROWS_AT_ONCE):
                rows = slice(first, min(first + ROWS_AT_ONCE, count))
                output[rows] = np.stack([items[rows] for items in inputs]).T.reshape(output[rows].shape)
            for port in range(len(inputs)):
                self._consume(port, count)
            self._due = int(target) + count
            self._counts["vectors"] += count
        return count

    def _run(self, port, count):
        """How many samples at hand follow one another without a gap; the first may say its time."""
        read = self.nitems_read(port)
        for tag in self.tags(port, count, key="rx_time"):
            tick = self._tick(pmt.to_python(tag.value))
            row = tag.offset - read
            if row == 0:
                self._ticks[port] = tick
            elif tick != self._ticks[port] + row:
                return row
        return count

    def _tick(self, when):
        """The sample number of a time (seconds, fraction); the first that is asked for is 0."""
        if self._epoch is None:
            self._epoch = when
        return round(((when[0] - self._epoch[0]) + (when[1] - self._epoch[1])) * self._rate)

    def _time(self, tick):
        whole, part = divmod(tick, round(self._rate)) if self._rate == round(self._rate) else (int(tick // self._rate), tick % self._rate)
        fraction = self._epoch[1] + part / self._rate
        return self._epoch[0] + whole + int(fraction >= 1), fraction - int(fraction >= 1)

    def _consume(self, port, count):
        self._ticks[port] += count
        self.consume(port, count)

    def _tag(self, tick, count):
        """Says time, rate and frequency with the first vector of a run, and a new frequency where it begins."""
        fresh = tick != self._due or self._changed
        if tick != self._due and self._due is not None:
            self._counts["gaps"] += 1
            self._counts["lost_vectors"] += max(0, tick - self._due)
        self._changed = False
        for when, freq in [tuning for tuning in self._tunings if self._tick(tuning[0]) < tick + count]:
            self._tunings.remove((when, freq))
            self._freq, row = freq, max(0, self._tick(when) - tick)
            if row or not fresh:
                self._say(row, tick + row)
        if fresh:
            self._say(0, tick)

    def _say(self, row, tick):
        if self._epoch is not None:
            self.tag(0, row, "rx_time", self._time(tick))
        self.tag(0, row, "rx_rate", self._rate)
        self.tag(0, row, "rx_freq", float(self._freq))
        for key, value in self._facts.items():
            self.tag(0, row, key, value)

    def _watch(self, begun):
        """Fails when nothing comes at all, and counts spans of ``patience`` in which nothing came: a board fell silent, or what follows
        takes nothing."""
        last = begun
        while not self._stopped.wait(self._patience):
            now = self._counts["vectors"]
            if now == begun:
                self._no_samples()
                return
            self._counts["stalls"] += now == last
            last = now

    def _no_samples(self):
        from massaccess.errors import MassaccessError

        failures.record(
            "massaccess_usrp_array_source",
            MassaccessError(
                f"no samples within {self._patience:g} s of the start: the common start time had passed when the devices heard of it "
                "(raise start_seconds, or call arm() just before the start), or a board does not answer"
            ),
        )
