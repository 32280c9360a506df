"""Bursts as waveforms: root-raised-cosine pulses, delays, carrier offsets, and back to rows and symbols.

Everything is a product in the discrete Fourier transform over one slot, whose silent ends hold the pulses' tails. A pulse has unit energy
at any rate, and white noise keeps its variance when samples become rows, so matched filter outputs are symbol times channel plus noise of
the variance that each sample has. The pulse is real and even; where it overlaps its image one symbol rate away, both have unit power
together.

>>> burst = Burst(pilot_len=8, data_len=8, preamble_len=4, guard_len=8)
>>> symbols = torch.ones(1, burst.symbols, 1, dtype=torch.complex64)
>>> samples = modulate(symbols, burst)
>>> tuple(samples.shape), round(float(samples.abs().square().sum()) / burst.symbols, 2)
((1, 112, 1), 1.0)
>>> bool(torch.allclose(matched(to_rows(samples, burst), burst), torch.ones(1, 16, 1, dtype=torch.complex64), atol=1e-5))
True
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..burst import ROW_RATE, Burst
from ..core import Observation
from ..errors import ShapeError

OFFSETS = ("unknown", "known")  # whether receivers are told users' delays and carriers


def preamble(burst: Burst) -> Tensor:
    """The preamble [preamble_len] complex64 that all users send: twice the same Zadoff-Chu sequence, of unit modulus."""
    half = burst.preamble_len // 2
    if not half:
        return torch.zeros(0, dtype=torch.complex64)
    n = torch.arange(half, dtype=torch.double)
    angle = -math.pi * n * (n + half % 2) / half
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).repeat(2)


def frequencies(burst: Burst, rate: int = ROW_RATE) -> Tensor:
    """The bins of a slot at ``rate`` samples a symbol [slot_len * rate], in cycles per symbol, in the order of a Fourier transform."""
    return torch.fft.fftfreq(burst.slot_len * rate, 1 / rate, dtype=torch.double)


def pulse(burst: Burst, rate: int = ROW_RATE) -> Tensor:
    """Root-raised-cosine spectrum at `frequencies` [slot_len * rate] float64: 1 in the middle, square root of a half at half a cycle."""
    edge = (frequencies(burst, rate).abs() - (1 - burst.roll_off) / 2) / burst.roll_off
    return torch.cos(math.pi / 2 * edge.clamp(0, 1))


def advance(burst: Burst, delay: Tensor, rate: int = ROW_RATE) -> Tensor:
    """What a delay [... K] of so many symbols does to each bin [... slot_len * rate, K]; minus the delay undoes it."""
    bins = frequencies(burst, rate).to(delay.device, delay.dtype)
    angle = -2 * math.pi * bins[:, None] * delay[..., None, :]
    return torch.polar(torch.ones_like(angle), angle)


def instants(burst: Burst, rate: int = ROW_RATE) -> Tensor:
    """When each sample is taken [slot_len * rate] float64, in symbols from `Burst.reference` on."""
    return torch.arange(burst.slot_len * rate, dtype=torch.double) / rate - burst.reference


def turning(burst: Burst, cfo: Tensor, rate: int = ROW_RATE) -> Tensor:
    """Phasors [... slot_len * rate, K] of carrier offsets cfo [... K], in cycles per symbol."""
    angle = 2 * math.pi * instants(burst, rate).to(cfo.device, cfo.dtype)[:, None] * cfo[..., None, :]
    return torch.polar(torch.ones_like(angle), angle)


def modulate(symbols: Tensor, burst: Burst, *, delay: Tensor | None = None, cfo: Tensor | None = None, rate: int = 0) -> Tensor:
    """Samples [B slot_len * rate, K] of a slot, in which symbols [B preamble + pilots + data, K] are sent.

    ``delay`` [B K] is that of each user's burst, in symbols; ``cfo`` [B K] its carrier offset, in cycles per symbol; ``rate`` samples a
    symbol, those of the burst unless given. Raises ShapeError for bursts of another length.
    """
    rate = rate or burst.samples_per_symbol
    if symbols.ndim != 3 or symbols.shape[1] != burst.symbols:
        raise ShapeError(f"symbols are {list(symbols.shape)}: pass [frames, {burst.symbols}, users], preamble, pilots and data of a burst")
    grid = torch.nn.functional.pad(symbols, (0, 0, burst.lead, burst.guard_len - burst.lead))
    bins = torch.fft.fft(grid, dim=1).repeat(1, rate, 1) * pulse(burst, rate).to(symbols.device, symbols.real.dtype)[:, None]
    if delay is not None:
        bins = bins * advance(burst, delay.to(symbols.real.dtype), rate)
    samples = torch.fft.ifft(bins, dim=1) * math.sqrt(rate)
    return samples if cfo is None else samples * turning(burst, cfo.double(), rate).to(samples.dtype)


def to_rows(samples: Tensor, burst: Burst, *, delay: float | Tensor = 0.0, cfo: float | Tensor = 0.0) -> Tensor:
    """Rows [B rows M], two a symbol, of the samples [B slot_samples M] of slots, without what lies beyond a symbol rate either side.

    ``delay`` [symbols] and ``cfo`` [cycles per symbol], numbers or [B], are those of the whole slot, and taken away.
    """
    rate = burst.samples_per_symbol
    if samples.ndim != 3 or samples.shape[1] != burst.slot_samples:
        raise ShapeError(f"samples are {list(samples.shape)}: pass [slots, {burst.slot_samples}, antennas]")
    real = samples.real
    delay, cfo = (torch.as_tensor(value, dtype=torch.double, device=real.device).reshape(-1, 1) for value in (delay, cfo))
    level = samples * turning(burst, -cfo, rate).to(samples.dtype) if bool(cfo.any()) else samples
    bins = torch.fft.fft(level, dim=1, norm="ortho")
    half = burst.rows // 2
    bins = torch.cat([bins[:, :half], bins[:, -half:]], 1)
    if bool(delay.any()):
        bins = bins * advance(burst, -delay).to(samples.dtype)
    return torch.fft.ifft(bins, dim=1, norm="ortho")


def matched(rows: Tensor, burst: Burst) -> Tensor:
    """Outputs of the matched filter at the nominal instants of pilots and data [B pilot_len + data_len, M], of rows [B rows M]."""
    bins = torch.fft.fft(rows, dim=1, norm="ortho") * pulse(burst).to(rows.device, rows.real.dtype)[:, None]
    grid = torch.fft.ifft(bins.unflatten(1, (ROW_RATE, -1)).sum(1), dim=1, norm="ortho")
    first = burst.lead + burst.preamble_len
    return grid[:, first : first + burst.pilot_len + burst.data_len]


def observe_burst(rows: Tensor, pilots: Tensor, burst: Burst, **known: object) -> Observation:
    """The observation that rows [B rows M] of slots make; ``known`` are the other fields of `Observation`. Pilots and data are those of the
    matched filter at nominal instants: all that receivers see that take users to be in step."""
    if rows.ndim != 3 or rows.shape[1] != burst.rows:
        raise ShapeError(f"rows are {list(rows.shape)}: pass [frames, {burst.rows}, antennas], two rows a symbol of the slot")
    seen = matched(rows, burst)
    return Observation(seen[:, : burst.pilot_len], seen[:, burst.pilot_len :], pilots, rows=rows, burst=burst, **known)  # type: ignore[arg-type]
