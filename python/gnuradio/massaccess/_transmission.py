"""A whole flowgraph that transmits: the bursts of some users to a radio, over ZMQ, or into files."""

import math
import time
from pathlib import Path

from gnuradio import blocks, gr

from .array_recorder import array_recorder
from .burst_transmitter import burst_transmitter, whole_and_fraction
from .uplink import _parameters
from .usrp_array_sink import usrp_array_sink

SINKS = ("uhd", "zmq", "file", "sigmf")
SLOTTED = ("time", "count")
LOOPBACK = "tcp://127.0.0.1:*"
POLL_MS = 100  # how long a socket is waited for: GNU Radio cannot interrupt it
SOON_SECONDS = 1.0  # from now: when slots by time begin, unless an epoch is given
THROTTLE_SECONDS = 0.02
SAMPLE_BYTES = 8


class transmission(gr.top_block):
    """burst_transmitter -> sink. ``sink``: "uhd", one channel a stream; "zmq", a REP socket a stream that gives raw complex64 to whoever
    asks (as a virtual air does); "file", raw complex64; "sigmf". ``to`` is the endpoint or path, with ``{user}`` where each user has a
    stream.

    ``slotted="count"``: every sample, zeros between bursts. ``"time"``: slot n at ``epoch`` + n slots; a radio gets timed bursts of its own
    clock, a SigMF recording a capture for each burst, a socket samples at their pace from the next slot of the clock of this machine on.
    ``radio`` holds the parameters of `usrp_array_sink`. ``endpoints`` are the addresses of the sockets.
    """

    def __init__(self, config, sink, to="", *, slotted="count", epoch=None, radio=None, overwrite=False, first_slot=0, **options):
        from massaccess.errors import ConfigError, unknown

        gr.top_block.__init__(self, "massaccess transmission")
        for what, value, known in (("sink", sink, SINKS), ("slotting", slotted, SLOTTED)):
            if value not in known:
                raise unknown(what, value, known)
        if sink == "file" and slotted == "time":
            raise ConfigError("a raw file has no times: pass slotted='count' (--slotted count), or the sink sigmf")
        self.config, self.endpoints = config, []
        self._by_time, self._epoch = slotted == "time", None if epoch is None else whole_and_fraction(epoch)
        streams = 1 if options.get("combine") else len(options["user_list"])
        self._names = ["all"] if options.get("combine") and streams < len(options["user_list"]) else options["user_list"]
        if sink == "uhd":
            self._radio(streams, radio or {})
        if sink == "zmq" and self._by_time:
            first_slot = self._next_slot()
        bursts = self._by_time and sink != "zmq"
        self.source = burst_transmitter(
            **{**_parameters(burst_transmitter, config.to_dict()), **options},
            mode="burst" if bursts else "stream",
            epoch=self._epoch or 0.0,
            first_slot=first_slot,
        )
        {"uhd": self._to_radio, "zmq": self._to_sockets, "file": self._to_files, "sigmf": self._to_recordings}[sink](streams, to, overwrite)

    def wait_for_epoch(self):
        """Where samples go at their pace: returns when the first slot begins."""
        if self._due is not None:
            time.sleep(max(self._due - time.time(), 0))

    _due = None

    def _radio(self, streams, radio):
        from massaccess.errors import ConfigError

        boards = max(len(str(radio.get("addresses", "")).replace(",", " ").split()), 1)
        if streams % boards:
            raise ConfigError(f"{streams} users and {boards} boards: pass as many users for each board, or combine them")
        channels = {"channels": streams // boards, "rate": self.config.sample_rate_hz, "freq": self.config.carrier_hz}
        self.sink = usrp_array_sink(**{**channels, "length_tag": "", **radio})
        self._simulated = radio.get("driver") == "sim"  # whose clock goes on only while somebody receives
        if self._epoch is None:
            seconds, _ = self.sink.time_now()
            self._epoch = seconds + int(SOON_SECONDS) + 1, 0.0

    def _to_radio(self, streams, to, overwrite):
        if self._by_time and not self._simulated:
            self.source.set_clock(lambda: sum(self.sink.time_now()))
        if streams == 1:
            self.connect(self.source, self.sink)
            return
        self.join = blocks.streams_to_vector(SAMPLE_BYTES, streams)
        for port in range(streams):
            self.connect((self.source, port), (self.join, port))
        self.connect(self.join, self.sink)

    def _next_slot(self):
        """The slot whose samples are the first to go, at the pace of the clock of this machine."""
        self._epoch = self._epoch or (0, 0.0)
        seconds = self.config.burst.slot_samples / self.config.sample_rate_hz
        slot = math.ceil((time.time() + SOON_SECONDS - sum(self._epoch)) / seconds)
        self._due = sum(self._epoch) + slot * seconds
        return max(slot, 0)

    def _to_sockets(self, streams, to, overwrite):
        from gnuradio import zeromq

        from massaccess.link.publisher import require_local

        self.sinks = []
        for port, address in enumerate(self._places(to or LOOPBACK, streams, fixed=":*")):
            require_local(address)
            self.sinks.append(zeromq.rep_sink(SAMPLE_BYTES, 1, address, POLL_MS, False))
            self.endpoints.append((self._names[port], self.sinks[-1].last_endpoint()))
            if self._by_time:
                throttle = blocks.throttle(SAMPLE_BYTES, self.config.sample_rate_hz)
                throttle.set_max_noutput_items(max(1, int(self.config.sample_rate_hz * THROTTLE_SECONDS)))
                self.sinks.append(throttle)
                self.connect((self.source, port), throttle, self.sinks[-2])
            else:
                self.connect((self.source, port), self.sinks[-1])

    def _to_files(self, streams, to, overwrite):
        from massaccess.errors import ConfigError

        paths = [Path(path) for path in self._places(to or "transmitted-{user}.cf32", streams)]
        for path in paths:
            if path.exists() and not overwrite:
                raise ConfigError(f"{path} exists: pass another name, or --overwrite")
            if not path.parent.is_dir():
                raise ConfigError(f"{path.parent} is no folder: make it first, or choose another name")
        self.sinks = [blocks.file_sink(SAMPLE_BYTES, str(path)) for path in paths]
        for port, sink in enumerate(self.sinks):
            self.connect((self.source, port), sink)

    def _to_recordings(self, streams, to, overwrite):
        known = {**self.config.to_dict(), "rows": 1, "columns": 1}
        known = {**_parameters(array_recorder, known), "overwrite": overwrite, "seed": self.source.seed}
        self.source.time_tag = "rx_time"  # which recorders know
        self.sinks = [array_recorder(path, **known) for path in self._places(to or "transmitted-{user}", streams)]
        for port, sink in enumerate(self.sinks):
            self.connect((self.source, port), sink)

    def _places(self, to, streams, fixed=None):
        """Where each stream goes; ConfigError for several with one name."""
        from massaccess.errors import ConfigError

        places = [to.replace("{user}", str(name)) for name in self._names]
        if len(set(places)) < streams and not (fixed and to.endswith(fixed)):
            raise ConfigError(f"{streams} users go to {to}: put {{user}} into the name, or combine them (--combine)")
        return places
