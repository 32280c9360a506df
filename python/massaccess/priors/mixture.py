"""Complex Gaussian mixtures: a channel prior whose denoiser is known in closed form, and still bends with the channel.

>>> import torch
>>> wide, narrow = torch.eye(2) + 0j, torch.tensor([[1.0, 0.99], [0.99, 1.0]]) + 0j
>>> prior = GaussianMixture.of(torch.tensor([0.5, 0.5]), torch.stack([wide, narrow]))
>>> mean, var = prior.moments(torch.ones(1, 2) + 0j, torch.ones(1))
>>> tuple(mean.shape), tuple(var.shape)
((1, 2), (1,))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError
from .beams import Beams

CHUNK = {"cpu": 128, "cuda": 8192}  # rows at once: what stays in the cache, and what fills a GPU
FLOOR = 1e-6  # of a component's mean power: keeps every direction possible


@dataclass(frozen=True)
class GaussianMixture:
    """Rows h^T with h ~ sum_k weight_k CN(0, C_k), C_k = V_k diag(power_k) V_k^H.

    The components have no mean: the phase of a channel is uniform, so it is zero. ``beams`` is the eigenbasis of the total covariance
    sum_k weight_k C_k; log_weight [K], power [K M] rising, basis [K M M] the conjugate of V_k *in beams*. Koller et al., "An asymptotically
    MSE-optimal estimator based on Gaussian mixture models" (IEEE TSP 2022), eq. (11)-(15), there with means.
    """

    log_weight: Tensor
    power: Tensor
    basis: Tensor
    beams: Beams

    @staticmethod
    def of(weight: Tensor, covariance: Tensor, *, like: Tensor | None = None) -> GaussianMixture:
        """From weights [K], which are scaled to sum 1, and covariances E[h h^H] [K M M]; each is decomposed once, in double precision.
        Device and dtype of ``like`` (complex; default: of ``covariance``). Raises ShapeError when the two do not fit."""
        if covariance.ndim != 3 or covariance.shape[1] != covariance.shape[2] or weight.shape != covariance.shape[:1]:
            raise ShapeError(f"weight is {list(weight.shape)} and covariance {list(covariance.shape)}: pass [K] and [K, M, M]")
        like = covariance if like is None else like
        share, exact = (weight.double() / weight.double().sum()), covariance.to(torch.complex128)
        total = (share[:, None, None] * exact).sum(0)
        beams = Beams.of(total, antennas=total.shape[0], like=like.new_zeros((), dtype=torch.complex128))
        assert beams.basis is not None  # a covariance is at hand
        into = beams.basis.to(exact.device)
        power, basis = torch.linalg.eigh(into.mT @ exact @ into.conj())
        power = torch.maximum(power, FLOOR * power.mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny))
        cast = Beams(beams.basis.to(like), beams.power.to(like.real))
        return GaussianMixture(share.log().to(like.real), power.to(like.real), basis.conj().resolve_conj().to(like), cast)

    @property
    def components(self) -> int:
        """Number of components K."""
        return self.power.shape[0]

    @property
    def weight(self) -> Tensor:
        """Probabilities of the components [K]."""
        return self.log_weight.exp()

    @property
    def covariance(self) -> Tensor:
        """C_k = E[h h^H | k] in antenna order [K M M]."""
        outer = torch.eye(self.basis.shape[1]).to(self.basis) if self.beams.basis is None else self.beams.basis
        vectors = (outer @ self.basis).conj().resolve_conj()
        return (vectors * self.power[:, None]) @ vectors.mH

    def to_tensors(self) -> dict[str, Tensor]:
        """The state of `networks.mixture.Mixture`: weight [K] and covariance [K M M 2], real and imaginary parts, both float32."""
        return {"weight": self.weight.float().cpu(), "covariance": torch.view_as_real(self.covariance).float().cpu().contiguous()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], *, like: Tensor) -> GaussianMixture:
        """The inverse of `to_tensors`; device and dtype of ``like`` (complex)."""
        parts = tensors["covariance"].float().contiguous()
        return GaussianMixture.of(tensors["weight"].to(like.device), torch.view_as_complex(parts).to(like.device), like=like)

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """As `core.ChannelPrior` says; the error counts both the spread of each component and that between their means."""
        parts = [self._posterior(*part) for part in _chunks(x, noise_var)]
        mean, error = (torch.cat(column) for column in zip(*parts, strict=True))
        return mean.reshape(x.shape), error.reshape(x.shape)

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[h | x] [... M] and the mean variance of its entries [...] for rows x [... M] = h + sigma [...] CN(0, I)."""
        mean, error = self.in_beams(self.beams.into(x), sigma.square()[..., None])
        return self.beams.back(mean), error.mean(-1)

    def log_evidence(self, x: Tensor, noise_var: Tensor) -> Tensor:
        """log p(x) [...] of rows x [... M] = h + sqrt(noise_var [...]) CN(0, I)."""
        parts = [self._joint(*self._project(*part)) for part in _chunks(self.beams.into(x), noise_var[..., None])]
        return (torch.cat(parts, 1).logsumexp(0) - x.shape[-1] * math.log(math.pi)).reshape(x.shape[:-1])

    def _project(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Beam rows [R M] in the eigenbasis of each component [K R M], and their variances there [K R M]."""
        return rows @ self.basis, self.power[:, None] + noise

    def _joint(self, inner: Tensor, total: Tensor) -> Tensor:
        """log weight_k + log p(x | k) [K R], but for M log(pi)."""
        energy = torch.view_as_real(inner).square().sum(-1)
        return self.log_weight[:, None] - (energy / total + total.log()).sum(-1)

    def _posterior(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        inner, total = self._project(rows, noise)
        share = torch.softmax(self._joint(inner, total), 0)[..., None]
        shrink = self.power[:, None] / total
        each = (shrink * inner) @ self.basis.mH
        mean = (share * each).sum(0)
        second = (share * torch.view_as_real(each).square().sum(-1)).sum(0)
        spread = ((share * shrink * noise) @ torch.view_as_real(self.basis).square().sum(-1).mT).sum(0)
        between = (second - torch.view_as_real(mean).square().sum(-1)).clamp_min(0)
        return mean, spread + between


def _chunks(x: Tensor, noise_var: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows x [... M] and their noise [... M] or [... 1], meant over the entries, as a series of [R M] and [R 1]."""
    size = CHUNK.get(x.device.type, CHUNK["cuda"])
    rows, noise = x.reshape(-1, x.shape[-1]), noise_var.mean(-1, keepdim=True).expand(*x.shape[:-1], 1).reshape(-1, 1)
    return zip(rows.split(size), noise.split(size), strict=True)
