"""What `receiver`, `activity_detector` and `noncoherent_receiver` have in common: all but their parameters."""

from gnuradio import blocks, gr

from ._base import io_signature, item_bytes
from ._decoder import build, check_side


class ReceiverBlock(gr.hier_block2):
    """Frames in, answers out. ``ANSWERS`` is one of `_engine.ANSWERS`, ``PORTS`` are its message ports; ``values`` are fields of
    SystemConfig, ``streaming`` the other parameters of `_decoder.build`."""

    ANSWERS = "all"
    PORTS = ("packets", "active", "stats")

    def __init__(self, receiver, options, values, **streaming):
        self._intake, self._decoder, samples, outputs = build(receiver, options, answers=self.ANSWERS, values=values, **streaming)
        gr.hier_block2.__init__(self, f"massaccess_{type(self).__name__}", io_signature([samples]), io_signature(outputs))
        self.connect(self, self._intake)
        self._ends = [
            blocks.null_sink(item_bytes(signature)) for signature in outputs
        ]  # an output may stay unconnected, and the decoder runs all the same
        for port, end in enumerate(self._ends):
            self.connect((self._decoder, port), (self, port))
            self.connect((self._decoder, port), end)
        for port in self.PORTS:
            self.message_port_register_hier_out(port)
            self.msg_connect(self._decoder, port, self, port)

    def set_noise_var(self, noise_var):
        """Noise variance of the frames to come; 0 follows the tags, -1 estimates it."""
        check_side("noise_var", noise_var, estimate=True)
        self._intake.set_side(noise_var=noise_var)

    def wait_for(self, behind):
        """With overflow "block", ratios on port ``llrs`` are held back while ``behind()`` says so, as `payload_decoder.behind` does."""
        self._decoder.wait_for(behind)

    def stats(self):
        """receiver, weights, weights_hash, gains, and so far: frames, active, packets, learned (frames that tell gains), dropped, rejected,
        cut, stalls, queue, seconds."""
        return self._decoder.stats()

    def digest(self):
        """SHA-256 over frame numbers, active sets and payloads: equal for equal answers."""
        return self._decoder.digest()
