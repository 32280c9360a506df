"""Frames in which a user's check fails, or too much stays unexplained, looked at again without the users that came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import LmmseDetector, MatchedFilter
from ..estimation.estimate import ChannelEstimate
from ..estimation.lmmse import Lmmse
from ..forward.framing import Framing
from ..forward.modulation import constellation
from .coherent import Link
from .selection import Selection

LARGEST_RESIDUAL = 1.15
"""Of what an answer leaves unexplained (info ``residual``); above it, somebody may be missing although all checks hold."""

READABLE = 30.0
"""Energy of a stream's pilots over its noise, from which on they say whose it is."""

UNDECIDED = 12.0
"""Nats by which a stream's pilots speak for the user that it was reported for when it is as likely that of another: its symbols were found
with the pilots of that user. Measured on generated frames, as are the slopes below."""

BLIND = 2.0
"""Times the noise that everything but the users that came through is taken for at first, when their channels are fitted."""


@dataclass(frozen=True)
class Verdict:
    """What the checks say of an answer. ok [B N] bool: active, and the check sum holds; again [B] bool: worth another look; symbols
    [B D N]: those of users that are ok, as they were sent, NaN for others."""

    ok: Tensor
    again: Tensor
    symbols: Tensor

    @staticmethod
    def of(obs: Observation, estimate: Estimate) -> Verdict:
        """Of all active users: each is one test, which garbage passes once in 65,536."""
        assert estimate.symbols is not None
        alphabet = constellation(obs.modulation)
        bits = alphabet.decide(estimate.symbols.mT)
        _, holds = _framing(obs.users, bits.shape[-1]).decode(bits)
        ok = holds & estimate.active
        residual = estimate.info.get("residual", obs.pilot_rx.real.new_zeros(obs.frames))
        again = (estimate.active & ~ok).any(1) | ~(residual < LARGEST_RESIDUAL)
        sent = alphabet.modulate(bits).to(obs.data_rx.dtype).masked_fill(~ok[..., None], torch.nan).mT.contiguous()
        return Verdict(ok, again, sent)


def checkable(obs: Observation) -> bool:
    """Whether frames carry a check sum that needs no decoder: long enough, and without a code."""
    return obs.code == "none" and _framing(obs.users, obs.data_len * constellation(obs.modulation).bits_per_symbol).payload_bytes > 0


@lru_cache(maxsize=16)
def _framing(users: int, bits: int) -> Framing:
    """The same object each time: whitening sequences are slow to draw."""
    return Framing(users, bits)


def cleaned(obs: Observation, ok: Tensor, symbols: Tensor) -> Observation:
    """The pilots without the users that are ``ok`` [B N], whose symbols [B D N] all serve as pilots.

    Two LMMSE estimates of their channels, the second with the noise in each beam that the first leaves: whoever is still missing
    is loud in few beams.
    """
    slots = Selection.of(ok)
    link = Link.of(obs, slots)
    sent = torch.cat([link.pilots, slots.take(symbols.nan_to_num().mT).mT], 1)
    rx = torch.cat([link.pilot_rx, link.data_rx], 1)
    noise = rx.real.new_full((*rx.shape[:2], 1), BLIND * obs.linear_noise_var)
    free = (rx.shape[1] - ok.sum(1)).clamp_min(1)[:, None, None]
    for _ in range(2):
        channel = Lmmse()(rx, sent, noise_var=noise, gain=link.gain, present=link.present, beams=link.beams)
        rest = rx - sent @ channel.mean
        noise = (rest.abs().square().sum(1, keepdim=True) / free).clamp_min(obs.linear_noise_var).expand(rx.shape).contiguous()
    return replace(obs, pilot_rx=link.beams.back(rest[:, : obs.pilot_len]))


def better(first: Estimate, second: Estimate, old: Verdict, new: Verdict) -> Tensor:
    """Frames [B] that more users came through in; or as many, and less is unexplained."""
    gained = new.ok.sum(1) - old.ok.sum(1)
    residual = [one.info.get("residual", torch.zeros_like(gained, dtype=torch.double)) for one in (first, second)]
    return (gained > 0) | ((gained == 0) & (residual[1] < residual[0]))


def put(first: Estimate, rows: Tensor, second: Estimate) -> Estimate:
    """A copy of ``first`` with the frames of ``second`` in the places ``rows`` (indices)."""
    fields = {name: _put(getattr(first, name), rows, getattr(second, name)) for name in ("activity", "channel", "symbols", "symbol_var")}
    return replace(first, info={**first.info, **_lines(first.info, rows, second.info)}, **fields)


def _lines(first: Mapping[str, Any], rows: Tensor, second: Mapping[str, Any]) -> dict[str, Any]:
    shared = first.keys() & second.keys()
    return {name: _put(first[name], rows, second[name]) for name in shared if isinstance(first[name], Tensor) and first[name].ndim}


def _put(values: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    values = values.clone()
    values[rows] = others
    return values


class Account:
    """What the looks at the frames of a batch have cost."""

    def __init__(self, first: Estimate) -> None:
        self.checks = first.active.sum(1)
        self.looks = torch.zeros_like(self.checks)
        self.cut = torch.as_tensor(first.info.get("cut", False), device=self.checks.device).expand(self.checks.shape).clone()
        self.evaluations = first.info["evaluations"].clone() if "evaluations" in first.info else None

    def stopped(self, left: Tensor, *, late: bool) -> bool:
        """Whether time is up, for the frames ``left`` (indices) that would be looked at again."""
        self.cut[left] |= late
        return late

    def add(self, left: Tensor, second: Estimate) -> None:
        """Another look at the frames ``left``."""
        self.looks[left] += 1
        self.checks[left] += second.active.sum(1)
        self.cut[left] |= torch.as_tensor(second.info.get("cut", False), device=left.device)
        if self.evaluations is not None:
            self.evaluations[left] += second.info["evaluations"]

    def info(self) -> dict[str, Any]:
        """For `Estimate.info`."""
        known = {"reexamined": self.looks, "checks": self.checks, "cut": self.cut}
        if self.evaluations is None:
            return known
        return {**known, "evaluations": self.evaluations, "nfe": float(self.evaluations.float().mean())}


def identities(obs: Observation, estimate: Estimate, done: Tensor) -> Tensor:
    """Which users send the streams that did not come through, all but those of users that are ``done`` [B N] bool: by how many nats [B N]
    the pilots that a stream carries are more like those of one user than those of any other.

    A stream that was taken for the wrong user, since the right one was missed, has the right channel all the same: its data say so. Seen
    through that channel its pilots are symbols like any others, and whoever they belong to sends it. The channel's phase is only
    known up to the turns that map the constellation onto itself. Users that no stream is most like have minus infinity.
    """
    assert estimate.symbols is not None
    assert estimate.symbol_var is not None
    slots = Selection.of(estimate.active)
    link = Link.of(obs, slots)
    channel = _from_data(link, slots, estimate)
    ok = slots.take(done[..., None])[..., 0]
    noise = link.noise_var + channel.error.sum(1)
    rx = link.pilot_rx - (link.pilots * ok[:, None]) @ channel.mean
    filtered = MatchedFilter.of(rx, channel.mean * ~ok[..., None], noise, link.present)
    seen = LmmseDetector()(filtered, link.prior)
    match = obs.pilots.mH @ (seen.symbols / seen.symbol_var)  # [B N K]
    turned = torch.maximum(match.real.abs(), match.imag.abs())
    energy = obs.pilots.abs().square().sum(0)[:, None] / seen.symbol_var[:, :1]
    score = (2 * turned - energy).masked_fill(done[..., None], -torch.inf)
    best = torch.nn.functional.pad(score, (0, 0, 0, 1), value=-torch.inf).topk(2, dim=1)  # a user alone has no rival
    readable = energy.amax(1) > READABLE
    named = torch.where(readable, best.indices[:, 0].clamp_max(obs.users - 1), slots.index)
    gap = torch.where(readable, best.values[:, 0] - best.values[:, -1], UNDECIDED)
    clear = link.present & ~ok & ~(readable & (best.values[:, 0] <= 0))
    return torch.full_like(estimate.activity, -torch.inf).scatter_reduce(1, named, gap.masked_fill(~clear, -torch.inf), "amax")


def _from_data(link: Link, slots: Selection, estimate: Estimate) -> ChannelEstimate:
    """Channels as the data alone tell them, with the symbols of ``estimate``: pilots say nothing of whose they are, then."""
    assert estimate.symbols is not None
    assert estimate.symbol_var is not None
    mean, var = link.prior.moments(estimate.symbols, estimate.symbol_var.clamp(1e-12, 1e12).sqrt())
    mean, var = (slots.take(value.mT).mT for value in (mean, var))
    noise = link.noise_var + (var * link.gain[:, None]).sum(2, keepdim=True)
    return Lmmse()(link.data_rx, mean, noise_var=noise, gain=link.gain, present=link.present, beams=link.beams)


def weighed(odds: Tensor, named: Tensor, reported: Tensor) -> Tensor:
    """Log odds [B N] for the next look, of the detector's ``odds`` on what is left, and `identities`, for users ``reported`` before or not.

    The symbols of a stream were found with the pilots of the user that it was reported for, so they speak for that user too loudly. The
    numbers are logistic fits on generated frames.
    """
    fresh = odds.maximum(((named - 2) / 2).clamp_max(4))
    return torch.where(reported, own(odds, named), fresh)


def own(odds: Tensor, named: Tensor) -> Tensor:
    """Log odds [B N] that a stream belongs to the user that it is reported for: as `weighed`."""
    return ((named - UNDECIDED) / 6).clamp(-3, 4) + (odds / 2).clamp_min(-1.5)


def believed(obs: Observation, estimate: Estimate, done: Tensor, odds: Tensor) -> Estimate:
    """``estimate`` without those users that are not ``done`` [B N] and whose pilots are not in the stream reported for them. Where the
    pilots do not say, the detector's ``odds`` [B N] do."""
    assert estimate.channel is not None
    assert estimate.symbols is not None
    assert estimate.symbol_var is not None
    doubtful = (estimate.active & ~done).any(1).nonzero()[:, 0]
    if not len(doubtful):
        return estimate
    part = rows(estimate, doubtful)
    odds = own(odds[doubtful], identities(obs.only(doubtful), part, done[doubtful]))
    activity = estimate.activity.clone()
    activity[doubtful] = torch.where(part.active & ~done[doubtful], part.activity.minimum(torch.sigmoid(odds)), part.activity)
    gone = estimate.active & ~(activity > 0.5)
    return replace(
        estimate,
        activity=activity,
        channel=estimate.channel.masked_fill(gone[..., None], 0),
        symbols=estimate.symbols.masked_fill(gone[:, None], 0),
        symbol_var=estimate.symbol_var.masked_fill(gone[:, None], torch.inf),
    )


def rows(estimate: Estimate, which: Tensor) -> Estimate:
    """Some frames of an estimate; info: what has one line a frame."""
    frames = len(estimate.activity)
    lines = {name: value[which] for name, value in estimate.info.items() if isinstance(value, Tensor) and value.shape[:1] == (frames,)}
    fields = {name: getattr(estimate, name)[which] for name in ("activity", "channel", "symbols", "symbol_var")}
    return Estimate(**fields, info=lines)
