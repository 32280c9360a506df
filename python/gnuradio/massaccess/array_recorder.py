"""Sink: samples of an array into a SigMF recording."""

import itertools
import threading

import numpy as np

from ._array import number_of, rows_of, system_of, untimed
from ._base import guarded, item
from ._metadata import MetadataSink


class array_recorder(MetadataSink):
    """Records samples of an array, items of [rows * columns] complex64, as ``path``.sigmf-data and .sigmf-meta.

    The system parameters are those of `massaccess.SystemConfig` (0 active users and a placement seed of -1 mean none) and go into the
    metadata, so that a replay can be decoded without being told anything. ``rx_time`` numbers the samples; where it jumps, a new capture
    begins. ``seed`` is that of a simulation, -1 off the air. ``record=False`` pauses. The files appear when the flowgraph stops, also by
    Ctrl-C; started again, it records as path-2, path-3, ... ``samples`` counts what was written.
    """

    def __init__(
        self,
        path="capture",
        users=128,
        rows=8,
        columns=8,
        pilot_len=32,
        data_len=96,
        activity=0.125,
        active_users=0,
        modulation="qpsk",
        snr_db=15.0,
        snr_convention="received",
        tx_power_dbm=23.0,
        noise_figure_db=5.0,
        bandwidth_hz=1e6,
        channel="uma",
        power_control=True,
        placement_seed=-1,
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        sample_rate_hz=1e6,
        carrier_hz=3.5e9,
        cfo_hz=0.0,
        chain_phase_deg=0.0,
        samples_per_symbol=4,
        preamble_len=16,
        guard_len=8,
        roll_off=0.25,
        timing_offset=0.0,
        common_cfo_hz=0.0,
        code="none",
        seed=-1,
        description="",
        overwrite=False,
        record=True,
    ):
        given = dict(locals())
        from massaccess.link.recorder import require_free

        self.config = system_of(given)
        super().__init__("massaccess_array_recorder", [item(np.complex64, self.config.antennas)])
        require_free(path, overwrite)
        self._path = str(path)
        self._options = {"seed": None if seed < 0 else seed, "description": description, "overwrite": overwrite}
        self._recorder = None
        self._starts = self._next = 0
        self._lock = threading.Lock()
        self._record = bool(record)

    @property
    def samples(self):
        return 0 if self._recorder is None else self._recorder.frames

    def set_record(self, record):
        """Pauses and goes on; samples in between leave a gap."""
        with self._lock:
            self._record = bool(record)

    @guarded(result=False)
    def start(self):
        from massaccess.link.recorder import Recorder

        self._starts += 1
        path = self._path if self._starts == 1 else f"{self._path}-{self._starts}"
        self._recorder = Recorder(path, self.config, **self._options)
        return True

    @guarded
    def general_work(self, input_items, output_items):
        count = len(input_items[0])
        changes = self._changes(0, count)
        edges = sorted({0, *changes, count})
        for first, last in itertools.pairwise(edges):
            self._take(rows_of(input_items[0][first:last], self.config.antennas), changes.get(first, {}))
        self.consume(0, count)
        return 0

    def _take(self, samples, said):
        self._known = self._known.update(said)
        if self._known.rx_time is not None:
            self._next = number_of(self._known.rx_time, self._known.rx_rate or self.config.sample_rate_hz)
        with self._lock:
            record = self._record
        if record and len(samples):
            self._recorder.write(samples, self._known.at(self._next))
        self._next += len(samples)
        self._known = untimed(self._known)

    def finish(self):
        if self._recorder is not None:
            self._recorder.close()
