"""The message format: bit-exact both ways, and no octets at all can make a reader do more than refuse them."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from massaccess.errors import FormatError, ShapeError
from massaccess.link import wire
from massaccess.link.metadata import Metadata
from massaccess.link.wire import DTYPES, HEAD, decode, encode

ARRAYS = {"frame": np.arange(3, dtype=np.uint64), "activity": np.linspace(0, 1, 15, dtype=np.float32).reshape(3, 5)}
MESSAGE = encode(ARRAYS, Metadata(receiver="jcedd", noise_var=0.5), sequence=9, stream=77)


def forge(header, payload=b"", /, **head):
    """A message with any header and head."""
    octets = header if isinstance(header, bytes) else json.dumps(header).encode()
    octets += b" " * (-len(octets) % 8)
    fields = {"magic": wire.MAGIC, "version": 1, "flags": 0, "header": len(octets), "payload": len(payload), "stream": 0, "sequence": 0}
    return HEAD.pack(*(fields | head).values()) + octets + payload


def test_the_bytes_are_those_of_the_specification():
    message = encode({"a": np.array([1, 2], ">u2")}, Metadata(), sequence=3, stream=5, end=True)
    header = b'{"arrays":[["a","uint16",[2]]],"metadata":{}}   '
    assert message == (
        b"MASSACC\n\x01\x00\x01\x00" + len(header).to_bytes(4, "little") + (8).to_bytes(8, "little")
        + (5).to_bytes(8, "little") + (3).to_bytes(8, "little") + header + b"\x01\x00\x02\x00\x00\x00\x00\x00"
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 1, 5)])
def test_every_dtype_and_shape_survives(dtype, shape):
    rng = np.random.default_rng(0)
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
    found = decode(encode({"x": array, "y": array}, Metadata(), sequence=0))["y"]
    assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()


def test_all_of_a_message_survives():
    message = decode(MESSAGE)
    assert (message.sequence, message.stream, message.end) == (9, 77, False)
    assert message.metadata == Metadata(receiver="jcedd", noise_var=0.5)
    assert all(np.array_equal(message[name], array) for name, array in ARRAYS.items())
    assert decode(encode({}, Metadata(), sequence=0, end=True)).end


def test_strides_and_byte_order_do_not_matter():
    array = np.arange(24, dtype=">f8").reshape(4, 6)[::2, ::3]
    assert np.array_equal(decode(encode({"x": array}, Metadata(), sequence=0))["x"], array)


def test_what_arrives_is_a_read_only_view():
    message = bytearray(MESSAGE)
    found = decode(message)["activity"]
    assert not found.flags.owndata and not found.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_an_array_that_is_not_there():
    with pytest.raises(FormatError, match="only frame, activity"):
        decode(MESSAGE)["channel"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.array(["text"])},
        {"x": np.array([object()])},
        {"X": np.zeros(1)},
        {"x" * 33: np.zeros(1)},
        {"x": np.zeros((1, 1, 1, 1, 1))},
        {"x": np.zeros(2, "datetime64[s]")},
        {f"x{k}": np.zeros(1) for k in range(17)},
    ],
)
def test_what_cannot_be_sent(arrays):
    with pytest.raises(ShapeError):
        encode(arrays, Metadata(), sequence=0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "shorter than the head"),
        (MESSAGE[:39], "shorter than the head"),
        (MESSAGE[:-1], "truncated"),
        (MESSAGE[:60], "truncated"),
        (MESSAGE + b"\0", "run together"),
        (MESSAGE + MESSAGE, "run together"),
        (b"x" * 100, "not from a massaccess publisher"),
        (forge({}, version=2), "use the same release"),
        (forge({}, version=0), "use the same release"),
        (forge({}, flags=2), "flags"),
        (forge({}, header=2**32 - 8), "header of"),
        (forge({}, payload=2**64 - 1), "payload of"),
        (forge({}, payload=2**20), "truncated"),
        (forge(b"{"), "not JSON"),
        (forge(b"\xff\xfe"), "not JSON"),
        (forge(b"[" * 8000), "not JSON"),
        (forge(b'{"arrays":[],"metadata":{"frame":' + b"9" * 5000 + b"}}"), "not JSON"),
        (forge(b'{"arrays":[],"metadata":{"noise_var":NaN}}'), "not JSON"),
        (forge(b'{"arrays":[],"metadata":{"noise_var":1e999}}'), "finite"),
        (forge([]), "header is not"),
        (forge({"arrays": []}), "header is not"),
        (forge({"arrays": [], "metadata": {}, "more": 1}), "header is not"),
        (forge({"arrays": {}, "metadata": {}}), "lists no arrays"),
        (forge({"arrays": [["x", "uint8", [0]]] * 17, "metadata": {}}), "more than 16"),
        (forge({"arrays": [["x", "uint8", [0]]] * 2, "metadata": {}}), "same name"),
        (forge({"arrays": ["x"], "metadata": {}}), "does not describe"),
        (forge({"arrays": [[[], "uint8", [0]]], "metadata": {}}), "does not describe"),
        (forge({"arrays": [["../x", "uint8", [0]]], "metadata": {}}), "does not describe"),
        (forge({"arrays": [["x", "object", [1]]], "metadata": {}}), "dtype"),
        (forge({"arrays": [["x", "<U9", [1]]], "metadata": {}}), "dtype"),
        (forge({"arrays": [["x", [], [1]]], "metadata": {}}), "dtype"),
        (forge({"arrays": [["x", "uint8", 1]], "metadata": {}}), "shape"),
        (forge({"arrays": [["x", "uint8", [-1]]], "metadata": {}}), "shape"),
        (forge({"arrays": [["x", "uint8", [True]]], "metadata": {}}), "shape"),
        (forge({"arrays": [["x", "uint8", [1.0]]], "metadata": {}}), "shape"),
        (forge({"arrays": [["x", "uint8", [1] * 5]], "metadata": {}}), "shape"),
        (forge({"arrays": [["x", "uint8", [2**32, 2**32]]], "metadata": {}}), "above"),
        (forge({"arrays": [["x", "uint8", [0, 2**62]]], "metadata": {}}), "above"),
        (forge({"arrays": [["x", "uint8", [9]]], "metadata": {}}, bytes(8)), "do not add up"),
        (forge({"arrays": [["x", "uint8", [8]]], "metadata": {}}, bytes(16)), "do not add up"),
        (forge({"arrays": [], "metadata": []}), "not an object"),
        (forge({"arrays": [], "metadata": {"snr": 1}}), "unknown metadata field"),
        (forge({"arrays": [], "metadata": {"frame": -1}}), "frame is -1"),
    ],
)
def test_what_is_not_a_message_is_refused_with_the_reason(message, reason):
    with pytest.raises(FormatError, match=reason):
        decode(message)


def refuses_or_reads(message):
    """Decodes whatever it is: only FormatError may come out, and no more memory than the message and its header may cost."""
    tracemalloc.start()
    try:
        decode(message)
    except FormatError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < len(message) + 2**20


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=400))
def test_any_octets(octets):
    refuses_or_reads(octets)
    refuses_or_reads(wire.MAGIC + b"\x01\x00\x00\x00" + octets)


TEXT = st.text(max_size=9)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=9)
SHAPE = st.lists(st.integers(-1, 2**65), max_size=5)
ROW = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([*DTYPES, "object"]), SHAPE).map(list)
METADATA = JSON | st.dictionaries(st.sampled_from(["frame", "rx_time", "x"]), JSON)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(arrays=JSON | st.lists(ROW | JSON, max_size=4), metadata=METADATA, payload=st.binary(max_size=64))
def test_any_header(arrays, metadata, payload):
    refuses_or_reads(forge({"arrays": arrays, "metadata": metadata}, payload))


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage(changes):
    octets = bytearray(MESSAGE)
    for place, value in changes:
        octets[place] = value
    refuses_or_reads(bytes(octets))


@pytest.mark.parametrize("text", [b"[],", b"{},", b'"",', b"0,", b'{"a":1},', b'"\\u0000",'])
def test_the_largest_header_costs_little(text):
    filling = (text * wire.MAX_HEADER)[: wire.MAX_HEADER - 60].rpartition(b",")[0]
    refuses_or_reads(forge(b'{"arrays":[' + filling + b'],"metadata":{}}'))
