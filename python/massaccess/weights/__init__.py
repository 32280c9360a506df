"""Trained networks and fitted priors: what ships, and how a receiver gets the one that fits."""

from __future__ import annotations

from ..core import ChannelPrior, Observation, Prior
from ..errors import unknown
from ..priors.bernoulli_gaussian import BernoulliGaussian
from ..priors.gaussian import Gaussian


def choose(name: str, obs: Observation) -> ChannelPrior:
    """The channel prior called ``name`` for the situation of ``obs``: "gaussian", "auto", the name of shipped weights, or a file."""
    if name in ("gaussian", "auto"):
        return Gaussian.of(obs.channel_cov, antennas=obs.antennas, like=obs.pilot_rx)
    raise unknown("weights", name, ("gaussian", "auto"))


def choose_matrix(name: str, obs: Observation) -> Prior:
    """The prior of whole matrices [B N M], rows zero for silent users and of power 1 otherwise: "bernoulli-gaussian", "auto", ..."""
    if name in ("bernoulli-gaussian", "auto"):
        return BernoulliGaussian(obs.activity, obs.pilot_rx.real.new_ones(obs.users))
    raise unknown("weights", name, ("bernoulli-gaussian", "auto"))
