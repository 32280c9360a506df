"""Source: what every user sends, frame by frame."""

import threading
from collections import deque

import numpy as np
import pmt
from gnuradio import gr

from ._base import FrameBlock, guarded, item, parse_payload, system

BUFFER_FRAMES = 64
QUEUED_PAYLOADS = 1024
MOST_OCTETS = 255  # of a payload that is spread over frames


class population(FrameBlock):
    """Samples of all users of a cell, one frame an item: [pilot_len + data_len, users], pilots then data, zeros while a user sleeps.
    With ``index_bits`` (and ``data_len=0``) a device has 2 ** index_bits sequences, and sends the one that its bits choose.

    Frame f of a seed is frame f of `massaccess.forward.simulate.Simulation`; ``frames=0`` never ends. Tags: ``frame``, and ``pilot_book``
    on the first item. A PDU on port ``payload`` (dictionary with ``user``; as many octets as `payload_bytes`) wakes that user in the next
    block of 16 frames, one frame a PDU, and replaces its random payload. With ``index_bits`` it has 1 to 255 octets and takes
    ceil(8 octets / index_bits) frames in a row (see `massaccess.forward.index_modulation.spread`). Beyond 1,024 waiting PDUs they overflow,
    which ``overflowed`` counts, as ``rejected`` counts malformed ones. ``code`` names the code of the payloads.
    """

    def __init__(
        self,
        users=128,
        pilot_len=28,
        data_len=37,
        activity=0.1,
        active_users=0,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        index_bits=0,
        seed=0,
        frames=0,
        code="none",
    ):
        from massaccess.forward.pilots import book_id
        from massaccess.forward.simulate import Population

        config = system(
            users=users,
            pilot_len=pilot_len,
            data_len=data_len,
            activity=activity,
            active_users=active_users,
            modulation=modulation,
            pilot_kind=pilot_kind,
            pilot_seed=pilot_seed,
            pilot_energy=pilot_energy,
            index_bits=index_bits,
            code=code,
        )
        super().__init__("massaccess_population", out_sig=[item(np.complex64, config.frame_len, users)])
        self.set_min_output_buffer(0, BUFFER_FRAMES)
        self._population = Population(config, seed)
        self._frames = frames
        self._frame = 0
        self._block = None
        self._told = False
        self._waiting = deque()
        self._lock = threading.Lock()
        self.overflowed = 0
        self.rejected = 0
        self.payload_bytes = self._population.framing.payload_bytes
        self._book = book_id(self._population.pilots)
        self.message_port_register_in(pmt.intern("payload"))
        self.set_msg_handler(pmt.intern("payload"), self.enqueue)

    @guarded
    def enqueue(self, message):
        """Handler of port ``payload``."""
        from massaccess.errors import ConfigError

        try:
            entry = parse_payload(message, self._population.config.users, self.payload_bytes, most_octets(self._population))
        except ConfigError as error:
            self.rejected += 1
            gr.logger(self.alias()).warn(f"payload rejected: {error}")
            return
        with self._lock:
            if len(self._waiting) >= QUEUED_PAYLOADS:
                self.overflowed += 1
            else:
                self._waiting.append((entry[0], pieces(self._population, entry[1])))

    def start(self):
        self._told = False  # whoever was connected while the flowgraph was locked has not heard it
        return True

    @guarded
    def general_work(self, input_items, output_items):
        from massaccess.forward.simulate import BLOCK

        count = len(output_items[0]) if not self._frames else min(len(output_items[0]), self._frames - self._frame)
        if not count:
            return -1
        if not self._told:
            self._told = True
            self.tag(0, 0, "pilot_book", self._book)
        done = 0
        while done < count:
            block, first = divmod(self._frame, BLOCK)
            if self._block != block:
                self._block, self._samples = block, self._transmit(block)
            rows = self._samples[first : first + count - done]
            output_items[0][done : done + len(rows)] = rows
            self._frame += len(rows)
            done += len(rows)
        self.tag_frames(0, range(self._frame - count, self._frame))
        return count

    def _transmit(self, block):
        sent = self._population.transmit(block)
        samples = sent.samples.numpy()
        if self._waiting:
            self._insert(samples)
        return samples.reshape(len(samples), -1)

    def _insert(self, samples):
        """Puts waiting payloads into frames [B T N], one a user and frame, in order."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            row_of = {}
            for user, parts in waiting:
                row = row_of.get(user, 0)
                now, later = parts[: len(samples) - row], parts[len(samples) - row :]
                row_of[user] = row + len(now)
                if len(now):
                    samples[row : row + len(now), :, user] = modulate_one(self._population, user, now)
                if len(later):
                    self._waiting.append((user, later))  # a later block


def most_octets(population):
    """Octets that a payload PDU may have; 0: exactly those of a frame."""
    return MOST_OCTETS if population.config.index_bits else 0


def pieces(population, octets):
    """What each frame [F C] uint8 of a payload carries: octets, or the bits that choose a sequence."""
    import torch

    from massaccess.forward.index_modulation import spread

    index_bits = population.config.index_bits
    return spread(octets, index_bits) if index_bits else torch.tensor([list(octets)], dtype=torch.uint8)


def modulate_one(population, user, parts):
    """Samples [F T] complex64 of one user whose frames carry ``parts`` [F C], of `pieces`."""
    import torch

    config = population.config
    active = torch.zeros(len(parts), config.users, dtype=torch.bool)
    carried = torch.zeros(len(parts), config.users, parts.shape[1], dtype=torch.uint8)
    active[:, user] = True
    carried[:, user] = parts
    sent = population.choose(active, carried) if config.index_bits else population.modulate(active, carried)
    return sent.samples[:, :, user].numpy()
