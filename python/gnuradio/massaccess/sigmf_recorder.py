"""Sink: frames into a SigMF recording."""

import threading

import numpy as np

from ._base import guarded, item, system
from ._converter import packed_item
from ._metadata import MetadataSink

BUFFER_FRAMES = 64


class sigmf_recorder(MetadataSink):
    """Records frames complex64 [pilot_len + data_len, antennas], one an item, sample by sample as ``path``.sigmf-data and .sigmf-meta.

    The system parameters are those of `massaccess.SystemConfig` (0 active users, 0 converter bits and a placement seed of -1 mean none) and
    go into the metadata, so that a replay knows them. Tags go there as well: times and frequencies into captures, one annotation for each
    run of consecutive frames. ``seed`` is that of the simulation, -1 for frames off the air. ``record=False`` pauses. The files appear when
    the flowgraph stops, also by Ctrl-C; started again, it records as path-2, path-3, ... ``frames`` counts what was written. ``packed``
    frames are octets [pilot_len + data_len, octets] of a `sample_packer` of ``adc_bits`` bits; `sigmf_replay` gives the samples that they
    stand for.
    """

    def __init__(
        self,
        path="capture",
        users=128,
        rows=8,
        columns=8,
        pilot_len=28,
        data_len=37,
        activity=0.1,
        active_users=0,
        modulation="qpsk",
        snr_db=15.0,
        snr_convention="received",
        tx_power_dbm=23.0,
        noise_figure_db=5.0,
        bandwidth_hz=1e6,
        adc_bits=0,
        adc_offset=0.0,
        adc_dither=0.0,
        channel="uma",
        power_control=True,
        placement_seed=-1,
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        index_bits=0,
        sample_rate_hz=15e3,
        carrier_hz=3.5e9,
        cfo_hz=0.0,
        chain_phase_deg=0.0,
        seed=-1,
        description="",
        overwrite=False,
        record=True,
        packed=False,
        code="none",
    ):
        from massaccess.link.recorder import require_free

        self._config = system(
            users=users,
            rows=rows,
            columns=columns,
            pilot_len=pilot_len,
            data_len=data_len,
            activity=activity,
            active_users=active_users,
            modulation=modulation,
            snr_db=snr_db,
            snr_convention=snr_convention,
            tx_power_dbm=tx_power_dbm,
            noise_figure_db=noise_figure_db,
            bandwidth_hz=bandwidth_hz,
            adc_bits=adc_bits,
            adc_offset=adc_offset,
            adc_dither=adc_dither,
            channel=channel,
            power_control=power_control,
            placement_seed=placement_seed,
            pilot_kind=pilot_kind,
            pilot_seed=pilot_seed,
            pilot_energy=pilot_energy,
            index_bits=index_bits,
            sample_rate_hz=sample_rate_hz,
            carrier_hz=carrier_hz,
            cfo_hz=cfo_hz,
            chain_phase_deg=chain_phase_deg,
            code=code,
        )
        length, antennas = self._config.frame_len, self._config.antennas
        signature = packed_item(length, antennas, adc_bits)[0] if packed else item(np.complex64, length, antennas)
        super().__init__("massaccess_sigmf_recorder", [signature])
        require_free(path, overwrite)
        self._path = str(path)
        self._options = {"seed": None if seed < 0 else seed, "description": description, "overwrite": overwrite, "packed": packed}
        self._recorder = None
        self._starts = 0
        self._lock = threading.Lock()
        self._record = bool(record)

    @property
    def frames(self):
        return 0 if self._recorder is None else self._recorder.frames

    def set_record(self, record):
        """Pauses and goes on; frames in between leave a gap in the recording's frame indices."""
        with self._lock:
            self._record = bool(record)

    @guarded(result=False)
    def start(self):
        from massaccess.link.recorder import Recorder

        self._starts += 1
        path = self._path if self._starts == 1 else f"{self._path}-{self._starts}"
        self._recorder = Recorder(path, self._config, **self._options)
        return True

    @guarded
    def general_work(self, input_items, output_items):
        indices, metadata = self.take(0, len(input_items[0]))
        with self._lock:
            record = self._record
        if record:
            self._write(input_items[0][: len(indices)], indices, metadata)
        self.consume(0, len(indices))
        return 0

    def _write(self, items, indices, metadata):
        jumps = np.flatnonzero(np.diff(indices) != 1) + 1
        for frames, numbers in zip(np.split(items, jumps), np.split(indices, jumps), strict=True):
            self._recorder.write(frames, metadata if numbers[0] == indices[0] else untimed(metadata, numbers[0]))

    def finish(self):
        if self._recorder is not None:
            self._recorder.close()


def untimed(metadata, frame):
    """The metadata of a later frame, whose time nobody told."""
    return metadata.update({"frame": int(frame), "rx_time": None})
