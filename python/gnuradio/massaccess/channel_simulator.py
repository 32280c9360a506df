"""The air between the users and the array."""

import threading

import numpy as np

from ._base import FrameBlock, guarded, item, system
from ._metadata import gain_pmt

BUFFER_FRAMES = 64


class channel_simulator(FrameBlock):
    """Block fading, carrier offsets, chain phases and noise for frames of transmitted samples.

    In: [pilot_len + data_len, users] an item. Out 0: received samples [pilot_len + data_len, rows * columns]; out 1: the true channels
    [users, rows * columns], may stay unconnected. Draws belong to the number in tag ``frame``, so batch sizes change nothing: with the
    seed of the `population`, frame f is frame f of `massaccess.forward.simulate.Simulation`.

    With ``snr_convention="link-budget"`` the noise follows from ``tx_power_dbm``, ``noise_figure_db`` and ``bandwidth_hz``, not from
    ``snr_db``. ``placement_seed`` puts the users of path-loss channels where it says; -1: elsewhere in every frame.

    Tags on out 0: ``frame``; ``noise_var``, ``rx_rate``, ``rx_freq`` and ``rx_time`` on the first item, ``noise_var`` again when it
    changes, and ``user_gain`` (f32vector) where the channel model gives users different mean powers; and all that came with the samples.
    """

    def __init__(
        self,
        users=128,
        rows=8,
        columns=8,
        pilot_len=28,
        data_len=37,
        activity=0.1,
        active_users=0,
        snr_db=15.0,
        snr_convention="received",
        tx_power_dbm=23.0,
        noise_figure_db=5.0,
        bandwidth_hz=1e6,
        channel="uma",
        power_control=True,
        placement_seed=-1,
        cfo_hz=0.0,
        chain_phase_deg=0.0,
        sample_rate_hz=15e3,
        carrier_hz=3.5e9,
        seed=0,
    ):
        config = system(
            users=users,
            rows=rows,
            columns=columns,
            pilot_len=pilot_len,
            data_len=data_len,
            activity=activity,
            active_users=active_users,
            snr_db=snr_db,
            snr_convention=snr_convention,
            tx_power_dbm=tx_power_dbm,
            noise_figure_db=noise_figure_db,
            bandwidth_hz=bandwidth_hz,
            channel=channel,
            power_control=power_control,
            placement_seed=placement_seed,
            cfo_hz=cfo_hz,
            chain_phase_deg=chain_phase_deg,
            sample_rate_hz=sample_rate_hz,
            carrier_hz=carrier_hz,
        )
        antennas = config.antennas
        super().__init__(
            "massaccess_channel_simulator",
            in_sig=[item(np.complex64, config.frame_len, users)],
            out_sig=[item(np.complex64, config.frame_len, antennas), item(np.complex64, users, antennas)],
            required_outputs=1,
        )
        for port in (0, 1):
            self.set_min_output_buffer(port, BUFFER_FRAMES)
        self._shape = (config.frame_len, users)
        self._lock = threading.Lock()
        self._seed = seed
        self._air = _air(config, seed)
        self._air.model  # a wrong channel name fails here, not in the first frame
        self._noise_var = self._gain = None

    def set_snr_db(self, snr_db):
        """Changes the noise of the frames to come."""
        self._change(snr_db=snr_db)

    def set_tx_power_dbm(self, tx_power_dbm):
        """Changes the transmit power of the frames to come; only a link budget knows one."""
        self._change(tx_power_dbm=tx_power_dbm)

    def _change(self, **changes):
        with self._lock:
            self._air = _air(self._air.config.replace(**changes), self._seed)

    def start(self):
        self._noise_var = self._gain = None  # whoever was connected while the flowgraph was locked has not heard it
        return True

    @guarded
    def general_work(self, input_items, output_items):
        import torch

        count = min(len(input_items[0]), len(output_items[0]))
        indices = self.frame_indices(0, count)
        with self._lock:
            air = self._air
        samples = torch.from_numpy(input_items[0][:count].reshape(count, *self._shape))
        self._tag_origin(air, indices[0])
        self.pass_tags(0, 0, count)
        for first, last, block, rows in _runs(indices):
            rx, channel, gain = air.receive(samples[first:last], block, rows)
            output_items[0][first:last] = rx.reshape(last - first, -1).numpy()
            if len(output_items) > 1:
                output_items[1][first:last] = channel.reshape(last - first, -1).numpy()
            if gain is not None:
                self._tag_gain(first, gain)
        for port in range(len(output_items)):
            self.tag_frames(port, indices)
        self.consume(0, count)
        return count

    def _tag_origin(self, air, frame):
        config = air.config
        if self._noise_var is None:
            self.tag(0, 0, "rx_rate", config.sample_rate_hz)
            self.tag(0, 0, "rx_freq", config.carrier_hz)
            seconds = int(frame) * config.frame_len / config.sample_rate_hz
            self.tag(0, 0, "rx_time", (int(seconds), seconds - int(seconds)))
        if self._noise_var != config.noise_var:
            self._noise_var = config.noise_var
            self.tag(0, 0, "noise_var", config.noise_var)

    def _tag_gain(self, first, gain):
        for row, values in enumerate(gain.tolist()):
            if values != self._gain:
                self._gain = values
                self.tag(0, first + row, "user_gain", gain_pmt(values))


def _runs(indices):
    """(first, last, block, rows of the block) of the stretches of consecutive frames that lie in one block of draws."""
    from massaccess.forward.simulate import BLOCK

    edges = np.flatnonzero((np.diff(indices) != 1) | (indices[1:] % BLOCK == 0)) + 1
    for first, last in zip([0, *edges], [*edges, len(indices)], strict=True):
        row = int(indices[first] % BLOCK)
        yield int(first), int(last), int(indices[first] // BLOCK), slice(row, row + int(last - first))


def _air(config, seed):
    """The propagation of the library, remembering the draws of the block that it is in."""
    from massaccess.forward.simulate import Propagation

    class Air(Propagation):
        def channel(self, block):
            return self._once("channel", block)

        def noise(self, block):
            return self._once("noise", block)

        def rotation(self, block):
            return self._once("rotation", block)

        def _once(self, what, block):
            kept = self.__dict__.get("_kept_" + what)
            if kept is None or kept[0] != block:
                kept = (block, getattr(Propagation, what)(self, block))
                self.__dict__["_kept_" + what] = kept
            return kept[1]

    return Air(config, seed)
