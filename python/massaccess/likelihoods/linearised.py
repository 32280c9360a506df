"""Quantised samples as a linear receiver may take them: expectation propagation between the cells and the noiseless samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Observation
from .linear import Linear
from .quantized import Quantized, hermite, likelihood

LEAST_CAVITY = 0.05  # share of the posterior's precision that a cavity keeps
LEAST_NEWS = 1e-3  # of the cavity's precision: what a sample says at the least
NODES = 40  # of the quadrature for the information on the amplitude
STEPS, STEP_REACH = 9, 2.0  # of the search for the noise variance, nepers either way
SILENCE = 1e9  # noise variance of samples that nothing was made of yet


@dataclass(frozen=True)
class Linearised:
    """rx [B T M] (antennas) = z + CN(0, noise [B T 1]): for each noiseless sample z the Gaussian that stands in for its likelihood.

    The variances of the antennas of one symbol time are averaged, so that noise stays white and beams separate (vector approximate message
    passing does the same). With ideal converters rx are the samples, noise the receiver noise, and nothing ever changes.
    """

    likelihood: Linear | Quantized
    rx: Tensor
    noise: Tensor

    @staticmethod
    def of(obs: Observation, *, link: str = "probit") -> Linearised:
        """Before anything is known of z."""
        cells = likelihood(obs, link=link)
        if isinstance(cells, Linear):
            return Linearised(cells, cells.samples, cells.noise_var.expand(-1, cells.samples.shape[1], -1))
        nothing = torch.cat([torch.zeros_like(obs.pilot_rx), torch.zeros_like(obs.data_rx)], 1)
        return Linearised(cells, nothing, nothing.real.new_full((*nothing.shape[:2], 1), SILENCE))

    def take(self, frames: Tensor) -> Linearised:
        """The frames that ``frames`` (indices or a mask) picks."""
        return Linearised(self.likelihood.take(frames), self.rx[frames], self.noise[frames])

    def put(self, frames: Tensor, others: Linearised) -> Linearised:
        """A copy with ``others`` in the places of ``frames`` (indices)."""
        rx, noise, noise_var = self.rx.clone(), self.noise.clone(), self.likelihood.noise_var.clone()
        rx[frames], noise[frames], noise_var[frames] = others.rx, others.noise, others.likelihood.noise_var
        return Linearised(replace(self.likelihood, noise_var=noise_var), rx, noise)

    def cavity(self, mean: Tensor, var: Tensor, times: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """What all but the own sample says of z: CN(mean, var) [B T M] and [B T 1], from its posterior."""
        rx, noise = self.rx[:, times], self.noise[:, times]
        news = (1 / var - 1 / noise).maximum(LEAST_CAVITY / var)
        return (mean / var - rx / noise) / news, 1 / news

    def again(self, mean: Tensor, var: Tensor, share: float, times: slice = slice(None)) -> Linearised:
        """New Gaussians for the symbol times ``times``, from the posterior mean [B T M] and variance [B T 1] of z there; ``share`` of them,
        in natural parameters, and the rest of the old ones. All of them where there are none yet."""
        if isinstance(self.likelihood, Linear):
            return self
        fresh, spread = self.cavity(mean, var, times)
        tilted, tight = self.likelihood.at(times).moments(fresh, spread)
        tight = tight.mean(-1, keepdim=True)
        news, shift = (1 / tight - 1 / spread).maximum(LEAST_NEWS / spread), tilted / tight - fresh / spread
        rx, noise = self.rx[:, times], self.noise[:, times]
        part = torch.where(noise >= SILENCE, 1.0, share)
        total = part * news + (1 - part) / noise
        all_rx, all_noise = self.rx.clone(), self.noise.clone()
        all_rx[:, times], all_noise[:, times] = (part * shift + (1 - part) * rx / noise) / total, 1 / total
        return replace(self, rx=all_rx, noise=all_noise)

    def refitted(self, mean: Tensor, var: Tensor, times: slice) -> Linearised:
        """With the noise variance, one a frame, that makes the samples at ``times`` most likely whose noiseless values are CN(mean [B T M],
        var [B T 1]): the best of a grid of `STEPS` around the last, and a parabola through its neighbours."""
        seen, before = self.likelihood.at(times), self.likelihood.noise_var
        steps = torch.linspace(-STEP_REACH, STEP_REACH, STEPS, device=mean.device, dtype=before.dtype)
        tried = [replace(seen, noise_var=before * step.exp()).log_evidence(mean, var.expand(mean.shape)).mean((1, 2)) for step in steps]
        score = torch.stack(tried, 1)
        best = score.argmax(1, keepdim=True).clamp(1, STEPS - 2)
        low, middle, high = (score.gather(1, best + shift) for shift in (-1, 0, 1))
        offset = ((low - high) / (2 * (low - 2 * middle + high)).clamp_max(-1e-9)).clamp(-1, 1)
        factor = (steps[best] + offset * (steps[1] - steps[0])).exp()
        return replace(self, likelihood=replace(self.likelihood, noise_var=before * factor[..., None]))

    def amplitude(self, signal: Tensor, error: Tensor) -> Tensor:
        """Fisher information [B] on the logarithm of the amplitude of z, of all samples that were heard, for z of mean power ``signal`` [B]
        known up to errors of variance ``error`` [B]. One bit: only samples near the threshold say something, as far as it is noise that
        moves them across."""
        noise = self.likelihood.noise_var[:, 0, 0]
        share, reach = noise / (noise + error), (signal / (noise + error)).sqrt()
        node, weight = (part.to(signal) for part in hermite(NODES))
        spot = reach[:, None] * node
        log_both = torch.special.log_ndtr(spot) + torch.special.log_ndtr(-spot)
        each = (weight * spot.square() * torch.exp(-spot.square() - log_both)).sum(-1) / (2 * math.pi)
        heard = (self.noise[..., 0] < SILENCE).sum(1) * 2 * self.rx.shape[2]
        return heard * share.square() * each
