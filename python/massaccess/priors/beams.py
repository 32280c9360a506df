"""The basis that channel estimators work in: the eigenvectors ("beams") of the array covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Beams:
    """Eigenbasis of the array covariance R = basis diag(power) basis^H: basis [M M] (``None``: the antennas themselves), power [M].

    Rows of channels and samples turn with ``into``; noise stays white.
    """

    basis: Tensor | None
    power: Tensor

    @staticmethod
    def of(covariance: Tensor | None, *, antennas: int, like: Tensor) -> Beams:
        """The beams of ``covariance`` [M M], or the antennas with power 1 when it is ``None``; device and dtype of ``like``.

        Rows h^T of a channel matrix have covariance E[h h^H] = R, so they turn with the conjugate of R's eigenvectors.
        """
        if covariance is None:
            return Beams(None, torch.ones(antennas, dtype=like.real.dtype, device=like.device))
        if covariance not in _KNOWN:
            _KNOWN[covariance] = Beams._decompose(covariance, like)
        return _KNOWN[covariance]

    @staticmethod
    def _decompose(covariance: Tensor, like: Tensor) -> Beams:
        power, basis = torch.linalg.eigh(covariance.to(torch.complex128))
        floor = 1e-6 * power.mean()  # a sample covariance can miss directions: keep every beam possible
        return Beams(
            basis.conj().to(device=like.device, dtype=like.dtype), power.clamp_min(floor).to(device=like.device, dtype=like.real.dtype)
        )

    def into(self, rows: Tensor) -> Tensor:
        """Antenna rows [... M] to beam rows [... M]."""
        return rows if self.basis is None else rows @ self.basis

    def back(self, rows: Tensor) -> Tensor:
        """Beam rows [... M] to antenna rows [... M]."""
        return rows if self.basis is None else rows @ self.basis.mH


_KNOWN = WeakTensorKeyDictionary()  # a stream uses one covariance for all its frames
