"""Sink: compares what was received with what was sent."""

import math
import threading
import time

import numpy as np
import pmt
from gnuradio import blocks, gr

from ._base import FrameBlock, check_book, guarded, io_signature, item, item_bytes, system, to_dict_pmt
from ._engine import ANSWERS

STATS_SECONDS = 0.5


class meter(gr.hier_block2):
    """Error rates of a receiver, from the truth of `population` and `channel_simulator`.

    In: sent samples [pilot_len + data_len, users] and activity [users]; with ``compare="all"`` also the true channel
    [users, rows * columns], symbols [data_len, users] and channel [users, rows * columns]; with ``"sequences"``, for frames of
    ``index_bits``, odds [users, 2 ** index_bits] in place of the activity. Then pilot kind, seed and energy must be those of the frames.
    Items meet by their ``frame`` tags. A frame without an answer (dropped, rejected) counts as ``lost`` and not in the rates.
    With a ``code`` bits are compared as they are on the air, and frames come to be right or wrong in a `payload_decoder`.
    Out, for displays, and may stay unconnected, one item a compared frame: users whose activity was decided wrongly; those of them that
    were silent, the false alarms; and, not with ``"activity"``, active users whose bits are not all right; which users [users] were any of
    that, as ones. Message port ``stats``: the dictionary of `summary` twice a second.

    Memory does not grow with the frames: the truth of up to ``hold_frames`` frames waits for its answers, then the source must wait.
    """

    def __init__(
        self,
        compare="all",
        users=128,
        rows=8,
        columns=8,
        pilot_len=28,
        data_len=37,
        activity=0.1,
        active_users=0,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        index_bits=0,
        hold_frames=256,
        code="none",
    ):
        from massaccess.errors import ConfigError, unknown

        if compare not in ANSWERS:
            raise unknown("comparison", compare, ANSWERS)
        if not hold_frames >= 1:
            raise ConfigError(
                f"hold_frames is {hold_frames}: pass 1 or more, and at least as many as can be on their way through the receiver"
            )
        config = system(
            users=users,
            rows=rows,
            columns=columns,
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
        if (compare == "sequences") != (index_bits > 0):
            raise ConfigError(f"compare is {compare!r} and index_bits {index_bits}: frames of index_bits are compared by 'sequences'")
        self._comparison = Comparison(config, compare)
        inputs, outputs = self._comparison.signatures
        gr.hier_block2.__init__(self, "massaccess_meter", io_signature(inputs), io_signature(outputs))
        self._inner = []
        for port, signature in enumerate(inputs):
            self._connect_input(port, signature, hold_frames if port in self._comparison.truths else 0)
        for port, signature in enumerate(outputs):
            end = blocks.null_sink(item_bytes(signature))
            self._inner.append(end)
            self.connect((self._comparison, port), end)
            self.connect((self._comparison, port), (self, port))
        self.message_port_register_hier_out("stats")
        self.msg_connect(self._comparison, "stats", self, "stats")

    def summary(self):
        """Frames compared, lost and unasked, and the error rates of `massaccess.evaluate.metrics.Tally`."""
        return self._comparison.summary()

    def coded(self, payloads):
        """Frame error rate, its interval and errors, when so many payloads of the compared frames were decoded."""
        return self._comparison.coded(payloads)

    def errors_by_user(self):
        """Compared frames [users] int64 in which something was wrong with a user: activity, or its bits where they are compared."""
        return self._comparison.errors_by_user()

    def _connect_input(self, port, signature, hold_frames):
        if not hold_frames:
            self.connect((self, port), (self._comparison, port))
            return
        held = blocks.copy(item_bytes(signature))
        held.set_min_output_buffer(0, hold_frames)
        self._inner.append(held)
        self.connect((self, port), held, (self._comparison, port))


class Comparison(FrameBlock):
    """Brings the truth of a frame and its answer together. It never consumes a truth that may still be answered, so it ends when there
    is nothing left to compare, and it always consumes something, so it never spins."""

    def __init__(self, config, compare):
        from massaccess.evaluate.metrics import Tally

        everything = compare == "all"
        ports = {
            "sent": item(np.complex64, config.frame_len, config.users),
            "found": item(np.float32, config.users, config.sequences),
        }
        if everything:
            ports |= {
                "truth": item(np.complex64, config.users, config.antennas),
                "symbols": item(np.complex64, config.data_len, config.users),
                "channel": item(np.complex64, config.users, config.antennas),
            }
        outputs = [np.float32] * 2 if compare == "activity" else [np.float32] * 3 + [item(np.float32, config.users)]
        self.signatures = list(ports.values()), outputs
        super().__init__("massaccess_comparison", *self.signatures)
        self._config, self._compare_bits = config, compare != "activity"
        self._truth = Truth(config)
        self.truths, self._answers = ((0, 2), (1, 3, 4)) if everything else ((0,), (1,))  # ports
        self._held = [np.empty(0, np.int64) for _ in ports]
        self._lock = threading.Lock()
        self._tally = Tally()
        self._by_user = np.zeros(config.users, np.int64)
        self._compared = self._lost = self._unasked = 0
        self._published = time.monotonic()
        self.message_port_register_out(pmt.intern("stats"))

    def start(self):
        self._held = [self._held[0][:0] for _ in self._held]  # a flowgraph that was reconfigured shows its items anew
        return True

    def summary(self):
        """Frames compared, lost and unasked, and the error rates of `massaccess.evaluate.metrics.Tally`."""
        with self._lock:
            rates = self._tally.summary() if self._compared else {}
            return {"compared": self._compared, "lost": self._lost, "unasked": self._unasked, **rates}

    def coded(self, payloads):
        with self._lock:
            return self._tally.coded(payloads)

    def errors_by_user(self):
        """Frames [users] in which something was wrong with a user."""
        with self._lock:
            return self._by_user.copy()

    @guarded
    def general_work(self, input_items, output_items):
        indices = [self._indices(port, len(items)) for port, items in enumerate(input_items)]
        truth = _common([indices[port] for port in self.truths])
        answer = _common([indices[port] for port in self._answers])
        frames = _common([truth, answer])
        done = min(int(index[-1]) for index in indices)  # all that can meet up to here is at hand
        if len(frames) > len(output_items[0]):
            frames = frames[: len(output_items[0])]
            done = int(frames[-1])
        if len(frames):
            errors = self._compare(
                frames, [items[np.searchsorted(index, frames)] for items, index in zip(input_items, indices, strict=True)]
            )
            for port, items in enumerate(output_items):
                items[: len(frames)] = errors[port].reshape(items[: len(frames)].shape)
                self.tag_frames(port, frames)
        for port, index in enumerate(indices):
            self._consume(port, index, int(np.searchsorted(index, done, side="right")), frames)
        if time.monotonic() - self._published > STATS_SECONDS:
            self._published = time.monotonic()
            self.message_port_pub(pmt.intern("stats"), to_dict_pmt(_flat(self.summary())))
        return len(frames)

    def _indices(self, port, count):
        """Frame numbers of the items at hand; those that were seen before and kept are remembered."""
        known = self._held[port]
        if port == 0 and self._config.index_bits:
            for tag in self.tags(0, count - len(known), len(known), "pilot_book"):
                check_book(str(tag.value), self._truth.book, "this meter")
        fresh = self.frame_indices(port, count - len(known), len(known))
        return np.concatenate([known, fresh])

    def _consume(self, port, index, count, frames):
        self._held[port] = index[count:]
        self.consume(port, count)
        if port < 2:  # one port of the truth, and one of the answers, stand for their kind
            alone = count - int(np.isin(index[:count], frames).sum())
            if port == 0:
                self._lost += alone
            else:
                self._unasked += alone

    def _compare(self, frames, values):
        """Adds the frames to the tally; wrong users, false alarms, wrong packets of each frame, and whose they are."""
        import torch

        with torch.inference_mode():
            values = [torch.from_numpy(np.ascontiguousarray(value)).reshape(len(frames), -1) for value in values]
            frame = self._truth(values, int(frames[0]))
            estimate = self._truth.estimate(values)
            found, active = estimate.active, frame.active
            alarms, wrong = found & ~active, found ^ active
            counted = [wrong.sum(1), alarms.sum(1)]
            if self._compare_bits:
                lost = active & ~(found & (self._truth.bits(estimate) == frame.bits).all(2))
                wrong = lost | alarms
                counted += [lost.sum(1), wrong]
        with self._lock:
            self._tally.add(self._config, frame, estimate)
            self._compared += len(frames)
            self._by_user += wrong.sum(0).numpy()
        return [value.numpy() for value in counted]


class Truth:
    """What was sent and found, as the library has it; ``values`` are the inputs of the meter, [B ...] each."""

    def __init__(self, config):
        from massaccess.forward.modulation import constellation
        from massaccess.forward.pilots import book_id, book_of

        self._config, self._constellation = config, constellation(config.modulation)
        if config.index_bits:
            self._pilots = book_of(config)
            self.book = book_id(self._pilots)

    def __call__(self, values, start):
        from massaccess import Frame

        config = self._config
        sent = values[0].reshape(-1, config.frame_len, config.users)
        active, symbols = (sent != 0).any(1), sent[:, config.pilot_len :]
        bits = self._chosen(sent) if config.index_bits else self._constellation.decide(symbols.transpose(1, 2))
        channel = values[2] if len(values) > 2 else sent.new_zeros(()).expand(len(sent), config.users * config.antennas)
        return Frame(active, bits, symbols, channel.reshape(len(sent), config.users, config.antennas), start)

    def estimate(self, values):
        from massaccess import Estimate
        from massaccess.core import sequence_estimate

        config, found = self._config, values[1]
        if config.index_bits:
            return sequence_estimate(found.reshape(-1, config.users, config.sequences))
        if len(values) == 2:
            return Estimate(found)
        symbols, channel = values[3:]
        shape = (-1, config.users, config.antennas)
        return Estimate(found, channel.reshape(shape), symbols.reshape(-1, config.data_len, config.users))

    def bits(self, estimate):
        """Bits [B N C] that were found."""
        from massaccess.forward.index_modulation import to_bits

        if self._config.index_bits:
            return to_bits(estimate.sequence_odds.argmax(-1), self._config.index_bits)
        return self._constellation.decide(estimate.symbols.transpose(1, 2))

    def _chosen(self, sent):
        """Bits [B N J] of the sequences that lie nearest to what was sent [B L N]."""
        import torch

        from massaccess.forward.index_modulation import to_bits

        book = self._pilots.unflatten(1, (self._config.users, self._config.sequences))  # [L N Q]
        likeness = torch.einsum("bln,lnq->bnq", sent, book.conj()).real - book.abs().square().sum(0) / 2
        return to_bits(likeness.argmax(-1), self._config.index_bits)


def _common(indices):
    """Numbers that are in all of several ascending lists."""
    shared = indices[0]
    for index in indices[1:]:
        shared = shared[np.isin(shared, index, assume_unique=True)]
    return shared


def _flat(summary):
    return {
        key: value
        for key, value in summary.items()
        if isinstance(value, (int, float, str)) and not (isinstance(value, float) and math.isnan(value))
    }
