"""The toolkit's own channel denoiser: real gates on angular coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .separable import separable_basis

POWER_FLOOR = 1e-4  # of the mean beam power: a beam that training never lit stays possible


class GatedDenoiser(nn.Module):
    """E[h | x] for x = h + noise whose variance may differ from beam to beam, as it does after other users' pilots were taken away.

    It starts at the LMMSE estimate z and refines it in ``stages``. Each takes the coefficients of the observation and of z in a learned
    dictionary (at first the 2-D DFT, ``oversampling`` times finer than the array resolves), both in units of the noise, feeds their
    log-energies and the noise profile to a small MLP, and adds both sets of coefficients back, each times a real gate. Phases only pass
    through, so the denoiser commutes with a common phase turn. A head predicts the variance of each beam's error.

    Beams are the eigenvectors of the row covariance times the DFT of the columns: users are narrow in azimuth and alike in elevation, so a
    beam that holds one user holds few others. `prepare` sets beams and powers from a training covariance.

    >>> network = GatedDenoiser(2, 4, stages=1, hidden=16)
    >>> mean, error = network(torch.ones(3, 8, dtype=torch.complex64), torch.ones(3))
    >>> mean.shape, error.shape
    (torch.Size([3, 8]), torch.Size([3, 8]))
    """

    coloured = True  # takes noise that differs from beam to beam
    turn: Tensor
    power: Tensor

    def __init__(self, rows: int, columns: int, *, stages: int = 3, oversampling: int = 2, hidden: int = 256, floor: float = 0.3) -> None:
        super().__init__()
        self.rows, self.columns, self.floor = rows, columns, floor
        antennas, atoms = rows * columns, rows * columns * oversampling**2
        self.register_buffer("turn", torch.view_as_real(torch.eye(antennas, dtype=torch.complex64)))
        self.register_buffer("power", torch.ones(antennas))
        steering = torch.kron(_steering(rows, oversampling), _steering(columns, oversampling))
        self.analysis = nn.ParameterList(nn.Parameter(torch.view_as_real(steering.conj().resolve_conj())) for _ in range(stages))
        back = (steering.mT / oversampling**2).contiguous()
        self.synthesis = nn.ParameterList(nn.Parameter(torch.view_as_real(back)) for _ in range(stages))
        self.trunks = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * atoms + antennas, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()) for _ in range(stages)
        )
        self.gates = nn.ModuleList(_zeroed(nn.Linear(hidden, 2 * atoms)) for _ in range(stages))
        self.head = nn.Sequential(nn.Linear(2 * antennas + hidden, 128), nn.SiLU(), _zeroed(nn.Linear(128, antennas)))

    @property
    def basis(self) -> Tensor:
        """Antenna rows [R M] turn into beams with this [M M] complex."""
        return torch.view_as_complex(self.turn)

    @torch.no_grad()
    def prepare(self, covariance: Tensor) -> None:
        """Sets beams and their powers from E[h h^H] [M M] of the training channels, and turns the dictionary into beams; call it once."""
        basis = separable_basis(covariance, self.rows, self.columns).to(self.basis.device)
        power = torch.einsum("im,ij,jm->m", basis, covariance.to(basis), basis.conj()).real
        self.power.copy_(power.clamp_min(POWER_FLOOR * power.mean()))
        self.turn.copy_(torch.view_as_real(basis))
        for analysis, synthesis in zip(self.analysis, self.synthesis, strict=True):
            analysis.copy_(torch.view_as_real((basis.mH @ torch.view_as_complex(analysis)).contiguous()))
            synthesis.copy_(torch.view_as_real((torch.view_as_complex(synthesis) @ basis).contiguous()))

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """x [R M] antenna rows, noise_var [R]: mean [R M] in antennas and error variance [R M] in beams."""
        mean, error = self.in_beams(x @ self.basis, noise_var[:, None].expand(x.shape))
        return mean @ self.basis.mH, error

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """x [R M] and its noise variance [R M], both in beams: mean and error variance [R M] in beams."""
        root, wiener, level = noise_var.sqrt(), self.power / (self.power + noise_var), torch.log(noise_var) / 3
        white, z = x / root, wiener * x
        limit = root / (1 + noise_var)  # at high noise the observation itself says nothing
        for analysis, synthesis, trunk, gates in zip(self.analysis, self.synthesis, self.trunks, self.gates, strict=True):
            forth, back = torch.view_as_complex(analysis), torch.view_as_complex(synthesis)
            seen, held = white @ forth, (z / root) @ forth
            features = trunk(torch.cat([self._energy(seen), self._energy(held), level], 1))
            first, second = gates(features).chunk(2, 1)
            z = z + ((first * seen) @ back) * limit + ((second * held) @ back) * root
        told = self.head(torch.cat([self._energy(z / root).detach(), level, features.detach()], 1))
        return z, wiener * noise_var * torch.exp(told.clamp(-6, 4))

    def _energy(self, coefficients: Tensor) -> Tensor:
        return torch.log(coefficients.real.square() + coefficients.imag.square() + self.floor) / 3


def _steering(size: int, oversampling: int) -> Tensor:
    """Steering vectors [size, size * oversampling], unit norm, on a grid of directions."""
    grid = torch.arange(size * oversampling) / (size * oversampling)
    return torch.exp(2j * math.pi * torch.arange(size)[:, None] * grid) / math.sqrt(size)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
