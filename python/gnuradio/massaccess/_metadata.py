"""Stream tags as `massaccess.link.metadata.Metadata`, for the blocks at the edge of the flowgraph."""

import dataclasses

import pmt

from ._base import FrameBlock, failures


class MetadataSink(FrameBlock):
    """A block that ends streams of frames and wants to know what their tags say."""

    def __init__(self, name, in_sig):
        from massaccess.link.metadata import Metadata

        super().__init__(name, in_sig=in_sig)
        self._known = Metadata()

    def take(self, port, count):
        """(indices, metadata) of the first items at hand: as many of ``count`` as the metadata holds for.

        ``rx_time`` is told with the item that it was tagged on, and not again.
        """
        changes = self._changes(port, count)
        count = min((row for row in changes if row > 0), default=count)
        indices = self.frame_indices(port, count)
        metadata = self._known.update(changes.get(0, {})).at(int(indices[0]))
        self._known = dataclasses.replace(metadata, rx_time=None)
        return indices, metadata

    def stop(self):
        """Calls `finish`, which closes what the block writes to; unlike work, it also runs after the block has failed."""
        try:
            self.finish()
        except Exception as error:
            failures.record(self.alias(), error)
        return True

    def _changes(self, port, count):
        """{row: {field: value}} of the tags that are metadata; others are not for us."""
        from massaccess.link.metadata import NAMES

        changes = {}
        for tag in self.tags(port, count):
            name = pmt.symbol_to_string(tag.key)
            if name in NAMES and name != "frame":
                changes.setdefault(tag.offset - self.nitems_read(port), {})[name] = pmt.to_python(tag.value)
        return changes


def tag_metadata(block, port, row, metadata, known):
    """Tags an item being written with the fields of ``metadata`` that differ from ``known``; ``frame`` has a tag of its own."""
    before = {} if known is None else known.to_dict()
    for name, value in metadata.to_dict().items():
        if name != "frame" and before.get(name) != value:
            block.tag(port, row, name, gain_pmt(value) if name == "user_gain" else value)


def gain_pmt(gain):
    """What tag ``user_gain`` holds: mean powers of the users, single precision."""
    return pmt.init_f32vector(len(gain), list(gain))
