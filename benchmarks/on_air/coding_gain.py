"""Coding gain on AWGN through the blocks: QPSK symbols, their ratios as PDUs, payload_decoder, octets, against references that know nothing
of GNU Radio. ``python coding_gain.py`` writes coding_gain.json and coding_gain.png beside itself; about ten minutes on one core."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pmt
import torch
from gnuradio import blocks, gr, massaccess
from gnuradio.massaccess._base import to_dict_pmt
from reference_decoders import spectrum, successive_cancellation_list, union_bound, viterbi

import massaccess as library
from massaccess.forward.framing import CRC_BYTES, Framing
from massaccess.forward.modulation import constellation
from massaccess.rng import complex_normal, generator

HERE = Path(__file__).resolve().parent
USERS = 4
SEED = 7
ERRORS = 200  # codewords in error before a point is done
CHUNK = {96: 2000, 2048: 100}
CASES = (  # code, data_len, Eb/N0 [dB], most codewords
    ("conv", 96, (1.5, 2.0, 2.5, 3.0, 3.5, 4.0), 200_000),
    ("conv", 2048, (2.0, 2.5, 3.0, 3.5, 4.0, 4.25), 6_000),
    ("polar", 96, (1.0, 1.5, 2.0, 2.5, 3.0, 3.5), 60_000),
    ("none", 96, (2.0, 4.0, 6.0, 8.0), 20_000),
)
TAPS = ((0, 1, 2, 3, 6), (0, 2, 3, 5, 6))  # 171 and 133: 1 + D + D2 + D3 + D6 and 1 + D2 + D3 + D5 + D6


class Post(gr.basic_block):
    """Publishes the ratios of one codeword after another."""

    def __init__(self, llrs, users):
        gr.basic_block.__init__(self, name="post", in_sig=[], out_sig=[np.uint8])
        self.llrs, self.users, self.row = llrs, users, 0
        self.message_port_register_out(pmt.intern("llrs"))

    def general_work(self, inputs, outputs):
        if self.row == len(self.llrs):
            return -1
        known = {"frame": pmt.from_uint64(self.row), "user": int(self.users[self.row])}
        values = self.llrs[self.row].tolist()
        self.message_port_pub(pmt.intern("llrs"), pmt.cons(to_dict_pmt(known), pmt.init_f32vector(len(values), values)))
        self.row += 1
        outputs[0][0] = 0
        return 1  # a source that gives nothing waits for a quarter of a second


def through_blocks(llrs, users, data_len, code):
    """Octets [n payload_bytes] and whether the CRC held [n], of ratios [n bits] of the bits on the air."""
    decoder = massaccess.payload_decoder(users=USERS, data_len=data_len, code=code, queue_codewords=len(llrs) + 1, keep_failed=True)
    tb, post, end, debug = gr.top_block(), Post(llrs, users), blocks.null_sink(1), blocks.message_debug()
    tb.connect(post, end)
    tb.msg_connect(post, "llrs", decoder, "llrs")
    tb.msg_connect(decoder, "payload", debug, "store")
    massaccess.run(tb)
    found = [debug.get_message(index) for index in range(debug.num_messages())]
    assert len(found) == len(llrs)
    ok = np.array([pmt.to_bool(pmt.dict_ref(pmt.car(message), pmt.intern("crc_ok"), pmt.PMT_F)) for message in found])
    return np.array([pmt.u8vector_elements(pmt.cdr(message)) for message in found], np.uint8), ok


def sent(framing, count, draw):
    """Payloads [n bytes], their users [n] and bits on the air [n bits]."""
    payload = torch.randint(0, 256, (count, framing.payload_bytes), generator=draw, dtype=torch.uint8)
    users = torch.arange(count) % USERS
    return payload, users, framing.encode_rows(payload, users)


def point(code, data_len, ebn0_db, most):
    """Counts of one point: codewords, and errors of the blocks and of the reference on the same noise."""
    framing, alphabet = Framing(USERS, 2 * data_len, code), constellation("qpsk")
    rate = framing.coding.info_bits / framing.coding.coded_bits if framing.coding else 1.0
    noise_var = 1 / (2 * rate * 10 ** (ebn0_db / 10))
    counts = dict.fromkeys(
        ("codewords", "frame_errors", "bit_errors", "bits", "undetected", "reference_frame_errors", "reference_bit_errors"), 0
    )
    for chunk in range(most):
        if counts["codewords"] >= most or counts["frame_errors"] >= ERRORS:
            break
        draw = generator(SEED, code, data_len, str(ebn0_db), chunk)
        payload, users, bits = sent(framing, CHUNK[data_len], draw)
        symbols = alphabet.modulate(bits)
        received = symbols + complex_normal(*symbols.shape, generator=draw) * math.sqrt(noise_var)
        llrs = alphabet.ratios(received, torch.full(received.shape, noise_var))
        truth = framing.info(payload).numpy()
        if framing.coding:
            octets, ok = through_blocks(llrs.numpy(), users.numpy(), data_len, code)
            wrong = np.unpackbits(octets ^ payload.numpy(), axis=1)
            reference = reference_of(framing, framing.soft(llrs, users).numpy().astype(float)) ^ truth
            counts["undetected"] += int((ok & wrong.any(1)).sum())
        else:
            wrong = reference = (alphabet.decide(received) ^ bits).numpy()[:, : truth.shape[1]]
        counts["codewords"] += len(wrong)
        counts["bits"] += wrong.size
        counts["frame_errors"] += int(wrong.any(1).sum())
        counts["bit_errors"] += int(wrong.sum())
        payload_part = reference[:, : reference.shape[1] - 8 * CRC_BYTES] if framing.coding else reference
        counts["reference_frame_errors"] += int(payload_part.any(1).sum())
        counts["reference_bit_errors"] += int(payload_part.sum())
    rates = {
        "fer": counts["frame_errors"] / counts["codewords"],
        "ber": counts["bit_errors"] / counts["bits"],
        "reference_fer": counts["reference_frame_errors"] / counts["codewords"],
        "reference_ber": counts["reference_bit_errors"] / counts["bits"],
    }
    return {"code": code, "data_len": data_len, "bits": 2 * data_len, "rate": rate, "ebn0_db": ebn0_db, **counts, **rates}


def reference_of(framing, llrs):
    coding = framing.coding
    if coding.name == "conv":
        return viterbi(llrs, TAPS, coding.info_bits)
    whole = np.full((len(llrs), coding.length), 1e3)
    whole[:, coding.sent.numpy()] = llrs
    return successive_cancellation_list(whole, coding.info.numpy(), coding.list_sizes[0])


def gap_db(points, name):
    """Largest horizontal distance [dB] between ``name`` of the blocks and of the reference, where both have 100 errors; later is worse."""
    kind = "frame" if name == "fer" else "bit"
    good = [p for p in points if min(p[f"{kind}_errors"], p[f"reference_{kind}_errors"]) >= 100]
    ebn0 = [p["ebn0_db"] for p in good]
    curve = [-math.log10(p[f"reference_{name}"]) for p in good]
    gaps = []
    for p in good:
        slope = np.gradient(curve, ebn0)[ebn0.index(p["ebn0_db"])]
        gaps.append((-math.log10(p[f"reference_{name}"]) + math.log10(p[name])) / slope)
    return [round(float(gap), 3) for gap in gaps]


def main():
    began = time.time()
    torch.set_num_threads(1)
    weights = spectrum(TAPS, 40)
    points = []
    for code, data_len, levels, most in CASES:
        for ebn0_db in levels:
            points.append(point(code, data_len, ebn0_db, most))
            if code == "conv":
                points[-1]["union_bound_ber"] = union_bound(weights, points[-1]["rate"], ebn0_db)
            print(
                {
                    name: points[-1][name]
                    for name in ("code", "data_len", "ebn0_db", "codewords", "frame_errors", "fer", "reference_fer", "ber")
                }
            )
    groups = {f"{code}-{data_len}": [p for p in points if (p["code"], p["data_len"]) == (code, data_len)] for code, data_len, *_ in CASES}
    gaps = {name: {"fer": gap_db(group, "fer"), "ber": gap_db(group, "ber")} for name, group in groups.items() if "none" not in name}
    document = {
        "version": library.__version__,
        "seed": SEED,
        "distance_spectrum": {str(d): int(count) for d, count in enumerate(weights[:21]) if count},
        "gap_db": gaps,
        "seconds": round(time.time() - began),
        "points": points,
    }
    (HERE / "coding_gain.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(gaps))
    picture(groups, weights)


def picture(groups, weights):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    colours = {"conv-96": "C0", "conv-2048": "C2", "polar-96": "C1", "none-96": "C7"}
    labels = {"conv-96": "conv, 96 symbols", "conv-2048": "conv, 2048 symbols", "polar-96": "polar, 96 symbols", "none-96": "no code"}
    for name, group in groups.items():
        ebn0 = [p["ebn0_db"] for p in group]
        for axis, rate in ((left, "fer"), (right, "ber")):
            axis.semilogy(ebn0, [p[rate] or np.nan for p in group], "o", color=colours[name], label=labels[name])
            if "none" not in name:
                axis.semilogy(ebn0, [p[f"reference_{rate}"] or np.nan for p in group], "-", color=colours[name])
    grid = np.linspace(2, 5, 50)
    right.semilogy(grid, [union_bound(weights, 0.5, x) for x in grid], "k--", label="union bound, K = 7")
    grid = np.linspace(1, 9, 50)
    right.semilogy(grid, [0.5 * math.erfc(math.sqrt(10 ** (x / 10))) for x in grid], ":", color="C7", label="QPSK, theory")
    for axis, title in ((left, "frame error rate"), (right, "bit error rate of the payload")):
        axis.set(xlabel="Eb/N0 [dB]", title=title, ylim=(1e-6 if axis is right else 1e-4, 1))
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    figure.suptitle("AWGN: points through the GNU Radio blocks, lines of reference decoders on the same noise")
    figure.tight_layout()
    figure.savefig(HERE / "coding_gain.png", dpi=110)


if __name__ == "__main__":
    main()
