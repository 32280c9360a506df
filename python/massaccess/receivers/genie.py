"""Bounds: receivers that are told part of the truth. They take it as the keyword ``truth``; streaming blocks refuse them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Estimate, Frame, Observation
from ..detection.linear import Symbols
from ..estimation.estimate import ChannelEstimate
from ..weights import choose
from .coherent import Coherent, Detector, Estimator, Link
from .jcedd import Exchange
from .selection import Selection


@dataclass(frozen=True)
class PerfectActivity:
    """A coherent receiver that is told who is active."""

    coherent: Coherent

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        return self.coherent(obs, active=truth.active, generator=generator)


@dataclass(frozen=True)
class PerfectData:
    """Channel estimation from pilots and data symbols that are all known, and who is active: the bound of soft decision feedback.

    The symbols it returns are the true ones, with a small variance.
    """

    estimator: Estimator

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        slots = Selection.of(truth.active)
        link = Link.of(obs, slots)
        known = slots.take(truth.symbols.mT).mT
        nothing = torch.zeros_like(known.real)
        channel = link.estimate(self.estimator, Symbols(known, nothing, known, nothing), _no_channel(link))
        return slots.estimate(_activity(truth), link.beams.back(channel.mean), known, nothing + 1e-6)


@dataclass(frozen=True)
class PerfectDataLearned:
    """`jcedd.LearnedEp` with all symbols known: ``evaluations`` of the prior that ``weights`` names, between linear estimates."""

    weights: str = "auto"
    evaluations: int = 3
    damping: float = 1.0

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        """info: nfe, error_var [B N]."""
        slots, prior = Selection.of(truth.active), choose(self.weights, obs)
        link = Link.of(obs, slots, prior.beams)
        known = slots.take(truth.symbols.mT).mT
        nothing = torch.zeros_like(known.real)
        rows = link.known(Symbols(known, nothing, known, nothing), _no_channel(link))
        exchange = Exchange.of(link, prior)
        for _ in range(self.evaluations):
            exchange = exchange.step(rows, self.damping)
        found = link.beams.back(exchange.channel.mean)
        error = slots.put(exchange.channel.error.mean(-1))
        return slots.estimate(_activity(truth), found, known, nothing + 1e-6, nfe=exchange.evaluations, error_var=error)


@dataclass(frozen=True)
class PerfectCsi:
    """Data detection with the true channels of the users that are truly active: the bound of channel estimation."""

    detector: Detector

    def __call__(self, obs: Observation, *, truth: Frame, generator: torch.Generator | None = None) -> Estimate:
        slots = Selection.of(truth.active)
        link = Link.of(obs, slots)
        channel = slots.take(truth.channel)
        nothing = _no_channel(link)
        symbols = link.detect(self.detector, ChannelEstimate(link.beams.into(channel), nothing.error))
        return slots.estimate(_activity(truth), channel, symbols.symbols, symbols.symbol_var)


def _no_channel(link: Link) -> ChannelEstimate:
    zero = link.pilots.new_zeros(*link.present.shape, link.pilot_rx.shape[2])
    return ChannelEstimate(zero, zero.real)


def _activity(truth: Frame) -> Tensor:
    return truth.active.to(truth.channel.real.dtype)
