"""Variational inference of activity and channels from signs of pilots (P4 section 2.2, Algorithm 4).

sign_n = sign(sum_i w_ni alpha_i h_i + noise): one real alpha per user, shared by real and imaginary part and by all antennas, Laplace
prior exp(-|alpha|) / 2; h Gaussian. q is Gaussian in every alpha and h. Departures from the paper, whose eq. 80 to 84 are misprinted:
gradients are those of `gradients`; alpha starts at 1 (at 0 the ELBO has a saddle), and its decision looks at alpha h alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .advi import Adam, Factors, SignProblem

START, ALPHA_LOG_SD, LOG_SD = 1.0, -2.0, -1.0  # of alpha, its deviation and the channels'
SURE, UNSURE = 1.0, 0.2
"""Power of the mean of alpha h over its variance that makes a user active, at high and at low SNR. Measured with 100 users, 15 active, 64
antennas, 40 pilots: active ones have 0.4 or more at -10 dB, 1.6 at 0 dB; silent ones beside them up to 0.2 (0.9 at 30 dB, where their power
tells them apart); pilots of noise alone reach 0.7 at 20 dB and 0.5 at -10 dB."""
MARGIN, TEMPERED = 10.0, 0.5  # of the inputs to begin with, in noise deviations; and the share of the steps after which noise is what it is


@dataclass(frozen=True)
class Access:
    """alpha: q of [B K 1]; channel: posterior mean of alpha h [B 2K M], real above imaginary parts; var [B 2K M]: its variance."""

    alpha: Factors
    channel: Tensor
    var: Tensor


def gradients(
    problem: SignProblem, alpha: Factors, channel: Factors, eta_alpha: Tensor, eta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dELBO with respect to mean and log_sd of alpha [B K 1] and of the channels [B 2K M]; eta_alpha [S B K 1], eta [S B 2K M].

    P4 eq. 80 to 84 put right: sum_n slope_n sign_n (h . w_n) - sign(alpha) and sum_n slope_n sign_n (alpha . w_n) - h / prior_var, each
    times eta exp(log_sd), plus 1, for the deviations.
    """
    sd_alpha, sd = alpha.log_sd.exp(), channel.log_sd.exp()
    a, h = alpha.mean + sd_alpha * eta_alpha, channel.mean + sd * eta
    twice = torch.cat([a, a], -2)
    first, _ = problem.slope(problem.margin(twice * h))
    back = problem.design.mT @ (first * problem.signs)
    pull = twice * back - h / problem.prior_var
    real, imag = (h * back).sum(-1, keepdim=True).chunk(2, -2)
    pull_alpha = real + imag - a.sign()
    return (
        pull_alpha.mean(0),
        (pull_alpha * eta_alpha).mean(0) * sd_alpha + 1,
        pull.mean(0),
        (pull * eta).mean(0) * sd + 1,
    )


def elbo(problem: SignProblem, alpha: Factors, channel: Factors, eta_alpha: Tensor, eta: Tensor) -> Tensor:
    """The bound [B] in nats, up to constants, as a mean over the same draws."""
    a, h = alpha.mean + alpha.log_sd.exp() * eta_alpha, channel.mean + channel.log_sd.exp() * eta
    fit = problem.log_link(problem.margin(torch.cat([a, a], -2) * h)).sum((-1, -2))
    prior = -a.abs().sum((-1, -2)) - 0.5 * (h.square() / problem.prior_var).sum((-1, -2))
    return (fit + prior).mean(0) + alpha.log_sd.sum((-1, -2)) + channel.log_sd.sum((-1, -2))


def ascend(
    problem: SignProblem,
    *,
    samples: int,
    step: float,
    steps: int,
    late: Callable[[], bool] = lambda: False,
    generator: torch.Generator | None = None,
) -> Access:
    """Stochastic ascent by `Adam` on the pilots of all users, prior_var [B 2K 1], fresh draws each step; ends early when it is ``late``."""
    like, size = problem.design, (*problem.design.shape[::2], problem.signs.shape[2])
    few = (size[0], size[1] // 2, 1)
    values = [like.new_full(few, START), like.new_full(few, ALPHA_LOG_SD), like.new_zeros(size), like.new_full(size, LOG_SD)]
    ascent = Adam.of(values, step, steps)
    first = _first_scale(problem)
    for number in range(steps):
        if late():
            break
        tempered = _scaled(problem, first ** max(0.0, 1 - number / (TEMPERED * steps)))
        alpha, channel = Factors(*ascent.values[:2]), Factors(*ascent.values[2:])
        draws = [torch.randn(samples, *shape, generator=generator, device=like.device, dtype=like.dtype) for shape in (few, size)]
        ascent.up(gradients(tempered, alpha, channel, *draws))
    alpha, channel = Factors(*ascent.values[:2]), Factors(*ascent.values[2:])
    twice, spread = alpha.mean.repeat(1, 2, 1), alpha.var.repeat(1, 2, 1)
    var = (twice.square() + spread) * channel.var + spread * channel.mean.square()
    return Access(alpha, twice * channel.mean, var)


def _first_scale(problem: SignProblem) -> Tensor:
    """Factor [B 1 1] of the design, at most 1, that brings its inputs to `MARGIN`."""
    spread = (problem.design.square() @ problem.prior_var).mean(1, keepdim=True).sqrt()
    return (MARGIN / spread).clamp_max(1)


def _scaled(problem: SignProblem, factor: Tensor) -> SignProblem:
    """The same problem with more noise."""
    shift = None if problem.shift is None else problem.shift * factor
    return replace(problem, design=problem.design * factor, shift=shift)


def score(power: Tensor, var: Tensor, *, activity: float, noise_var: float, threshold: float) -> Tensor:
    """Monotone score [B N] in [0, 1) of being active, 0.5 where both tests just hold: power [B N] of the posterior mean of alpha h, in
    units of the user's own, is ``threshold`` times the mean of the strongest users, as many as the activity lets expect; and it is `SURE`
    (at high SNR) to `UNSURE` (at low SNR) times the posterior's variance var [B N]. Neither depends on the scale that signs leave open."""
    expected = max(1, round(activity * power.shape[1]))
    level = power.topk(expected, 1).values.mean(1, keepdim=True)
    least = UNSURE + (SURE - UNSURE) / (1 + noise_var)
    needed = torch.maximum(threshold * level, least * var)
    return power / (power + needed).clamp_min(torch.finfo(power.dtype).tiny)
