"""Calibration signals: what a capture of one tells of the chains."""

from dataclasses import dataclass

SIGNALS = ("tone", "preamble")


@dataclass(frozen=True)
class Signal:
    """``kind`` is "tone", ``frequency`` [Hz] from the centre, or "preamble", with the burst's fields; both up to ``search`` [Hz] away."""

    kind: str
    frequency: float
    search: float
    preamble_len: int = 16
    samples_per_symbol: int = 4
    roll_off: float = 0.25

    def __post_init__(self):
        from massaccess.errors import unknown

        if self.kind not in SIGNALS:
            raise unknown("calibration signal", self.kind, SIGNALS)

    def response(self, captures, rate):
        """`massaccess.calibration.Response` of captures [B T M] complex64 at ``rate``."""
        import torch

        from massaccess.calibration import broadband_response, tone_response

        samples = torch.from_numpy(captures)
        if self.kind == "tone":
            return tone_response(samples, frequency=self.frequency / rate, search=self.search / rate)
        return broadband_response(samples, self.waveform(), max_frequency=self.search / rate)

    def waveform(self):
        """The preamble's samples, of unit mean power."""
        from massaccess.burst import Burst
        from massaccess.forward.waveform import modulate, preamble

        burst = Burst(0, 0, self.preamble_len, 2 * MARGIN, self.samples_per_symbol, self.roll_off)
        wave = modulate(preamble(burst)[None, :, None], burst)[0, :, 0]
        tail = MARGIN // 2 * self.samples_per_symbol
        wave = wave[tail : len(wave) - tail]
        return wave / wave.abs().square().mean().sqrt()


MARGIN = 8  # symbols that the pulses run out in, either side
