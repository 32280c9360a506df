"""What every block shares: frames as stream items, frame numbers as tags, and a flowgraph that ends with a reason when a block fails.

One item is one frame, row-major. Tag ``frame`` (uint64) numbers an item; an item without it follows its predecessor, and a stream without
any counts from 0. Blocks pass tags on by hand, because only they know which frame an output item belongs to.

An exception in a Python block would leave the flowgraph hanging, and the program would still exit with 0. So every entry point of a
block (work, start, message handlers, setters) is `guarded`: it records the failure and ends the flowgraph; `run` and the block
`supervisor` turn the record into a message and an exit code.
"""

import contextlib
import functools
import math
import threading
import time
import traceback
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pmt
from gnuradio import gr
from gnuradio.gr.gateway import py_io_signature

PAGE = 4096  # bytes: a ring buffer is a whole number of pages and of items
MAX_BUFFER = 64 << 20  # bytes
ABSENT = {"active_users": 0, "adc_bits": 0, "placement_seed": -1}  # fields of SystemConfig that may be None, and what parameters say then


# --- failures -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Which block failed, and how."""

    block: str
    error: BaseException
    details: str

    def __str__(self):
        kind = "" if _is_ours(self.error) else f"{type(self.error).__name__}: "
        return f"block {self.block} failed: {kind}{self.error}"


class Failures:
    """The failures of this process, in order. ``event`` is set as soon as there is one."""

    def __init__(self):
        self.event = threading.Event()
        self._items = []

    def record(self, block, error):
        self._items.append(Failure(block, error, traceback.format_exc()))
        self.event.set()

    def clear(self):
        self._items = []
        self.event.clear()

    @property
    def first(self):
        return self._items[0] if self._items else None


failures = Failures()


def guarded(method=None, *, result=-1):
    """Decorator of work, start and message handlers: an exception is recorded, and ``result`` ends the block (-1 for work)."""
    if method is None:
        return functools.partial(guarded, result=result)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if getattr(self, "_failed", False):
            return result
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self._failed = True
            failures.record(self.alias() if hasattr(self, "alias") else type(self).__name__, error)
            return result

    return call


def run(tb, *, on_tick=None, tick_seconds=0.1):
    """Runs a flowgraph to its end; ``on_tick()`` is called every ``tick_seconds`` while any frame block (`FrameBlock`) in it is at work.

    ``on_tick`` may reconfigure the flowgraph: ``tb.lock()``, connect and disconnect, ``tb.unlock()``. Nobody else may, be it another
    thread or a program that calls ``tb.wait()`` itself: GNU Radio crashes when it unlocks while a thread waits (gnuradio issue 7276).
    Without frame blocks ``on_tick`` is called to the end, but must not reconfigure. GNU Radio drops the frames that lie in the buffers
    then: their numbers are missing from what goes on.

    Raises BlockFailure (a MassaccessError) when a block failed, and KeyboardInterrupt after Ctrl-C; the flowgraph has stopped by then.
    """
    failures.clear()
    for block in list(armed):  # a flowgraph does not tell its blocks before it runs
        block.arm()
    tb.start()
    ended = threading.Event()  # Python 3.11's join() takes a thread for dead once Ctrl-C has interrupted it: wait for an event instead
    waiter = threading.Thread(target=lambda: (tb.wait(), ended.set()), daemon=True)
    waiting = False  # not before reconfigurations are over: tb.wait() joins threads that tb.unlock() replaces
    reconfigurable = bool(on_tick and _frame_blocks(tb))
    try:
        deadline = time.monotonic() + tick_seconds
        while not ended.is_set() and not failures.event.is_set():
            if not waiting and not (reconfigurable and _at_work(tb)):
                waiting = True
                waiter.start()
            ended.wait(min(tick_seconds, 0.05))
            if on_tick and not (waiting and reconfigurable) and time.monotonic() >= deadline:
                on_tick()
                deadline = time.monotonic() + tick_seconds
    finally:
        for block in _frame_blocks(tb):
            block.interrupt()
        tb.stop()
        _unlock(tb)
        if not waiting:
            waiter.start()
        ended.wait()
    raise_failure()


armed = weakref.WeakSet()  # blocks whose ``arm`` `run` calls just before it starts a flowgraph


def _frame_blocks(tb):
    """The frame blocks that a running flowgraph streams through."""
    ends = (end for edge in tb.edge_list().splitlines() for end in edge.split("->"))
    names = {end.rpartition(":")[0] for end in ends}
    return [block for block in list(FrameBlock.alive) if block.alias() in names]


def _at_work(tb):
    return any(not block.detail().done() for block in _frame_blocks(tb))


def _unlock(tb):
    """Undoes locks of a stopped flowgraph: `on_tick` may have raised while it held one, and tb.wait() would wait for it for ever."""
    with contextlib.suppress(RuntimeError):  # the answer of a flowgraph that is not locked
        while True:
            tb.unlock()


def raise_failure():
    """Raises BlockFailure if a block has failed since `run` began."""
    failure = failures.first
    if failure is not None:
        error = _failure_type()(str(failure))
        error.details = failure.details
        raise error from failure.error


@functools.cache
def _failure_type():
    from massaccess.errors import MassaccessError  # imports torch: not before something has failed

    return type(
        "BlockFailure",
        (MassaccessError,),
        {"__doc__": "A block of a flowgraph raised; `details` holds its traceback.", "__module__": __name__},
    )


def __getattr__(name):
    if name == "BlockFailure":
        return _failure_type()
    raise AttributeError(name)


def _is_ours(error):
    return any(base.__name__ == "MassaccessError" for base in type(error).__mro__)


# --- items ----------------------------------------------------------------------------------------------------------------------------


def item(dtype, *shape):
    """Signature of a port whose items are arrays of ``shape``; ConfigError when GNU Radio could not buffer them in bounded memory.

    A ring buffer holds lcm(item, page) bytes at least: odd sizes make huge ones.
    """
    from massaccess.errors import ConfigError

    sizes = [int(size) for size in shape]
    vlen = math.prod(sizes)
    if vlen < 1:
        raise ConfigError(f"items of {' x '.join(map(str, sizes))} entries are empty: every length must be 1 or more")
    if buffer_bytes(dtype, vlen) > MAX_BUFFER:
        better = [_rounder(size) for size in sizes]
        mebibytes = buffer_bytes(dtype, vlen) >> 20
        raise ConfigError(
            f"items of {' x '.join(map(str, sizes))} entries need a buffer of {mebibytes} MiB, because {PAGE}-byte pages must hold whole "
            f"items: choose lengths with more factors of 2, for instance {' x '.join(map(str, better))}"
        )
    return (dtype, vlen) if vlen > 1 else dtype


def buffer_bytes(dtype, vlen):
    """Bytes of the smallest ring buffer for items of ``vlen`` entries."""
    return math.lcm(np.dtype(dtype).itemsize * vlen, PAGE)


def buffer_items(signature, least):
    """How many items a ring buffer of at least ``least`` of them holds: whole pages."""
    pages = buffer_bytes(*(signature if isinstance(signature, tuple) else (signature, 1))) // item_bytes(signature)
    return -(-least // pages) * pages


def item_bytes(signature):
    """Size of an item of what `item` returned."""
    dtype, vlen = signature if isinstance(signature, tuple) else (signature, 1)
    return np.dtype(dtype).itemsize * vlen


def io_signature(signatures):
    """Ports of a hierarchical block, one for each of what `item` returned."""
    sizes = [item_bytes(signature) for signature in signatures]
    return gr.io_signature.makev(len(sizes), len(sizes), sizes)


def _rounder(size):
    return size if size < 8 else 8 * round(size / 8)


# --- blocks ---------------------------------------------------------------------------------------------------------------------------


class FrameBlock(gr.basic_block):
    """A block whose items are frames. Subclasses implement ``general_work`` (guarded) and call ``frame_indices`` and ``tag``."""

    alive: ClassVar = weakref.WeakSet()  # in every flowgraph, and in none

    def __init__(self, name, in_sig=None, out_sig=None, *, required_outputs=None):
        outputs = out_sig or []
        if required_outputs is not None:  # the others may stay unconnected
            outputs = py_io_signature(required_outputs, len(outputs), outputs)
        gr.basic_block.__init__(self, name=name, in_sig=in_sig or [], out_sig=outputs)
        self.set_tag_propagation_policy(gr.TPP_DONT)
        FrameBlock.alive.add(self)
        self._failed = False
        self._next_frame = [0] * len(in_sig or [])

    def interrupt(self):
        """Called by `run`, in its thread, when the flowgraph is to stop: GNU Radio tells a block only after its work has returned."""

    def forecast(self, noutput_items, ninputs):
        """One item on every input is enough to work: no batch is ever waited for, and none is spun on."""
        return [1] * ninputs

    def frame_indices(self, port, count, first=0):
        """Frame numbers [count] int64 of the items ``first`` .. ``first + count`` at hand on an input port.

        An item without a tag follows its predecessor. Call once for each item, in order: the port remembers where it got to.
        """
        tagged = {tag.offset: pmt.to_uint64(tag.value) for tag in self.tags(port, count, first, "frame")}
        start = self.nitems_read(port) + first
        indices = np.empty(count, np.int64)
        number = self._next_frame[port]
        for row in range(count):
            number = tagged.get(start + row, number)
            indices[row] = number
            number += 1
        self._next_frame[port] = number
        return indices

    def tags(self, port, count, first=0, key=None):
        """Tags of the items ``first`` .. ``first + count`` at hand, by offset; all keys or one."""
        window = (port, first, first + count)
        found = self.get_tags_in_window(*window) if key is None else self.get_tags_in_window(*window, pmt.intern(key))
        return sorted(found, key=lambda tag: tag.offset)

    def tag(self, port, row, key, value):
        """Tags the item that is ``row``-th of those being written; ``value`` is a number, text, (seconds, fraction) or a PMT."""
        self.add_item_tag(port, self.nitems_written(port) + row, pmt.intern(key), to_pmt(value))

    def tag_frames(self, port, indices):
        """Numbers the items being written, from the first on."""
        key, written = pmt.intern("frame"), self.nitems_written(port)
        for row, index in enumerate(indices):
            self.add_item_tag(port, written + row, key, pmt.from_uint64(int(index)))

    def pass_tags(self, in_port, out_port, count, skip=()):
        """Copies the tags of ``count`` items at hand to as many items being written, except ``frame`` and those to ``skip``."""
        shift = self.nitems_written(out_port) - self.nitems_read(in_port)
        for tag in self.tags(in_port, count):
            if str(tag.key) not in ("frame", *skip):
                self.add_item_tag(out_port, tag.offset + shift, tag.key, tag.value)

    def heard(self, port):
        """Whether anybody listens on a message port: PDUs cost time to make."""
        return pmt.is_pair(self.message_subscribers(pmt.intern(port)))


def to_pmt(value):
    """Numbers, text and (seconds, fraction) pairs as GNU Radio writes them in tags; integers of frames and times are uint64."""
    if isinstance(value, bool):
        return pmt.from_bool(value)
    if isinstance(value, (int, np.integer)):
        return pmt.from_long(int(value))
    if isinstance(value, (float, np.floating)):
        return pmt.from_double(float(value))
    if isinstance(value, str):
        return pmt.intern(value)
    if isinstance(value, tuple):
        return pmt.make_tuple(pmt.from_uint64(int(value[0])), pmt.from_double(float(value[1])))
    return value


def to_dict_pmt(values):
    """A PMT dictionary with text keys."""
    result = pmt.make_dict()
    for key, value in values.items():
        result = pmt.dict_add(result, pmt.intern(key), to_pmt(value))
    return result


def system(**values):
    """A SystemConfig from block parameters, where `ABSENT` values stand for "none"."""
    from massaccess import SystemConfig

    return SystemConfig(**{name: None if name in ABSENT and value == ABSENT[name] else value for name, value in values.items()})


def check_book(book, own, who):
    """ConfigError when frames of pilot book ``book`` come to ``who`` with a book of its ``own``."""
    from massaccess.errors import ConfigError

    if book != own:
        raise ConfigError(
            f"frames carry pilot book {book} but {who} has {own}: give both the same users, pilot_len, index_bits, kind, energy and seed"
        )


def parse_payload(message, users, payload_bytes, most=0):
    """(user, octets) of a PDU with ``user`` in its dictionary and ``payload_bytes`` octets, or with 1 to ``most``; ConfigError says what is
    wrong with it."""
    from massaccess.errors import ConfigError

    if not pmt.is_pair(message) or not pmt.is_dict(pmt.car(message)) or not pmt.is_u8vector(pmt.cdr(message)):
        raise ConfigError("not a PDU: send (dictionary with 'user', u8vector)")
    user, octets = pmt.dict_ref(pmt.car(message), pmt.intern("user"), pmt.PMT_NIL), bytes(pmt.u8vector_elements(pmt.cdr(message)))
    if not pmt.is_integer(user) or not 0 <= pmt.to_long(user) < users:
        raise ConfigError(f"user is {user}: the dictionary needs an integer 'user' of 0 to {users - 1}")
    if most:
        if not 1 <= len(octets) <= most:
            raise ConfigError(f"payload of {len(octets)} bytes: send 1 to {most}")
    elif not payload_bytes or len(octets) != payload_bytes:
        cure = f"send exactly {payload_bytes}" if payload_bytes else "raise data_len until a CRC and a byte fit"
        raise ConfigError(f"payload of {len(octets)} bytes: {cure}")
    return pmt.to_long(user), octets
