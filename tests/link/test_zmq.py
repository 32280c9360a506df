"""Publisher and listener: nothing is lost in push, everything lost in pub is counted, and no peer can hold anybody up."""

import resource
import socket
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import zmq

from massaccess.errors import ConfigError, MassaccessError, UnknownNameError
from massaccess.link import wire
from massaccess.link.listener import Listener, SilentPeerError
from massaccess.link.metadata import Metadata
from massaccess.link.publisher import LOOPBACK, Publisher, require_local, terminate

NOISE = np.random.default_rng(0).bytes(10_000)


def numbers(value, size=4):
    return {"x": np.full(size, value, np.int64)}


def vanish(publisher):
    """What the network sees of a publisher that is killed."""
    publisher._socket.close(linger=0)
    terminate(publisher._context, 5)


@contextmanager
def raw(kind, **options):
    """A bare ZMQ socket on a free port: a peer that says whatever it likes."""
    context = zmq.Context()
    peer = context.socket(kind)
    for name, value in options.items():
        peer.setsockopt(getattr(zmq, name), value)
    peer.bind(LOOPBACK)
    try:
        yield peer, peer.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
    finally:
        peer.close(linger=0)
        terminate(context, 5)


@contextmanager
def server(behave):
    """A bare TCP server that calls ``behave(connection)`` for whoever connects."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve():
        listening.settimeout(0.05)
        while not stop.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(1.0)
                with suppress(OSError):
                    behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listening.close()


@pytest.mark.parametrize("mode", ["pub", "push"])
def test_what_is_sent_is_heard_in_order(mode):
    with Publisher(mode=mode, high_water_mark=1000) as publisher, Listener(publisher.endpoint, mode=mode, high_water_mark=1000) as listener:
        assert publisher.wait_for_listener(10)
        for value in range(200):
            assert publisher.send(numbers(value), Metadata(frame=value))
        publisher.close()
        heard = [(int(message["x"][0]), message.metadata.frame) for message in listener]
    assert heard == [(value, value) for value in range(200)]
    assert (publisher.sent, publisher.dropped) == (200, 0)
    assert (listener.heard, listener.lost, listener.bad, listener.ended) == (200, 0, 0, True)


def test_push_waits_for_a_slow_listener_and_loses_nothing():
    with Publisher(mode="push", high_water_mark=1) as publisher, Listener(publisher.endpoint, mode="push", high_water_mark=1) as listener:

        def send():
            for value in range(40):
                publisher.send(numbers(value, 100_000), Metadata())
            publisher.close()

        thread = threading.Thread(target=send)
        thread.start()
        heard = [time.sleep(0.005) or int(message["x"][0]) for message in listener]
        thread.join()
    assert heard == list(range(40)) and listener.lost == 0


def test_push_gives_up_after_its_timeout_and_repeats_the_same_number():
    with Publisher(mode="push", linger_s=0.2) as publisher:
        began = time.monotonic()
        assert not publisher.send(numbers(0), Metadata(), timeout_s=0.2)
        assert 0.1 < time.monotonic() - began < 2
        with Listener(publisher.endpoint, mode="push") as listener:
            assert publisher.send(numbers(1), Metadata(), timeout_s=10)
            message = next(listener)
            assert message.sequence == 0 and int(message["x"][0]) == 1


def test_a_slow_listener_of_pub_counts_what_it_loses():
    with Publisher(high_water_mark=2) as publisher, Listener(publisher.endpoint, high_water_mark=2, timeout_s=2) as listener:
        assert publisher.wait_for_listener(10)
        for value in range(300):
            publisher.send(numbers(value, 100_000), Metadata())
        for _ in range(100):  # the queue empties, then a message shows the gap
            if listener.poll(0.05) is None:
                break
        publisher.send(numbers(300), Metadata())
        while listener.heard + listener.lost < 301:
            next(listener)
    assert listener.lost > 0 and listener.heard + listener.lost == 301


def test_a_late_listener_has_lost_nothing():
    with Publisher() as publisher:
        assert not publisher.send(numbers(0), Metadata())
        with Listener(publisher.endpoint) as listener:
            assert publisher.wait_for_listener(10)
            publisher.send(numbers(1), Metadata())
            assert int(next(listener)["x"][0]) == 1 and listener.lost == 0
    assert (publisher.sent, publisher.dropped) == (1, 1)


def test_a_publisher_that_starts_again_is_no_loss():
    with Publisher() as publisher:
        endpoint = publisher.endpoint
        with Listener(endpoint) as listener:
            assert publisher.wait_for_listener(10)
            for value in range(5):
                publisher.send(numbers(value), Metadata())
                next(listener)
            vanish(publisher)  # vanishes without a word
            with Publisher(endpoint) as again:
                while not again.wait_for_listener(0.01):  # a listener subscribes anew while it listens
                    assert listener.poll(0.05) is None
                again.send(numbers(7), Metadata())
                assert int(next(listener)["x"][0]) == 7
            assert listener.lost == 0 and listener.heard == 6


def test_the_memory_of_streams_is_bounded():
    with raw(zmq.PUSH) as (peer, endpoint), Listener(endpoint, mode="push") as listener:
        for stream in range(100):
            peer.send(wire.encode({}, Metadata(), sequence=0, stream=stream))
            next(listener)
        assert len(listener._expected) <= 16


# --- silence --------------------------------------------------------------------------------------------------------------------------


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Listener(f"tcp://127.0.0.1:{port}", timeout_s=0.3) as listener, pytest.raises(SilentPeerError, match="nobody accepts connections"):
        next(listener)


def test_a_stalled_peer_is_reported_in_time():
    with Publisher() as publisher, Listener(publisher.endpoint, timeout_s=0.5) as listener:
        assert publisher.wait_for_listener(10)
        publisher.send(numbers(0), Metadata())
        next(listener)
        began = time.monotonic()
        with pytest.raises(SilentPeerError, match="is its flowgraph running"):
            next(listener)
        assert 0.4 < time.monotonic() - began < 3


def test_a_vanished_peer_is_reported_in_time():
    with Publisher() as publisher, Listener(publisher.endpoint, timeout_s=0.5) as listener:
        assert publisher.wait_for_listener(10)
        publisher.send(numbers(0), Metadata())
        next(listener)
        vanish(publisher)
        with pytest.raises(SilentPeerError, match="went away"):
            next(listener)


def test_the_wrong_mode_is_reported():
    publisher = Publisher(mode="push", linger_s=0)
    with publisher, Listener(publisher.endpoint, timeout_s=0.6) as listener, pytest.raises(SilentPeerError, match="mode is not 'pub'"):
        next(listener)


def test_a_peer_that_never_speaks_is_reported():
    reason = pytest.raises(SilentPeerError, match="speaks no ZMQ")
    with server(lambda _: time.sleep(0.5)) as endpoint, Listener(endpoint, timeout_s=0.3) as listener, reason:
        next(listener)


@pytest.mark.parametrize("mode", ["pub", "push"])
def test_closing_does_not_wait_for_a_stalled_listener(mode):
    with raw(zmq.SUB if mode == "pub" else zmq.PULL, RCVHWM=1) as (peer, _):
        publisher = Publisher(mode=mode, high_water_mark=50, linger_s=0.3)
        if mode == "pub":
            peer.setsockopt(zmq.SUBSCRIBE, b"")
        peer.connect(publisher.endpoint)
        assert publisher.wait_for_listener(10)
        for value in range(100):
            publisher.send(numbers(value, 200_000), Metadata(), timeout_s=0)
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < 2


# --- garbage --------------------------------------------------------------------------------------------------------------------------


def test_garbage_is_counted_and_the_good_still_heard():
    good = wire.encode(numbers(3), Metadata(), sequence=0)
    with raw(zmq.PUSH) as (peer, endpoint), Listener(endpoint, mode="push") as listener:
        for octets in (b"", NOISE[:50], good[:-1], good.replace(b"\x01\x00", b"\x02\x00", 1), good + good):
            peer.send(octets)
        peer.send_multipart([good, good])
        peer.send(good)
        assert int(next(listener)["x"][0]) == 3
        assert (listener.heard, listener.bad) == (1, 6) and "2 parts" in str(listener.last_error)


def test_nothing_but_garbage_is_silence():
    with raw(zmq.PUSH, SNDHWM=10) as (peer, endpoint), Listener(endpoint, mode="push", timeout_s=0.5) as listener:
        stop = threading.Event()

        def babble():
            while not stop.is_set():
                try:
                    peer.send(b"x" * 100, zmq.DONTWAIT)
                except zmq.Again:
                    time.sleep(0.01)

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(SilentPeerError, match=r"bad messages, the last because .* not from a massaccess"):
            next(listener)
        stop.set()
        thread.join()
    assert listener.bad > 10


def babble_tcp(connection):
    rng = np.random.default_rng(0)
    for _ in range(50):
        connection.sendall(rng.bytes(4096))


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def huge_frame(connection):
    """Speaks ZMTP 3.0 as a PUSH socket, then declares a frame of an exabyte and goes on sending."""
    connection.sendall(GREETING)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
    connection.recv(4096)
    connection.sendall(b"\x02" + (2**60).to_bytes(8, "big"))
    for _ in range(200):
        connection.sendall(bytes(1 << 20))


@pytest.mark.parametrize("behave", [babble_tcp, huge_frame])
def test_a_hostile_peer_costs_no_memory(behave):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with server(behave) as endpoint, Listener(endpoint, mode="push", timeout_s=1) as listener:
        with pytest.raises(SilentPeerError, match=r"bad messages|speaks no ZMQ|more than max_bytes"):
            next(listener)
        assert listener.heard == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_messages_above_the_bound_are_never_taken_in():
    with raw(zmq.PUSH) as (peer, endpoint), Listener(endpoint, mode="push", max_bytes=10_000, timeout_s=0.5) as listener:
        peer.send(wire.encode({"x": np.zeros(10**6, np.uint8)}, Metadata(), sequence=0))
        with pytest.raises(SilentPeerError, match="more than max_bytes"):
            next(listener)


def test_unread_messages_wait_in_bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with raw(zmq.PUSH, SNDHWM=1) as (peer, endpoint), Listener(endpoint, mode="push", high_water_mark=4):
        message, sent = bytes(1 << 20), 0
        deadline = time.monotonic() + 1.5
        while sent < 300 and time.monotonic() < deadline:
            if peer.poll(100, zmq.POLLOUT):
                peer.send(message)
                sent += 1
        assert sent < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


def test_garbage_to_a_publisher_does_not_disturb_it():
    with Publisher() as publisher, Listener(publisher.endpoint) as listener:
        host, port = publisher.endpoint.removeprefix("tcp://").split(":")
        assert publisher.wait_for_listener(10)
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(NOISE)
            assert publisher.send(numbers(1), Metadata())
            assert int(next(listener)["x"][0]) == 1


# --- addresses ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5555", "tcp://127.0.0.2:*", "tcp://localhost:*", "tcp://[::1]:*", "ipc://x", "inproc://x"]
)
def test_local_addresses(endpoint):
    require_local(endpoint)


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:5555", "tcp://0.0.0.0:*", "tcp://192.0.2.1:1", "tcp://eth0:1", "tcp://[::]:1", "udp://127.0.0.1:1"]
)
def test_addresses_that_others_reach(endpoint):
    with pytest.raises(ConfigError, match="allow_remote=True"):
        Publisher(endpoint)


def test_remote_on_purpose():
    with Publisher("tcp://0.0.0.0:*", allow_remote=True) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")


def test_an_address_that_is_taken():
    with Publisher() as first, pytest.raises(ConfigError, match="cannot bind"):
        Publisher(first.endpoint)


@pytest.mark.parametrize("endpoint", ["5555", "tcp://", "tcp://127.0.0.1", "what://127.0.0.1:5"])
def test_an_address_that_is_none(endpoint):
    with pytest.raises(ConfigError, match="cannot connect"):
        Listener(endpoint)


def test_options_out_of_range():
    with pytest.raises(UnknownNameError, match="choose one of pub, push"):
        Publisher(mode="rep")
    with pytest.raises(UnknownNameError, match="choose one of pub, push"):
        Listener(LOOPBACK, mode="rep")
    with pytest.raises(MassaccessError, match="no bound"):
        Publisher(high_water_mark=0)


def test_a_listener_that_leaves_between_asking_and_sending_is_waited_for_like_any_other(monkeypatch):
    with Publisher("tcp://127.0.0.1:0", mode="push", linger_s=0.05) as publisher:
        room = iter([True, False])
        monkeypatch.setattr(publisher, "_wait_for_room", lambda deadline: next(room, False))
        assert not publisher.send({"frame": np.arange(3, dtype=np.uint64)}, Metadata(), timeout_s=0.1)
        assert publisher.sent == 0
