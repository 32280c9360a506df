"""What blocks share whose items are samples of an array: complex64 [antennas], numbered by tag ``rx_time``."""

import dataclasses

import numpy as np

BUFFER_BYTES = 4 << 20
LEAST_SAMPLES = 1024
SYSTEM_FIELDS = (
    "users",
    "rows",
    "columns",
    "pilot_len",
    "data_len",
    "activity",
    "active_users",
    "modulation",
    "snr_db",
    "snr_convention",
    "tx_power_dbm",
    "noise_figure_db",
    "bandwidth_hz",
    "channel",
    "power_control",
    "placement_seed",
    "pilot_kind",
    "pilot_seed",
    "pilot_energy",
    "sample_rate_hz",
    "carrier_hz",
    "cfo_hz",
    "chain_phase_deg",
    "samples_per_symbol",
    "preamble_len",
    "guard_len",
    "roll_off",
    "timing_offset",
    "common_cfo_hz",
    "code",
)


def system_of(given):
    """The SystemConfig that a block's parameters make, and ConfigError where it has no waveform."""
    from massaccess.forward.air import burst_of

    from ._base import system

    config = system(**{name: given[name] for name in SYSTEM_FIELDS if name in given})
    burst_of(config)
    return config


def buffer_samples(antennas, least=LEAST_SAMPLES):
    """Samples that a buffer should hold: many, that calls are few, in bounded memory."""
    return max(least, BUFFER_BYTES // (8 * antennas))


def time_of(index, rate):
    """``rx_time`` of sample number ``index``: whole seconds and the rest."""
    whole = int(index // rate)  # of numbers up to 2 ** 53, exact for whole rates
    return whole, float((index - whole * rate) / rate)


def number_of(time, rate):
    """The number of the sample that is taken at ``rx_time``: the inverse of `time_of`."""
    return round(time[0] * rate + time[1] * rate) if rate != int(rate) else time[0] * int(rate) + round(time[1] * rate)


class Emitter:
    """Writes stretches of samples to an output port, and tags where one does not follow on the one before."""

    def __init__(self, block, config, known):
        self._block, self._rate, self._start = block, config.sample_rate_hz, known
        self._due = None
        self._parts = []

    def restart(self):
        """Tells everything anew, with the next sample."""
        self._due = None

    @property
    def waiting(self):
        return len(self._parts)

    def add(self, index, samples):
        """Samples [n antennas], the first of which is number ``index``."""
        if len(samples):
            self._parts.append((index, samples))

    def write(self, out):
        """Fills the items of an output port as far as it goes; returns how many."""
        done = 0
        while self._parts and done < len(out):
            index, samples = self._parts.pop(0)
            count = min(len(samples), len(out) - done)
            out[done : done + count] = samples[:count].reshape(out[done : done + count].shape)
            self._tag(done, index)
            self._due = index + count
            if count < len(samples):
                self._parts.insert(0, (self._due, samples[count:]))
            done += count
        return done

    def _tag(self, row, index):
        if self._due is None:
            for key, value in self._start.items():
                self._block.tag(0, row, key, value)
        if index != self._due:
            self._block.tag(0, row, "rx_time", time_of(index, self._rate))


def untimed(metadata):
    """The same without a time: it is told with one sample only."""
    return dataclasses.replace(metadata, rx_time=None)


def rows_of(items, antennas):
    """Items as samples [n antennas]."""
    return np.ascontiguousarray(items).reshape(-1, antennas)
