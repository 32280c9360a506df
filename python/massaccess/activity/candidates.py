"""Bursts of users that are out of step: who may be active, and with which delay, before it is looked at more closely."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..burst import ROW_RATE, Burst
from ..core import FrontEnd, Observation
from ..forward.waveform import modulate, preamble
from .covariance import Problem, descend

SPACING = 0.25
"""Symbols between the delays that are tried, at the most: a pulse an eighth of a symbol off keeps 95 % of its energy."""

LEAKS = 6
"""Data symbols that reach into the rows of the pilots."""

KEPT = 0.999
"""Of the energy of all waveforms, in the dimensions that are kept."""

SHARPENED, NUDGE, MOST_NUDGES = 2, 0.05, 2.0
"""Steps towards sharper delays, the distance [symbols] of the delays that a step compares, and how many of these it goes at the most."""

STRONG = 0.1
"""Power over gain from which on a user is taken for active when others are looked for."""

LOUD = 1.1
"""Received power over expected, along a user's waveform, from which on its delay can be told."""

SWEEPS, TOLERANCE, CEILING = 12, 1e-2, 10.0
SILENT_DB = 60.0
"""By how much candidates lie above users that are none: as log odds, in decibels."""


@dataclass(frozen=True, eq=False)
class Waveforms:
    """What users' preambles and pilots look like in the rows before the data, in the space where noise, and data that leak into these rows,
    are white: basis [R E] takes rows there; book [E N Q] for delays [Q]."""

    basis: Tensor
    book: Tensor
    delays: Tensor
    first: int
    last: int

    @staticmethod
    def of(pilots: Tensor, burst: Burst, *, noise_var: float, power: float, reach: float) -> Waveforms:
        """Of pilots [L N] with delays within ``reach`` symbols either way, ``power`` users being active."""
        first, last = ROW_RATE * burst.lead - 1, ROW_RATE * (burst.lead + burst.known) - 1
        delays = torch.linspace(-reach, reach, 2 * math.ceil(reach / SPACING) + 1, dtype=torch.double, device=pilots.device)
        tail = pilots.new_zeros(burst.data_len, pilots.shape[1])
        head = preamble(burst).to(pilots)[:, None].expand(-1, pilots.shape[1])
        known = _waves(torch.cat([head, pilots, tail]), burst, delays)[:, first:last]
        noise = noise_var * torch.eye(last - first, dtype=known.dtype, device=known.device)
        if burst.data_len:
            data = pilots.new_zeros(burst.symbols, min(LEAKS, burst.data_len))
            data[burst.known :][: data.shape[1]].fill_diagonal_(1)
            leak = _waves(data, burst, delays)[:, first:last].movedim(0, 1).flatten(1)
            noise = noise + power / len(delays) * leak @ leak.mH
        values, vectors = torch.linalg.eigh(noise)
        white = (vectors * values.rsqrt()) @ vectors.mH
        known = white @ known.movedim(0, 1).flatten(1)
        values, vectors = torch.linalg.eigh(known @ known.mH)
        size = int((values.flip(0).cumsum(0) < KEPT * values.sum()).sum()) + 1
        basis = vectors[:, -size:]
        book = (basis.mH @ known).unflatten(1, (len(delays), -1)).mT.contiguous()
        return Waveforms(white @ basis, book, delays, first, last)


def _waves(symbols: Tensor, burst: Burst, delays: Tensor) -> Tensor:
    """Rows [Q R K] of symbols [T K] with each of the delays [Q]."""
    sent = symbols.to(torch.complex128).expand(len(delays), -1, -1)
    return modulate(sent, burst, delay=delays[:, None].expand(-1, symbols.shape[1]), rate=ROW_RATE)


def waveforms(obs: Observation) -> Waveforms:
    """Those of an observation; made once for each book and noise, to a quarter of a decibel."""
    assert obs.burst is not None
    level = round(40 * math.log10(obs.linear_noise_var))
    reach = obs.timing_range or max(0.5, float(obs.user_delay.abs().max()) if obs.user_delay is not None else 0.0)
    key = (obs.burst, level, obs.activity, reach)
    known = _KNOWN.setdefault(obs.pilots, {})
    if key not in known:
        if len(known) >= MOST_KNOWN:
            known.clear()
        power = obs.activity * obs.users
        known[key] = Waveforms.of(obs.pilots, obs.burst, noise_var=10 ** (level / 40), power=power, reach=reach)
    return known[key]


_KNOWN = WeakTensorKeyDictionary()
MOST_KNOWN = 16


@dataclass(frozen=True, eq=False)
class Candidates:
    """index [B C] of the users that a rough look leaves, delay [B C], rx [B E M] their observation with white noise of variance 1,
    and their waveforms in it, book [B C E]."""

    index: Tensor
    delay: Tensor
    rx: Tensor
    book: Tensor
    users: int

    @staticmethod
    def of(obs: Observation) -> Candidates:
        """By covariance descent (`covariance.descend`) over all users and delays, antennas taken for independent; everybody
        where delays are known."""
        assert obs.rows is not None
        waves = waveforms(obs)
        rx = waves.basis.mH @ obs.rows[:, waves.first : waves.last].to(torch.complex128)
        if not obs.timing_range and obs.user_delay is not None:
            index, delay = torch.arange(obs.users, device=rx.device).expand(obs.frames, -1), obs.user_delay.double()
            return Candidates(index, delay, rx.to(obs.rows.dtype), _between(waves, index, delay), obs.users)
        count = len(waves.delays)
        gain = torch.ones(obs.frames, obs.users, dtype=torch.double, device=rx.device) if obs.user_gain is None else obs.user_gain.double()
        each = gain.repeat_interleave(count, 1)
        problem = Problem(rx @ rx.mH / obs.antennas, waves.book.flatten(1), each, 1.0, obs.antennas, 0.0)
        power, _ = descend(problem, CEILING * each, sweeps=SWEEPS, tolerance=TOLERANCE)
        power = power.unflatten(1, (obs.users, count))
        total = power.sum(-1)
        expected = obs.activity * obs.users
        most = min(math.ceil(expected + 6 * math.sqrt(expected)) + 4, obs.users)
        index = _first((total / gain), most)
        rows = torch.arange(len(index), device=index.device)[:, None]
        delay = power @ waves.delays / total.clamp_min(1e-12)
        delay = delay.scatter(1, index, _sharpened(waves, problem.cov, index, total[rows, index], delay[rows, index]))
        total, delay, score = _heard_again(waves, problem.cov, index, total, delay, gain)
        index = _first(score, most)
        delay = delay[rows, index]
        for _ in range(SHARPENED):
            delay = _sharpened(waves, problem.cov, index, total[rows, index], delay)
        return Candidates(index, delay, rx.to(obs.rows.dtype), _between(waves, index, delay), obs.users)

    def observation(self, obs: Observation) -> Observation:
        """Candidates as the only users, in step."""
        gain = None if obs.user_gain is None else obs.user_gain.gather(1, self.index)
        empty = self.rx.new_zeros(self.rx.shape[1], self.index.shape[1])
        return replace(
            obs,
            pilot_rx=self.rx,
            data_rx=self.rx[:, :0],
            pilots=empty,
            noise_var=1.0,
            front_end=FrontEnd(),
            user_gain=gain,
            rows=None,
            burst=None,
            user_delay=None,
            user_cfo=None,
            level_evidence=None,
        )

    def everybody(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values [B C] of the candidates among all users [B N], the others being silent; and their delays."""
        nothing = {"log_odds": -SILENT_DB / 10 * math.log(10), "power": 0.0, "delay": 0.0}
        values = {**info, "delay": self.delay.to(self.rx.real.dtype)}
        shape = (len(self.index), self.users)
        return {name: value.new_full(shape, nothing[name]).scatter(1, self.index, value) for name, value in values.items()}


def _first(score: Tensor, most: int) -> Tensor:
    """The ``most`` users [B C] of largest score [B N], in rising order."""
    return score.argsort(dim=1, descending=True, stable=True)[:, :most].sort(1).values


def _heard_again(waves: Waveforms, cov: Tensor, index: Tensor, power: Tensor, delay: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Powers, delays and a score [B N] of all users, the strong ones among the candidates ``index`` [B C] being taken as they are, at
    delays between those of the book: what the book's own delays leave of them hides who is weak."""
    rows = torch.arange(len(index), device=index.device)[:, None]
    strong = torch.zeros_like(power, dtype=torch.bool).scatter(1, index, (power / gain)[rows, index] > STRONG)
    book = _between(waves, index, delay[rows, index]).mT
    kept = (power * strong)[rows, index]
    covariance = (book * kept[:, None, :]) @ book.mH + torch.eye(book.shape[1], dtype=book.dtype, device=book.device)
    columns = waves.book.flatten(1)
    image = torch.linalg.solve(covariance, columns.expand(len(cov), -1, -1))
    precision = (columns.conj() * image).sum(1).real
    match = (image.conj() * (cov @ image)).sum(1).real
    ratio, place = (match / precision).unflatten(1, (-1, len(waves.delays))).max(-1)
    score = torch.where(strong, 1e6 + power / gain, ratio)
    return power * strong, torch.where(strong, delay, waves.delays[place]), score


def _sharpened(waves: Waveforms, cov: Tensor, index: Tensor, power: Tensor, delay: Tensor) -> Tensor:
    """Delays [B C] after one step to where the likelihood of each user's waveform, next to the others of ``power`` [B C], is largest: the
    top of the parabola through three delays. Users that show no power keep theirs."""
    reach = float(waves.delays[-1])
    near = torch.stack([_between(waves, index, delay + shift * NUDGE) for shift in (-1, 0, 1)], 2)  # [B C 3 E]
    book = near[:, :, 1].mT
    covariance = (book * power[:, None, :]) @ book.mH + torch.eye(book.shape[1], dtype=book.dtype, device=book.device)
    image = torch.linalg.solve(covariance, near.flatten(1, 2).mT).mT.unflatten(1, near.shape[1:3])
    own, rest = image[:, :, 1], (1 - power * (book.mT.conj() * image[:, :, 1]).sum(-1).real).clamp_min(1e-6)
    cross = (own[:, :, None].conj() * near).sum(-1)
    image = image + (power / rest)[..., None, None] * cross[..., None] * own[:, :, None]  # as without the user's own power
    precision = (near.conj() * image).sum(-1).real
    match = (image.conj() * (image @ cov.mT[:, None])).sum(-1).real
    ratio = (match / precision).clamp_min(1 + 1e-6)
    value = ratio - ratio.log()
    slope, bend = (value[..., 2] - value[..., 0]) / 2, value[..., 0] - 2 * value[..., 1] + value[..., 2]
    step = torch.where(bend < 0, -slope / bend.clamp_max(-1e-9), slope.sign()).clamp(-MOST_NUDGES, MOST_NUDGES) * NUDGE
    return torch.where(ratio[..., 1] > LOUD, delay + step, delay).clamp(-reach, reach)


def _between(waves: Waveforms, index: Tensor, delay: Tensor) -> Tensor:
    """Waveforms [B C E] of users ``index`` with delays between those of the book: through the nearest three, by Lagrange's polynomial."""
    step = waves.delays[1] - waves.delays[0]
    near = ((delay - waves.delays[0]) / step).round().long().clamp(1, len(waves.delays) - 2)
    x = (delay - waves.delays[near]) / step
    weights = torch.stack([x * (x - 1) / 2, 1 - x.square(), x * (x + 1) / 2], -1).to(waves.book.dtype)
    book = waves.book.permute(1, 2, 0)  # [N Q E]
    three = torch.stack([book[index, near + shift] for shift in (-1, 0, 1)], 2)
    return (weights[..., None] * three).sum(2)
