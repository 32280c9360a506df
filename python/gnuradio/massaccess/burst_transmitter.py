"""Source: the bursts of some users, as a stream of samples or as timed bursts for a radio."""

import math
import threading
import time
from collections import deque

import numpy as np
import pmt
from gnuradio import gr

from ._base import FrameBlock, guarded, item, parse_payload, system, to_dict_pmt

MODES = ("stream", "burst")
QUEUED_PAYLOADS = 1024
STATS_SECONDS = 0.5
BUFFER_SLOTS = 4
AHEAD_SECONDS = 0.005  # a radio needs a burst so long before its time
HORIZON_SECONDS = 0.1  # no burst is made earlier than that before its time, where the time is known
WAIT_SECONDS = 0.005
MOST_SILENT = 256  # slots that are passed over in one call


class burst_transmitter(FrameBlock):
    """Samples of the users ``user_list`` of a cell, complex64: one stream a user, or their sum with ``combine``.

    Slot n is frame n of ``seed`` of `massaccess.forward.simulate.Population`, from ``first_slot`` on, ``frames`` slots (0: endless). Mode
    "stream" gives every sample, zeros between bursts: sample i is that of slot first_slot + i // slot_samples. Mode "burst" gives the slots
    alone in which somebody is awake, each as a burst with ``tx_time``, ``epoch`` + n slots, as `uhd.usrp_sink` wants it: ``tx_sob`` and
    ``tx_eob``, or with ``packet_tag`` a tag of that name with the length. ``epoch`` is in seconds, or (seconds, fraction). A burst ends
    before its slot does, so that radios find their way to the next. With `set_clock`, slots that a radio would get too late are left out,
    and counted by ``late``.

    ``amplitude`` is that of a symbol, 1.0 what receivers of this package take for unit power: the samples of one user's burst have a root
    mean square of amplitude / sqrt(samples_per_symbol), peaks of QPSK about 1.9 times that. So 1.0 at 4 samples a symbol uses the range of
    a converter well (peaks below 1); users that are combined add up. Samples beyond ``full_scale`` (0: no converter) are counted by
    ``clipped``, with a warning.

    Port ``payload`` takes PDUs (dictionary with ``user``; as many octets as `payload_bytes`, or with ``coded`` true as many bits as
    `payload_bits`): the user sends it in the next slot that is made, in place of what it would have sent. 1,024 wait at most, others are
    counted by ``overflowed``; ``rejected`` counts malformed ones, and those of other users. With ``activity=0`` users send payloads alone.
    Port ``stats``: all counters, twice a second."""

    def __init__(
        self,
        user_list=(0,),
        combine=False,
        users=128,
        pilot_len=32,
        data_len=96,
        activity=0.125,
        active_users=0,
        modulation="qpsk",
        code="none",
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        samples_per_symbol=4,
        preamble_len=16,
        guard_len=8,
        roll_off=0.25,
        sample_rate_hz=1e6,
        amplitude=1.0,
        full_scale=1.0,
        mode="stream",
        epoch=0.0,
        packet_tag="",
        first_slot=0,
        frames=0,
        seed=0,
    ):
        from massaccess.errors import ConfigError, unknown
        from massaccess.forward.transmit import Sender

        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if first_slot < 0 or frames < 0:
            raise ConfigError(f"first_slot is {first_slot} and frames {frames}: pass 0 or more")
        config = system(
            users=users,
            pilot_len=pilot_len,
            data_len=data_len,
            activity=activity or 1.0,
            active_users=active_users,
            modulation=modulation,
            code=code,
            pilot_kind=pilot_kind,
            pilot_seed=pilot_seed,
            pilot_energy=pilot_energy,
            samples_per_symbol=samples_per_symbol,
            preamble_len=preamble_len,
            guard_len=guard_len,
            roll_off=roll_off,
            sample_rate_hz=sample_rate_hz,
        )
        self._sender = Sender(config, seed, tuple(user_list), amplitude, random=activity > 0)
        streams = 1 if combine else len(self._sender.user_list)
        super().__init__("massaccess_burst_transmitter", out_sig=[item(np.complex64, 1)] * streams)
        self._length = self._sender.burst.slot_samples
        for port in range(streams):
            self.set_min_output_buffer(port, BUFFER_SLOTS * self._length)
        self._combine, self._full_scale, self._bursts_only, self._packet_tag = combine, full_scale, mode == "burst", packet_tag
        self._epoch, self.seed, self.time_tag = whole_and_fraction(epoch), seed, "tx_time"
        self._slot, self._end = first_slot, first_slot + frames if frames else None
        self._waves, self._sent = np.empty((0, streams), np.complex64), 0  # of the slot at hand, and how many have gone
        self._clock = None
        self._waiting, self._lock = deque(), threading.Lock()
        self._published = time.monotonic()
        self._counters = dict.fromkeys(("slots", "bursts", "payloads", "late", "clipped", "overflowed", "rejected"), 0)
        self.message_port_register_in(pmt.intern("payload"))
        self.message_port_register_out(pmt.intern("stats"))
        self.set_msg_handler(pmt.intern("payload"), self.enqueue)

    @property
    def payload_bytes(self):
        """Octets of a payload."""
        return self._sender.payload_bytes

    @property
    def payload_bits(self):
        """Bits of a payload that is encoded already."""
        return self._sender.payload_bits

    def set_clock(self, clock):
        """In mode "burst": ``clock()`` tells the radio's time in seconds, and slots that have begun by then are left out."""
        self._clock = clock

    def stats(self):
        """Counters so far: slots made, bursts (a user in a slot), payloads sent, late slots, clipped samples, overflowed and rejected
        payloads; and how many wait (queue)."""
        return {**self._counters, "queue": len(self._waiting)}

    @guarded
    def enqueue(self, message):
        """Handler of port ``payload``."""
        from massaccess.errors import ConfigError

        try:
            user, payload = self._parse(message)
        except ConfigError as error:
            self._counters["rejected"] += 1
            gr.logger(self.alias()).warn(f"payload rejected: {error}")
            return
        with self._lock:
            if len(self._waiting) >= QUEUED_PAYLOADS:
                self._counters["overflowed"] += 1
            else:
                self._waiting.append((user, payload))

    @guarded
    def general_work(self, input_items, output_items):
        room, done = len(output_items[0]), 0
        while done < room:
            if self._sent == len(self._waves) and not self._next():
                break
            count = min(room - done, len(self._waves) - self._sent)
            part = self._waves[self._sent : self._sent + count]
            for port, out in enumerate(output_items):
                out[done : done + count] = part[:, port]
            if self._bursts_only:
                self._tag(done, count)
            self._sent += count
            done += count
        if time.monotonic() - self._published > STATS_SECONDS:
            self._publish()
        if not done and self._over():
            self._publish()
            return -1
        return done

    def _over(self):
        return self._end is not None and self._slot >= self._end

    def _next(self):
        """Makes the next slot to send; False when there is none now."""
        for _ in range(MOST_SILENT):
            if self._over() or not self._in_time():
                return False
            slot = self._sender.slot(self._slot, self._payloads())
            self._slot += 1
            self._counters["slots"] += 1
            if slot.active.any() or not self._bursts_only:
                self._counters["bursts"] += int(slot.active.sum())
                self._waves, self._sent = self._ready(slot.samples), 0
                return True
        return False

    def _ready(self, samples):
        """What goes out of a slot [n streams]."""
        burst = self._sender.burst
        if self._combine:
            samples = samples.sum(1, keepdims=True)
        if self._bursts_only:
            samples = samples[: self._length - (burst.guard_len - burst.lead) // 2 * burst.samples_per_symbol]
        if self._full_scale:
            beyond = int((np.abs(np.ascontiguousarray(samples).view(np.float32)) > self._full_scale).sum())
            if beyond and not self._counters["clipped"]:
                peak = float(np.abs(np.ascontiguousarray(samples).view(np.float32)).max())
                gr.logger(self.alias()).warn(
                    f"samples reach {peak:.2f} and full scale is {self._full_scale:g}: the converter clips, lower the amplitude"
                )
            self._counters["clipped"] += beyond
        return samples

    def _payloads(self):
        """What waits for the next slot, one payload a user, in order."""
        if not self._waiting:
            return None
        with self._lock:
            now, later = {}, deque()
            for user, payload in self._waiting:
                if user in now:
                    later.append((user, payload))
                else:
                    now[user] = payload
            self._waiting = later
        self._counters["payloads"] += len(now)
        return now

    def _in_time(self):
        """Leaves out slots that a radio would get too late; False, after a moment, when it is too early for the next."""
        if self._clock is None or not self._bursts_only:
            return True
        slot_seconds = self._length / self._sender.config.sample_rate_hz
        since = float(self._clock()) - self._epoch[0] - self._epoch[1]
        late = max(math.ceil((since + AHEAD_SECONDS) / slot_seconds) - self._slot, 0)
        late = late if self._end is None else min(late, self._end - self._slot)
        self._counters["late"] += late
        self._slot += late
        if self._slot * slot_seconds > since + HORIZON_SECONDS:
            time.sleep(WAIT_SECONDS)
            return False
        return not self._over()

    def _tag(self, row, count):
        """Tags of a burst, on its first and last sample."""
        from massaccess.forward.transmit import slot_time

        first, last = self._sent == 0, self._sent + count == len(self._waves)
        for port in range(self._waves.shape[1]):
            if first:
                rate = self._sender.config.sample_rate_hz
                self.tag(port, row, self.time_tag, slot_time(self._slot - 1, self._epoch, self._length, rate))
                self.tag(port, row, "frame", pmt.from_uint64(self._slot - 1))
                key, value = (self._packet_tag, len(self._waves)) if self._packet_tag else ("tx_sob", True)
                self.tag(port, row, key, value)
            if last and not self._packet_tag:
                self.tag(port, row + count - 1, "tx_eob", True)

    def _parse(self, message):
        from massaccess.errors import ConfigError

        known = pmt.car(message) if pmt.is_pair(message) else pmt.PMT_NIL
        coded = pmt.is_dict(known) and pmt.eq(pmt.dict_ref(known, pmt.intern("coded"), pmt.PMT_F), pmt.PMT_T)
        sender = self._sender
        user, octets = parse_payload(message, sender.config.users, sender.payload_bits if coded else sender.payload_bytes)
        if user not in sender.user_list:
            raise ConfigError(f"user is {user}: this transmitter plays {list(sender.user_list)}")
        if coded and max(octets) > 1:
            raise ConfigError("a payload that is coded has other values than 0 and 1: send one bit an octet")
        return user, list(octets) if coded else octets

    def _publish(self):
        self._published = time.monotonic()
        self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))


def whole_and_fraction(epoch):
    """(whole seconds, fraction) of seconds, or of that pair."""
    if isinstance(epoch, (tuple, list)):
        return int(epoch[0]), float(epoch[1])
    return int(epoch // 1), float(epoch % 1)
