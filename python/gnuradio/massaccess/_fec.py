"""Decoders and encoders of GNU Radio's gr-fec for the codes of `massaccess.forward.coding`, as functions of whole batches.

Its list decoder makes more errors than one that keeps its paths apart (probably it takes over the memory of a path that is dropped before
the other branch of that path has been copied from there), so a list of 8 is worth less than 8 paths;
a longer one, where the CRC does not hold, wins back half of that (docs/coded_payloads.md).

gr-fec's conventions differ from the toolkit's, and from one another: its polar decoder takes floats that are positive for ones, natural
logarithm or not; its Viterbi decoder takes octets, 255 for a sure one, 128 for nobody knows and 0 for a sure zero. Its polar encoder
reads its inputs in bit-reversed order, so its outputs are bit-reversed.
"""

import ctypes

import numpy as np

STEPS_PER_NAT = 12  # of the Viterbi decoder's octets: it works with 4 bits inside, and loses least with 8 to 24
UNKNOWN = 128  # octet of a bit that nobody knows
SURE = 1e4  # nats: a bit that is known beforehand

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def fec_decoder(code, bits):
    """A decoder (`massaccess.forward.coding.Decoder`) for frames of ``bits`` bits on the air: log-likelihood ratios log p(0)/p(1)
    [n coded_bits] to information bits [n info_bits] uint8, arrays both. It has state: one for each thread.

    Raises UnknownNameError or ConfigError for a code that is not there, or does not fit.
    """
    kind = _checked(code, bits)
    return {"conv": _viterbi, "polar": _successive_cancellation}[code](kind)


def fec_encoder(code, bits):
    """gr-fec's own encoder, information bits [n info_bits] uint8 to coded bits [n coded_bits] uint8: what `Code.encode` must equal."""
    kind = _checked(code, bits)
    return {"conv": _convolve, "polar": _polarise}[code](kind)


def _viterbi(code):
    from gnuradio import fec

    size, polynomials = code.info_bits, list(code.polynomials)
    decoder = fec.cc_decoder.make(size, code.constraint, len(polynomials), polynomials, 0, 0, fec.CC_TERMINATED)

    def decode(llrs, holds=None):
        octets = np.clip(np.rint(UNKNOWN - STEPS_PER_NAT * _numbers(llrs)), 0, 255).astype(np.uint8)
        return _each(decoder, octets, size)

    return decode


def _successive_cancellation(code):
    from gnuradio import fec

    from massaccess.forward.coding import bit_reversal

    frozen = code.frozen.tolist()
    decoders = [fec.polar_decoder_sc_list.make(size, code.length, code.info_bits, frozen, []) for size in code.list_sizes]
    place = bit_reversal(code.length)[code.sent].numpy()

    def decode(llrs, holds=None):
        line = np.full((len(llrs), code.length), -SURE, np.float32)  # shortened bits are zeros
        line[:, place] = -_numbers(llrs)
        found = _each(decoders[0], line, code.info_bits)
        for decoder in decoders[1:] if holds else ():
            again = np.flatnonzero(~_held(found, holds))
            found[again] = _each(decoder, line[again], code.info_bits)
        return found

    return decode


def _convolve(code):
    from gnuradio import fec

    polynomials = list(code.polynomials)
    encoder = fec.cc_encoder_make(code.info_bits, code.constraint, len(polynomials), polynomials, 0, fec.CC_TERMINATED)
    return lambda info: _each(encoder, np.ascontiguousarray(info, np.uint8), code.coded_bits)


def _polarise(code):
    from gnuradio import fec

    from massaccess.forward.coding import bit_reversal

    encoder = fec.polar_encoder.make(code.length, code.info_bits, code.frozen.tolist(), [], False)
    place = bit_reversal(code.length)[code.sent].numpy()
    return lambda info: _each(encoder, np.ascontiguousarray(info, np.uint8), code.length)[:, place]


def _checked(name, bits):
    from massaccess.errors import ConfigError
    from massaccess.forward.coding import make_code

    code = make_code(name, bits)
    if code is None:
        raise ConfigError("code is 'none': pass conv or polar, there is nothing to decode otherwise")
    return code


def _held(info, holds):
    import torch

    return np.asarray(holds(torch.from_numpy(info)))


def _numbers(llrs):
    return np.asarray(llrs, np.float32)


def _each(worker, rows, size):
    """What an object of gr-fec makes of each of the rows [n ...]: [n size] uint8. Its buffers are bare pointers."""
    out = np.zeros((len(rows), size), np.uint8)
    for row, result in zip(rows, out, strict=True):
        worker.generic_work(_pointer(row), _pointer(result))
    return out


def _pointer(row):
    return _capsule(row.ctypes.data, None, None)
