"""One access point: its own antennas, their one-bit samples, and what those say of the symbols that all access points hear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Observation
from ..estimation.ascent import Ascent
from ..estimation.variational import SignChannel, SignVariational
from ..likelihoods.expected_probit import slopes
from ..likelihoods.real_form import after, parts, signs, stacked
from ..priors.constellation import ConstellationPrior
from .factor import Factor, apply
from .selection import Selection
from .signs import to_power


@dataclass(frozen=True)
class Comparisons:
    """What M antennas say of T symbols: signs [B 2T M] of real parts above those of imaginary parts, and offset [1 2T M], what was added in
    front of the comparators."""

    signs: Tensor
    offset: Tensor

    @staticmethod
    def of(samples: Tensor, offset: Tensor | None) -> Comparisons:
        """Of samples [B T M], offset [T M] (both complex): what the comparators saw is their sum."""
        added = torch.zeros_like(samples[0]) if offset is None else offset.to(samples)
        return Comparisons(signs(parts(samples + added)), parts(added[None]))

    def __add__(self, other: Comparisons) -> Comparisons:
        return Comparisons(after(self.signs, other.signs), after(self.offset, other.offset))


@dataclass(frozen=True)
class Settings:
    """How an access point works: natural-gradient steps of a first channel estimate (``first``), of one that starts from the last
    (``again``), and of a factor's update (``steps``); ``covariance`` of its channels; ``normalise`` rows as P4 does before detection."""

    first: int = 10
    again: int = 3
    steps: int = 3
    covariance: str = "shared"
    normalise: bool = True


class AccessPoint:
    """Estimates its channels, and refines its factor of the posterior (P4 section 1.3, the client's update).

    The channel's uncertainty counts as noise in front of the comparators. Nothing but `Factor` objects enters or leaves: samples and
    channels stay.
    """

    def __init__(self, obs: Observation, slots: Selection, settings: Settings = Settings()) -> None:
        """obs: what its own antennas received; slots: the users that are active."""
        offset = obs.front_end.offset
        self.pilot = Comparisons.of(obs.pilot_rx, None if offset is None else offset[: obs.pilot_len])
        self.data = Comparisons.of(obs.data_rx, None if offset is None else offset[obs.pilot_len :])
        self.amplitude = slots.gain(obs).sqrt()  # [B K]
        self.pilots = slots.pilots(obs)
        self.noise_var, self.prior = obs.noise_var, ConstellationPrior(obs.modulation)
        self.settings, self.scale_known = settings, offset is not None
        self.channel: SignChannel | None = None
        self._rows, self._noise = self.pilots.real, self.pilots.real
        self._guess: Factor | None = None

    @property
    def power(self) -> Tensor:
        """Mean channel power [B K 1] of the users, 0 for absent ones."""
        return self.amplitude.square()[..., None]

    def estimate(self, posterior: Factor | None = None) -> None:
        """Channels from the pilots or, with a posterior of the symbols, from pilots and soft symbols: those whose constellation mean is
        uncertain count as noisier."""
        if self.channel is None:
            self._estimate(self.pilot, self.pilots, self.pilots.new_full((1, 1, 1), self.noise_var).real)
        if posterior is not None:
            self._again(posterior)
        self._prepare()

    def _again(self, posterior: Factor) -> None:
        assert self.channel is not None
        soft = posterior.symbols(self.prior)
        heard = (self.channel.rows.abs().square() + self.channel.error) * self.power
        quiet = heard.new_full((*self.pilots.shape[:2], heard.shape[2]), self.noise_var)
        noise = torch.cat([quiet, self.noise_var + soft.var @ heard], 1)
        self._estimate(self.pilot + self.data, torch.cat([self.pilots, soft.mean], 1), torch.cat([noise, noise], 1))

    def _estimate(self, seen: Comparisons, sent: Tensor, noise_var: Tensor) -> None:
        """noise_var: of complex entries, broadcasts to [B 2T M]."""
        fresh = self.channel is None
        estimator = SignVariational(self.settings.first if fresh else self.settings.again, self.settings.covariance)
        rows = stacked(sent * self.amplitude[:, None])
        self.channel = estimator(seen.signs, rows, offset=seen.offset, noise_var=noise_var / 2, start=self.channel)

    @property
    def rows(self) -> Tensor:
        """Channels [B K M] as detection takes them."""
        assert self.channel is not None
        rows = self.channel.rows * self.amplitude[..., None]
        return rows * to_power(rows, self.power[..., 0]) if self.settings.normalise and not self.scale_known else rows

    def _prepare(self) -> None:
        assert self.channel is not None
        noise = self.noise_var + (self.channel.error * self.power).sum(1)
        self._rows = stacked(self.rows.mT)  # [B 2M 2K]
        self._noise = torch.cat([noise, noise], 1)[:, None] / 2

    def update(self, rest: Factor) -> Factor:
        """This access point's new factor t, such that t rest maximises E_q[log p(signs | x) + log rest - log q]; ``rest`` is the posterior
        without its factor, q_prev / t_prev in P4 (17) as corrected. A few natural-gradient steps, from the last factor on."""
        rows, move = self._rows, _independent if rest.diagonal else _joint
        seen, offset = (_across(part) for part in (self.data.signs, self.data.offset))
        mean, spread = (rest if self._guess is None else rest + self._guess).moments()
        ascent, precision = Ascent(dim=-1), rest.precision
        for _ in range(self.settings.steps):
            var = spread @ rows.square().mT if rest.diagonal else ((rows[:, None] @ spread) * rows[:, None]).sum(-1)
            slope, curvature = slopes(seen, mean @ rows.mT + offset, var, self._noise)
            gradient = slope @ rows + rest.shift - rest.precise(mean)
            precision, spread, newton = move(rest, rows, curvature, gradient)
            mean = mean + ascent.step(newton, gradient)
        self._guess = Factor(Factor(mean, precision).precise(mean), precision) - rest
        return self._guess


def _independent(rest: Factor, rows: Tensor, curvature: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precisions and variances [B D 2K] under ``curvature`` [B D 2M], and the Newton step of the mean, whose matrix is that of the mean
    curvature: it serves all symbols of a frame."""
    precision = rest.precision + curvature @ rows.square()
    shared = _gram(rows, curvature.mean(1)) + torch.diag_embed(rest.precision.mean(1))
    return precision, 1 / precision, torch.cholesky_solve(gradient.mT, torch.linalg.cholesky(shared)).mT


def _joint(rest: Factor, rows: Tensor, curvature: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with precision and covariance matrices [B D|1 2K 2K]."""
    weight = curvature if rest.precision.shape[1] > 1 else curvature.mean(1, keepdim=True)
    precision = rest.precision + _gram(rows[:, None], weight)
    spread = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return precision, spread, apply(spread, gradient)


def _gram(rows: Tensor, weight: Tensor) -> Tensor:
    """rows^T diag(weight) rows, rows [... n k], weight [... n]."""
    return (rows * weight[..., None]).mT @ rows


def _across(halves: Tensor) -> Tensor:
    """[B 2T M] as [B T 2M]."""
    return torch.cat(halves.chunk(2, 1), -1)
