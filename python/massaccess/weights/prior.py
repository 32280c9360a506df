"""From a trained network or a fitted mixture to a channel prior, on the device and in the precision of the data."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from ..networks.angles import Angles
from ..networks.mixture import Mixture
from ..networks.separable import separable_basis
from ..priors.beams import Beams
from ..priors.learned import Learned
from ..priors.learned_matrix import LearnedMatrix
from ..priors.mixture import GaussianMixture
from ..priors.profiles import AngularProfiles
from .stored import Trained

LEAST_POWER = 1e-3  # of the mean power of a beam


def beams_of(network: nn.Module, covariance: Tensor, *, like: Tensor) -> Beams:
    """The basis of the network's errors: its own where it has one (buffers ``basis`` [M M], ``power`` [M]), otherwise that of
    ``covariance`` [M M]; device and dtype of ``like``."""
    basis, power = (getattr(network, name, None) for name in ("basis", "power"))
    if isinstance(basis, Tensor) and isinstance(power, Tensor):
        return Beams(basis.to(like), power.to(like.real))
    return Beams.of(covariance.clone(), antennas=len(covariance), like=like)  # a clone: Beams remembers one precision a tensor


@functools.lru_cache(maxsize=16)
def prior_of(trained: Trained, device: torch.device, dtype: torch.dtype) -> Learned | GaussianMixture:
    """The prior of rows in complex ``dtype`` on ``device``; the same object each time."""
    assert trained.covariance is not None
    like = torch.empty(0, dtype=dtype, device=device)
    if isinstance(trained.network, Mixture):
        return GaussianMixture.from_tensors(trained.state, like=like)
    if isinstance(trained.network, Angles):
        return GaussianMixture.of(trained.network.weight, trained.network.covariance, like=like)
    network = _moved(copy.deepcopy(trained.network), like)
    table = None if trained.calibration is None else trained.calibration.to(like.real)
    return Learned(network, beams_of(network, trained.covariance, like=like), table)


@functools.lru_cache(maxsize=16)
def profiles_of(trained: Trained) -> AngularProfiles:
    """The angular profiles in the file, or of a Gaussian mixture what its components say of each beam alone."""
    network, header = trained.network, trained.header
    if isinstance(network, Angles):
        return AngularProfiles(network.weight, network.power, network.basis, header.columns)
    assert isinstance(network, Mixture)
    assert trained.covariance is not None
    basis = separable_basis(trained.covariance, header.rows, header.columns)
    covariance = torch.view_as_complex(network.covariance)
    power = torch.einsum("im,kij,jm->km", basis, covariance, basis.conj()).real
    return AngularProfiles(network.weight, power.clamp_min(LEAST_POWER * power.mean()), basis, header.columns)


@functools.lru_cache(maxsize=16)
def matrix_prior_of(trained: Trained, device: torch.device, dtype: torch.dtype) -> LearnedMatrix:
    """The prior of whole matrices in complex ``dtype`` on ``device``; the same object each time."""
    return LearnedMatrix(_moved(copy.deepcopy(trained.network), torch.empty(0, dtype=dtype, device=device)))


def _moved(network: nn.Module, like: Tensor) -> nn.Module:
    """`nn.Module.to` would cut the imaginary parts of buffers off."""
    return network._apply(
        lambda value: value.to(like) if value.is_complex() else value.to(like.real) if value.is_floating_point() else value
    )
