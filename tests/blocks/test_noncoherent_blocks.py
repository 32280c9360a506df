"""Index-modulated frames in the stream: the library's frames and answers, payloads over many frames, and what cannot be is refused."""

from __future__ import annotations

import sys
import threading
import time
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import BlockFailure
from gnuradio.massaccess._queue import FrameQueue

from massaccess import SystemConfig
from massaccess.errors import ConfigError, UnknownNameError
from massaccess.evaluate.metrics import Tally
from massaccess.evaluate.montecarlo import Campaign, evaluate
from massaccess.forward.index_modulation import gather, llrs, spread, to_bits
from massaccess.forward.simulate import Simulation
from massaccess.link.archive import results
from massaccess.link.listener import Listener
from massaccess.link.recording import open_recording
from massaccess.priors.gain_memory import GainMemory
from massaccess.registry import RECEIVERS, Entry, create

P3 = SystemConfig.from_toml(Path(__file__).resolve().parents[2] / "benchmarks/noncoherent/cell.toml")
CELL = P3.replace(users=16, pilot_len=32, index_bits=2)
EASY = CELL.replace(channel="rayleigh", snr_convention="per-user", snr_db=30.0)  # the stand-in finds every device


def uplink(config, receiver="matched", **options):
    return massaccess.uplink(config, receiver, **{"seed": 5, "frames": 40, "threads": 1, **options})


def made(block, config, **changes):
    """A block with those parameters that it shares with ``config``."""
    names = block.__init__.__code__.co_varnames[: block.__init__.__code__.co_argcount]
    return block(**{**{name: value for name, value in config.to_dict().items() if name in names}, **changes})


def errors(summary):
    return {name: value for name, value in summary.items() if name.endswith("_errors")}


def library(config, frames, receiver="matched", seed=5):
    truth, obs = Simulation(config, seed).frames(0, frames)
    tally = Tally()
    tally.add(config, truth, create(receiver)(obs))
    return tally.summary()


def pdu(user, octets):
    return pmt.cons(pmt.dict_add(pmt.make_dict(), pmt.intern("user"), pmt.from_long(user)), pmt.init_u8vector(len(octets), list(octets)))


def messages(store):
    found = [store.get_message(index) for index in range(store.num_messages())]
    return [(pmt.to_python(pmt.car(one)), pmt.cdr(one)) for one in found]


class Watched(gr.top_block):
    """Samples of all users [F, L * N] -> channel_simulator -> noncoherent_receiver, and all that comes out."""

    def __init__(self, config, sent, **changes):
        gr.top_block.__init__(self)
        self.source = blocks.vector_source_c(sent.ravel().tolist(), False, config.frame_len * config.users)
        self.channel = made(massaccess.channel_simulator, config, seed=5)
        self.receiver = made(massaccess.noncoherent_receiver, config, receiver="matched", **changes)
        sizes = (config.users, config.users * config.sequences, config.users * config.index_bits)
        self.sinks = [blocks.vector_sink_f(size) for size in sizes]
        self.packets = blocks.message_debug()
        self.connect(self.source, self.channel, self.receiver)
        for port, sink in enumerate(self.sinks):
            self.connect((self.receiver, port), sink)
        self.msg_connect(self.receiver, "packets", self.packets, "store")


# --- frames and answers are those of the library --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"placement_seed": 3}, {"index_bits": 1, "adc_bits": 3}, {"active_users": 16}])
def test_stream_and_library_count_the_same_errors(changes):
    config = CELL.replace(**changes)
    tb = uplink(config)
    massaccess.run(tb)
    summary = tb.meter.summary()
    assert (summary["compared"], summary["lost"], summary["unasked"]) == (40, 0, 0)
    assert errors(summary) == errors(library(config, 40))
    assert summary["ser_devices_errors"] > 0
    assert tb.meter.errors_by_user().sum() == summary["ser_devices_errors"]


@pytest.mark.parametrize("tx_power_dbm", [3.0, 40.0])
def test_the_default_counts_what_an_evaluation_counts(tx_power_dbm):
    """Log odds of near devices are millions, and still tell their sequences apart."""
    config = CELL.replace(users=24, pilot_len=12, placement_seed=3, tx_power_dbm=tx_power_dbm)
    tb = uplink(config, "", frames=64)
    massaccess.run(tb)
    assert tb.receiver.stats()["receiver"] == "noncoherent"
    (evaluated,) = evaluate(Campaign((config,), ("noncoherent",), frames=64, seed=5))["results"]
    found = errors(tb.meter.summary())
    assert found == {name: evaluated[name] for name in found}
    assert (found["ser_devices_errors"] > 0) == (tx_power_dbm < 10)


def test_answers_come_as_streams_and_as_messages():
    truth, obs = Simulation(EASY, 5).frames(0, 8)
    sent = Simulation(EASY, 5).population.transmit(0).samples[:8].numpy()
    tb = Watched(EASY, sent)
    massaccess.run(tb)
    wanted = create("matched")(obs)
    activity, odds, soft = (torch.tensor(sink.data()).reshape(8, EASY.users, -1).squeeze(-1) for sink in tb.sinks)
    torch.testing.assert_close(odds, wanted.sequence_odds, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(activity, wanted.activity, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(soft, llrs(wanted.sequence_odds), rtol=1e-3, atol=1e-3)
    for sink in tb.sinks:
        assert [pmt.to_python(tag.value) for tag in sink.tags() if str(tag.key) == "frame"] == list(range(8))
    found = messages(tb.packets)
    assert {(known["frame"], known["user"]) for known, _ in found} == set(map(tuple, truth.active.nonzero().tolist()))
    for known, bits in found:
        frame, user = known["frame"], known["user"]
        assert bytes(pmt.u8vector_elements(bits)) == bytes(truth.bits[frame, user].tolist())
        assert known["llrs"] == pytest.approx(soft[frame, user].numpy())
        assert known["receiver"] == "matched" and known["activity"] == pytest.approx(float(activity[frame, user]))
    assert tb.receiver.stats()["packets"] == len(found)


def test_equal_seeds_give_equal_digests_whatever_the_scheduler_does():
    digests = set()
    for piece, batch in ((1, 16), (64, 16)):
        tb = uplink(CELL, max_batch=batch)
        tb.channel.set_max_noutput_items(piece)
        massaccess.run(tb)
        digests.add(tb.receiver.digest())
    assert len(digests) == 1


def test_powers_of_a_batch_reach_the_receiver_together(monkeypatch):
    seen = []
    tb = uplink(CELL, max_batch=8, frames=16)
    kind = type(tb.receiver._decoder._engine._receiver)
    plain = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, obs, **rest: seen.append(obs) or plain(self, obs, **rest))
    massaccess.run(tb)
    assert [obs.frames for obs in seen] == [8, 8]
    assert torch.equal(torch.cat([obs.user_gain for obs in seen]), Simulation(CELL, 5).frames(0, 16)[1].user_gain)


def test_powers_are_told_where_they_change():
    for seed, told in ((3, 1), (-1, 20)):
        tb = gr.top_block()
        config = CELL if seed < 0 else CELL.replace(placement_seed=seed)
        tb.kept = made(massaccess.population, config, frames=20), made(massaccess.channel_simulator, config)
        sink = blocks.vector_sink_c(config.frame_len * config.antennas)
        tb.connect(*tb.kept, sink)
        massaccess.run(tb)
        assert sum(str(tag.key) == "user_gain" for tag in sink.tags()) == told


def test_the_power_of_the_devices_changes_while_running():
    block = made(massaccess.channel_simulator, CELL)
    block.set_tx_power_dbm(13.0)
    tb = gr.top_block()
    sent = blocks.vector_source_c([0.0] * CELL.frame_len * CELL.users, False, CELL.frame_len * CELL.users)
    rx = blocks.vector_sink_c(CELL.frame_len * CELL.antennas)
    tb.connect(sent, block, rx)
    massaccess.run(tb)
    found = [pmt.to_python(tag.value) for tag in rx.tags() if str(tag.key) == "noise_var"]
    assert found == [pytest.approx(10 * CELL.noise_var)]
    with pytest.raises(ConfigError, match="tx_power_dbm"):
        block.set_tx_power_dbm(float("nan"))


# --- powers that are not known ---------------------------------------------------------------------------------------------------------

STAY = CELL.replace(users=24, pilot_len=12, index_bits=1, placement_seed=3, tx_power_dbm=10.0)


@pytest.mark.parametrize("placement_seed", [None, 3])
def test_unknown_powers_cost_what_an_evaluation_counts(placement_seed):
    config = STAY.replace(placement_seed=placement_seed)
    found = {}
    for gains in ("known", "unknown"):
        tb = uplink(config, "", frames=64, gains=gains)
        massaccess.run(tb)
        found[gains] = errors(tb.meter.summary())
        (evaluated,) = evaluate(Campaign((config,), ("noncoherent",), frames=64, seed=5, gains=gains))["results"]
        assert found[gains] == {name: evaluated[name] for name in found[gains]}
        assert (tb.receiver.stats()["gains"], tb.receiver.stats()["learned"]) == (gains, 0)
    assert found["known"]["ser_devices_errors"] < found["unknown"]["ser_devices_errors"]


def learned(frames, **options):
    """A flowgraph that has learned the gains, and its odds [F N Q]."""
    tb, sink = uplink(STAY, "", frames=frames, gains="learned", **options), blocks.vector_sink_f(STAY.users * STAY.sequences)
    tb.connect((tb.receiver, 1), sink)
    massaccess.run(tb)
    return tb, np.array(sink.data(), np.float32).reshape(-1, STAY.users, STAY.sequences)


def test_learned_powers_are_those_of_the_library():
    """Each batch is told what the ones before it said; a number of frames to remember leaves less of the first."""
    range_db = (-0.0, 36.7 * np.log10(20))
    memory, detector = GainMemory(users=STAY.users, range_db=range_db, forget=1 - 1 / 50), create("noncoherent")
    wanted = []
    for start in range(0, 72, 16):
        _, obs = Simulation(STAY, 5).frames(start, min(16, 72 - start))
        estimate = detector(memory.tell(replace(obs, user_gain=None)))
        wanted.append(estimate.sequence_odds)
        memory.learn(estimate)
    tb, odds = learned(72, max_batch=16, remember=50)
    np.testing.assert_allclose(odds, torch.cat(wanted), rtol=2e-2, atol=2e-2)
    assert tb.receiver.gains_db() == pytest.approx(10 * memory.gain.log10().numpy(), abs=0.1)
    assert (tb.receiver.stats()["gains"], tb.receiver.stats()["learned"]) == ("learned", 72)
    assert not np.allclose(tb.receiver.gains_db(), learned(72, max_batch=16)[0].receiver.gains_db(), atol=0.1)


def test_learned_powers_are_right():
    tb, _ = learned(400)
    truth = 10 * Simulation(STAY, 5).frames(0, 1)[1].user_gain[0].log10()
    strong = truth > 10
    assert np.median(np.abs(tb.receiver.gains_db() - truth.numpy())[strong]) < 2.0
    tb.receiver.gains_db()[:] = 0.0
    assert tb.receiver.gains_db().any()


def test_what_was_learned_does_not_depend_on_how_batches_are_split(monkeypatch):
    """As a source does that is so slow that nobody waits for the rest of a batch."""
    whole, odds = learned(40, max_batch=16)
    ready, sizes = FrameQueue._ready, []

    def few(queue):
        length = min(ready(queue), 3)
        sizes.append(length)
        return length

    monkeypatch.setattr(FrameQueue, "_ready", few)
    split, others = learned(40, max_batch=16)
    assert max(sizes) == 3
    assert np.array_equal(odds, others)
    assert np.array_equal(whole.receiver.gains_db(), split.receiver.gains_db())
    assert whole.receiver.digest() == split.receiver.digest()


@dataclass(frozen=True)
class Leveled:
    """Waits, when told to, until time is up, and tells levels."""

    tells_levels: ClassVar[bool] = True
    cuts: ClassVar[list] = []
    hold: ClassVar[threading.Event] = threading.Event()
    held: ClassVar[threading.Event] = threading.Event()

    def __call__(self, obs, *, generator=None):
        while self.hold.is_set():
            self.held.set()
            if obs.late:
                self.cuts.append(obs.frames)
                break
            time.sleep(0.01)
        found, levels = create("matched")(obs), obs.level_evidence.shape[1]
        told = {"level_mass": (found.activity / levels)[..., None].expand(-1, -1, levels), "silence": 1 - found.activity}
        return replace(found, info={**told, "cut": obs.late})


@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_what_was_learned_outlives_a_stop_and_counts_once(monkeypatch, overflow):
    module = types.ModuleType("massaccess._leveled")
    module.Leveled = Leveled
    monkeypatch.setitem(sys.modules, "massaccess._leveled", module)
    monkeypatch.setitem(RECEIVERS, "leveled", Entry("_leveled:Leveled", "noncoherent", "", ""))
    Leveled.cuts.clear()
    Leveled.held.clear()
    tb = uplink(STAY, "leveled", frames=0, max_batch=4, gains="learned", overflow=overflow)
    extra, before = blocks.null_sink(STAY.users * 4), []

    def reconfigure():
        done = tb.receiver.stats()["frames"]
        if not before and done > 4:
            Leveled.hold.set()
            assert Leveled.held.wait(20)  # in the middle of a batch
            tb.lock()
            tb.connect(tb.receiver, extra)
            before.append(tb.receiver.stats()["learned"])
            tb.unlock()  # stops and starts again
            Leveled.hold.clear()
        elif before and done > before[0] + 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=reconfigure, tick_seconds=0.1)
    stats = tb.receiver.stats()
    assert Leveled.cuts
    assert stats["learned"] == stats["frames"] > before[0] + 8


# --- payloads -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index_bits", [1, 3])
def test_a_framed_payload_comes_back(index_bits):
    """Two devices send at once, each frame one of their sequences."""
    config = EASY.replace(index_bits=index_bits)
    payloads = {3: b"hello", 7: b"you"}
    most = -(-8 * 5 // index_bits)
    sent = np.zeros((most, config.frame_len, config.users), np.complex64)
    for user, octets in payloads.items():
        known = framed(made(massaccess.pilot_framer, config, user=user), octets)
        assert [(one["packet"], one["position"], one["frames"], one["user"]) for one, _ in known] == [
            (0, position, -(-8 * len(octets) // index_bits), user) for position in range(len(known))
        ]
        for row, (_, samples) in enumerate(known):
            sent[row, :, user] = pmt.c32vector_elements(samples)
    tb = Watched(config, sent)
    massaccess.run(tb)
    found = sorted((one["user"], one["frame"], pmt.u8vector_elements(bits)) for one, bits in messages(tb.packets))
    for user, octets in payloads.items():
        assert gather(torch.tensor([bits for who, _, bits in found if who == user])) == octets


def framed(framer, octets):
    """(dictionary, samples) of the frames of a payload."""
    store, tb = blocks.message_debug(), gr.top_block()
    tb.kept = framer, store
    tb.msg_connect(framer, "frame", store, "store")
    tb.start()
    framer.send(pdu(0, octets))
    framer.send(pdu(0, b""))
    deadline = time.monotonic() + 10
    while store.num_messages() < -(-8 * len(octets) // framer._population.config.index_bits) and time.monotonic() < deadline:
        time.sleep(0.01)
    tb.stop()
    tb.wait()
    assert (framer.packets, framer.rejected) == (1, 1)
    return messages(store)


def test_a_payload_wakes_its_user_for_as_many_frames_as_it_needs():
    """40 bits at 2 a frame are 20 frames, 4 of them in the next block of draws; a second payload follows the first."""
    source = made(massaccess.population, EASY, frames=40, activity=1e-9)
    for user, octets in ((7, b"abcde"), (7, b"x"), (2, b"hi")):
        source.enqueue(pdu(user, octets))
    source.enqueue(pdu(7, bytes(256)))
    assert source.rejected == 1
    sink, tb = blocks.vector_sink_c(EASY.frame_len * EASY.users), gr.top_block()
    tb.connect(source, sink)
    massaccess.run(tb)
    sent = torch.tensor(np.array(sink.data(), np.complex64)).reshape(40, EASY.frame_len, EASY.users)
    awake = (sent != 0).any(1)
    assert awake[:, 7].nonzero().flatten().tolist() == list(range(24))
    assert awake[:, 2].nonzero().flatten().tolist() == list(range(8))
    book = Simulation(EASY).population.pilots.unflatten(1, (EASY.users, EASY.sequences))[:, 7]
    chosen = (sent[:24, :, 7] @ book.conj()).real.argmax(-1)
    assert gather(to_bits(chosen[:20], 2)) == b"abcde" and gather(to_bits(chosen[20:], 2)) == b"x"


@pytest.mark.parametrize("index_bits", range(1, 9))
def test_payloads_are_spread_and_gathered(index_bits):
    octets = bytes(range(0, 250, 7))
    bits = spread(octets, index_bits)
    assert bits.shape == (-(-8 * len(octets) // index_bits), index_bits)
    assert gather(bits) == octets


# --- what cannot be is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "changes", "error", "words"),
    [
        ("noncoherent_receiver", {"receiver": "covariance"}, ConfigError, "does not tell sequences apart.*kind noncoherent"),
        ("noncoherent_receiver", {"receiver": "nope"}, UnknownNameError, "unknown receiver"),
        ("noncoherent_receiver", {"receiver": "matched", "index_bits": 0}, ConfigError, "activity_detector"),
        ("noncoherent_receiver", {"receiver": "matched", "index_bits": 9}, ConfigError, "index_bits is 9"),
        ("noncoherent_receiver", {"receiver": "matched", "gains": "learned"}, ConfigError, "'noncoherent', or pass gains='unknown'"),
        ("noncoherent_receiver", {"gains": "nope"}, UnknownNameError, "unknown gains.*learned"),
        ("noncoherent_receiver", {"gains": "unknown", "gain_low_db": 9.0, "gain_high_db": 3.0}, ConfigError, "low first"),
        ("noncoherent_receiver", {"gains": "unknown", "gain_high_db": float("nan")}, ConfigError, "low first"),
        ("noncoherent_receiver", {"gains": "learned", "remember": 1}, ConfigError, "pass 2 frames or more"),
        ("receiver", {"receiver": "matched"}, ConfigError, "noncoherent_receiver"),
        ("population", {"data_len": 4}, ConfigError, "data_len=0"),
        ("pilot_framer", {"data_len": 4}, ConfigError, "data_len=0"),
        ("meter", {"compare": "activity"}, ConfigError, "'sequences'"),
        ("meter", {"compare": "sequences", "index_bits": 0}, ConfigError, "'sequences'"),
        ("zmq_publisher", {"data_len": 4, "endpoint": "tcp://127.0.0.1:*", "index_bits": 2}, ConfigError, "data_len=0"),
    ],
)
def test_parameters_are_checked_at_once(block, changes, error, words):
    with pytest.raises(error, match=words):
        made(getattr(massaccess, block), CELL, **changes)


def test_nothing_is_read_that_was_not_learned():
    block = made(massaccess.noncoherent_receiver, CELL, receiver="matched", gains="unknown")
    with pytest.raises(ConfigError, match="gains='learned'"):
        block.gains_db()


def test_another_number_of_sequences_is_refused_as_another_book():
    tb = Watched(EASY, Simulation(EASY, 5).population.transmit(0).samples.numpy(), pilot_seed=1)
    tb.disconnect(tb.source, tb.channel)
    tb.population = made(massaccess.population, EASY, frames=4)
    tb.connect(tb.population, tb.channel)
    with pytest.raises(BlockFailure, match=r"but this receiver has .* index_bits"):
        massaccess.run(tb)
    tb = gr.top_block()
    tb.kept = made(massaccess.population, EASY, frames=4), made(massaccess.meter, EASY.replace(index_bits=1), compare="sequences")
    tb.connect(tb.kept[0], (tb.kept[1], 0))
    tb.connect(blocks.vector_source_f([0.0] * EASY.users * 2 * 4, False, EASY.users * 2), (tb.kept[1], 1))
    with pytest.raises(BlockFailure, match=r"but this meter has .* index_bits"):
        massaccess.run(tb)


def test_powers_of_another_number_of_users_are_refused():
    mark = gr.tag_t()
    mark.offset, mark.key, mark.value = 0, pmt.intern("user_gain"), pmt.init_f32vector(3, [1.0, 1.0, 1.0])
    tb = gr.top_block()
    length = CELL.frame_len * CELL.antennas
    tb.kept = made(massaccess.noncoherent_receiver, CELL, receiver="matched", noise_var=0.1)
    tb.connect(blocks.vector_source_c([0.0] * length, False, length, [mark]), tb.kept)
    with pytest.raises(BlockFailure, match="3 users but this receiver has 16"):
        massaccess.run(tb)


# --- meter ----------------------------------------------------------------------------------------------------------------------------


def test_the_meter_tells_whose_symbols_were_wrong():
    """Device 0 right, 1 missed, 2 the wrong sequence, 3 a false alarm, all others silent and taken for silent."""
    config = EASY.replace(users=8)
    population = Simulation(config).population
    active = torch.tensor([[True, True, True, False, False, False, False, False]])
    bits = torch.tensor([[[0, 1]] * 8], dtype=torch.uint8)
    sent = population.choose(active, bits).samples
    odds = -torch.ones(1, 8, 4)
    odds[0, 0, 1] = odds[0, 2, 3] = odds[0, 3, 0] = 2.0
    tb = gr.top_block()
    tb.meter = made(massaccess.meter, config, compare="sequences")
    tb.connect(blocks.vector_source_c(sent.flatten().tolist(), False, config.frame_len * 8), (tb.meter, 0))
    tb.connect(blocks.vector_source_f(odds.flatten().tolist(), False, 32), (tb.meter, 1))
    sinks = [blocks.vector_sink_f(), blocks.vector_sink_f(), blocks.vector_sink_f(), blocks.vector_sink_f(8)]
    for port, sink in enumerate(sinks):
        tb.connect((tb.meter, port), sink)
    massaccess.run(tb)
    assert [list(sink.data()) for sink in sinks] == [[2.0], [1.0], [2.0], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    assert tb.meter.summary()["ser_devices"] == 3 / 8
    assert tb.meter.errors_by_user().tolist() == [0, 1, 1, 1, 0, 0, 0, 0]


# --- streams that are not as they should be -------------------------------------------------------------------------------------------


def test_a_slow_receiver_live_drops_whole_frames_and_counts_them():
    tb = uplink(CELL, options={"seconds": 0.01}, frames=200, overflow="drop_oldest", max_batch=4, queue_frames=8)
    massaccess.run(tb)
    stats, summary = tb.receiver.stats(), tb.meter.summary()
    assert stats["dropped"] > 0 and stats["frames"] + stats["dropped"] == 200
    assert summary["compared"] == stats["frames"] and summary["compared"] + summary["lost"] == 200


def test_stopping_in_the_middle_is_quick_and_leaves_no_thread():
    tb = uplink(CELL, options={"seconds": 0.001}, frames=0)
    stopped = []

    def stop():
        if tb.receiver.stats()["frames"] > 10:
            stopped.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        massaccess.run(tb, on_tick=stop, tick_seconds=0.01)
    assert time.monotonic() - stopped[0] < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("massaccess")]


# --- link -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"placement_seed": 3}, {"placement_seed": 3, "adc_bits": 2}])
def test_a_recording_is_received_with_the_same_digest(tmp_path, changes):
    """Also the powers, which are in no sample; where devices stay, one run of frames holds them. Converters' bits as well."""
    config = CELL.replace(**changes)
    sent = uplink(config, record=str(tmp_path / "air"), packed="adc_bits" in changes)
    massaccess.run(sent)
    recording = open_recording(tmp_path / "air")
    assert recording.config == config
    assert len(recording.runs) == (1 if changes else 40)
    gains = Simulation(config, 5).frames(0, 1)[1].user_gain[0]
    assert torch.equal(torch.tensor(recording.metadata.user_gain, dtype=torch.float32), gains)
    found = massaccess.capture(tmp_path / "air", "matched", seed=5, threads=1)
    massaccess.run(found)
    assert found.receiver.digest() == sent.receiver.digest()


def test_a_receiver_at_the_end_of_a_wire_knows_the_powers():
    config = CELL.replace(adc_bits=3)
    here = uplink(config, packed=True)
    massaccess.run(here)
    sizes = {"frame_len": config.frame_len, "antennas": config.antennas, "bits": 3}
    publisher = massaccess.zmq_sample_publisher(**sizes, endpoint="tcp://127.0.0.1:*", mode="push", high_water_mark=1000)
    listener = massaccess.zmq_sample_listener(**sizes, endpoint=publisher.endpoint, mode="push", high_water_mark=1000)
    there, sender = gr.top_block(), uplink(config, packed=True)
    receiver = made(massaccess.noncoherent_receiver, config.replace(adc_bits=None), receiver="matched", seed=5)
    there.kept = listener, massaccess.sample_unpacker(**sizes), receiver, blocks.null_sink(4 * config.users)
    there.connect(*there.kept)
    sender.connect(sender.packer, publisher)
    there.start()
    assert publisher.wait_for_listener(10)
    massaccess.run(sender)
    there.wait()
    assert receiver.digest() == here.receiver.digest()


def test_odds_are_published():
    tb = uplink(EASY, frames=12, publish="tcp://127.0.0.1:*")
    heard = []

    def listen():
        with Listener(tb.publisher.endpoint, timeout_s=20) as listener:
            heard.extend(results(message) for message in listener)

    thread = threading.Thread(target=listen)
    thread.start()
    assert tb.publisher.wait_for_listener(10)
    massaccess.run(tb)
    thread.join()
    odds = np.concatenate([arrays["odds"] for arrays in heard])
    assert odds.shape == (12, EASY.users, EASY.sequences)
    truth, _ = Simulation(EASY, 5).frames(0, 12)
    assert np.array_equal((odds > 0).any(-1), truth.active.numpy())
