"""Coded payloads through GNU Radio's own decoders: order, sign and scale of the ratios, what goes wrong, and what is counted."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("gnuradio.fec", reason="GNU Radio is not installed")

import pmt
import torch
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import to_dict_pmt
from gnuradio.massaccess._fec import fec_decoder, fec_encoder

from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.coding import CODES, make_code
from massaccess.forward.framing import Framing
from massaccess.forward.simulate import Simulation

BITS = 192
JOINT = "covariance+iterative-lmmse-ep"


def codewords(name, count, seed=0):
    code = make_code(name, BITS)
    info = torch.randint(0, 2, (count, code.info_bits), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return code, info, code.encode(info)


def over_awgn(code, coded, ebn0_db, seed=1):
    """Exact log-likelihood ratios of BPSK, log p(0)/p(1)."""
    var = 1 / (2 * code.info_bits / code.coded_bits * 10 ** (ebn0_db / 10))
    noise = torch.randn(coded.shape, generator=torch.Generator().manual_seed(seed)) * var**0.5
    return 2 * (1 - 2 * coded.float() + noise) / var


def frame_errors(decode, llrs, info):
    return float((decode(llrs) != info.numpy()).any(1).mean())


# --- gr-fec ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [74, 130, 192, 256])
@pytest.mark.parametrize("name", sorted(CODES))
def test_the_librarys_encoder_is_that_of_gr_fec(name, bits):
    code = make_code(name, bits)
    info = torch.randint(0, 2, (40, code.info_bits), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    assert np.array_equal(code.encode(info).numpy(), fec_encoder(name, bits)(info.numpy()))


@pytest.mark.parametrize("name", sorted(CODES))
def test_decoders_need_the_right_sign_and_order(name):
    code, info, coded = codewords(name, 400)
    decode, llrs = fec_decoder(name, BITS), over_awgn(code, coded, 4.5)
    assert frame_errors(decode, llrs, info) < 0.02
    assert frame_errors(decode, -llrs, info) == 1
    assert frame_errors(decode, llrs.flip(1), info) > 0.99
    swapped = llrs.unflatten(1, (-1, 2)).flip(2).flatten(1)
    assert frame_errors(decode, swapped, info) > 0.9


@pytest.mark.parametrize("name", sorted(CODES))
def test_soft_decisions_gain_two_decibels(name):
    """Known: hard decisions cost about 2 dB. So soft ones at 3 dB beat hard ones at 4.5 dB, and hard ones at 3 dB are hopeless."""
    code, info, coded = codewords(name, 1500)
    decode = fec_decoder(name, BITS)
    soft = frame_errors(decode, over_awgn(code, coded, 3.0), info)
    hard = [frame_errors(decode, 4 * over_awgn(code, coded, ebn0).sign(), info) for ebn0 in (3.0, 4.5)]
    assert soft < hard[1] < hard[0]
    assert hard[0] > 10 * soft


def test_the_scale_is_that_of_natural_ratios():
    """Bits in doubt beside bits that are sure: a decoder that took all for equally sure would do much worse, and one whose steps are as
    coarse or as fine as a factor of 16 makes them as well."""
    code, info, coded = codewords("conv", 3000)
    decode, llrs = fec_decoder("conv", BITS), over_awgn(code, coded, 3.5)
    fading = torch.rand(llrs.shape, generator=torch.Generator().manual_seed(3)).square() * 3
    faded = 2 * ((1 - 2 * coded.float()) * fading + torch.randn(llrs.shape, generator=torch.Generator().manual_seed(5)) * 0.7) / 0.49
    right = frame_errors(decode, faded * fading, info)
    assert right < 0.7 * frame_errors(decode, faded, info)
    exact = frame_errors(decode, llrs, info)
    assert exact < 0.5 * frame_errors(decode, llrs / 16, info)
    assert exact < 0.5 * frame_errors(decode, llrs * 16, info)


def test_a_longer_list_is_tried_where_the_check_fails():
    code, _, _ = codewords("polar", 1)
    framing = Framing(1, BITS, "polar")
    payload = torch.randint(0, 256, (1500, framing.payload_bytes), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    info = framing.info(payload)
    decode, llrs = fec_decoder("polar", BITS), over_awgn(code, code.encode(info), 2.5)
    once, again = decode(llrs), decode(llrs, framing.holds)
    assert frame_errors(lambda _: again, llrs, info) < frame_errors(lambda _: once, llrs, info)
    assert np.array_equal(once[framing.holds(torch.from_numpy(once))], again[framing.holds(torch.from_numpy(once))])


def test_decoders_name_what_is_missing():
    with pytest.raises(ConfigError, match="pass conv or polar"):
        fec_decoder("none", BITS)
    with pytest.raises(UnknownNameError, match="conv"):
        massaccess.payload_decoder(code="turbo")
    with pytest.raises(ConfigError, match="raise data_len"):
        massaccess.payload_decoder(data_len=20)
    with pytest.raises(ConfigError, match="1 or more"):
        massaccess.payload_decoder(queue_codewords=0)


# --- blocks ---------------------------------------------------------------------------------------------------------------------------


class Post(gr.basic_block):
    """Publishes messages, as fast as it can."""

    def __init__(self, messages, port):
        gr.basic_block.__init__(self, name="post", in_sig=[], out_sig=[np.uint8])
        self.messages, self.port = messages, pmt.intern(port)
        self.message_port_register_out(self.port)

    def general_work(self, inputs, outputs):
        for message in self.messages:
            self.message_port_pub(self.port, message)
        return -1


class Mail(gr.top_block):
    """Messages into a block, and all that comes out of its port."""

    def __init__(self, messages, block, port, out):
        gr.top_block.__init__(self)
        self.post, self.block, self.end = Post(messages, port), block, blocks.null_sink(1)
        self.out = blocks.message_debug()
        self.connect(self.post, self.end)
        self.msg_connect(self.post, port, block, port)
        self.msg_connect(block, out, self.out, "store")

    def run(self):
        massaccess.run(self)
        return [self.out.get_message(index) for index in range(self.out.num_messages())]


def pdu(llrs, **known):
    return pmt.cons(to_dict_pmt(known), pmt.init_f32vector(len(llrs), list(map(float, llrs))))


def sent_by(framing, users, seed=0):
    """Payloads and their ratios as they come off a clean air."""
    shape = (len(users), framing.payload_bytes)
    payload = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return payload, 6 * (1 - 2 * framing.encode_rows(payload, torch.tensor(users)).float())


@pytest.mark.parametrize("code", sorted(CODES))
def test_payloads_come_out_as_they_went_in(code):
    framing, users = Framing(16, BITS, code), [3, 3, 15]
    payload, llrs = sent_by(framing, users)
    messages = [
        pdu(row, frame=pmt.from_uint64(7 + n), user=user, snr_db=9.5) for n, (user, row) in enumerate(zip(users, llrs, strict=True))
    ]
    block = massaccess.payload_decoder(users=16, code=code)
    found = Mail(messages, block, "llrs", "payload").run()
    for n, message in enumerate(found):
        assert pmt.to_python(pmt.car(message)) == {"frame": 7 + n, "user": users[n], "snr_db": 9.5, "crc_ok": True}
        assert list(pmt.u8vector_elements(pmt.cdr(message))) == payload[n].tolist()
    stats = block.stats()
    assert (stats["codewords"], stats["payloads"], stats["failed_crc"], stats["dropped"]) == (3, 3, 0, 0)


def test_what_fails_is_counted_and_told_on_request():
    framing = Framing(16, BITS, "conv")
    _, llrs = sent_by(framing, [3, 4])
    messages = [pdu(llrs[0], frame=pmt.from_uint64(1), user=3), pdu(llrs[1], frame=pmt.from_uint64(1), user=5)]  # whitened for user 4
    for keep, told in ((False, [True]), (True, [True, False])):
        block = massaccess.payload_decoder(users=16, keep_failed=keep)
        found = Mail(messages, block, "llrs", "payload").run()
        assert [pmt.to_python(pmt.car(message))["crc_ok"] for message in found] == told
        assert block.stats()["failed_crc"] == 1


def test_malformed_codewords_are_counted_and_change_nothing():
    framing = Framing(16, BITS, "conv")
    _, llrs = sent_by(framing, [3])
    good = {"frame": pmt.from_uint64(1), "user": 3}
    bad = [
        pmt.intern("nothing"),
        pdu(llrs[0], user=3),
        pdu(llrs[0], **{**good, "user": 16}),
        pdu(llrs[0][:-1], **good),
        pdu(torch.full((BITS,), torch.nan), **good),
        pmt.cons(to_dict_pmt(good), pmt.init_u8vector(3, [1, 2, 3])),
    ]
    block = massaccess.payload_decoder(users=16)
    found = Mail([*bad, pdu(llrs[0], **good), bad[0]], block, "llrs", "payload").run()
    assert len(found) == 1
    assert block.stats()["rejected"] == len(bad) + 1


def test_a_flood_costs_bounded_memory_and_is_counted():
    framing = Framing(16, BITS, "polar")
    _, llrs = sent_by(framing, [3])
    message = pdu(llrs[0], frame=pmt.from_uint64(1), user=3)
    block = massaccess.payload_decoder(users=16, code="polar", queue_codewords=16)
    began = time.monotonic()
    found = Mail([message] * 3000, block, "llrs", "payload").run()
    stats = block.stats()
    assert time.monotonic() - began < 60
    assert stats["codewords"] + stats["dropped"] == 3000
    assert stats["codewords"] == stats["payloads"] == len(found) >= 16


def test_a_receiver_waits_for_a_decoder_that_is_slow(coded, monkeypatch):
    """The queue is far smaller than a batch's codewords, and the decoder takes its time."""
    monkeypatch.setattr("gnuradio.massaccess._decoder.LLRS_AT_ONCE", 1)
    tb = massaccess.uplink(coded.replace(code="conv"), JOINT, seed=5, frames=40, threads=1)
    tb.payloads._most, decode = 8, tb.payloads._decode
    tb.payloads._decode = lambda *arguments: (time.sleep(0.003), decode(*arguments))[1]
    massaccess.run(tb)
    assert tb.payloads.stats()["dropped"] == 0
    assert tb.payloads.stats()["codewords"] == tb.receiver.stats()["active"] > 40


def test_the_encoder_gives_the_bits_that_the_library_sends():
    for code in ("none", "conv"):
        framing = Framing(16, BITS, code)
        payload, llrs = sent_by(framing, [5])
        message = pmt.cons(to_dict_pmt({"user": 5, "slot": 9}), pmt.init_u8vector(framing.payload_bytes, payload[0].tolist()))
        block = massaccess.payload_encoder(users=16, code=code)
        (found,) = Mail([message, pmt.intern("nothing")], block, "payload", "bits").run()
        assert pmt.to_python(pmt.car(found)) == {"user": 5, "slot": 9, "coded": True}
        assert list(pmt.u8vector_elements(pmt.cdr(found))) == (llrs[0] < 0).int().tolist()
        assert (block.encoded, block.rejected) == (1, 1)


# --- whole flowgraphs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def coded(config):
    return config.replace(data_len=40, snr_db=1.0)


@pytest.mark.parametrize("code", sorted(CODES))
def test_payloads_of_an_uplink_are_those_that_were_sent(coded, code):
    config = coded.replace(code=code)
    tb = massaccess.uplink(config, JOINT, seed=5, frames=40, threads=1)
    debug = blocks.message_debug()
    tb.msg_connect(tb.payloads, "payload", debug, "store")
    massaccess.run(tb)
    truth, _ = Simulation(config, 5).frames(0, 40)
    framing = Framing(config.users, truth.bits.shape[-1], code)
    right = 0
    for index in range(debug.num_messages()):
        message = debug.get_message(index)
        known = pmt.to_python(pmt.car(message))
        octets = torch.tensor([list(pmt.u8vector_elements(pmt.cdr(message)))], dtype=torch.uint8)
        bits = framing.encode_rows(octets, torch.tensor([known["user"]]))[0]
        right += bool(truth.active[known["frame"], known["user"]]) and torch.equal(bits, truth.bits[known["frame"], known["user"]])
    rates = tb.rates()
    assert right == debug.num_messages() == tb.payloads.stats()["payloads"]
    assert rates["fer"] == pytest.approx(1 - right / int(truth.active.sum()))
    assert rates["fer"] < 0.1
    uncoded = massaccess.uplink(coded, JOINT, seed=5, frames=40, threads=1)
    massaccess.run(uncoded)
    assert uncoded.rates()["fer"] > 3 * rates["fer"] + 0.05


def test_ratios_are_worth_what_they_say(coded):
    """Of bits with a ratio of r, 1 in 1 + exp(|r|) is wrong: LLRs of the block, in the order of the bits on the air, against the truth.
    The linear receiver knows its errors; iterative ones, which hear themselves, are surer than they should be."""
    tb = massaccess.uplink(coded.replace(snr_db=0.0), "covariance+lmmse-lmmse", seed=5, frames=200, threads=1)
    debug = blocks.message_debug()
    tb.msg_connect(tb.receiver, "llrs", debug, "store")
    massaccess.run(tb)
    truth, _ = Simulation(coded.replace(snr_db=0.0), 5).frames(0, 200)
    ratios, bits = [], []
    for index in range(debug.num_messages()):
        message = debug.get_message(index)
        known = pmt.to_python(pmt.car(message))
        if truth.active[known["frame"], known["user"]]:
            ratios.append(pmt.f32vector_elements(pmt.cdr(message)))
            bits.append(truth.bits[known["frame"], known["user"]].tolist())
    size, wrong = np.abs(ratios), (np.array(ratios) < 0) != np.array(bits, bool)
    for low, high in ((0.5, 1.5), (1.5, 2.5), (2.5, 3.5)):
        inside = (size > low) & (size < high)
        due = (1 / (1 + np.exp(size[inside]))).mean()
        assert inside.sum() > 2000
        assert 0.8 * due < wrong[inside].mean() < 1.25 * due


def test_a_detector_refuses_coded_frames(coded):
    with pytest.raises(ConfigError, match="code none"):
        massaccess.uplink(coded.replace(code="conv"), "covariance")


def test_a_run_is_the_same_twice(coded):
    digests = set()
    for _ in range(2):
        tb = massaccess.uplink(coded.replace(code="conv"), JOINT, seed=5, frames=40, threads=1)
        massaccess.run(tb)
        digests.add((tb.receiver.digest(), tb.payloads.digest()))
    assert len(digests) == 1
