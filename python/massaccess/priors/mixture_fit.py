"""Fitting a Gaussian mixture to training channels: expectation maximisation, with full or structured covariances.

>>> import torch
>>> draw = torch.Generator().manual_seed(0)
>>> rows = torch.randn(200, 4, generator=draw, dtype=torch.complex64)
>>> fit = fit_mixture(rows, components=2, generator=draw)
>>> fit.mixture.components, fit.history[-1] >= fit.history[0]
(2, True)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError, unknown
from .mixture import GaussianMixture

STRUCTURES = {"full": 0, "toeplitz": 2, "circulant": 1}
"""Name of a covariance structure -> oversampling of its 2D-DFT dictionary (0: none)."""

CHUNK = 2048  # rows at once
INNER = 4  # steps of the spectrum per maximisation: each raises the likelihood


@dataclass(frozen=True)
class Fit:
    """A fitted mixture; history: mean log-likelihood of a training row after each iteration, from the start on, prior term included."""

    mixture: GaussianMixture
    history: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Iterate:
    """Where EM stands: weight [K], parameters of the structure, the covariances [K M M] that they mean, and the history of `Fit`, the last
    of which is theirs. Enough to go on from."""

    weight: Tensor
    parameters: Tensor
    covariance: Tensor
    history: tuple[float, ...] = ()
    converged: bool = False

    def mixture(self, *, like: Tensor) -> GaussianMixture:
        """The prior; device and dtype of ``like`` (complex)."""
        return GaussianMixture.of(self.weight, self.covariance, like=like)


class _Structure(Protocol):
    """How covariances [K M M] are parametrised."""

    def start(self, sample: Tensor) -> Tensor: ...
    def improve(self, parameters: Tensor, sample: Tensor) -> Tensor: ...
    def covariance(self, parameters: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Full:
    """Any covariance with eigenvalues of ``floor`` or more: the maximum of the likelihood clamps those of the sample covariance."""

    floor: float

    def start(self, sample: Tensor) -> Tensor:
        power, basis = torch.linalg.eigh(sample)
        return (basis * power.clamp_min(self.floor)[:, None]) @ basis.mH

    def improve(self, parameters: Tensor, sample: Tensor) -> Tensor:
        return self.start(sample)

    def covariance(self, parameters: Tensor) -> Tensor:
        return parameters


@dataclass(frozen=True)
class _Spectral:
    """C = Q^H diag(c) Q with atoms Q [A M], Q^H Q = I, and a spectrum c [K A] of ``floor`` or more."""

    atoms: Tensor
    floor: float

    def start(self, sample: Tensor) -> Tensor:
        scale = self.atoms.shape[0] / self.atoms.shape[1]
        return (scale * self._quadratic(self.atoms, sample)).clamp_min(self.floor)

    def improve(self, parameters: Tensor, sample: Tensor) -> Tensor:
        """c - c^2 q^H C^-1 q + c^2 q^H C^-1 S C^-1 q, an EM step on the atoms' amplitudes, clamped: the exact maximum of its surrogate."""
        for _ in range(INNER if self.atoms.shape[0] > self.atoms.shape[1] else 1):
            inside = torch.linalg.solve(self.covariance(parameters), self.atoms.mH.expand(len(parameters), -1, -1)).mH
            known = (inside * self.atoms.conj()).sum(-1).real
            parameters = parameters + parameters.square() * (self._quadratic(inside, sample) - known)
            parameters = parameters.clamp_min(self.floor)
        return parameters

    def covariance(self, parameters: Tensor) -> Tensor:
        return (self.atoms.mH * parameters[:, None]) @ self.atoms

    @staticmethod
    def _quadratic(atoms: Tensor, matrix: Tensor) -> Tensor:
        """diag(Q X Q^H) [K A]."""
        return ((atoms @ matrix) * atoms.conj()).sum(-1).real


def dft_atoms(rows: int, columns: int, oversampling: int = 1) -> Tensor:
    """The 2D DFT over an array of rows x columns, oversampled per axis: [oversampling^2 M, M] complex128, Q^H Q = I.

    >>> atoms = dft_atoms(2, 3, 2)
    >>> tuple(atoms.shape), bool(torch.allclose(atoms.mH @ atoms, torch.eye(6) + 0j * atoms[:6]))
    ((24, 6), True)
    """

    def one(size: int) -> Tensor:
        angle = -2 * math.pi * torch.outer(torch.arange(oversampling * size), torch.arange(size)).double() / (oversampling * size)
        return torch.polar(torch.ones_like(angle), angle) / math.sqrt(oversampling * size)

    return torch.kron(one(rows), one(columns))


def fit_mixture(
    rows: Tensor,
    components: int,
    *,
    generator: torch.Generator,
    structure: str = "full",
    grid: tuple[int, int] | None = None,
    iterations: int = 60,
    tolerance: float = 1e-3,
    floor: float = 1e-4,
    prior_rows: float = 0.0,
    on_step: Callable[[int, float], None] | None = None,
) -> Fit:
    """A mixture of ``components`` zero-mean Gaussians for channel rows [N M], with or without noise.

    structure: "full"; "toeplitz": covariances of a stationary array of ``grid`` (rows, columns), C = Q^H diag(c) Q with Q the 2D DFT
    oversampled twice per axis and c >= 0; "circulant": the same with the plain DFT. The spectrum c comes from an inner EM step (Fesl et
    al., "Channel estimation based on Gaussian mixture models with structured covariances", Asilomar 2022), exact for "circulant".
    floor: least eigenvalue (or spectrum) of a covariance, relative to the mean power per antenna: noiseless training channels are
    singular. Clamping there is the exact maximum under that constraint, so the likelihood never falls. prior_rows: strength of a prior on
    the covariances in rows of the pooled covariance (inverse Wishart): the posterior is then what never falls.
    Stops after ``iterations``, or once a row's log-likelihood gains less than ``tolerance`` nats. Start: k-means++ on directions of rows
    whatever their phase. Everything is on the device and in the precision of ``rows``, likelihoods in double precision.

    Raises ShapeError, ConfigError or UnknownNameError when the arguments do not fit.
    """
    model = Model.of(rows, components, structure=structure, grid=grid, floor=floor, prior_rows=prior_rows)
    for step, now in enumerate(model.iterate(model.begin(components, generator=generator), tolerance=tolerance)):
        if on_step is not None:
            on_step(step, now.history[-1])
        if step == iterations:
            break
    return Fit(now.mixture(like=rows), now.history, now.converged)


@dataclass(frozen=True, eq=False)
class Model:
    """Rows to fit [N M], their pooled covariance [1 M M], and how `fit_mixture` was told to fit them: EM one iteration at a time."""

    rows: Tensor
    pooled: Tensor
    structure: _Structure
    prior_rows: float

    @staticmethod
    def of(
        rows: Tensor,
        components: int,
        *,
        structure: str = "full",
        grid: tuple[int, int] | None = None,
        floor: float = 1e-4,
        prior_rows: float = 0.0,
    ) -> Model:
        """Arguments and errors of `fit_mixture`."""
        _check(rows, components, structure, grid)
        power = float(rows.abs().square().mean())
        if not power > 0:
            raise ConfigError("the training channels are all zero: pass rows with power")
        pooled = _scatter(rows, rows.new_ones(1, len(rows)).real) / len(rows)
        return Model(rows, pooled, _structure(structure, grid or (1, rows.shape[1]), floor * power, rows), prior_rows)

    def begin(self, components: int, *, generator: torch.Generator) -> Iterate:
        """Where EM starts."""
        weight, blend = _start(self.rows, components, self.pooled[0], generator)
        return self.at(weight, self.structure.start(blend))

    def at(self, weight: Tensor, parameters: Tensor, history: tuple[float, ...] = ()) -> Iterate:
        """An iterate of an earlier fit of the same rows."""
        return Iterate(weight, parameters, self.structure.covariance(parameters), history)

    def iterate(self, begin: Iterate, *, tolerance: float) -> Iterator[Iterate]:
        """``begin`` with its likelihood, and every iterate after it until a row gains less than ``tolerance``; without end otherwise."""
        weight, parameters, covariance, history = begin.weight, begin.parameters, begin.covariance, begin.history[:-1]
        while True:
            likelihood, count, scatter = _expect(self.rows, weight, covariance)
            history += ((likelihood + self.prior_rows * _agreement(covariance, self.pooled)) / len(self.rows),)
            converged = len(history) > 1 and history[-1] - history[-2] < tolerance
            yield Iterate(weight, parameters, covariance, history, converged)
            if converged:
                return
            mass = (count + self.prior_rows).clamp_min(1e-9)[:, None, None]
            weight = count / count.sum()
            parameters = self.structure.improve(parameters, (scatter + self.prior_rows * self.pooled) / mass)
            covariance = self.structure.covariance(parameters)


def _check(rows: Tensor, components: int, structure: str, grid: tuple[int, int] | None) -> None:
    if rows.ndim != 2 or not rows.is_complex():
        raise ShapeError(f"rows is {rows.dtype} of shape {list(rows.shape)}: pass complex [channels, antennas]")
    if not 1 <= components <= len(rows):
        raise ConfigError(f"components is {components} for {len(rows)} channels: pass 1 to {len(rows)}")
    if structure not in STRUCTURES:
        raise unknown("covariance structure", structure, STRUCTURES)
    if grid is not None and math.prod(grid) != rows.shape[1]:
        raise ShapeError(f"grid is {grid} but the rows have {rows.shape[1]} antennas: pass rows and columns of the array")


def _structure(structure: str, grid: tuple[int, int], floor: float, like: Tensor) -> _Structure:
    oversampling = STRUCTURES[structure]
    return _Spectral(dft_atoms(*grid, oversampling).to(like.device), floor) if oversampling else _Full(floor)


def _agreement(covariance: Tensor, pooled: Tensor) -> float:
    """The log prior of a strength of one row, summed over components: -log det C - tr(C^-1 pooled)."""
    inside = torch.linalg.solve(covariance, pooled.expand_as(covariance)).diagonal(dim1=-2, dim2=-1).real
    return -float((torch.linalg.slogdet(covariance)[1] + inside.sum(-1)).sum())


def _start(rows: Tensor, components: int, pooled: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights and covariances of the clusters around k-means++ seeds, half of each the pooled covariance."""
    unit = rows / rows.abs().square().sum(-1, keepdim=True).sqrt().clamp_min(torch.finfo(rows.real.dtype).tiny)
    seeds = [int(torch.randint(len(rows), (1,), generator=generator, device=generator.device))]
    closest = _distance(unit, unit[seeds[0]])
    label = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for cluster in range(1, components):
        chance = closest.clamp_min(1e-12).to(generator.device)
        seeds.append(int(torch.multinomial(chance, 1, generator=generator)))
        distance = _distance(unit, unit[seeds[-1]])
        label[distance < closest] = cluster
        closest = torch.minimum(closest, distance)
    share = torch.nn.functional.one_hot(label, components).T.to(rows.real.dtype)
    count = share.sum(1).double().clamp_min(1)
    blend = (_scatter(rows, share) / count[:, None, None] + pooled) / 2
    return count / count.sum(), blend


def _distance(unit: Tensor, seed: Tensor) -> Tensor:
    """Squared sine of the angle between directions [N M] and one of them [M]: a phase makes no difference."""
    return (1 - (unit @ seed.conj()).abs().square()).clamp_min(0)


def _expect(rows: Tensor, weight: Tensor, covariance: Tensor) -> tuple[float, Tensor, Tensor]:
    """Log-likelihood of all rows; how many rows each component has [K], and their scatter sum r h h^H [K M M]."""
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.inv(factor).mT.to(rows.dtype)  # rows @ white: unit variance, if of this component
    size = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1) + rows.shape[1] * math.log(math.pi)
    offset = weight.clamp_min(1e-300).log() - size
    total, count, scatter = 0.0, torch.zeros_like(weight), torch.zeros_like(covariance)
    for part in rows.split(CHUNK):
        energy = torch.view_as_real(part @ white).square().sum((-1, -2)).double()
        joint = offset[:, None] - energy
        evidence = joint.logsumexp(0)
        share = (joint - evidence).exp()
        total += float(evidence.sum())
        count += share.sum(1)
        scatter += _scatter(part, share.to(rows.real.dtype))
    return total, count, scatter


def _scatter(rows: Tensor, share: Tensor) -> Tensor:
    """sum_n share [K N] h h^H of rows h^T [N M], double precision [K M M]: one product on the outer products of the rows."""
    size = rows.shape[1]
    total = torch.zeros(len(share), size, size, dtype=torch.complex128, device=rows.device)
    for part, weight in zip(rows.split(CHUNK), share.split(CHUNK, 1), strict=True):
        outer = torch.view_as_real((part[:, :, None] * part[:, None, :].conj()).resolve_conj()).flatten(1)
        total += torch.view_as_complex((weight @ outer).reshape(len(share), size, size, 2)).to(torch.complex128)
    return total
