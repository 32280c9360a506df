"""Bussgang LMMSE: the linear receiver of a one-bit array."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import LmmseDetector, MatchedFilter, Symbols
from ..errors import ConfigError, ShapeError
from ..estimation.estimate import ChannelEstimate
from ..estimation.lmmse import Lmmse
from ..likelihoods.bussgang import linearized, whitened
from ..priors.beams import Beams
from .coherent import Link, known_active
from .selection import Selection


@dataclass(frozen=True)
class BussgangLmmse:
    """LMMSE estimation of channels from the pilots and of symbols from the channels, each with the converter made linear: its exact gain,
    and the arcsine law for the covariance of what it adds (Li et al., IEEE Trans. Signal Process. 2017, section III, and the detector of
    their section IV with that covariance instead of a white one).

    ``rounds`` repeat both with the posterior means of the symbols as more pilots, their variance and the channels' error counted as noise.
    Correlation from pilot to pilot (in estimation) and from antenna to antenna (in detection) is exact. A known array covariance enters
    estimation as prior of the channels; that the converters' distortion is then correlated between antennas too is left aside (exact, it
    would take systems of pilots times antennas). Converters of more than one bit, and those with a known offset, are taken
    for what `forward.front_end` makes of them: gain 1 and white distortion, which is LMMSE with more noise. ``use_cov=False``
    leaves the array covariance aside.
    """

    rounds: int = 3
    use_cov: bool = True

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``).

        info: error_var [B N], of the channel estimate, rounds [B], cut [B] bool (time was up).
        """
        if self.rounds < 0:
            raise ConfigError(f"rounds is {self.rounds}: pass 0 (pilots alone) or more")
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots = Selection.of(active)
        link = Link.of(obs, slots, Beams.of(obs.channel_cov if self.use_cov else None, antennas=obs.antennas, like=obs.pilot_rx))
        signs = obs.front_end.bits == 1 and obs.front_end.offset is None
        estimate, detect = (_estimate, _detect) if signs else (_estimate_linear, _detect_linear)
        channel = estimate(link, obs, None, None)
        symbols, used, late = detect(link, obs, channel), 0, False
        for _ in range(self.rounds if obs.data_len else 0):
            late = obs.late
            if late:
                break
            channel = estimate(link, obs, symbols, channel)
            symbols, used = detect(link, obs, channel), used + 1
        count = torch.full((obs.frames,), used, device=active.device)
        info = {"rounds": count, "error_var": slots.put(channel.error.mean(2)), "cut": torch.full_like(count, late, dtype=torch.bool)}
        rows = link.beams.back(channel.mean)
        return slots.estimate(active.to(obs.pilot_rx.real.dtype), rows, symbols.symbols, symbols.symbol_var, **info)


def _estimate_linear(link: Link, obs: Observation, soft: Symbols | None, previous: ChannelEstimate | None) -> ChannelEstimate:
    return link.estimate(Lmmse(), soft, previous)


def _detect_linear(link: Link, obs: Observation, channel: ChannelEstimate) -> Symbols:
    return link.detect(LmmseDetector(), channel)


def _estimate(link: Link, obs: Observation, soft: Symbols | None, previous: ChannelEstimate | None) -> ChannelEstimate:
    """Channels, in beams: rows whitened from time to time, the same for all antennas."""
    samples, sent = obs.pilot_rx, link.pilots
    noise = sent.real.new_full(sent.shape[:2], obs.noise_var)
    if soft is not None and previous is not None:
        samples, sent = torch.cat([obs.pilot_rx, obs.data_rx], 1), torch.cat([link.pilots, soft.mean], 1)
        power = (previous.mean.abs().square() + previous.error).mean(2)
        noise = torch.cat([noise, obs.noise_var + (soft.var @ power[..., None])[..., 0]], 1)
    quiet = torch.diag_embed(noise).to(sent.dtype)
    cov = (sent * (link.gain * link.beams.power.mean())[:, None, :]) @ sent.mH + quiet
    y, noise_cov = linearized(samples, cov, quiet)
    y, sent = whitened(noise_cov, y, sent)
    ones = torch.ones_like(noise)[..., None]
    return Lmmse()(link.beams.into(y), sent, noise_var=ones, gain=link.gain, present=link.present, beams=link.beams)


def _detect(link: Link, obs: Observation, channel: ChannelEstimate) -> Symbols:
    """Symbols: columns whitened from antenna to antenna, the same at all times."""
    rows = link.beams.back(channel.mean)
    spread = link.beams.back(torch.diag_embed(channel.error.sum(1).sqrt()).to(rows.dtype))
    eye = torch.eye(obs.antennas, dtype=rows.dtype, device=rows.device)
    noise = spread.mT @ spread.conj() + obs.noise_var * eye
    y, noise_cov = linearized(obs.data_rx.mT, rows.mT @ rows.conj() + noise, noise)
    y, columns = whitened(noise_cov, y, rows.mT)
    ones = rows.real.new_ones(obs.frames, obs.antennas)
    return LmmseDetector()(MatchedFilter.of(y.mT, columns.mT, ones, link.present), link.prior)
