"""What was sent and what was found, brought together in any order."""

from __future__ import annotations

import numpy as np
import pytest

from massaccess.core import SystemConfig
from massaccess.errors import FormatError
from massaccess.forward.simulate import Population
from massaccess.link import wire
from massaccess.link.air_monitor import MOST_WAITING, Tally
from massaccess.link.air_report import SlotReport
from massaccess.link.metadata import Metadata

CONFIG = SystemConfig(
    users=6, rows=1, columns=2, pilot_len=4, data_len=8, activity=0.5, samples_per_symbol=4, guard_len=4, channel="rayleigh"
)


def halves():
    """A report of 16 slots, and what a receiver without errors finds in them."""
    sent = Population(CONFIG, 1).transmit(0)
    frame = np.arange(16, dtype=np.uint64)
    report = SlotReport(frame, sent.active.numpy(), (sent.bits * sent.active[..., None]).numpy(), {"slot": 16})
    return report, {"frame": frame, "activity": sent.active.numpy().astype(np.float32), "symbols": sent.symbols.numpy().copy()}


@pytest.mark.parametrize("first", ["sent", "found"])
def test_errors_are_counted_as_what_they_are(first):
    report, found = halves()
    users = [np.flatnonzero(row) for row in report.active]
    found["activity"][0, users[0][0]] = 0.2  # missed
    found["symbols"][1, 0, users[1][0]] *= -1  # both bits of a symbol
    silent = np.flatnonzero(~report.active[2])[0]
    found["activity"][2, silent] = 0.9
    tally = Tally(CONFIG)
    steps = [lambda: tally.sent(report), lambda: tally.found(found)]
    for step in steps if first == "sent" else reversed(steps):
        step()
    bursts = int(report.active.sum())
    assert tally.counts == {
        "slots": 16,
        "bursts": bursts,
        "missed": 1,
        "false_alarms": 1,
        "wrong": 1,
        "bits": 16 * (bursts - 1),
        "bit_errors": 2,
        "unpaired": 0,
    }
    assert tally.rates()["fer"] == pytest.approx(2 / bursts)
    assert tally.broker == {"slot": 16}


def test_coded_bursts_are_lost_when_their_payload_is():
    report, found = halves()
    found["symbols"][1] *= -1  # all wrong before decoding
    tally = Tally(CONFIG.replace(code="conv"))
    tally.sent(report)
    tally.found(found)
    bursts = int(report.active.sum())
    assert tally.counts["wrong"] > 0
    assert tally.rates()["fer"] is None
    tally.decoded(bursts - 3)
    assert tally.rates()["fer"] == pytest.approx(3 / bursts)


def test_reports_survive_the_wire_and_others_are_refused():
    report, found = halves()
    back = SlotReport.of(wire.decode(wire.encode(report.arrays(), Metadata(frame=0), sequence=0)), 16)
    np.testing.assert_array_equal(back.active, report.active)
    np.testing.assert_array_equal(back.bits, report.bits)
    assert back.counters == report.counters
    for arrays in (found, {**report.arrays(), "report": np.frombuffer(b"no", np.uint8)}, {**report.arrays(), "bits": report.bits}):
        with pytest.raises(FormatError):
            SlotReport.of(wire.decode(wire.encode(arrays, Metadata(), sequence=0)), 16)


def test_memory_is_bounded():
    tally, (_, found) = Tally(CONFIG), halves()
    for start in range(0, MOST_WAITING + 160, 16):
        tally.found({**found, "frame": found["frame"] + np.uint64(start)})
    assert tally.counts["unpaired"] == 160 and tally.counts["slots"] == 0
