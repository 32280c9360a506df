"""Trained networks, of channel priors and activity detectors, and fitted priors: what ships, and how a receiver gets the one that fits.

>>> import torch
>>> from massaccess.core import SystemConfig
>>> from massaccess.forward.simulate import Simulation
>>> _, obs = Simulation(SystemConfig(rows=2, columns=2, users=4, channel="rayleigh")).frames(0, 1)
>>> type(choose("auto", obs)).__name__, explain("auto", obs)
('Gaussian', '')
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..core import ChannelPrior, Observation, Prior
from ..errors import ConfigError, MassaccessWarning, ShapeError
from ..forward.pilots import book_id
from ..networks.refinenet import SMALLEST
from ..priors.beams import Beams
from ..priors.bernoulli_gaussian import BernoulliGaussian
from ..priors.gaussian import Gaussian
from ..priors.profiles import AngularProfiles
from .prior import beams_of, matrix_prior_of, prior_of, profiles_of
from .shipped import INDEX, Shipped, available, load
from .stored import FORMAT, KINDS, Header, Trained, read, save

__all__ = [
    "FORMAT",
    "INDEX",
    "KINDS",
    "Header",
    "Shipped",
    "Trained",
    "available",
    "beams_of",
    "choose",
    "choose_activity",
    "choose_matrix",
    "choose_profiles",
    "choose_sequences",
    "covariance_distance",
    "explain",
    "load",
    "prior_of",
    "profiles_of",
    "read",
    "save",
    "warn_unless_fit",
]

WORDS = {
    "channel": "a prior of single rows",
    "matrix": "a prior of whole matrices",
    "activity": "an activity detector",
    "noncoherent": "a detector of sequences",
}
"""Kind of weights -> what they are."""
LARGEST_DISTANCE = 0.3
"""Of an array covariance from the one that weights were trained with, as `covariance_distance` measures it, for them to fit."""


PROFILES = ("angles", "mixture")
"""Networks whose files hold angular profiles."""


def choose(name: str, obs: Observation, *, index: Path = INDEX) -> ChannelPrior:
    """The channel prior called ``name`` for the situation of ``obs``, on its device and in its precision.

    "gaussian": the closed form with ``obs.channel_cov``. A name of `available`, or a weights file: that network or mixture, whatever
    the covariance (UnknownNameError, ConfigError, FormatError; ShapeError when it is for another array). "auto": the first weights that
    ship for an array of this size and a covariance within `LARGEST_DISTANCE`, otherwise Gaussian; `explain` says why, nothing is printed
    here.
    """
    trained = _select(name, obs, index)[0]
    if trained is None:
        return Gaussian.of(obs.channel_cov, antennas=obs.antennas, like=obs.pilot_rx)
    return prior_of(trained, obs.pilot_rx.device, obs.pilot_rx.dtype)


def choose_profiles(name: str, obs: Observation, *, index: Path = INDEX) -> AngularProfiles:
    """The angular profiles called ``name`` for the situation of ``obs``; without ``obs.channel_cov``, "auto" and "gaussian" are independent
    antennas.

    "gaussian": one profile, the powers of the eigenvectors of ``obs.channel_cov``. "auto": those of the first file of `PROFILES` that fits,
    otherwise "gaussian"; a name or a file as in `choose` (ConfigError when it holds no profiles).
    """
    trained = _select(name, obs, index, PROFILES)[0]
    if trained is not None:
        return profiles_of(trained)
    if obs.channel_cov is None:
        return AngularProfiles.flat(antennas=obs.antennas)
    beams = Beams.of(obs.channel_cov, antennas=obs.antennas, like=obs.pilot_rx)
    return AngularProfiles(beams.power.new_ones(1).cpu(), beams.power[None].cpu(), None if beams.basis is None else beams.basis.cpu())


def choose_matrix(name: str, obs: Observation, *, index: Path = INDEX) -> Prior:
    """The prior of whole matrices [B N M], rows of silent users zero, called ``name``.

    "bernoulli-gaussian", which "auto" takes: the closed form with the users' mean powers. A name of `available`, or a weights file, of kind
    "matrix": that network (UnknownNameError, ConfigError, FormatError; ShapeError below `SMALLEST` users or antennas).
    """
    if name in ("bernoulli-gaussian", "auto"):
        power = obs.pilot_rx.real.new_ones(obs.users) if obs.user_gain is None else obs.user_gain
        return BernoulliGaussian(obs.activity, power)
    trained = load(name, index=index)
    if trained.header.kind != "matrix":
        raise ConfigError(f"weights {name} are {WORDS[trained.header.kind]}: choose one of kind 'matrix', or 'bernoulli-gaussian'")
    if min(obs.users, obs.antennas) < SMALLEST:
        raise ShapeError(f"weights {name} take {SMALLEST} users and antennas or more, not {obs.users} and {obs.antennas}: pass 'auto'")
    return matrix_prior_of(trained, obs.pilot_rx.device, obs.pilot_rx.dtype)


def choose_activity(name: str, network: str, *, index: Path = INDEX) -> Trained:
    """The activity detector called ``name``, whose network is ``network`` (key of `networks.NETWORKS`).

    "auto": the first that ships of that network. A name of `available`, or a weights file: that one (UnknownNameError, FormatError;
    ConfigError when it is no activity detector, or of another network).
    """
    if name == "auto":
        shipped = (load(one, index=index) for one in available(index))
        found = next((one for one in shipped if (one.header.kind, one.header.network) == ("activity", network)), None)
        if found is None:
            raise ConfigError(f"no weights of {network} ship with this version: pass weights=FILE.safetensors, made by `massaccess train`")
        return found
    trained = load(name, index=index)
    if trained.header.kind != "activity":
        raise ConfigError(f"weights {name} are {WORDS[trained.header.kind]}: choose one of kind 'activity', see `massaccess weights`")
    if (theirs := trained.header.network) != network:
        raise ConfigError(f"weights {name} are of the network {theirs}: use the receiver of that name, or weights of {network}")
    return trained


def choose_sequences(name: str, network: str, obs: Observation, *, index: Path = INDEX, **config: object) -> Trained:
    """The detector of sequences called ``name``, whose network is ``network``, for the sizes of ``obs``.

    "auto": the first that ships with these sizes, this pilot book and the constructor arguments ``config``. A name of `available`, or a
    weights file: that one (UnknownNameError, FormatError). ConfigError when there is none such, or when it is another detector.
    """
    if name == "auto":
        book = book_id(obs.pilots)
        shipped = [one for one in (load(one, index=index) for one in available(index)) if one.header.network == network]
        fitting = (one for one in shipped if one.header.pilots["id"] == book and _is_for(one, obs))
        found = next((one for one in fitting if config.items() <= one.header.config.items()), None)
        if found is None:
            raise ConfigError(
                f"no weights of {network} ship for this cell ({_sizes(obs)}, pilot book {book}): pass weights=FILE.safetensors, made by "
                f"`massaccess train` for it; those that ship: {', '.join(_told(one) for one in shipped) or 'none'}"
            )
        return found
    trained = load(name, index=index)
    if (trained.header.kind, trained.header.network) != ("noncoherent", network):
        raise ConfigError(f"weights {name} are {WORDS[trained.header.kind]} ({trained.header.network}): choose weights of {network}")
    if not _is_for(trained, obs):
        raise ConfigError(f"weights {name} are for {_told(trained)}, not for {_sizes(obs)}: pass weights that were trained for this cell")
    return trained


def _is_for(trained: Trained, obs: Observation) -> bool:
    sizes = {name: trained.header.config[name] for name in ("users", "sequences", "pilot_len", "antennas")}
    return all(getattr(obs, name) == size for name, size in sizes.items())


def _sizes(obs: Observation) -> str:
    return f"{obs.users} users, {obs.sequences} sequences each, {obs.pilot_len} pilots, {obs.antennas} antennas"


def _told(trained: Trained) -> str:
    sizes = trained.header.config
    return (
        f"{sizes['users']} users, {sizes['sequences']} sequences each, {sizes['pilot_len']} pilots, {sizes['antennas']} antennas, "
        f"book {trained.header.pilots['id']}"
    )


def explain(name: str, obs: Observation, *, index: Path = INDEX) -> str:
    """Why `choose` falls back to the Gaussian prior although "auto" was asked for; otherwise the empty string.

    Without ``obs.channel_cov`` the antennas are taken as independent, where the Gaussian prior is the right one: nothing to explain.
    """
    return _select(name, obs, index)[1]


def warn_unless_fit(name: str, obs: Observation, *, index: Path = INDEX) -> None:
    """Warns (MassaccessWarning) with the reason of `explain`, where there is one: for programs, once, before they start.

    Python shows equal warnings once; the library itself never warns.
    """
    if reason := explain(name, obs, index=index):
        warnings.warn(reason, MassaccessWarning, stacklevel=2)


def covariance_distance(first: Tensor, second: Tensor) -> float:
    """How far two array covariances [M M] are apart, whatever their power: ||A/tr A - B/tr B|| / ||B/tr B||, Frobenius norms.

    >>> covariance_distance(torch.eye(4) + 0j, 2 * torch.eye(4) + 0j)
    0.0
    """
    unit = [value.to("cpu", torch.complex128) / value.diagonal().real.sum().item() for value in (first, second)]
    return float((unit[0] - unit[1]).norm() / unit[1].norm())


def _select(name: str, obs: Observation, index: Path, networks: Sequence[str] = ()) -> tuple[Trained | None, str]:
    """The weights (of one of ``networks``, where some are named), and where "auto" finds none although the channel is not white, why."""
    if name == "gaussian" or (name == "auto" and obs.channel_cov is None):
        return None, ""
    if name == "auto":
        return _fitting(obs, index, networks)
    trained = load(name, index=index)
    if trained.header.kind != "channel":
        raise ConfigError(f"weights {name} are {WORDS[trained.header.kind]}: choose one of kind 'channel', see `massaccess weights`")
    if networks and trained.header.network not in networks:
        raise ConfigError(f"weights {name} hold no angular profiles: choose a file of {' or '.join(networks)}, 'auto' or 'gaussian'")
    if trained.header.antennas != obs.antennas:
        header = trained.header
        raise ShapeError(
            f"weights {name} are for {header.rows}x{header.columns} antennas but the observation has {obs.antennas}: "
            "pass weights='auto' or 'gaussian', or train for this array"
        )
    return trained, ""


def _fitting(obs: Observation, index: Path, networks: Sequence[str]) -> tuple[Trained | None, str]:
    known, gaussian = available(index), "; using the Gaussian prior with the known covariance (weights=gaussian says so)"
    away = []
    for one in (load(name, index=index) for name in known):  # no further than the first that fits: reading takes time
        if one.header.antennas == obs.antennas and (not networks or one.header.network in networks):
            away.append(_distance(obs.channel_cov, one))
            if away[-1] <= LARGEST_DISTANCE:
                return one, ""
    if not away:
        return None, f"no weights ship for an array of {obs.antennas} antennas" + gaussian
    return (
        None,
        f"no weights ship for this channel: the nearest covariance is {min(away):.2f} away, {LARGEST_DISTANCE} is allowed" + gaussian,
    )


def _distance(covariance: Tensor | None, trained: Trained) -> float:
    """Remembered for each covariance: a stream uses one for all its frames."""
    assert covariance is not None
    assert trained.covariance is not None
    known = _DISTANCES.setdefault(covariance, {})
    if trained.sha256 not in known:
        known[trained.sha256] = covariance_distance(covariance, trained.covariance)
    return known[trained.sha256]


_DISTANCES = WeakTensorKeyDictionary()
