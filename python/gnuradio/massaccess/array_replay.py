"""Source: the samples of an array from a SigMF recording."""

import numpy as np

from ._array import buffer_samples, number_of, time_of
from ._base import FrameBlock, guarded, item
from ._metadata import tag_metadata


class array_replay(FrameBlock):
    """Samples complex64 [antennas] of a recording of `array_recorder`, one an item, with the tags that they had: ``rx_time`` on the first
    sample and on the first one after every gap, the others where they change.

    ``path`` names the recording, with or without ending. ``vlen`` is the number of antennas that the flowgraph expects, 0 for whatever the
    recording has; ``check_hash`` reads all samples once before the start; ``salvage`` plays what a damaged file still has. Ends after the
    last sample, unless ``repeat``: then times go on, as if the recording began anew a slot after its end. ``config`` is the SystemConfig of
    the recording.
    """

    def __init__(self, path="capture", vlen=0, repeat=False, check_hash=True, salvage=False):
        from massaccess.errors import ConfigError
        from massaccess.link.recording import open_recording

        self._recording = open_recording(path, check_hash=check_hash, salvage=salvage)
        self.config = self._recording.config
        antennas = self.config.antennas
        if not self.config.burst:
            raise ConfigError(f"{path} holds frames, not the samples of an array: play it with sigmf_replay")
        if vlen not in (0, antennas):
            raise ConfigError(f"{path} has {antennas} antennas and vlen is {vlen}: set it to {antennas}")
        super().__init__("massaccess_array_replay", out_sig=[item(np.complex64, antennas)])
        self.set_min_output_buffer(0, buffer_samples(antennas))
        self._repeat = repeat
        self._run = self._offset = self._turn = 0
        self._known = None

    @property
    def seed(self):
        """Seed of the simulation that was recorded, or None."""
        return self._recording.seed

    def start(self):
        self._known = None  # whoever was connected while the flowgraph was locked has not heard it
        return True

    @guarded
    def general_work(self, input_items, output_items):
        runs = self._recording.runs
        if self._run == len(runs):
            if not self._repeat:
                return -1
            self._run, self._turn = 0, self._turn + self._length()
        run = runs[self._run]
        count = min(len(output_items[0]), run.count - self._offset)
        output_items[0][:count] = self._recording.read(run, self._offset, count).reshape(output_items[0][:count].shape)
        if self._offset == 0 or self._known is None:
            told = run.metadata.update({"rx_time": self._time(run)})
            tag_metadata(self, 0, 0, told, None if self._known is None else self._known.update({"rx_time": None}))
            self._known = run.metadata
        self._offset += count
        if self._offset == run.count:
            self._run, self._offset = self._run + 1, 0
        return count

    def _rate(self, run):
        return run.metadata.rx_rate or self.config.sample_rate_hz

    def _number(self, run):
        """Number of a run's first sample: by its time, or, where nobody told one, by its index."""
        known = run.metadata
        return known.frame if known.rx_time is None else number_of(known.rx_time, self._rate(run))

    def _time(self, run):
        if run.metadata.rx_time is not None and not self._turn and not self._offset:
            return run.metadata.rx_time
        return time_of(self._number(run) + self._offset + self._turn, self._rate(run))

    def _length(self):
        """By how many samples a repetition is later: whole slots."""
        first, last = self._recording.runs[0], self._recording.runs[-1]
        slot = self.config.burst.slot_samples
        return -(-(self._number(last) + last.count - self._number(first)) // slot) * slot
