"""Source: the frames of a SigMF recording."""

import numpy as np

from ._base import FrameBlock, guarded, item
from ._metadata import tag_metadata

BUFFER_FRAMES = 64


class sigmf_replay(FrameBlock):
    """Frames complex64 [pilot_len + data_len, antennas] of a recording, one an item, with the tags of `massaccess.link.metadata`.

    ``path`` names the recording, with or without ending. ``vlen`` is the item length that the flowgraph expects, 0 for whatever the
    recording has; ``check_hash`` reads all samples once before the start; ``salvage`` plays the whole frames of a damaged file. Ends after
    the last frame, unless ``repeat``: then the indices start again. Packed recordings are unpacked. ``config`` is the SystemConfig of the
    recording.
    """

    def __init__(self, path="capture", vlen=0, repeat=False, check_hash=True, salvage=False):
        from massaccess.errors import ConfigError
        from massaccess.link.recording import open_recording

        self._recording = open_recording(path, check_hash=check_hash, salvage=salvage)
        self.config = self._recording.config
        if self.config.burst:
            raise ConfigError(f"{path} holds the samples of an array, not frames: play it with array_replay, and a synchronizer behind it")
        found = self.config.frame_len * self.config.antennas
        if vlen not in (0, found):
            sizes = f"{self.config.frame_len} x {self.config.antennas} = {found}"
            raise ConfigError(f"{path} has frames of {sizes} samples and vlen is {vlen}: set it to {found}")
        super().__init__("massaccess_sigmf_replay", out_sig=[item(np.complex64, self.config.frame_len, self.config.antennas)])
        self.set_min_output_buffer(0, BUFFER_FRAMES)
        self._repeat = repeat
        self._run = 0
        self._offset = 0
        self._known = None

    def start(self):
        self._known = None  # whoever was connected while the flowgraph was locked has not heard it
        return True

    @guarded
    def general_work(self, input_items, output_items):
        if self._run == len(self._recording.runs):
            if not self._repeat:
                return -1
            self._run = 0
        run = self._recording.runs[self._run]
        count = min(len(output_items[0]), run.count - self._offset)
        output_items[0][:count] = self._recording.read(run, self._offset, count).reshape(output_items[0][:count].shape)
        if self._offset == 0 or self._known is None:
            told = run.metadata if self._offset == 0 else run.metadata.update({"rx_time": None})
            tag_metadata(self, 0, 0, told, self._known)
            self._known = run.metadata
        self.tag_frames(0, range(run.metadata.frame + self._offset, run.metadata.frame + self._offset + count))
        self._offset += count
        if self._offset == run.count:
            self._run, self._offset = self._run + 1, 0
        return count
