"""Simultaneous orthogonal matching pursuit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..core import Estimate, Observation


@dataclass(frozen=True)
class Somp:
    """Adds, one at a time, the user whose pilot explains most of the residual of all antennas (Tropp, Gilbert, Strauss, Signal Processing
    2006; P1's baseline "OMP"), and stops when the best of the remaining correlations is no larger than noise alone would make it.

    In noise, ||P_perp p_n||^-2 ||p_n^H R||_F^2 / noise_var is Gamma(antennas, 1); its tail over all users is bounded by the union bound, so
    ``false_alarm`` is the chance that an empty frame adds anybody. The rule knows neither the number of users nor the truth. At most
    pilot_len - 1 users can be found.

    Known gains rank the users by the likelihood ratio of such a correlation with and without them, which favours users that it suits; the
    stop is the same.

    How far above that limit a user's correlation was, and those before it, is its ``margin`` in units of the noise variance: raising
    the limit by so much is what leaves the user out. A ``false_alarm`` as large as the number of users makes the limit 0, and one run has
    the answers for all limits.
    """

    false_alarm: float = 1e-2

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N], 0 or 1; info: count [B], users found; margin [B N], -inf where not found."""
        from scipy.stats import gamma

        limit = float(gamma.isf(self.false_alarm / obs.users, obs.antennas)) * obs.linear_noise_var
        rx, book = obs.pilot_rx.to(torch.complex128), obs.pilots.to(torch.complex128)
        gain = None if obs.user_gain is None else obs.user_gain.double()
        energy = book.abs().square().sum(0)
        residual, atoms = rx, book.expand(obs.frames, -1, -1)  # both projected off the chosen pilots as they are chosen
        chosen = torch.zeros(obs.frames, obs.users, dtype=torch.bool, device=rx.device)
        margin, least = torch.full_like(chosen, -torch.inf, dtype=torch.float64), residual.real.new_full((obs.frames, 1), torch.inf)
        growing = torch.ones(obs.frames, dtype=torch.bool, device=rx.device)
        for _ in range(min(obs.pilot_len - 1, obs.users)):
            left = atoms.abs().square().sum(1)
            score = (atoms.mH @ residual).abs().square().sum(-1) / left.clamp_min(1e-9 * float(energy.max()))
            score = score.masked_fill(chosen | (left < 1e-6 * energy), 0.0)
            ranked = score if gain is None else _likelihood(score, gain * left, obs)
            winner = ranked.argmax(1, keepdim=True)
            growing = growing & (score.gather(1, winner)[:, 0] > limit)
            if not bool(growing.any()):
                break
            least = least.minimum(score.gather(1, winner))
            margin = torch.where(growing[:, None], margin.scatter(1, winner, (least - limit) / obs.linear_noise_var), margin)
            chosen = chosen.scatter(1, winner, chosen.gather(1, winner) | growing[:, None])
            direction = atoms.gather(2, winner[:, None, :].expand(-1, obs.pilot_len, 1))
            direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True).clamp_min(1e-30) * growing[:, None, None]
            residual = residual - direction @ (direction.mH @ residual)
            atoms = atoms - direction @ (direction.mH @ atoms)
        return Estimate(chosen.to(obs.pilot_rx.real.dtype), info={"count": chosen.sum(1), "margin": margin})


def _likelihood(score: torch.Tensor, power: torch.Tensor, obs: Observation) -> torch.Tensor:
    """Log-likelihood ratio [B N] of the correlation ``score`` if the user sent, with mean ``power`` of its pilot in it, or if not."""
    snr = power / obs.linear_noise_var
    ratio = score / obs.linear_noise_var * snr / (1 + snr) - obs.antennas * torch.log1p(snr)
    return ratio.masked_fill(score == 0, -torch.inf)
