"""Transmitter of one device: payload in, frames out."""

import numpy as np
import pmt
from gnuradio import gr

from ._base import guarded, parse_payload, system
from .population import modulate_one, most_octets, pieces


class pilot_framer(gr.basic_block):
    """Turns a payload PDU into the samples of a frame: the pilot sequence of ``user``, then its symbols.

    Port ``payload`` takes PDUs (any dictionary, `payload_bytes` octets), port ``frame`` gives PDUs (the same dictionary with ``user`` and
    ``book``, c32vector of pilot_len + data_len samples), as `pdu_to_tagged_stream` wants them. With ``index_bits`` (and ``data_len=0``) a
    payload of 1 to 255 octets becomes ceil(8 octets / index_bits) frames, each the one of the user's 2 ** index_bits sequences that its
    bits choose; the dictionaries then also have ``packet``, which counts payloads, ``position`` from 0, and ``frames`` of the payload.
    Malformed PDUs are counted in ``rejected``.
    """

    def __init__(
        self,
        user=0,
        users=128,
        pilot_len=28,
        data_len=37,
        modulation="qpsk",
        pilot_kind="qpsk",
        pilot_seed=0,
        pilot_energy="symbol",
        index_bits=0,
    ):
        from massaccess.errors import ConfigError
        from massaccess.forward.pilots import book_id
        from massaccess.forward.simulate import Population

        if not 0 <= user < users:
            raise ConfigError(f"user is {user}: pass 0 to {users - 1}")
        gr.basic_block.__init__(self, name="massaccess_pilot_framer", in_sig=[], out_sig=[])
        self._user = user
        config = system(
            users=users,
            pilot_len=pilot_len,
            data_len=data_len,
            modulation=modulation,
            pilot_kind=pilot_kind,
            pilot_seed=pilot_seed,
            pilot_energy=pilot_energy,
            index_bits=index_bits,
        )
        self._population = Population(config)
        self._book = book_id(self._population.pilots)
        self.payload_bytes = self._population.framing.payload_bytes
        self.packets = self.rejected = 0
        self.message_port_register_in(pmt.intern("payload"))
        self.message_port_register_out(pmt.intern("frame"))
        self.set_msg_handler(pmt.intern("payload"), self.send)

    @guarded
    def send(self, message):
        """Handler of port ``payload``."""
        from massaccess.errors import ConfigError

        try:
            known = pmt.dict_add(pmt.car(message), pmt.intern("user"), pmt.from_long(self._user)) if pmt.is_pair(message) else message
            message = pmt.cons(known, pmt.cdr(message)) if pmt.is_pair(message) else message
            _, octets = parse_payload(message, self._population.config.users, self.payload_bytes, most_octets(self._population))
        except ConfigError as error:
            self.rejected += 1
            gr.logger(self.alias()).warn(f"payload rejected: {error}")
            return
        known = pmt.dict_add(known, pmt.intern("book"), pmt.intern(self._book))
        frames = modulate_one(self._population, self._user, pieces(self._population, octets)).astype(np.complex64)
        for position, samples in enumerate(frames):
            told = self._placed(known, position, len(frames))
            self.message_port_pub(pmt.intern("frame"), pmt.cons(told, pmt.init_c32vector(len(samples), samples.tolist())))
        self.packets += 1

    def _placed(self, known, position, frames):
        """The dictionary of a frame; those of a payload that takes several say which."""
        if self._population.config.index_bits:
            for key, value in (("packet", self.packets), ("position", position), ("frames", frames)):
                known = pmt.dict_add(known, pmt.intern(key), pmt.from_long(value))
        return known
