"""The monitor of a receiver, and what it hands to listeners."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import to_dict_pmt

from massaccess.calibration.health import VERDICTS
from massaccess.forward.simulate import Population
from massaccess.link.listener import Listener
from massaccess.link.monitor import COUNTERS, FIELDS

USERS, ANTENNAS, DATA = 16, 4, 20


def told(**values):
    return to_dict_pmt(values)


def health(verdicts, power):
    return told(verdicts=" ".join(verdicts), power_db=pmt.init_f64vector(len(power), power))


def test_messages_become_what_is_shown():
    monitor = massaccess.air_monitor(users=USERS, antennas=ANTENNAS, data_len=DATA)
    monitor.take_payload(pmt.cons(told(user=3, crc_ok=False), pmt.init_u8vector(0, [])))
    monitor.take_payload(pmt.cons(told(user=4, crc_ok=True), pmt.init_u8vector(0, [])))
    monitor.take_health(health(["ok", "dead", "ok", "saturated"], [0.0, -60.0, 1.0, 20.0]))
    monitor.take_sync(told(frames=40, missing=2, cfo_hz=-1500.5, locked=True))
    monitor.take_receiver(told(dropped=1, frames=38))
    monitor.take_decoder(told(codewords=70, payloads=69, failed_crc=1))
    state = monitor.state()
    assert {name: values.dtype.name for name, values in state.items()} == {name: row.dtype for name, row in FIELDS.items()}
    assert (state["user_fer"][3], state["user_fer"][4]) == (1, 0)
    assert np.isnan(state["user_fer"][[0, 5]]).all()
    assert state["antenna_verdict"].tolist() == [0, VERDICTS.index("dead"), 0, VERDICTS.index("saturated")]
    counters = dict(zip(COUNTERS, state["counters"], strict=True))
    assert (counters["missing"], counters["payloads"], counters["cfo_hz"], counters["dropped"]) == (2, 69, -1500.5, 1)
    assert "antennas: 2 of 4 ok, saturated 3, dead 1" in monitor.text()
    assert "payloads 69" in monitor.text()


def test_nonsense_is_counted_and_changes_nothing():
    monitor = massaccess.air_monitor(users=USERS, antennas=ANTENNAS, data_len=DATA)
    for message in (pmt.intern("x"), pmt.cons(told(user=16, crc_ok=True), pmt.PMT_NIL), pmt.cons(told(user=1), pmt.PMT_NIL)):
        monitor.take_payload(message)
    monitor.take_health(health(["ok"], [0.0]))
    monitor.take_health(health(["ok", "ok", "ok", "strange"], [0.0] * 4))
    monitor.take_sync(pmt.intern("x"))
    assert monitor.malformed == 5
    assert np.isnan(monitor.state()["user_fer"]).all()
    assert np.isnan(monitor.state()["counters"]).all()


def sent(config, frames):
    """Activity [F users] and symbols [F data users] of frames that were received without an error."""
    parts = [Population(config, 5).transmit(block) for block in range(frames // 16)]
    active = np.concatenate([part.active.numpy() for part in parts])
    symbols = np.concatenate([part.symbols.numpy() for part in parts]) * active[:, None]
    return active.astype(np.float32), symbols.astype(np.complex64)


def test_displays_get_an_item_a_frame(config):
    active, symbols = sent(config, 32)
    tb, monitor = gr.top_block(), massaccess.air_monitor(users=USERS, antennas=ANTENNAS, data_len=DATA)
    sources = blocks.vector_source_f(active.ravel(), False, USERS), blocks.vector_source_c(symbols.ravel(), False, DATA * USERS)
    sinks = [blocks.vector_sink_f(size) for size in (USERS, USERS, USERS, ANTENNAS, ANTENNAS)]
    for port, source in enumerate(sources):
        tb.connect(source, (monitor, port))
    for port, sink in enumerate(sinks):
        tb.connect((monitor, port), sink)
    massaccess.run(tb)
    error, drift, failed, power, phase = (np.array(sink.data()).reshape(32, -1) for sink in sinks)
    ever = active.cumsum(0) > 0
    assert (error == -60).all()  # no error at all, or nothing heard
    assert np.isfinite(monitor.state()["user_error_db"]).tolist() == ever[-1].tolist()
    assert np.abs(drift).max() < 1e-3
    assert not failed.any()
    assert (power == -60).all()
    assert not phase.any()


@pytest.mark.parametrize("watched", [True, False])
def test_listeners_get_what_the_monitor_says(config, watched):
    """Arrays with a row for each frame, which listeners that do not know them can leave alone; none without a monitor."""
    active, symbols = sent(config, 32)
    tb = gr.top_block()
    publisher = massaccess.zmq_publisher(USERS, ANTENNAS, DATA, "tcp://127.0.0.1:*", mode="push", monitor=watched)
    channel = np.zeros((32, USERS * ANTENNAS), np.complex64)
    sources = [
        blocks.vector_source_f(active.ravel(), False, USERS),
        blocks.vector_source_c(symbols.ravel(), False, DATA * USERS),
        blocks.vector_source_c(channel.ravel(), False, USERS * ANTENNAS),
    ]
    for port, source in enumerate(sources):
        tb.connect(source, (publisher, port))
    good = pmt.init_f32vector(USERS, [0.25] * USERS)
    publisher.take_monitor(told(user_fer=good, antenna_power_db=pmt.init_f32vector(3, [1.0] * 3), unheard_of=good))
    with Listener(publisher.endpoint, mode="push", timeout_s=5) as listener:
        tb.start()
        messages = list(listener)
        tb.wait()
    for message in messages:
        count = len(message["frame"])
        assert {name for name in message.arrays if name in FIELDS} == (set(FIELDS) if watched else set())
        assert all(array.shape[0] == count for array in message.arrays.values())
        if watched:
            assert (message["user_fer"] == 0.25).all()
            assert np.isnan(message["antenna_power_db"]).all()
            assert message["counters"].shape == (count, len(COUNTERS))
    assert sum(len(message["frame"]) for message in messages) == 32


def test_a_base_station_that_publishes_tells_users_and_counters(config):
    """Bursts through a simulated air: the publisher's monitor hears of the synchronizer, the receiver and the decoder."""
    air = {"samples_per_symbol": 4, "preamble_len": 16, "guard_len": 8, "sample_rate_hz": 1e6}
    config = config.replace(**air, pilot_len=16, data_len=40, snr_db=10.0, code="conv")
    tb = massaccess.station(
        "sim", config, "covariance+lmmse-lmmse", where={"frames": 64}, publish="tcp://127.0.0.1:*", threads=1, max_batch=4
    )
    massaccess.run(tb)
    assert tb.payloads.stats()["payloads"] > 0.9 * 64 * 3
    state = tb.monitor.state()
    assert set(tb.publisher.more) == set(FIELDS)
    assert np.nanmax(state["user_error_db"]) < -5
    assert np.nanmax(np.abs(state["user_drift_deg"])) < 20
    assert np.isfinite(state["user_error_db"]).sum() >= 12
