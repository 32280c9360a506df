"""Automatic differentiation variational inference for signs of linear measurements, its gradients in closed form.

Each column of ``signs`` says on which side of zero ``design @ u + noise`` fell; u has independent Gaussian priors, the noise is standard
normal (probit) or logistic. q(u) = prod N(mean, exp(2 log_sd)) maximises the evidence lower bound (ELBO) of P4 section 1.4:

    L = E_q[sum_n log p(sign_n | w_n.u)] - sum_k E_q[u_k^2] / (2 prior_var_k) + sum_k log_sd_k        up to a constant (`offset` of `elbo`)

Expectations are Monte Carlo means over ``eta`` (P4 eq. 45-46, with the elementwise product and the prior's share that the printed eq. 44
and 46 leave out), or exact: under q every w_n.u is Gaussian, so that one-dimensional quadrature does, and the gradient with respect to
log_sd follows from the expected curvature (Bonnet's and Price's theorems). Everything is batched over frames and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..likelihoods.normal import hermite, mills

LOG_2PI = math.log(2 * math.pi)
NODES = 7  # of the quadrature; with 15 the ELBO of 160 signs moves by 0.004
DAMPING = 0.5  # of the deviations; undamped, mean and deviation swing against each other at high SNR
BUDGET = 2**24  # numbers that the products of columns of the design may take


@dataclass(frozen=True)
class SignProblem:
    """signs [B n p] of +-1, design [B n k] in units of the noise, prior_var [B k 1]; shift: known input beside the design, 0 or [B n p]."""

    signs: Tensor
    design: Tensor
    prior_var: Tensor
    shift: Tensor | None = None
    logistic: bool = False

    def take(self, frames: Tensor | slice) -> SignProblem:
        """Some of the frames."""
        shift = None if self.shift is None else self.shift[frames]
        return replace(self, signs=self.signs[frames], design=self.design[frames], prior_var=self.prior_var[frames], shift=shift)

    def margin(self, u: Tensor) -> Tensor:
        """sign * (design @ u + shift), u [... B k p]."""
        inner = self.design @ u
        return self.signs * (inner if self.shift is None else inner + self.shift)

    def log_link(self, margin: Tensor) -> Tensor:
        """log probability of the sign."""
        return torch.nn.functional.logsigmoid(margin) if self.logistic else torch.special.log_ndtr(margin)

    def slope(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """First derivative of the log probability, and minus the second."""
        if self.logistic:
            first = torch.sigmoid(-margin)
            return first, first * (1 - first)
        first = mills(margin)
        return first, first * (margin + first)


@dataclass(frozen=True)
class Factors:
    """q: mean and log_sd [B k p]."""

    mean: Tensor
    log_sd: Tensor

    @property
    def var(self) -> Tensor:
        return (2 * self.log_sd).exp()

    @staticmethod
    def prior(problem: SignProblem) -> Factors:
        """Mean 0 and the prior's deviation."""
        size = (*problem.design.shape[::2], problem.signs.shape[2])
        return Factors(problem.design.new_zeros(size), (0.5 * problem.prior_var.log()).expand(size).clone())


def elbo(problem: SignProblem, q: Factors, eta: Tensor | None = None, *, nodes: int = NODES) -> Tensor:
    """The bound [B p] in nats, complete with its constants; by quadrature, or as the mean over eta [S B k p]."""
    if eta is None:
        inner, spread = _projected(problem, q)
        fit = sum(weight * problem.log_link(inner + node * spread) for node, weight in zip(*hermite(nodes), strict=True))
        square = q.mean.square() + q.var
    else:
        u = q.mean + q.log_sd.exp() * eta
        fit, square = problem.log_link(problem.margin(u)).mean(0), u.square().mean(0)
    prior = -0.5 * (square / problem.prior_var + problem.prior_var.log() + LOG_2PI).sum(1)
    return fit.sum(1) + prior + (q.log_sd + 0.5 * (1 + LOG_2PI)).sum(1)  # type: ignore[union-attr]


def gradients(problem: SignProblem, q: Factors, eta: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dmean and dL/dlog_sd [B k p], means over eta [S B k p]: P4 eq. 45 and 46."""
    sd = q.log_sd.exp()
    u = q.mean + sd * eta
    first, _ = problem.slope(problem.margin(u))
    pull = problem.design.mT @ (first * problem.signs) - u / problem.prior_var
    return pull.mean(0), (pull * eta).mean(0) * sd + 1


def exact_gradients(problem: SignProblem, q: Factors, *, nodes: int = NODES) -> tuple[Tensor, Tensor]:
    """The same gradients with all expectations by quadrature."""
    first, second = _expected(problem, q, nodes)
    mean = problem.design.mT @ (first * problem.signs) - q.mean / problem.prior_var
    return mean, 1 - q.var * (problem.design.square().mT @ second + 1 / problem.prior_var)


def newton(problem: SignProblem, start: Factors | None = None, *, steps: int = 12, tolerance: float = 0.01) -> tuple[Factors, Tensor]:
    """Ascent along the gradient, divided by the expected curvature, of every column by itself; deviations go half way (in logarithms)
    to where their gradient vanishes. A frame stops once a step promises its columns less than ``tolerance`` nats of ELBO on average, or
    after ``steps``. Returns q and the steps [B] that each frame took."""
    at_once = max(1, BUDGET // (problem.design[0].numel() * problem.design.shape[2]))
    q, parts = start or Factors.prior(problem), []
    for first in range(0, len(problem.signs), at_once):
        frames = slice(first, first + at_once)
        parts.append(_newton(problem.take(frames), Factors(q.mean[frames], q.log_sd[frames]), steps, tolerance))
    mean, log_sd, used = (torch.cat(column) for column in zip(*parts, strict=True))
    return Factors(mean, log_sd), used


def _newton(problem: SignProblem, q: Factors, steps: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    mean, log_sd = q.mean.clone(), q.log_sd.clone()
    used = torch.zeros(len(mean), dtype=torch.long, device=mean.device)
    left, curve = torch.arange(len(mean), device=mean.device), _Curvature.of(problem.design)
    for _ in range(steps):
        q, promise = _step(problem, Factors(mean[left], log_sd[left]), curve)
        mean[left], log_sd[left] = q.mean, q.log_sd
        used[left] += 1
        moving = promise > tolerance
        if not bool(moving.any()):
            break
        if not bool(moving.all()):
            left, problem, curve = left[moving], problem.take(moving), curve.take(moving)
    return mean, log_sd, used


def _step(problem: SignProblem, q: Factors, curve: _Curvature) -> tuple[Factors, Tensor]:
    """The next q, and the ELBO [B] that the step of the mean promises, per column."""
    first, second = _expected(problem, q, NODES)
    gradient = problem.design.mT @ (first * problem.signs) - q.mean / problem.prior_var
    stiff = curve(second) + torch.diag_embed((1 / problem.prior_var).mT)
    move = torch.linalg.solve(stiff, gradient.mT[..., None])[..., 0].mT
    target = -0.5 * torch.log(problem.design.square().mT @ second + 1 / problem.prior_var)
    promise = 0.5 * (gradient * move).sum(1).mean(1)
    return Factors(q.mean + move, torch.lerp(q.log_sd, target, DAMPING)), promise


@dataclass(frozen=True)
class _Curvature:
    """W^T diag(h) W [B p k k] for many columns h [B n p] at once: one product with all pairs of columns of W."""

    pairs: Tensor  # [B n k*(k+1)/2]
    index: Tensor  # [k*k]

    @staticmethod
    def of(design: Tensor) -> _Curvature:
        size = design.shape[2]
        row, column = torch.triu_indices(size, size, device=design.device)
        index = design.new_zeros(size, size, dtype=torch.long)
        index[row, column] = index[column, row] = torch.arange(len(row), device=design.device)
        return _Curvature(design[..., row] * design[..., column], index)

    def take(self, frames: Tensor) -> _Curvature:
        return _Curvature(self.pairs[frames], self.index)

    def __call__(self, weight: Tensor) -> Tensor:
        return (weight.mT @ self.pairs)[..., self.index]


def monte_carlo(
    problem: SignProblem,
    start: Factors | None = None,
    *,
    samples: int,
    step: float,
    steps: int,
    tolerance: float = 0.01,
    generator: torch.Generator | None = None,
) -> tuple[Factors, int]:
    """P4 Algorithm 1: stochastic ascent, fresh ``samples`` of eta a step, by `Adam`. Returns q and the steps taken; it ends once the ELBO
    of the columns, a mean over `Adam.WINDOW` steps, rises by less than ``tolerance`` of itself from one window to the next."""
    q = start or Factors.prior(problem)
    ascent, values = Adam.of([q.mean, q.log_sd], step, steps), list[float]()
    while ascent.count < steps:
        q = Factors(*ascent.values)
        eta = torch.randn(samples, *q.mean.shape, generator=generator, device=q.mean.device, dtype=q.mean.dtype)
        ascent.up(gradients(problem, q, eta))
        values.append(float(elbo(problem, q, eta[:1]).mean()))
        if settled(values, tolerance):
            break
    return Factors(*ascent.values), ascent.count


def settled(values: list[float], tolerance: float) -> bool:
    """Whether the mean of the last window of ELBOs is above that of the one before by less than ``tolerance`` of it."""
    size = Adam.WINDOW
    if len(values) % size or len(values) < 2 * size:
        return False
    last, before = sum(values[-size:]) / size, sum(values[-2 * size : -size]) / size
    return last - before < tolerance * abs(before)


@dataclass
class Adam:
    """Kingma and Ba's ascent with a step that falls to zero linearly over ``steps``."""

    WINDOW = 25

    values: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    step: float
    steps: int
    count: int = 0

    @staticmethod
    def of(values: list[Tensor], step: float, steps: int) -> Adam:
        """Starts at ``values``, which stay as they are."""
        zeros = [torch.zeros_like(value) for value in values]
        return Adam([value.clone() for value in values], zeros, [zero.clone() for zero in zeros], step, steps)

    def up(self, slopes: tuple[Tensor, ...]) -> None:
        """One step uphill."""
        rate, self.count = self.step * (1 - self.count / self.steps), self.count + 1
        for value, first, second, slope in zip(self.values, self.first, self.second, slopes, strict=True):
            first.mul_(0.9).add_(slope, alpha=0.1)
            second.mul_(0.99).addcmul_(slope, slope, value=0.01)
            scale = (second / (1 - 0.99**self.count)).sqrt_().add_(1e-8)
            value.addcdiv_(first, scale, value=rate / (1 - 0.9**self.count))


def _projected(problem: SignProblem, q: Factors) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every margin under q."""
    return problem.margin(q.mean), (problem.design.square() @ q.var).sqrt()


def _expected(problem: SignProblem, q: Factors, nodes: int) -> tuple[Tensor, Tensor]:
    """E_q of `SignProblem.slope` [B n p]."""
    inner, spread = _projected(problem, q)
    first, second = torch.zeros_like(inner), torch.zeros_like(inner)
    for node, weight in zip(*hermite(nodes), strict=True):
        one, two = problem.slope(torch.add(inner, spread, alpha=node))
        first.add_(one, alpha=weight)
        second.add_(two, alpha=weight)
    return first, second
