"""Random arrays on a simulated splitter: what the benchmarks of calibration and health draw."""

import math

import torch

from massaccess.burst import Burst
from massaccess.calibration.broadband import delayed
from massaccess.forward.waveform import modulate, preamble
from massaccess.rng import complex_normal, generator

GAIN_DB = 1.0  # standard deviation of the chains' gains
IQ_DB, IQ_DEG = 0.1, 0.5  # of the imbalance between real and imaginary part
DC = 0.01  # of the amplitude of the signal
TONE, TONE_OFF = 0.1, 1e-3  # cycles per sample: nominal frequency, and how far off the generator is at most
CFO = 0.005  # cycles per sample, of the known user, at most


def chains(arrays, antennas, draw):
    """Complex gains [B M]: uniform phases, log-normal levels."""
    phase = 2 * math.pi * torch.rand(arrays, antennas, generator=draw)
    return torch.polar(10 ** (GAIN_DB / 20 * torch.randn(arrays, antennas, generator=draw)), phase)


def impaired(samples, draw):
    """IQ imbalance and a constant in every chain."""
    shape = (samples.shape[0], 1, samples.shape[2])
    skew = torch.polar(10 ** (IQ_DB / 20 * torch.randn(shape, generator=draw)), math.radians(IQ_DEG) * torch.randn(shape, generator=draw))
    return (1 + skew.conj()) / 2 * samples + (1 - skew) / 2 * samples.conj() + DC * complex_normal(*shape, generator=draw)


def tone(gain, length, snr_db, draw):
    """Samples [B length M] of a tone of unit power behind the chains ``gain`` [B M]."""
    frequency = TONE + TONE_OFF * (2 * torch.rand(len(gain), generator=draw) - 1)
    wave = torch.exp(2j * math.pi * frequency[:, None] * torch.arange(length))
    samples = impaired(wave[..., None] * gain[:, None], draw)
    return samples + 10 ** (-snr_db / 20) * complex_normal(*samples.shape, generator=draw)


def known_waveform(length=16, rate=4):
    """The preamble's samples, of unit mean power while it lasts."""
    burst = Burst(pilot_len=0, data_len=0, preamble_len=length, guard_len=16, samples_per_symbol=rate)
    wave = modulate(preamble(burst)[None, :, None], burst)[0, :, 0][4 * rate : -4 * rate]
    return wave / wave.abs().square().sum().sqrt() * math.sqrt(length * rate)


def with_preamble(gain, snr_db, draw, delay=0.0, length=200):
    """Samples [B length M] that hold the preamble somewhere, with a carrier offset, and delays of at most ``delay`` samples."""
    wave = known_waveform()
    begins = torch.rand(len(gain), generator=draw, dtype=torch.float64) * (length - len(wave) - 16) + 8
    delays = delay * (2 * torch.rand(gain.shape, generator=draw, dtype=torch.float64) - 1)
    copies = torch.stack([delayed(wave, row + begin, length) for row, begin in zip(delays, begins, strict=True)])
    offset = CFO * (2 * torch.rand(len(gain), generator=draw, dtype=torch.float64) - 1)
    turns = torch.exp(2j * math.pi * offset[:, None] * torch.arange(length)).to(copies.dtype)
    samples = impaired(copies.transpose(1, 2) * turns[..., None] * gain[:, None], draw)
    return samples + 10 ** (-snr_db / 20) * complex_normal(*samples.shape, generator=draw), delays


def seeded(seed, *path):
    return generator(seed, "calibration benchmark", *path)
