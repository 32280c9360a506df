"""Activity detection from quantised pilots: expectation propagation with a row-sparse prior, and detectors that see its samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Estimate, FrontEnd, Observation, Receiver
from ..likelihoods.linearised import Linearised
from ..priors.bernoulli_gaussian import BernoulliGaussian

LEAST_NEWS = 1e-3  # a cavity holds at least this share of the posterior's precision
LEAST_MESSAGE = 1e-2  # of the cavity's precision, of a prior's message that says nothing
FEW = 2.5  # expected active users of a frame up to which row-sparse odds stand: signs of so few are too alike to pass for linear samples
LEAST_ERROR = 1e-6  # variance that the prior may claim, over the mean power of the channel


@dataclass(frozen=True)
class RowSparse:
    """Each user's channel is zero, or Gaussian with independent antennas; samples are what the converters gave (`Linearised`).

    Messages hold one variance for all antennas, so that one small system a frame serves them all, in the number of pilots: vector
    approximate message passing (Rangan, Schniter, Fletcher 2019) for a generalised linear model, with the row-wise prior of joint
    sparsity. ``share`` of each new Gaussian for a sample is taken. With ideal converters this is VAMP for many antennas.
    """

    iterations: int = 8
    share: float = 0.6
    threshold: float = 0.0

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """info: log_odds [B N]."""
        return decided(self.listen(obs)[0], self.threshold)

    def listen(self, obs: Observation) -> tuple[Tensor, Linearised]:
        """Log odds of being active [B N], and the pilot samples as they stand."""
        gain = obs.pilot_rx.real.new_ones(obs.frames, obs.users) if obs.user_gain is None else obs.user_gain
        prior = BernoulliGaussian(obs.activity, gain)
        pilots = replace(obs, data_rx=obs.data_rx[:, :0], front_end=obs.front_end.first(obs.pilot_len))
        sent, samples = obs.pilots.expand(obs.frames, -1, -1), Linearised.of(pilots)
        prec, shift = 1 / (obs.activity * gain)[..., None], torch.zeros_like(obs.pilot_rx[:, :1]).expand(-1, obs.users, -1)
        power = sent.abs().square() @ (1 / prec)
        samples = samples.again(torch.zeros_like(samples.rx), power, 1.0)
        for _ in range(self.iterations):
            mean, error, _ = _posterior(samples, sent, prec, shift)
            news = (1 / error - prec).maximum(LEAST_NEWS / error)
            seen, sigma = (mean / error - shift) / news, news[..., 0].rsqrt()
            found, left = prior.moments(seen, sigma)
            sure = 1 / left.maximum(LEAST_ERROR * gain)[..., None]
            prec, shift = (sure - news).maximum(LEAST_MESSAGE * news), sure * found - news * seen
            mean, _, spread = _posterior(samples, sent, prec, shift)
            samples = samples.again(sent @ mean, spread, self.share)
        return prior.log_odds(seen, sigma), samples


@dataclass(frozen=True)
class SeenLinearly:
    """``detector`` on quantised pilots as `RowSparse` leaves them: noisy samples without a converter.

    Gaussians in the place of samples are less noisy than samples whose distortion counts as noise, and their errors are not correlated
    between antennas. Noise that differs from frame to frame is divided out; the detector sees it in the users' gains. In frames of less
    than `FEW` users, as `RowSparse` counts them, its own odds are the answer.
    """

    detector: Receiver
    iterations: int = 6

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """What ``detector`` says; with ideal converters, of ``obs`` itself."""
        if obs.front_end.bits is None or obs.all_active:
            return self.detector(obs, generator=generator)
        odds, samples = RowSparse(self.iterations).listen(obs)
        scale = (obs.linear_noise_var / samples.noise.mean((1, 2)))[:, None]
        gain = scale.expand(-1, obs.users) if obs.user_gain is None else obs.user_gain * scale
        seen = replace(
            obs, pilot_rx=samples.rx * scale[..., None].sqrt(), user_gain=gain, noise_var=obs.linear_noise_var, front_end=FrontEnd()
        )
        found = self.detector(seen, generator=generator)
        chance = torch.sigmoid(odds)
        few = chance.sum(1, keepdim=True) < FEW
        info = {**found.info, **({"log_odds": torch.where(few, odds, found.info["log_odds"])} if "log_odds" in found.info else {})}
        return replace(found, activity=torch.where(few, chance, found.activity), info=info)


def decided(odds: Tensor, threshold: float = 0.0) -> Estimate:
    """An estimate of log odds [B N]: posterior probabilities, moved by ``threshold``."""
    return Estimate(torch.sigmoid(odds - threshold), info={"log_odds": odds})


def _posterior(samples: Linearised, sent: Tensor, prec: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Channels [B N M] and their variance [B N 1], and the variance of the noiseless samples [B L 1], under a prior of natural parameters
    prec [B N 1] and shift [B N M]; in the number of pilots."""
    weighted = sent / prec.mT
    total = weighted @ sent.mH + torch.diag_embed(samples.noise[..., 0]).to(sent.dtype)
    inverse = torch.linalg.inv(total)
    reach = weighted.mH @ inverse
    start = shift / prec
    mean = start + reach @ (samples.rx - sent @ start)
    error = 1 / prec - (reach * weighted.mT).sum(-1, keepdim=True).real
    noise = samples.noise[..., 0]
    spread = noise - noise.square() * inverse.diagonal(dim1=-2, dim2=-1).real
    return mean, error.clamp_min(1e-9), spread.clamp_min(1e-9)[..., None]
