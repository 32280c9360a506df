"""Trained activity detectors."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import nn

from ..core import Estimate, Observation
from ..errors import ConfigError, ShapeError
from ..forward.pilots import pilot_book
from ..weights import Trained, choose_activity

CHUNK = 64  # frames at once: what a core's cache holds
NEAR = 1e-3  # of entries of two pilots that are the same


@dataclass(frozen=True)
class LearnedDetector:
    """A network that gives every user's log odds of being active: VPL-AUDNet (P1 section IV) or unrolled covariance descent.

    ``network``: key of `networks.NETWORKS`; ``weights``: "auto" (those of it that ship), a name of `massaccess weights`, or a file;
    ``threshold``: on the log odds, 0 is even odds.

    Known gains go into the pilots, whose roots they multiply. The distortion of coarse converters is taken as additional noise. Fewer
    pilots than the network was made for are zero-padded (P1 footnote 2); more are an error where it cannot take them. The paper cuts them
    instead, which throws samples away: ``truncate`` does so.
    """

    network: str = "vpl-audnet"
    weights: str = "auto"
    threshold: float = 0.0
    truncate: bool = False
    weights_kind: ClassVar[str] = "activity"

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N]; info: log_odds [B N]. ShapeError for more pilots than the network takes, ConfigError for pilots
        that it does not know, and for an array whose rows and columns it has to know."""
        trained = choose_activity(self.weights, self.network)
        obs = _shortened(obs, trained, self.truncate)
        _require_book(obs, trained)
        network, users = _on(trained, obs.pilot_rx.device), obs.users
        dtype = next(network.parameters()).dtype
        book = obs.pilots.to(dtype.to_complex()).expand(obs.frames, -1, -1)
        if obs.user_gain is not None:
            book = book * obs.user_gain.to(dtype).sqrt()[:, None]
        rx, level = obs.pilot_rx.to(book), book.real.new_full((obs.frames,), obs.linear_noise_var)
        prior = level.new_full((obs.frames,), min(obs.activity, 1 - 1e-6))
        with torch.no_grad():
            parts = zip(*(one.split(CHUNK) for one in (rx, book, level, prior)), strict=True)
            log_odds = torch.cat([network(*part, obs.array) for part in parts]) if obs.frames else level.new_zeros(0, users)
        activity = torch.sigmoid(log_odds - self.threshold).to(obs.pilot_rx.real.dtype)
        return Estimate(activity, info={"log_odds": log_odds})


def _shortened(obs: Observation, trained: Trained, truncate: bool) -> Observation:
    most = cast(int | None, trained.network.longest)
    if most is None or obs.pilot_len <= most:
        return obs
    if not truncate:
        raise ShapeError(
            f"frames of {obs.pilot_len} pilots, but these weights of {trained.header.network} take {most} at most: pass truncate=True to "
            f"use the first {most}, or weights with features='physics'"
        )
    converter = replace(obs.front_end, offset=None)  # it belongs to whole frames, and no network asks for it
    return replace(obs, pilot_rx=obs.pilot_rx[:, :most], pilots=obs.pilots[:most], front_end=converter)


def _require_book(obs: Observation, trained: Trained) -> None:
    """ConfigError unless every pilot is one that the network knows; users may be numbered in any way."""
    known = trained.header.pilots
    if known["book"] == "redrawn":
        return
    book = pilot_book(users=known["users"], pilot_len=obs.pilot_len, kind=known["kind"], seed=known["seed"]).to(obs.pilots)
    if not bool(((obs.pilots[:, :, None] - book[:, None]).abs().amax(0).amin(1) < NEAR).all()):
        raise ConfigError(
            f"these weights of {trained.header.network} know the {known['kind']} pilot book of seed {known['seed']} for {known['users']} "
            "users and no other: pass that book, or weights that were trained on redrawn ones"
        )


@functools.lru_cache(maxsize=8)
def _on(trained: Trained, device: torch.device) -> nn.Module:
    """The network on ``device``; the same object each time."""
    return copy.deepcopy(trained.network).to(device)
