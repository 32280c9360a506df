"""Quantised samples as a linear receiver may take them: expectation propagation between the cells and the noiseless samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..core import Observation
from ..parallel import over_frames
from .linear import Linear
from .quantized import Quantized, likelihood

LEAST_CAVITY = 0.05  # share of the posterior's precision that a cavity keeps
LEAST_NEWS = 1e-3  # of the cavity's precision: what a sample says at the least
FARTHEST = 12.0  # from what the others say that a sample can stand, in deviations of what it may stand: no more, or few users run away
STEP = 0.05  # nepers, between two slopes
STEPS, STEP_REACH = 9, 2.0  # of the search for the noise variance, nepers either way
SILENCE = 1e9  # noise variance of samples that nothing was made of yet


@dataclass(frozen=True)
class Linearised:
    """rx [B T M] (antennas) = z + CN(0, noise [B T 1]): for each noiseless sample z the Gaussian that stands in for its likelihood.

    The variances of the antennas of one symbol time are averaged, so that noise stays white and beams separate (vector approximate message
    passing does the same). ``least`` [B 1 1]: the least noise variance that is believed (`at_least`). With ideal converters rx are the
    samples, noise the receiver noise, and nothing ever changes.
    """

    likelihood: Linear | Quantized
    rx: Tensor
    noise: Tensor
    least: Tensor | None = None

    @staticmethod
    def of(obs: Observation, *, link: str = "probit") -> Linearised:
        """Before anything is known of z."""
        cells = likelihood(obs, link=link)
        if isinstance(cells, Linear):
            return Linearised(cells, cells.samples, cells.noise_var.expand(-1, cells.samples.shape[1], -1))
        nothing = torch.cat([torch.zeros_like(obs.pilot_rx), torch.zeros_like(obs.data_rx)], 1)
        return Linearised(cells, nothing, nothing.real.new_full((*nothing.shape[:2], 1), SILENCE))

    def at_least(self, noise_var: Tensor) -> Linearised:
        """With a noise variance of at least ``noise_var`` [B]; that of ideal converters stays."""
        if isinstance(self.likelihood, Linear):
            return self
        floor = noise_var[:, None, None]
        return replace(self, likelihood=replace(self.likelihood, noise_var=self.likelihood.noise_var.maximum(floor)), least=floor)

    @property
    def believed(self) -> Tensor:
        """Whether the noise variance is what it is, not the least that it may be [B] bool."""
        noise_var = self.likelihood.noise_var
        return (noise_var > (0 if self.least is None else self.least))[:, 0, 0]

    def take(self, frames: Tensor) -> Linearised:
        """The frames that ``frames`` (indices or a mask) picks."""
        return Linearised(
            self.likelihood.take(frames), self.rx[frames], self.noise[frames], None if self.least is None else self.least[frames]
        )

    def put(self, frames: Tensor, others: Linearised) -> Linearised:
        """A copy with ``others`` in the places of ``frames`` (indices)."""
        rx, noise, noise_var = self.rx.clone(), self.noise.clone(), self.likelihood.noise_var.clone()
        rx[frames], noise[frames], noise_var[frames] = others.rx, others.noise, others.likelihood.noise_var
        return Linearised(replace(self.likelihood, noise_var=noise_var), rx, noise, self.least)

    def cavity(self, mean: Tensor, var: Tensor, times: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """What all but the own sample says of z: CN(mean, var) [B T M] and [B T 1], from its posterior. A sample that would leave less than
        `LEAST_CAVITY` is taken out in part."""
        rx, noise = self.rx[:, times], self.noise[:, times]
        own = (1 / noise).minimum((1 - LEAST_CAVITY) / var)
        news = 1 / var - own
        return (mean / var - rx * own) / news, 1 / news

    def again(self, mean: Tensor, var: Tensor, share: float, times: slice = slice(None)) -> Linearised:
        """New Gaussians for the symbol times ``times``, from the posterior mean [B T M] and variance [B T 1] of z there; ``share`` of them,
        in natural parameters, and the rest of the old ones. All of them where there are none yet."""
        if isinstance(self.likelihood, Linear):
            return self
        signs = self.likelihood.one_sided and self.likelihood.link == "probit"
        run = self._compiled if signs and self.rx.device.type == "cpu" else self._batched
        rx, noise = run(mean, var, share, times)
        return replace(self, rx=rx, noise=noise)

    def _compiled(self, mean: Tensor, var: Tensor, share: float, times: slice) -> tuple[Tensor, Tensor]:
        from . import _sign_kernel as kernel

        assert isinstance(self.likelihood, Quantized)
        frames = len(self.rx)
        first, last, _ = times.indices(self.rx.shape[1])
        rx, noise = self.rx.new_empty(self.rx.shape), self.noise.new_empty(self.noise.shape)
        for others in (slice(0, first), slice(last, None)):
            rx[:, others], noise[:, others] = self.rx[:, others], self.noise[:, others]
        cells = _rows(self.likelihood.lower), _rows(self.likelihood.upper), _rows(self.likelihood.noise_var.expand(frames, 1, 1))[:, 0]
        known = _rows(torch.view_as_real(mean.resolve_conj())), _rows(var)
        old, out = (_rows(torch.view_as_real(self.rx)), _rows(self.noise)), (_rows(torch.view_as_real(rx)), _rows(noise))
        over_frames(kernel.again, frames, *cells, *known, *old, first, share, SILENCE, LEAST_CAVITY, LEAST_NEWS, FARTHEST, *out)
        return rx, noise

    def _batched(self, mean: Tensor, var: Tensor, share: float, times: slice) -> tuple[Tensor, Tensor]:
        """The same in tensor operations: the path for a GPU, and for converters of several bits."""
        fresh, spread = self.cavity(mean, var, times)
        tilted, tight = self.likelihood.at(times).moments(fresh, spread)
        tight = tight.mean(-1, keepdim=True)
        news = (1 / tight - 1 / spread).maximum(LEAST_NEWS / spread)
        step, reach = (tilted - fresh) * (1 + 1 / (news * spread)), FARTHEST * ((spread + 1 / news) / 2).sqrt()
        step = torch.complex(step.real.clamp(-reach, reach), step.imag.clamp(-reach, reach))
        shift = news * (fresh + step)
        rx, noise = self.rx[:, times], self.noise[:, times]
        part = torch.where(noise >= SILENCE, 1.0, share)
        total = part * news + (1 - part) / noise
        all_rx, all_noise = self.rx.clone(), self.noise.clone()
        all_rx[:, times], all_noise[:, times] = (part * shift + (1 - part) * rx / noise) / total, 1 / total
        return all_rx, all_noise

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

    def amplitude(self, mean: Tensor, var: Tensor, times: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """What the samples at ``times`` say of the logarithm s of a common amplitude e^s, if their noiseless values are e^s CN(mean, var),
        mean [B T M] and var [B T 1] such as cavities: the slope of the log-likelihood at s = 0, and its observed information, both [B]."""
        cells = self.likelihood.at(times)

        def slope(factor: float) -> Tensor:
            z, spread = factor * mean, factor**2 * var.expand(mean.shape)
            tilted, tight = cells.moments(z, spread)
            push = tilted - z
            across = (z.real * push.real + z.imag * push.imag) / spread
            each = across + (push.abs().square() + tight - spread) / spread
            return 2 * each.nan_to_num(0.0, 0.0, 0.0).sum((1, 2))  # cells out of reach say nothing

        here = slope(1.0)
        return here, ((here - slope(math.exp(STEP))) / STEP).clamp_min(0)


def _rows(values: Tensor) -> np.ndarray:
    """The last two axes as one, as an array."""
    return values.flatten(-2).contiguous().numpy()
