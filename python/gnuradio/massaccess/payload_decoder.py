"""Log-likelihood ratios in, payloads out: GNU Radio's own decoders, and the CRC."""

import hashlib
import time

import numpy as np
import pmt
from gnuradio import gr

from ._base import FrameBlock, guarded, to_dict_pmt
from ._fec import fec_decoder

BATCH = 64  # codewords decoded in one go
STATS_SECONDS = 0.5
KEPT = ("frame", "user", "activity", "receiver", "snr_db")  # of the dictionary that came with the ratios


class payload_decoder(FrameBlock):
    """Decodes what a `receiver` says on its port ``llrs``, with the Viterbi or list decoder of gr-fec, and checks the CRC.

    In, message port ``llrs``: PDUs (dictionary with ``frame`` and ``user``; f32vector of log p(0)/p(1), in nats, of the bits on the air).
    Out, port ``payload``: a PDU (dictionary with frame, user, activity, receiver, snr_db as they came, and ``crc_ok``; octets) for each
    payload whose CRC holds, with ``keep_failed`` also for the others. Port ``stats``: the dictionary of `stats`, twice a second at most.

    Memory is bounded: when more than ``queue_codewords`` wait, the oldest go, which ``dropped`` counts, as ``rejected`` counts malformed
    PDUs; a receiver that waits for `behind` loses none. One receiver a block: GNU Radio ends a block that only has message ports when the
    first of its publishers ends.
    No latency is added: what is at hand is decoded, up to 64 codewords in one go.

    Raises UnknownNameError or ConfigError for a code that is not there, or does not fit.
    """

    def __init__(self, users=128, data_len=96, modulation="qpsk", code="conv", queue_codewords=4096, keep_failed=False):
        from massaccess.errors import ConfigError
        from massaccess.forward.framing import Framing
        from massaccess.forward.modulation import constellation

        super().__init__("massaccess_payload_decoder")
        if not queue_codewords >= 1:
            raise ConfigError(f"queue_codewords is {queue_codewords}: pass how many may wait, 1 or more")
        self._framing = Framing(users, data_len * constellation(modulation).bits_per_symbol, code)
        self._decode = fec_decoder(code, self._framing.bits)
        self._most, self._keep_failed = queue_codewords, keep_failed
        self.payload_bytes = self._framing.payload_bytes
        self._waiting = []
        self._digest = hashlib.sha256()
        self._decoded = self._failed_crc = self._dropped = self._rejected = 0
        self._seconds = 0.0
        self._began = None
        self._published = time.monotonic()
        self._port = pmt.intern("llrs")
        self.message_port_register_in(self._port)
        for port in ("payload", "stats"):
            self.message_port_register_out(pmt.intern(port))
        self.set_msg_handler(self._port, self.take)

    def stats(self):
        """So far: codewords, payloads (CRC holds), failed_crc, dropped, rejected, queue (now), payload octets in a frame of a user, seconds
        in the decoder, and goodput_bps, bits of payload a second since the first codeword."""
        payloads = self._decoded - self._failed_crc
        elapsed = time.monotonic() - self._began if self._began else 0.0
        return {
            "codewords": self._decoded,
            "payloads": payloads,
            "failed_crc": self._failed_crc,
            "dropped": self._dropped,
            "rejected": self._rejected,
            "queue": self.nmsgs(self._port),
            "payload_bytes": self.payload_bytes,
            "seconds": self._seconds,
            "goodput_bps": 8 * self.payload_bytes * payloads / elapsed if elapsed else 0.0,
        }

    def behind(self):
        """Whether half of what may wait does; a receiver can be told to `wait_for` this."""
        return self.nmsgs(self._port) > self._most // 2

    def digest(self):
        """SHA-256 over frames, users and octets of the payloads, in order: equal for equal answers."""
        return self._digest.hexdigest()

    @guarded
    def take(self, message):
        """Handler of port ``llrs``: collects what is at hand, and decodes it."""
        if self.nmsgs(self._port) >= self._most:
            self._dropped += 1
        else:
            self._keep(message)
        if self._waiting and (len(self._waiting) >= BATCH or not self.nmsgs(self._port)):
            began = time.perf_counter()
            waiting, self._waiting = self._waiting, []
            self._answer([known for known, _ in waiting], np.stack([llrs for _, llrs in waiting]))
            self._seconds += time.perf_counter() - began
            if time.monotonic() - self._published > STATS_SECONDS:
                self._published = time.monotonic()
                self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))

    def _keep(self, message):
        from massaccess.errors import ConfigError

        self._began = self._began or time.monotonic()
        try:
            self._waiting.append(_parsed(message, self._framing.users, self._framing.bits))
        except ConfigError as error:
            self._rejected += 1
            gr.logger(self.alias()).warn(f"codeword rejected: {error}")

    def _answer(self, known, llrs):
        """Decodes llrs [n bits] of codewords with their dictionaries ``known``, and publishes the payloads."""
        import torch

        with torch.inference_mode():
            users = torch.tensor([entry["user"] for entry in known])
            found = self._decode(self._framing.soft(torch.from_numpy(llrs), users), self._framing.holds)
            payload, ok = (value.numpy() for value in self._framing.check(torch.from_numpy(found)))
        self._decoded += len(known)
        self._failed_crc += int((~ok).sum())
        heard, port = self.heard("payload"), pmt.intern("payload")
        for entry, octets, good in zip(known, payload, ok, strict=True):
            if good:
                self._digest.update(entry["frame"].to_bytes(8, "little") + entry["user"].to_bytes(4, "little") + octets.tobytes())
            if heard and (good or self._keep_failed):
                told = {**entry, "frame": pmt.from_uint64(entry["frame"]), "crc_ok": bool(good)}
                self.message_port_pub(port, pmt.cons(to_dict_pmt(told), pmt.init_u8vector(len(octets), octets.tolist())))


def _parsed(message, users, bits):
    """(dictionary, ratios [bits] float32) of a PDU; ConfigError says what is wrong with it."""
    from massaccess.errors import ConfigError

    if not pmt.is_pair(message) or not pmt.is_dict(pmt.car(message)) or not pmt.is_f32vector(pmt.cdr(message)):
        raise ConfigError("not a PDU of ratios: send (dictionary with 'frame' and 'user', f32vector)")
    told = pmt.to_python(pmt.car(message))
    known = {name: told[name] for name in KEPT if name in told}
    for name, limit in (("frame", 2**64), ("user", users)):
        value = known.get(name)
        if not isinstance(value, int) or not 0 <= value < limit:
            raise ConfigError(f"{name} is {value}: the dictionary needs an integer '{name}' of 0 to {limit - 1}")
    llrs = np.array(pmt.f32vector_elements(pmt.cdr(message)), np.float32)
    if len(llrs) != bits or not np.isfinite(llrs).all():
        raise ConfigError(f"{len(llrs)} ratios, {int(np.isfinite(llrs).sum())} of them finite: send {bits}, as the receiver does")
    return known, llrs
