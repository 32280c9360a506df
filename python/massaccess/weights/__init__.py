"""Trained networks and fitted priors: what ships, and how a receiver gets the one that fits."""

from __future__ import annotations

from ..core import ChannelPrior, Observation
from ..errors import unknown
from ..priors.gaussian import Gaussian


def choose(name: str, obs: Observation) -> ChannelPrior:
    """The channel prior called ``name`` for the situation of ``obs``: "gaussian", "auto", the name of shipped weights, or a file."""
    if name in ("gaussian", "auto"):
        return Gaussian.of(obs.channel_cov, antennas=obs.antennas, like=obs.pilot_rx)
    raise unknown("weights", name, ("gaussian", "auto"))
