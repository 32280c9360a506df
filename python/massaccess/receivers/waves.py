"""Bursts of users that are out of step: the link between channels, symbols and received rows, with each user's delay and carrier."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..burst import LEAST_GUARD, ROW_RATE, Burst
from ..core import Observation
from ..detection.linear import Symbols
from ..detection.waves import WaveEp, WaveFilter
from ..estimation.estimate import ChannelEstimate
from ..forward.waveform import advance, frequencies, preamble, pulse
from ..priors.beams import Beams
from ..priors.constellation import ConstellationPrior
from .selection import Selection

SURE = 1e-6
LEAST_LOOSE = 1e-12
"""Variance of a carrier [cycles per symbol, squared] that counts as known."""

TOP = math.sqrt(3)
"""Largest offset, in its standard deviations, of one that is uniform within its range."""

TRIED = 21
"""Carrier offsets tried for each user, before its symbols are known."""

EDGE = 4
"""Symbols beside the data that the window of detection takes in: what delays and pulses move there."""


@dataclass(frozen=True)
class WaveLink:
    """One batch of bursts in the beams of the array: what `coherent.Link` is for frames of symbols.

    User k sends A(delay_k) D(cfo_k) x_k: its symbols, turned by its carrier, through the pulse, late by its delay. Channels are told at
    `Burst.reference`. ``spread`` (delay [symbols], cfo [cycles per symbol]) are standard deviations of what is not known beforehand, 0
    for what is.
    """

    rx: Tensor  # [B R M]
    head: Tensor  # [B P+L K], preamble and pilots
    gain: Tensor  # [B K]
    present: Tensor  # [B K]
    delay: Tensor  # [B K]
    cfo: Tensor  # [B K]
    beams: Beams
    noise_var: float
    prior: ConstellationPrior
    burst: Burst
    spread: tuple[float, float]
    loose: Tensor  # [B K], variance of what is known of the carriers
    told: Tensor | None = None  # [B D K]

    @staticmethod
    def of(obs: Observation, slots: Selection, beams: Beams, *, told: Tensor | None = None) -> WaveLink:
        """With delays and carriers as far as the observation tells them, 0 otherwise."""
        assert obs.rows is not None
        assert obs.burst is not None
        head = preamble(obs.burst).to(obs.rows)[:, None] * slots.present[:, None, :]
        nothing = torch.zeros_like(slots.present, dtype=obs.rows.real.dtype)
        offsets = (obs.user_delay, obs.user_cfo)
        delay, cfo = (nothing if value is None else slots.take(value.to(nothing)[..., None])[..., 0] for value in offsets)
        return WaveLink(
            beams.into(obs.rows),
            torch.cat([head, slots.pilots(obs)], 1),
            slots.gain(obs),
            slots.present,
            delay,
            cfo,
            beams,
            obs.linear_noise_var,
            ConstellationPrior(obs.modulation),
            obs.burst,
            (obs.timing_range / math.sqrt(3), obs.cfo_range / math.sqrt(3)),
            torch.full_like(nothing, obs.cfo_range**2 / 3),
            None if told is None else slots.take(told.mT).mT,
        )

    def take(self, rows: Tensor) -> WaveLink:
        """The frames that ``rows`` (indices or a mask) picks."""
        cut = {name: getattr(self, name)[rows] for name in ("rx", "head", "gain", "present", "delay", "cfo", "loose")}
        return replace(self, told=None if self.told is None else self.told[rows], **cut)

    def known(self, soft: Symbols | None = None, previous: ChannelEstimate | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to estimate channels from: rx [B T M], waveforms [B T K], noise variance [B T M], in which symbols that are not sure count
        with the power of the ``previous`` channels. Without symbols, the rows of preamble and pilots."""
        assert previous is not None
        data = self.unheard() if soft is None else soft
        sent = self.wave(torch.cat([self.head, data.mean], 1))
        power = previous.mean.abs().square() + previous.error
        noise = self.noise_var + self._blur(data.var) @ power
        if soft is not None:
            return self.rx, sent, noise
        last = ROW_RATE * (self.burst.lead + self.burst.known + 1)
        return self.rx[:, :last], sent[:, :last], noise[:, :last]

    def detect(self, detector: WaveEp, channel: ChannelEstimate) -> Symbols:
        """All symbols, the channel error counted as noise. Users whose symbols are known are taken away first."""
        found = detector(self._filter(channel), self.prior)
        return found if self.told is None else self._filled(found)

    def tuned(self, channel: ChannelEstimate) -> WaveLink:
        """With the carrier offsets that preamble, pilots and linear detection leave likely, whatever the symbols are: means and variances.
        To be asked before anything is decided."""
        if not self.spread[1] or not self.burst.data_len:
            return self
        cavity, var = self._filter(channel).start
        limit = TOP * self.spread[1]
        tried = torch.linspace(-limit, limit, TRIED, dtype=self.cfo.dtype, device=self.cfo.device)
        score = torch.stack([self._likely(cavity * self._turn(each.expand_as(self.cfo)).conj(), var) for each in tried])
        tried = tried[:, None, None]
        score = score - (tried - self.cfo).square() / (2 * self.loose.clamp_min(LEAST_LOOSE))
        belief = torch.softmax(score, 0)
        found = (belief * tried).sum(0)
        loose = (belief * (tried - found).square()).sum(0)
        open_ = self.present & self.open
        return replace(self, cfo=torch.where(open_, found, self.cfo), loose=torch.where(open_, loose, self.loose))

    def track(self, channel: ChannelEstimate, soft: Symbols | None = None) -> WaveLink:
        """After one Gauss-Newton step of all delays and carriers at once, channels given but for a turn of their own."""
        fixed = [not spread for spread in self.spread]
        if all(fixed):
            return self
        last = ROW_RATE * (self.burst.lead + self.burst.known) if soft is None else self.rx.shape[1]
        data = (self.unheard() if soft is None else soft).mean
        sent = torch.cat([self.head, data], 1)
        wave = self.wave(sent)[:, :last]
        rest = self.rx[:, :last] - wave @ channel.mean
        slopes = torch.stack([self._late(sent)[:, :last], self._turning(sent)[:, :last]], -1)  # [B T K 2]
        units = torch.tensor([spread or 1.0 for spread in self.spread], dtype=wave.real.dtype, device=wave.device)
        slopes = (slopes * units).flatten(2)
        gram = wave.mH @ wave + SURE * torch.eye(wave.shape[2], dtype=wave.dtype, device=wave.device)
        slopes = slopes - wave @ torch.linalg.solve(gram, wave.mH @ slopes)
        own = channel.mean.repeat_interleave(2, 1)
        noise = self.noise_var + channel.error.mean((1, 2))[:, None, None]
        curve = 2 * ((slopes.mH @ slopes) * (own @ own.mH).mT).real / noise
        pull = 2 * (slopes.mH @ rest * own.conj()).sum(2).real[..., None] / noise
        here = torch.stack([self.delay, self.cfo], -1) / units
        live = (self.present[..., None] & ~torch.tensor(fixed, device=units.device)).flatten(1).to(units.dtype)
        curve = curve * live[:, :, None] * live[:, None, :] + torch.eye(live.shape[1], dtype=units.dtype, device=units.device)
        step = torch.linalg.solve(curve, (pull[..., 0] - here.flatten(1)) * live).unflatten(1, (-1, 2))
        delay, cfo = ((here + step.clamp(-1, 1)).clamp(-TOP, TOP) * units).unbind(-1)
        loose = torch.linalg.inv(curve).diagonal(dim1=1, dim2=2)[:, 1::2] * units[1] ** 2
        late, turning = (live.unflatten(1, (-1, 2)) > 0).unbind(-1)
        return replace(
            self,
            delay=torch.where(late, delay, self.delay),
            cfo=torch.where(turning, cfo, self.cfo),
            loose=torch.where(turning, loose, self.loose),
        )

    @property
    def offsets(self) -> dict[str, Tensor]:
        """Delays [symbols] and carriers [cycles per symbol] of the slots [B K]."""
        return {"delay": self.delay, "cfo": self.cfo}

    def put(self, rows: Tensor, other: WaveLink) -> WaveLink:
        """With the offsets of ``other`` for the frames ``rows`` (indices)."""
        return replace(self, **{name: getattr(self, name).index_put((rows,), getattr(other, name)) for name in ("delay", "cfo", "loose")})

    def unexplained(self, channel: ChannelEstimate, symbols: Symbols) -> Tensor:
        """Power that an answer leaves of the received rows over what noise and the answer's own errors should leave [B]."""
        power = channel.mean.abs().square() + channel.error
        sent = self.wave(torch.cat([self.head, symbols.mean], 1))
        due = self.noise_var + self._blur(symbols.var) @ power + sent.abs().square() @ channel.error
        return ((self.rx - sent @ channel.mean).abs().square() / due).mean((1, 2))

    @property
    def open(self) -> Tensor:
        """Slots whose symbols are to be detected [B K] bool."""
        return torch.ones_like(self.present) if self.told is None else self.told.isnan().any(1)

    def unheard(self) -> Symbols:
        """The symbols before any detection: those that are known, and nothing of all others."""
        nothing = self.rx.new_zeros(len(self.rx), self.burst.data_len, self.present.shape[1])
        here = self.present[:, None, :].expand(nothing.shape).to(nothing.real.dtype)
        return self._filled(Symbols(nothing, here / 0, nothing, here))

    def _filled(self, found: Symbols) -> Symbols:
        if self.told is None:
            return found
        sure, sent = ~self.open[:, None, :], self.told.nan_to_num()
        mean, var = torch.where(sure, sent, found.mean), found.var.masked_fill(sure, 0)
        return Symbols(torch.where(sure, sent, found.symbols), found.symbol_var.masked_fill(sure, SURE), mean, var)

    def wave(self, sent: Tensor) -> Tensor:
        """Rows [B R K] of the users' symbols sent [B P+L+D K]."""
        return torch.fft.ifft(self._bins(sent), dim=1, norm="ortho")

    def _bins(self, sent: Tensor) -> Tensor:
        b = self.burst
        grid = torch.nn.functional.pad(sent * self._turn(self.cfo, 0), (0, 0, b.lead, b.guard_len - b.lead))
        return torch.fft.fft(grid, dim=1, norm="ortho").repeat(1, ROW_RATE, 1) * self._shape

    def _late(self, sent: Tensor) -> Tensor:
        """Derivative of `wave` by the delays."""
        bins = frequencies(self.burst).to(self.rx.device, self.delay.dtype)[:, None] * (-2j * math.pi)
        return torch.fft.ifft(self._bins(sent) * bins, dim=1, norm="ortho")

    def _turning(self, sent: Tensor) -> Tensor:
        """Derivative of `wave` by the carrier offsets."""
        return self.wave(sent * (2j * math.pi * self._times(0, sent.shape[1]))[:, None])

    @property
    def _shape(self) -> Tensor:
        """Pulse and delay in the bins [B R K]."""
        return pulse(self.burst).to(self.rx.device, self.delay.dtype)[:, None] * advance(self.burst, self.delay)

    def _times(self, first: int, count: int) -> Tensor:
        """Instants of ``count`` symbols of the burst from ``first`` on, in symbols from the reference."""
        where = torch.arange(first, first + count, dtype=torch.double) + self.burst.lead - self.burst.reference
        return where.to(self.rx.device, self.delay.dtype)

    def _turn(self, cfo: Tensor, first: int | None = None) -> Tensor:
        """Phasors of carriers cfo [B K] at the burst's symbols, or at those of the data [B D K]."""
        first, count = (self.burst.known, self.burst.data_len) if first is None else (first, self.burst.symbols - first)
        angle = 2 * math.pi * cfo[:, None, :] * self._times(first, count)[:, None]
        return torch.polar(torch.ones_like(angle), angle)

    def _blur(self, var: Tensor) -> Tensor:
        """Power of unit-gain users that variances var [B D K] of the symbols leave in each row [B R K]."""
        b = self.burst
        shape = torch.fft.ifft(pulse(b), norm="ortho").real.square() / b.slot_len
        energy = torch.fft.fft(shape).to(self.rx.device, self.rx.dtype)[:, None]
        grid = torch.nn.functional.pad(var, (0, 0, b.lead + b.known, b.guard_len - b.lead))
        bins = torch.fft.fft(grid.to(self.rx.dtype), dim=1).repeat(1, ROW_RATE, 1) * energy * advance(b, self.delay)
        return torch.fft.ifft(bins, dim=1).real.clamp_min(0)

    def _filter(self, channel: ChannelEstimate) -> WaveFilter:
        """Statistics of the data, everything known taken away."""
        b = self.burst
        data = self.unheard().mean if self.told is not None else self.rx.new_zeros(len(self.rx), b.data_len, self.present.shape[1])
        rest = self.rx - self.wave(torch.cat([self.head, data], 1)) @ channel.mean
        edge = min(EDGE, b.guard_len - b.lead, b.lead + b.known)
        first, width = b.lead + b.known - edge, b.data_len + 2 * edge
        rest = rest[:, ROW_RATE * first : ROW_RATE * (first + width)]
        mean = channel.mean * (self.present & self.open)[..., None]
        weighted = mean / (self.noise_var + channel.error.sum(1))[:, None, :]
        window = replace(b, preamble_len=0, pilot_len=0, data_len=width - LEAST_GUARD, guard_len=LEAST_GUARD)
        shape = pulse(window).to(self.rx.device, self.delay.dtype)[:, None] * advance(window, self.delay)  # [B 2W K]
        bins = torch.fft.fft(rest, dim=1, norm="ortho") @ weighted.mH
        match = (bins * shape.conj()).unflatten(1, (ROW_RATE, -1)).sum(1)
        aliases = shape.unflatten(1, (ROW_RATE, -1))
        pairs = (aliases.conj()[..., :, None] * aliases[..., None, :]).sum(1)  # [B W K K]
        blur = (2 * math.pi * self._times(b.known, b.data_len))[:, None].square() * self.loose[:, None, :]
        return WaveFilter(pairs * (weighted.conj() @ mean.mT)[:, None], match, self._turn(self.cfo), blur, edge, self.present)

    def _likely(self, symbols: Tensor, spread: Tensor) -> Tensor:
        """Log likelihood [B K] of symbols [B D K] = x + CN(0, spread [B K]), points x alike likely."""
        levels = self.prior.amplitudes.to(spread)
        parts = torch.view_as_real(symbols)[..., None] - levels
        return torch.logsumexp(-parts.square() / spread[:, None, :, None, None], -1).sum((1, 3))
