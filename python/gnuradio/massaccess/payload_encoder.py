"""Payload octets in, the bits that go on the air out."""

import pmt
from gnuradio import gr

from ._base import FrameBlock, guarded, parse_payload


class payload_encoder(FrameBlock):
    """Adds CRC, code, interleaving and the whitening of its user to payloads: what a transmitter maps on the data symbols of a burst.

    In, message port ``payload``: PDUs (dictionary with ``user``; as many octets as `payload_bytes`). Out, port ``bits``: PDUs with the same
    dictionary and ``coded`` true; u8vector of data_len * bits-per-symbol bits, one an octet, in their order on the air. Malformed PDUs are
    logged and counted by ``rejected``, ``encoded`` counts the others. Bits are those of `massaccess.forward.framing.Framing`, with code
    "none" too.

    Raises UnknownNameError or ConfigError for a code that is not there, or does not fit.
    """

    def __init__(self, users=128, data_len=96, modulation="qpsk", code="conv"):
        from massaccess.forward.framing import Framing
        from massaccess.forward.modulation import constellation

        super().__init__("massaccess_payload_encoder")
        self._framing = Framing(users, data_len * constellation(modulation).bits_per_symbol, code)
        self.payload_bytes = self._framing.payload_bytes
        self.encoded = self.rejected = 0
        self.message_port_register_in(pmt.intern("payload"))
        self.message_port_register_out(pmt.intern("bits"))
        self.set_msg_handler(pmt.intern("payload"), self.encode)

    @guarded
    def encode(self, message):
        """Handler of port ``payload``."""
        import torch

        from massaccess.errors import ConfigError

        try:
            user, octets = parse_payload(message, self._framing.users, self.payload_bytes)
        except ConfigError as error:
            self.rejected += 1
            gr.logger(self.alias()).warn(f"payload rejected: {error}")
            return
        bits = self._framing.encode_rows(torch.tensor([list(octets)], dtype=torch.uint8), torch.tensor([user]))[0].tolist()
        known = pmt.dict_add(pmt.car(message), pmt.intern("coded"), pmt.PMT_T)
        self.encoded += 1
        self.message_port_pub(pmt.intern("bits"), pmt.cons(known, pmt.init_u8vector(len(bits), bits)))
