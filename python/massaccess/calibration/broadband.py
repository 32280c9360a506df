"""The response of the chains to a known waveform, such as the preamble of a known user: gain, phase and delay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from .response import Response

PER_SAMPLE = 32  # steps of the delay search
UNLIKELY = 14.0  # of a million captures without the waveform, about one passes for one with it


def broadband_response(
    samples: Tensor,
    waveform: Tensor,
    *,
    max_delay: float = 2.0,
    max_frequency: float = 0.0,
    expected: Tensor | None = None,
) -> Response:
    """Gains and delays of the chains from samples [B T M] complex that hold ``waveform`` [P] complex once, anywhere, with a common carrier
    offset of at most ``max_frequency`` [cycles per sample].

    Where it lies and its offset maximise the chains' correlations, summed without phases. Chains may then differ by at most ``max_delay``
    samples either way from where it lies; each delay maximises the correlation with the delayed waveform, which for one path in white
    noise is maximum likelihood. ``expected`` [M] complex is what the air between the known user and the antennas does; a splitter does
    nothing (``None``). Delays are against the mean of the chains, weighted by their powers, since nobody knows when it was sent.

    Raises ShapeError for a capture that is too short, ConfigError when the waveform is not in it.
    """
    if samples.ndim != 3 or not samples.is_complex() or samples.shape[1] < len(waveform):
        raise ShapeError(
            f"samples are {samples.dtype} {list(samples.shape)}: pass complex [capture, time, antenna], as long as the waveform, "
            f"{len(waveform)}, or longer"
        )
    if not (0 <= max_frequency < 0.5 and max_delay > 0):
        raise ConfigError(
            f"max_frequency is {max_frequency} and max_delay {max_delay}: pass 0 to 0.5 cycles per sample, and above 0 samples"
        )
    waveform = waveform.to(samples)
    margin = math.ceil(max_delay) + 1
    start, coarse = _found(samples, waveform, max_frequency)
    padded = torch.nn.functional.pad(samples, (0, 0, margin, margin + 1))
    time = start[:, None] + torch.arange(len(waveform) + 2 * margin, device=samples.device)
    window = padded.gather(1, time[..., None].expand(-1, -1, samples.shape[2]))
    frequency = _offset(window[:, margin : margin + len(waveform)], waveform, coarse) if max_frequency else coarse
    window = _turned_back(window, frequency)
    gain, delay = _matched(window, waveform, margin, max_delay)
    energy = waveform.abs().square().sum()
    power = energy / len(waveform)
    rest = window.abs().square().sum(1) - gain.abs().square() * energy
    noise_var = rest.clamp_min(0) / (window.shape[1] - 2)
    weight = gain.abs().square()
    delay = delay - (weight * delay).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-30)
    gain = gain * power.sqrt()
    if expected is not None:
        gain = gain / expected.to(gain)
    return Response(gain, delay, noise_var, frequency, len(waveform))


def _found(samples: Tensor, waveform: Tensor, max_frequency: float) -> tuple[Tensor, Tensor]:
    """Sample number [B] where the waveform begins, and its carrier offset [B], from a grid of half the waveform's resolution."""
    length, bins = len(waveform), 2 ** math.ceil(math.log2(samples.shape[1] + len(waveform)))
    lags = samples.shape[1] - length + 1
    spectrum = torch.fft.fft(samples, bins, dim=1)
    weight = 1 / samples.abs().square().mean(1).clamp_min(1e-30)
    steps = math.ceil(2 * max_frequency * length)
    grid = torch.arange(-steps, steps + 1, device=samples.device, dtype=torch.float64) / (2 * length)
    best = samples.real.new_full((len(samples),), -1)
    start, frequency = torch.zeros_like(best, dtype=torch.long), torch.zeros_like(best, dtype=torch.float64)
    for offset in grid:
        turned = _turned_back(waveform[None, :, None], -offset[None])[0, :, 0]
        kernel = torch.fft.fft(turned, bins).conj()
        score = (torch.fft.ifft(spectrum * kernel[None, :, None], dim=1)[:, :lags].abs().square() * weight[:, None]).sum(2)
        value, index = score.max(1)
        better = value > best
        best, start, frequency = torch.where(better, value, best), torch.where(better, index, start), torch.where(better, offset, frequency)
    heard, chance = samples.shape[2], math.log(lags * len(grid)) + UNLIKELY
    if not bool((best / waveform.abs().square().sum() > heard + math.sqrt(2 * heard * chance) + chance).all()):
        raise ConfigError(
            "the known waveform is not in the capture: check that its sender is on, its preamble and sample rate, and the carrier "
            f"offset, of which at most {max_frequency:g} cycles per sample is searched"
        )
    return start, frequency


def _offset(window: Tensor, waveform: Tensor, frequency: Tensor) -> Tensor:
    """The carrier offset [B] near ``frequency`` that maximises the chains' correlations."""
    product = window * waveform.conj()[:, None]
    step = 0.25 / len(waveform)
    best = _correlation(product, frequency)
    while step > 1e-4 / len(waveform):
        for side in (-step, step):
            there = frequency + side
            power = _correlation(product, there)
            frequency, best = torch.where(power > best, there, frequency), torch.maximum(power, best)
        step /= 2
    return frequency


def _correlation(product: Tensor, frequency: Tensor) -> Tensor:
    return _turned_back(product, frequency).sum(1).abs().square().sum(1)


def _turned_back(samples: Tensor, frequency: Tensor) -> Tensor:
    """Samples [B T M] without a carrier offset ``frequency`` [B]."""
    time = torch.arange(samples.shape[1], device=samples.device, dtype=torch.float64)
    return samples * torch.exp(-2j * math.pi * frequency.double()[:, None] * time).to(samples.dtype)[..., None]


def _matched(window: Tensor, waveform: Tensor, margin: int, max_delay: float) -> tuple[Tensor, Tensor]:
    """Gains and delays [B M] from ``window`` [B P+2 margin M]: the best of a grid of delays, and a parabola through its neighbours."""
    steps = round(max_delay * PER_SAMPLE)
    delays = torch.arange(-steps - 1, steps + 2, device=window.device, dtype=torch.float64) / PER_SAMPLE
    copies = delayed(waveform, delays + margin, window.shape[1])
    found = torch.einsum("gt,btm->bgm", copies.conj(), window) / waveform.abs().square().sum()
    score = found.abs().square()
    best = score[:, 1:-1].argmax(1, keepdim=True) + 1
    before, here, after = (score.gather(1, best + step) for step in (-1, 0, 1))
    bend = (2 * here - before - after).clamp_min(1e-30)
    shift = ((after - before) / (2 * bend)).clamp(-0.5, 0.5)
    ahead, amount = best + shift.sign().long(), shift.abs()
    gain = found.gather(1, best) * (1 - amount) + found.gather(1, ahead) * amount
    delay = delays.to(shift.dtype)[best] + shift / PER_SAMPLE
    return gain[:, 0], delay[:, 0]


def delayed(waveform: Tensor, delays: Tensor, length: int) -> Tensor:
    """Copies [G length] of a waveform, delayed by ``delays`` [G] samples, whole or not, among zeros; band-limited interpolation.

    >>> delayed(torch.tensor([1.0 + 0j, 2.0, 3.0]), torch.tensor([1.0]), 5).real.round().abs()
    tensor([[0., 1., 2., 3., 0.]])
    """
    bins = 2 ** math.ceil(math.log2(2 * length))
    grid = torch.fft.fftfreq(bins, device=waveform.device, dtype=torch.float64)
    turn = torch.exp(-2j * math.pi * delays.double()[:, None] * grid).to(waveform.dtype)
    return torch.fft.ifft(torch.fft.fft(waveform, bins) * turn, dim=1)[:, :length]
