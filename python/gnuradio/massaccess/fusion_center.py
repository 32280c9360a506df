"""Source: what the access points of a distributed array agree on."""

import threading
import time
from collections import deque

import numpy as np
import pmt
from gnuradio import blocks, gr

from ._base import FrameBlock, guarded, io_signature, item, item_bytes, system, to_dict_pmt

STATS_SECONDS = 0.5
BUFFER_FRAMES = 16


class fusion_center(gr.hier_block2):
    """Waits for ``of`` access points at ``endpoint``, then decodes frame after frame with those that are there; everybody is active.

    Out, one item a frame, numbered by tag ``frame``: activity [users] float (all 1), symbols [data_len, users]. Message ports: ``packets``,
    a PDU for each payload whose CRC holds (dictionary with frame, user, receiver); ``active``, a PDU for each frame (dictionary with
    frame, receiver, access_points, an s32vector of those that contributed; s32vector of users); ``stats``, a dictionary of counters twice
    a second.

    ``mode`` is that of the receiver pvi-``mode``, ``options`` its other options. ``wait_for`` access points are enough to start (0: all
    ``of``). An answer after ``deadline`` seconds is late, silence of ``lost`` seconds means lost; both are logged and counted and cost only
    that access point's information. ``timeout`` seconds without any access point are an error. ``frames=0`` goes on until the streams of
    all access points have ended. Without ``allow_remote`` only this machine can connect; nothing is encrypted.
    GNU Radio runs only what is connected: connect an output or a message port, if only to a null sink.
    Latency: ``max_batch`` frames at most, and the time to decode them.
    """

    PORTS = ("packets", "active", "stats")

    def __init__(
        self,
        endpoint="tcp://127.0.0.1:5560",
        of=4,
        wait_for=0,
        mode="sequential",
        options=None,
        users=20,
        pilot_len=80,
        data_len=200,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        frames=0,
        max_batch=8,
        deadline=5.0,
        lost=3.0,
        timeout=30.0,
        allow_remote=False,
    ):
        known = {"users": users, "pilot_len": pilot_len, "data_len": data_len, "active_users": users}
        config = system(**known, modulation=modulation, pilot_kind=pilot_kind, pilot_seed=pilot_seed)
        signatures = [item(np.float32, users), item(np.complex64, data_len, users)]
        limits = {"deadline_s": deadline, "lost_s": lost, "patience_s": timeout}
        where = {"endpoint": endpoint, "allow_remote": allow_remote}
        self._center = Center(config, signatures, of, wait_for, f"pvi-{mode}", options or {}, frames, max_batch, limits | where)
        gr.hier_block2.__init__(self, "massaccess_fusion_center", gr.io_signature(0, 0, 0), io_signature(signatures))
        self._ends = [blocks.null_sink(item_bytes(signature)) for signature in signatures]  # outputs may stay unconnected
        for port, end in enumerate(self._ends):
            self.connect((self._center, port), (self, port))
            self.connect((self._center, port), end)
        for port in self.PORTS:
            self.message_port_register_hier_out(port)
            self.msg_connect(self._center, port, self, port)

    def stats(self):
        """receiver, and so far: frames, packets, access points that are there, late, lost, back, left, refused, bad messages, octets."""
        return self._center.stats()


class Center(FrameBlock):
    """The block inside."""

    def __init__(self, config, signatures, of, wait_for, receiver, options, frames, max_batch, network):
        from massaccess.errors import ConfigError
        from massaccess.registry import create

        if not of >= 1 or not 0 <= wait_for <= of or not frames >= 0 or not max_batch >= 1:
            raise ConfigError(f"of {of}, wait_for {wait_for}, frames {frames}, max_batch {max_batch}: count from 1, wait for at most of")
        super().__init__("massaccess_fusion_center", out_sig=signatures)
        for port in range(len(signatures)):
            self.set_min_output_buffer(port, max(BUFFER_FRAMES, 2 * max_batch))
        self._config, self._of, self._wait_for, self._receiver = config, of, wait_for, receiver
        self._pvi = create(receiver, **options)
        self._frames, self._max_batch, self._network = frames, max_batch, network
        self._centre = self._answers = None
        self._stop = threading.Event()
        self._pending = deque()
        self._counts = {"frames": 0, "packets": 0}
        self._published = time.monotonic()
        for port in fusion_center.PORTS:
            self.message_port_register_out(pmt.intern(port))

    @guarded(result=True)
    def start(self):
        from massaccess.forward.simulate import Population
        from massaccess.link.fusion_centre import Centre
        from massaccess.link.fusion_source import Air

        air = Air.of(self._config, Population(self._config).pilots)
        self._stop.clear()
        self._centre = Centre(air, self._of, self._pvi, **self._network, batch=self._max_batch, on_event=self._log, stop=self._stop.is_set)
        self._answers = None
        return True

    def interrupt(self):
        self._stop.set()

    def stop(self):
        self._stop.set()
        if self._centre is not None:
            self._centre.close()
        self._publish()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        import torch

        if self._answers is None:
            self._centre.wait(self._wait_for or None)
            self._answers = self._centre.frames(self._counts["frames"], self._frames or None, batch=self._max_batch)
        if not self._pending:
            with torch.inference_mode():
                fused = next(self._answers, None)
            if fused is None:
                self._centre.close()
                return -1
            self._count(fused)
            self._pending.extend((fused, row) for row in range(len(fused)))
        if time.monotonic() - self._published > STATS_SECONDS:
            self._publish()
        return self._emit(output_items)

    def stats(self):
        """Counters so far."""
        from massaccess.link.fusion_report import summary

        centre = self._centre
        if centre is None:
            return {"receiver": self._receiver, **self._counts}
        events = {"joined": 0, "late": 0, "lost": 0, "back": 0, "left": 0} | summary(centre.events)
        messages = {"refused": centre.refused, "bad": centre.bad, "octets": centre.octets}
        return {"receiver": self._receiver, **self._counts, "access_points": len(centre.present), **events, **messages}

    def _log(self, event):
        if event.what != "joined":
            gr.logger(self.alias()).warn(str(event))

    def _count(self, fused):
        self._counts["frames"] += len(fused)
        self._counts["packets"] += int(fused.crc_ok.sum())
        for row in range(len(fused)):
            known = {"frame": pmt.from_uint64(fused.start + row), "receiver": self._receiver}
            if self.heard("packets"):
                self._publish_packets(fused, row, known)
            if self.heard("active"):
                points, users = list(fused.contributed), list(range(self._config.users))
                told = to_dict_pmt({**known, "access_points": pmt.init_s32vector(len(points), points)})
                self.message_port_pub(pmt.intern("active"), pmt.cons(told, pmt.init_s32vector(len(users), users)))

    def _publish_packets(self, fused, row, known):
        for user in fused.crc_ok[row].nonzero().flatten().tolist():
            octets = fused.payload[row, user].tolist()
            told = to_dict_pmt({**known, "user": user})
            self.message_port_pub(pmt.intern("packets"), pmt.cons(told, pmt.init_u8vector(len(octets), octets)))

    def _emit(self, output_items):
        count = min(len(self._pending), *(len(out) for out in output_items))
        rows = [self._pending.popleft() for _ in range(count)]
        for place, (fused, row) in enumerate(rows):
            output_items[0][place] = 1.0
            output_items[1][place] = fused.symbols[row].reshape(-1).numpy()
        for port in range(len(output_items)):
            self.tag_frames(port, [fused.start + row for fused, row in rows])
        return count

    def _publish(self):
        self._published = time.monotonic()
        self.message_port_pub(pmt.intern("stats"), to_dict_pmt(self.stats()))
