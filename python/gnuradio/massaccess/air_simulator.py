"""The air between users and an array, with the waveform: frames of symbols in, samples of the array out."""

import numpy as np
from gnuradio import blocks, gr

from ._array import Emitter, buffer_samples, system_of
from ._base import FrameBlock, guarded, io_signature, item, item_bytes

FRAMES_AT_ONCE = 4
BUFFER_FRAMES = 64
IMPAIRMENTS = (
    "phase_noise_hz",
    "path_loss_db",
    "clock_ppm",
    "chain_gain_db",
    "iq_gain_db",
    "iq_phase_deg",
    "dc_offset",
    "converter_bits",
    "full_scale",
)


class air_simulator(gr.hier_block2):
    """Bursts of all users on the air, one slot a frame: pulses, timing and carrier offsets, block fading, noise, and imperfect hardware.

    In: [pilot_len + data_len, users] an item, of a `population`; a preamble is put in front. Out 0: samples of the array, items of
    [rows * columns] complex64 as a USRP source gives them; out 1: the true channels [users, rows * columns] of each frame, may stay
    unconnected. Frame f is slot f: it begins f * slot_samples samples after time 0. Draws belong to the seed and the number in tag
    ``frame``, so buffer sizes change nothing; channels and offsets are those of `massaccess.forward.simulate.Propagation`.

    ``overflow_chance`` is the probability that somewhere in a slot up to ``overflow_samples`` samples are lost, as by a computer that is
    too slow; `overflows` counts the gaps and `lost_samples` what fell into them. The other impairments are those of
    `massaccess.forward.impairments`. With ``clock_ppm`` the last slot does not arrive.

    Tags on out 0: ``rx_time``, ``rx_rate`` and ``rx_freq`` on the first sample, ``rx_time`` again on the first one after a gap. On out 1:
    ``frame``.
    """

    def __init__(
        self,
        users=128,
        rows=8,
        columns=8,
        pilot_len=32,
        data_len=96,
        activity=0.125,
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
        sample_rate_hz=1e6,
        carrier_hz=3.5e9,
        samples_per_symbol=4,
        preamble_len=16,
        guard_len=8,
        roll_off=0.25,
        timing_offset=0.0,
        common_cfo_hz=0.0,
        phase_noise_hz=0.0,
        path_loss_db=0.0,
        clock_ppm=0.0,
        chain_gain_db=0.0,
        iq_gain_db=0.0,
        iq_phase_deg=0.0,
        dc_offset=0.0,
        converter_bits=0,
        full_scale=0.0,
        overflow_chance=0.0,
        overflow_samples=1000,
        seed=0,
    ):
        given = dict(locals())
        from massaccess.forward.air import Air
        from massaccess.forward.impairments import Impairments, Overflows

        config = system_of(given)
        frames = item(np.complex64, config.frame_len, users)
        outputs = [item(np.complex64, config.antennas), item(np.complex64, users, config.antennas)]
        gr.hier_block2.__init__(self, "massaccess_air_simulator", io_signature([frames]), io_signature(outputs))
        self.config = config
        self.air = Air(config, seed, Impairments(**{name: given[name] for name in IMPAIRMENTS}))
        losses = Overflows(overflow_chance, overflow_samples, config.burst.slot_samples, seed) if overflow_chance else None
        self._waves, self._truth = Waves(self.air, losses, frames, outputs[0]), Truth(self.air, frames, outputs[1])
        self._ends = [blocks.null_sink(item_bytes(signature)) for signature in outputs]  # an output may stay unconnected
        for port, (block, end) in enumerate(zip((self._waves, self._truth), self._ends, strict=True)):
            self.connect(self, block, (self, port))
            self.connect(block, end)

    @property
    def overflows(self):
        """Gaps so far."""
        return self._waves.overflows

    @property
    def lost_samples(self):
        """Samples that fell into them."""
        return self._waves.lost_samples


class Waves(FrameBlock):
    """Frames in, samples of the array out: a slot each."""

    def __init__(self, air, losses, frames, samples):
        super().__init__("massaccess_air", in_sig=[frames], out_sig=[samples])
        self._air, self._losses, self._config = air, losses, air.config
        config = air.config
        self.set_min_output_buffer(0, buffer_samples(config.antennas, 2 * air.slot_samples))
        self._out = Emitter(self, config, {"rx_rate": config.sample_rate_hz, "rx_freq": config.carrier_hz})
        self._index = self._heard = 0
        self._held = 0  # frames that are on the air, and still lie in the input
        self.overflows = self.lost_samples = 0

    def start(self):
        self._out.restart()
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if not self._held:
            self._take(input_items[0][:FRAMES_AT_ONCE])
        done = self._out.write(output_items[0])
        if not self._out.waiting:  # not before: a block whose input is at its end is not called again
            self.consume(0, self._held)
            self._held = 0
        return done

    def _take(self, items):
        import torch

        indices = self.frame_indices(0, len(items))
        jumps = np.flatnonzero(np.diff(indices) != 1) + 1
        count, first = int(jumps[0]) if len(jumps) else len(items), int(indices[0])
        self._next_frame[0] = first + count
        if first != self._air.slot:
            self._air.restart(first)
            self._index = self._heard = first * self._air.slot_samples
        with torch.inference_mode():
            frames = torch.from_numpy(items[:count].reshape(count, self._config.frame_len, self._config.users))
            self._emit(self._air.push_frames(frames))
        self._held = count

    def _emit(self, samples):
        first, self._index = self._index, self._index + len(samples)
        for index, piece in self._losses.cut(samples, first) if self._losses else [(first, samples)]:
            if index != self._heard:
                self.overflows += 1
                self.lost_samples += index - self._heard
            self._heard = index + len(piece)
            self._out.add(index, piece.numpy())


class Truth(FrameBlock):
    """Frames in, the channels that they go through out."""

    def __init__(self, air, frames, channels):
        super().__init__("massaccess_air_truth", in_sig=[frames], out_sig=[channels])
        self.set_min_output_buffer(0, BUFFER_FRAMES)
        self._air = air

    @guarded
    def general_work(self, input_items, output_items):
        count = min(len(input_items[0]), len(output_items[0]))
        indices = self.frame_indices(0, count)
        for row, number in enumerate(indices.tolist()):
            output_items[0][row] = self._air.truth(number).channel.reshape(-1).numpy()
        self.tag_frames(0, indices)
        self.consume(0, count)
        return count
