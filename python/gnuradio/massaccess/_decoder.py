"""The insides of `receiver`, `activity_detector` and `noncoherent_receiver`: two blocks with a bounded queue of frames between them.

`Intake` (a sink) copies frames into the queue and never computes. `Decoder` (a source) takes batches out, runs a receiver of the library on
them in its own thread, the only one that touches the device, and emits the answers as streams. Two blocks, because a block that consumes
and emits at different times would have nothing to wake it up, and would lose what is in flight when its input ends.
"""

import hashlib
import math
import time
from collections import deque

import numpy as np
import pmt
from gnuradio import gr

from ._base import FrameBlock, check_book, guarded, item, item_bytes, system, to_dict_pmt
from ._budget import Budget
from ._engine import Engine, rows_of
from ._gains import Gains
from ._queue import ESTIMATE, OVERFLOW, STALL_SECONDS, Entry, FrameQueue, Side

STATS_SECONDS = 0.5
CONVERTER = {"adc_scale": 1.0, "adc_offset": 0.0, "adc_dither": 0.0}  # and what they are where nobody says
SIDE = ("noise_var", "adc_bits", *CONVERTER)  # tags that receivers need
LLRS_AT_ONCE = 256  # codewords that are published without asking whether their decoder keeps up
PATIENCE_SECONDS = 10.0
LEAST_VAR = 1e-30  # of a symbol, in the logarithm
MAX_BUFFER = 512 << 20  # bytes that the answers of two batches may take


class Intake(FrameBlock):
    """Copies frames and their side information into the queue; frames with NaN or infinity are rejected and counted. ``powers``: whether
    the tag user_gain counts."""

    def __init__(self, queue, signature, users, book, side, powers):
        super().__init__("massaccess_intake", in_sig=[signature])
        self._queue, self._users, self._book = queue, users, book
        self._fixed, self._tagged, self._gain, self._powers = side, {}, None, powers
        self._carried = ()  # tags of rejected frames, for the next good one
        self.rejected = 0

    def set_side(self, **known):
        """Side information that holds whatever tags say; 0 means that tags do, a noise variance of -1 that the frames do."""
        self._fixed = self._fixed._replace(**known)

    @guarded
    def general_work(self, input_items, output_items):
        if self._queue.closed:
            return -1
        count = min(len(input_items[0]), self._queue.room())
        if not count:
            return 0
        samples = input_items[0][:count].reshape(count, -1)
        finite = np.isfinite(samples.view(np.float32).sum(1, dtype=np.float64))
        told = self._told(count)
        indices = self.frame_indices(0, count)
        self.rejected += int(count - finite.sum())
        entries = []
        for row, (side, tags, gain) in enumerate(told):
            self._carried += tags
            if finite[row]:
                entries.append(Entry(int(indices[row]), side, samples[row].copy(), self._carried, gain))
                self._carried = ()
        self._queue.put(entries)
        self.consume(0, count)
        return 0

    def start(self):
        self._queue.open()
        return True

    def stop(self):
        """At the end of the frames, or of the flowgraph: then nobody waits for what is being decoded."""
        self._queue.close(stopped=not self.detail().done())
        return True

    def _told(self, count):
        """(side information, tags to hand on, gains) of each of ``count`` frames at hand: what tags say holds until they say otherwise."""
        tags, start, told = deque(self.tags(0, count)), self.nitems_read(0), []
        for row in range(count):
            others = ()
            while tags and tags[0].offset == start + row:
                tag = tags.popleft()
                key = str(tag.key)
                others += ((key, tag.value),) if key not in ("frame", "user_gain") else ()
                if key == "user_gain":
                    self._gain = self._gains(tag.value) if self._powers else None
                elif key == "pilot_book":
                    self._check_book(str(tag.value))
                elif key in SIDE:
                    self._tagged[key] = pmt.to_python(tag.value)
            told.append((self._side(), others, self._gain))
        return told

    def _side(self):
        fixed, tagged = self._fixed, self._tagged
        noise_var = fixed.noise_var or tagged.get("noise_var", 0.0)
        if not noise_var > 0 and noise_var != ESTIMATE:
            from massaccess.errors import ConfigError

            raise ConfigError("the noise variance is not known: pass noise_var, or tag the first frame with it, or pass -1 to estimate it")
        bits = fixed.adc_bits or tagged.get("adc_bits", 0)
        if not bits:
            return Side(noise_var, 0, 1.0)
        told = {name: getattr(fixed, name) or tagged.get(name, default) for name, default in CONVERTER.items()}
        return Side(noise_var, bits, **told)

    def _gains(self, value):
        from massaccess.errors import ConfigError

        gains = np.array(pmt.f32vector_elements(value), np.float32)
        if len(gains) != self._users:
            raise ConfigError(f"tag user_gain tells of {len(gains)} users but this receiver has {self._users}: give both the same users")
        return gains

    def _check_book(self, book):
        check_book(book, self._book, "this receiver")


class Decoder(FrameBlock):
    """Takes batches out of the queue and emits the answers, one item a frame; counts, digests, and publishes PDUs."""

    def __init__(self, queue, engine, intake, outputs, max_batch, deadline_ms):
        super().__init__("massaccess_decoder", out_sig=outputs)
        for port in range(len(outputs)):
            self.set_min_output_buffer(port, 2 * max_batch)
        self._queue, self._engine, self._intake = queue, engine, intake
        self._pending = deque()
        self._digest = hashlib.sha256()
        self._deadline = deadline_ms / 1e3
        self._frames = self._active = self._packets = self._cut = 0
        self._seconds = 0.0
        self._published = time.monotonic()
        self._signed = self._warned = self._noted = False
        self._behind = None
        for port in ("packets", "active", "llrs", "stats"):
            self.message_port_register_out(pmt.intern(port))

    @guarded(result=True)
    def start(self):
        if self._engine.fit and self._engine.fit.note and not self._noted:
            self._noted = True
            gr.logger(self.alias()).warn(self._engine.fit.note)
        self._engine.start(self._stopped)
        return True

    def interrupt(self):
        self._queue.close(stopped=True)

    def stop(self):
        self._queue.close()
        return True

    def wait_for(self, behind):
        """With overflow "block", ratios wait while ``behind()`` says that whoever takes them is, `PATIENCE_SECONDS` at most at a time."""
        self._behind = behind if self._queue.blocking else None

    @guarded
    def general_work(self, input_items, output_items):
        if not self._pending:
            batch = self._queue.take()
            if batch is None:
                self._publish_stats()
                return -1
            if batch and not self._decode(batch):
                return -1
            self._warn_of_stalls()
            if time.monotonic() - self._published > STATS_SECONDS:
                self._publish_stats()
        return self._emit(output_items)

    def stats(self):
        """Counters so far; ``seconds`` is time spent in the receiver, ``queue`` what waits now."""
        return {
            "receiver": self._engine.name,
            "weights": self._engine.fit.weights if self._engine.fit else "",
            "weights_hash": self._engine.fit.digits if self._engine.fit else "",
            "frames": self._frames,
            "active": self._active,
            "packets": self._packets,
            "gains": self._engine.gains.mode,
            "learned": self._engine.gains.frames,
            "dropped": self._queue.dropped,
            "rejected": self._intake.rejected,
            "cut": self._cut,
            "stalls": self._queue.stalls,
            "queue": len(self._queue),
            "seconds": self._seconds,
        }

    def gains_db(self):
        """The gains learned so far [users], in dB."""
        return self._engine.gains.gain_db

    def digest(self):
        """SHA-256 over frame numbers, active sets and decoded payloads, as hexadecimal digits."""
        return self._digest.hexdigest()

    def _decode(self, batch):
        """Whether the batch was decoded: one that a stop cut short goes back, and a flowgraph that starts again decodes it in full."""
        began = time.perf_counter()
        answer = self._engine(batch, Budget(len(batch) * self._deadline, self._stopped))
        self._seconds += time.perf_counter() - began
        if answer.cut and self._stopped():
            self._queue.put_back(batch)
            return False
        self._engine.learn(answer)
        self._count(answer)
        self._pending.append((0, answer._replace(estimate=None)))
        return True

    def _stopped(self):
        return self._queue.stopped

    def _warn_of_stalls(self):
        """A source that is slow, or held up by a full buffer, makes batches short: answers of receivers that draw then depend on it."""
        if self._queue.stalls and not self._warned:
            self._warned = True
            gr.logger(self.alias()).warn(
                f"fewer than max_batch frames came in {STALL_SECONDS} s, so batches are short: a smaller max_batch avoids the wait"
            )

    def _count(self, answer):
        self._frames += len(answer.frames)
        self._active += int(answer.active.sum())
        self._cut += answer.cut
        if answer.ok is not None:
            self._packets += int(answer.ok.sum())
        packed = np.packbits(answer.active, axis=1)
        for row, frame in enumerate(answer.frames):
            self._digest.update(frame.to_bytes(8, "little") + packed[row].tobytes())
            if answer.payload is not None:
                self._digest.update(answer.payload[row][answer.active[row]].tobytes())
        if answer.ok is not None and self.heard("packets"):
            self._publish_packets(answer)
        if self.heard("active"):
            self._publish_active(answer)
        if answer.active.any() and self.heard("llrs"):
            self._publish_llrs(answer)

    def _emit(self, output_items):
        room, done = len(output_items[0]), 0
        while self._pending and done < room:
            first, answer = self._pending.popleft()
            last = min(first + room - done, len(answer.frames))
            for port, value in enumerate(answer.streams[: len(output_items)]):
                output_items[port][done : done + last - first] = value[first:last].reshape(
                    output_items[port][done : done + last - first].shape
                )
                for row in range(first, last):
                    self.tag(port, done + row - first, "frame", pmt.from_uint64(answer.frames[row]))
                    for key, told in answer.tags[row]:
                        self.tag(port, done + row - first, key, told)
            done += last - first
            if last < len(answer.frames):
                self._pending.appendleft((last, answer))
        if done and not self._signed:
            self._signed = True
            self._sign(len(output_items))
        return done

    def _sign(self, ports):
        """Tags the first answer with what made it."""
        from massaccess import __version__

        told = {"receiver": self._engine.name, "version": __version__}
        if self._engine.fit:
            told["weights"] = self._engine.fit.weights
            told |= {"weights_hash": self._engine.fit.digits} if self._engine.fit.digits else {}
        for port in range(ports):
            for key, value in told.items():
                self.tag(port, 0, key, value)

    def _publish_packets(self, answer):
        port = pmt.intern("packets")
        for row, user in zip(*np.nonzero(answer.ok), strict=True):
            known = {"frame": pmt.from_uint64(answer.frames[row]), "user": int(user)}
            known |= {"activity": float(answer.activity[row, user]), "receiver": self._engine.name}
            known |= {} if answer.llrs is None else {"llrs": pmt.init_f32vector(answer.llrs.shape[2], answer.llrs[row, user].tolist())}
            octets = answer.payload[row, user].tolist()
            self.message_port_pub(port, pmt.cons(to_dict_pmt(known), pmt.init_u8vector(len(octets), octets)))

    def _publish_llrs(self, answer):
        port = pmt.intern("llrs")
        rows, users = np.nonzero(answer.active)
        llrs, noise = self._engine.soft(answer.estimate, rows, users)
        snr_db = -10 * np.log10(np.maximum(noise, LEAST_VAR))
        for index, (row, user, values, var, snr) in enumerate(zip(rows, users, llrs, noise, snr_db, strict=True)):
            if self._behind and index % LLRS_AT_ONCE == 0:
                self._let_catch_up()
            known = {"frame": pmt.from_uint64(answer.frames[row]), "user": int(user), "activity": float(answer.activity[row, user])}
            known |= {"receiver": self._engine.name, "symbol_var": float(var), "snr_db": float(snr)}
            self.message_port_pub(port, pmt.cons(to_dict_pmt(known), pmt.init_f32vector(len(values), values.tolist())))

    def _let_catch_up(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._behind() and not self._stopped() and time.monotonic() < deadline:
            time.sleep(0.002)

    def _publish_active(self, answer):
        port = pmt.intern("active")
        for row, frame in enumerate(answer.frames):
            users = np.flatnonzero(answer.active[row]).tolist()
            known = to_dict_pmt({"frame": pmt.from_uint64(frame), "receiver": self._engine.name})
            self.message_port_pub(port, pmt.cons(known, pmt.init_s32vector(len(users), users)))

    def _publish_stats(self):
        self._published = time.monotonic()
        self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))


def check_side(what, value, *, estimate=False):
    """ConfigError for side information that cannot be."""
    from massaccess.errors import ConfigError

    if not (math.isfinite(value) and (value >= 0 or (estimate and value == ESTIMATE))):
        cure = f", or {ESTIMATE} to estimate it from the frames" if estimate else ""
        raise ConfigError(f"{what} is {value}: pass a positive number, or 0 to follow the tags{cure}")


def build(
    name,
    options,
    *,
    answers,
    values,
    noise_var,
    adc_bits,
    adc_scale,
    adc_offset,
    adc_dither,
    channel_cov,
    weights,
    max_batch,
    overflow,
    queue_frames,
    deadline_ms,
    seed,
    threads,
    device,
    gains="known",
    gain_low_db=0.0,
    gain_high_db=0.0,
    remember=0,
):
    """(intake, decoder) for the parameters of a block; ``values`` are fields of SystemConfig, ``answers`` is one of
    `_engine.ANSWERS`. Errors of the house for what cannot be."""
    from massaccess.errors import ConfigError, unknown
    from massaccess.forward.pilots import book_id

    if overflow not in OVERFLOW:
        raise unknown("overflow policy", overflow, OVERFLOW)
    for what, value in (("max_batch", max_batch), ("queue_frames", queue_frames)):
        if not value >= 1:
            raise ConfigError(f"{what} is {value}: it counts frames, pass 1 or more")
    check_side("noise_var", noise_var, estimate=True)
    check_side("adc_scale", adc_scale)
    check_side("adc_offset", abs(adc_offset))
    check_side("adc_dither", adc_dither)
    if not (math.isfinite(deadline_ms) and deadline_ms >= 0):
        raise ConfigError(f"deadline_ms is {deadline_ms}: pass the milliseconds that a frame may take, or 0 for no deadline")
    config = system(**values, adc_bits=adc_bits)
    engine = Engine(
        name,
        dict(options or {}),
        config=config,
        answers=answers,
        channel_cov=channel_cov,
        weights=weights,
        gains=Gains(gains, users=config.users, range_db=(gain_low_db, gain_high_db), remember=remember, block=max_batch),
        seed=seed,
        max_batch=max_batch,
        threads=threads,
        device=device,
        warm_up=overflow != "block" or deadline_ms > 0,
    )
    outputs = _outputs(config, answers)
    most = MAX_BUFFER // (2 * max(map(item_bytes, outputs)))
    if max_batch > most:
        raise ConfigError(f"max_batch is {max_batch}: the answers would need a buffer above {MAX_BUFFER >> 20} MiB, pass at most {most}")
    queue = FrameQueue(queue_frames, max_batch, overflow)
    samples = item(np.complex64, rows_of(config), config.antennas)
    side = Side(noise_var, adc_bits, adc_scale, adc_offset, adc_dither)
    intake = Intake(queue, samples, config.users, book_id(engine.population.pilots), side, powers=gains == "known")
    return intake, Decoder(queue, engine, intake, outputs, max_batch, deadline_ms), samples, outputs


def _outputs(config, answers):
    """Signatures of the streams of each of `_engine.ANSWERS`, in the order of `Answer.streams`."""
    outputs = [item(np.float32, config.users)]
    if answers == "all":
        outputs += [item(np.complex64, config.data_len, config.users), item(np.complex64, config.users, config.antennas)]
    if answers == "sequences":
        outputs += [item(np.float32, config.users, config.sequences), item(np.float32, config.users, config.index_bits)]
    return outputs
