"""The stream of an array in, frames out: slots found and tracked, the common carrier offset taken away."""

import itertools
import time
from collections import deque

import numpy as np
import pmt
from gnuradio import gr

from ._base import FrameBlock, guarded, io_signature, item, to_dict_pmt
from ._decoder import check_side
from ._queue import OVERFLOW
from ._sample_queue import Chunk, SampleQueue
from .burst_transmitter import whole_and_fraction

OUTPUTS = ("waveform", "symbols")
PLACES = ("rx_time", "rx_rate", "rx_freq")  # tags that say where samples belong
STATS_SECONDS = 0.5
BUFFER_FRAMES = 32


class synchronizer(gr.hier_block2):
    """Finds the slots in the stream of an array, items complex64 [antennas], and gives each as a frame: ``output`` "waveform" as rows [2 *
    slot_len, antennas], two a symbol, which `receiver` takes with the same ``samples_per_symbol``; "symbols" as outputs of the matched
    filter [pilot_len + data_len, antennas], which every receiver takes (users that are not in step with the slot lose by it).

    Tags in, as UHD has them: ``rx_time``, ``rx_rate``, ``rx_freq`` on the first item, and again after every gap or change; after a gap the
    slots stand where they would have stood, cut ones are dropped and counted. Others are handed on. Tags out: ``frame``, the index of the
    slot, round((rx_time - epoch) / slot) with an ``epoch`` (seconds, or (seconds, fraction)), and counted from the first slot found with
    -1; ``rx_time`` of the slot's first sample, on the first frame, after gaps, and when the grid has strayed by half a sample; ``rx_rate``,
    ``rx_freq``, ``noise_var``.

    ``noise_var``: total variance of a complex noise entry, 0 to estimate it from the guard of the slots. ``full_scale``: of the converters,
    to count clipped samples; 0 not to. ``overflow="block"`` loses nothing; with ``"drop_oldest"`` samples beyond ``queue_slots`` slots are
    dropped like those of any gap. Message port ``stats``: a dictionary, twice a second: counters of `massaccess.synchronisation.COUNTERS`,
    dropped, queue, locked, cfo_hz, drift_ppm, late_symbols, snr_db, noise_var, and f64vectors rms and clipped_antennas, one entry an
    antenna.

    Frames begin to leave when a lock has been found and 32 more slots have come, and then begin with the first slot that is kept, at most
    32 before the lock. Latency after that: one slot."""

    def __init__(
        self,
        antennas=16,
        pilot_len=32,
        data_len=96,
        samples_per_symbol=4,
        preamble_len=16,
        guard_len=8,
        roll_off=0.25,
        sample_rate_hz=1e6,
        epoch=-1.0,
        noise_var=0.0,
        output="waveform",
        full_scale=0.0,
        overflow="block",
        queue_slots=64,
    ):
        from massaccess.burst import Burst
        from massaccess.errors import ConfigError, unknown
        from massaccess.synchronisation import Synchronizer

        for what, value, known in (("output", output, OUTPUTS), ("overflow policy", overflow, OVERFLOW)):
            if value not in known:
                raise unknown(what, value, known)
        if not queue_slots >= 1:
            raise ConfigError(f"queue_slots is {queue_slots}: it counts slots, pass 1 or more")
        check_side("noise_var", noise_var)
        check_side("full_scale", full_scale)
        burst = Burst(pilot_len, data_len, preamble_len, guard_len, samples_per_symbol, roll_off)
        time_slotted = isinstance(epoch, (tuple, list)) or epoch >= 0
        engine = Synchronizer(
            burst,
            antennas,
            sample_rate_hz=sample_rate_hz,
            epoch=whole_and_fraction(epoch) if time_slotted else None,
            noise_var=noise_var or None,
            full_scale=full_scale,
        )
        length = burst.rows if output == "waveform" else pilot_len + data_len
        samples, frames = item(np.complex64, antennas), item(np.complex64, length, antennas)
        queue = SampleQueue(queue_slots * burst.slot_samples, overflow)
        self._intake = SampleIntake(queue, samples, sample_rate_hz)
        self._frames = SlotSource(queue, engine, frames, output == "symbols")
        gr.hier_block2.__init__(self, "massaccess_synchronizer", io_signature([samples]), io_signature([frames]))
        self.connect(self, self._intake)
        self.connect(self._frames, self)
        self.message_port_register_hier_out("stats")
        self.msg_connect(self._frames, "stats", self, "stats")

    def set_noise_var(self, noise_var):
        """Total variance of a complex noise entry from now on; 0 estimates it."""
        check_side("noise_var", noise_var)
        self._frames.engine.set_noise_var(noise_var or None)

    def stats(self):
        """Counters and what a monitor wants, as port ``stats`` has them; rms and clipped_antennas are arrays."""
        return self._frames.stats()


class SampleIntake(FrameBlock):
    """Copies samples into the queue, cut where tags are, each chunk with the time of its first sample."""

    def __init__(self, queue, signature, rate):
        super().__init__("massaccess_sample_intake", in_sig=[signature])
        self._queue, self._rate = queue, rate
        self._said = None  # time that was told last, and of which item

    def start(self):
        self._said = None
        self._queue.open()
        return True

    def stop(self):
        self._queue.close(stopped=not self.detail().done())
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if self._queue.closed:
            return -1
        count = min(len(input_items[0]), self._queue.room())
        if not count:
            return 0
        samples, start = input_items[0][:count].reshape(count, -1), self.nitems_read(0)
        told = {}
        for tag in self.tags(0, count):
            told.setdefault(tag.offset - start, {})[str(tag.key)] = tag.value
        cuts = sorted({0, *told, count})
        for first, last in itertools.pairwise(cuts):
            self._put(samples[first:last], start + first, told.get(first, {}))
        self.consume(0, count)
        return 0

    def _put(self, samples, offset, told):
        known = {name: pmt.to_python(told[name]) for name in PLACES if name in told}
        if "rx_time" in known:
            self._said = known["rx_time"], offset
        time = self._time(offset)
        self._rate = known.get("rx_rate", self._rate)
        if "rx_rate" in known and self._said is not None:
            self._said = time, offset
        others = tuple((key, value) for key, value in told.items() if key not in PLACES)
        self._queue.put(Chunk(samples.copy(), time, known.get("rx_rate"), known.get("rx_freq"), others))

    def _time(self, offset):
        if self._said is None:
            return None
        (seconds, fraction), since = self._said
        whole, fraction = divmod(fraction + (offset - since) / self._rate, 1)
        return seconds + int(whole), fraction


class SlotSource(FrameBlock):
    """Takes chunks out of the queue and gives the frames that they complete."""

    def __init__(self, queue, engine, signature, symbols):
        super().__init__("massaccess_slot_source", out_sig=[signature])
        self.set_min_output_buffer(0, BUFFER_FRAMES)
        self._queue, self.engine, self._symbols = queue, engine, symbols
        self._pending, self._carried = deque(), ()
        self._started = self._told_rate = False
        self._freq = self._noise_var = None
        self._published = time.monotonic()
        self.message_port_register_out(pmt.intern("stats"))

    def start(self):
        if self._started:  # again: samples were lost in between, and nobody knows how many
            self._pending.clear()
            self.engine.forget()
        self._started, self._told_rate = True, False
        self._freq = self._noise_var = None  # whoever was connected meanwhile has not heard it
        return True

    def interrupt(self):
        self._queue.close(stopped=True)

    def stop(self):
        self._queue.close()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        while not self._pending:  # whoever returns without an item is not called again for a quarter of a second
            chunk = None if self._queue.stopped else self._queue.take()
            if chunk is None:
                self._pending.extend([] if self._queue.stopped else self.engine.flush())
                if not self._pending:
                    self._publish()
                    return -1
            elif chunk:
                self._carried += chunk.tags
                self._pending.extend(self.engine.push(chunk.samples, time=chunk.time, rate=chunk.rate, freq=chunk.freq))
            if time.monotonic() - self._published > STATS_SECONDS:
                self._publish()
            if not chunk:
                break
        return self._emit(output_items[0])

    def stats(self):
        """Counters and report of the engine, and of the queue."""
        report = self.engine.report()
        known = {name: report[name] for name in ("locked", "cfo_hz", "drift_ppm", "late_symbols", "snr_db", "noise_var", "rms")}
        return {
            **self.engine.counters,
            "dropped": self._queue.dropped,
            "queue": len(self._queue),
            **known,
            "clipped_antennas": self.engine.clipped.copy(),
        }

    def _emit(self, out):
        count = min(len(out), len(self._pending))
        for row in range(count):
            frame = self._pending.popleft()
            out[row] = self._item(frame.rows).reshape(-1)
            self.tag(0, row, "frame", pmt.from_uint64(frame.frame))
            for key, value in self._changes(frame).items():
                self.tag(0, row, key, value)
            for key, value in self._carried:
                self.tag(0, row, key, value)
            self._carried = ()
        return count

    def _item(self, rows):
        if not self._symbols:
            return rows
        import torch

        from massaccess.forward.waveform import matched

        return matched(torch.from_numpy(rows)[None], self.engine.burst)[0].numpy()

    def _changes(self, frame):
        """Tags of a frame that say something new."""
        time = max(frame.time, (0, 0.0))  # slot 0 may be found a fraction of a sample before time 0, and rx_time has no sign
        told = {"rx_time": time} if frame.told else {}
        if not self._told_rate:
            told |= {"rx_time": time, "rx_rate": float(self.engine.rate)}
            self._told_rate = True
        if frame.freq is not None and frame.freq != self._freq:
            told["rx_freq"] = self._freq = float(frame.freq)
        if frame.noise_var != self._noise_var:
            told["noise_var"] = self._noise_var = float(frame.noise_var)
        return told

    def _publish(self):
        self._published = time.monotonic()
        if self.heard("stats"):
            arrays = {name: value for name, value in self.stats().items() if isinstance(value, np.ndarray)}
            vectors = {name: pmt.init_f64vector(len(value), value.astype(float).tolist()) for name, value in arrays.items()}
            self.message_port_pub(pmt.intern("stats"), to_dict_pmt({**self.stats(), **vectors}))
