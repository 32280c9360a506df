"""Quantised samples: all that is known is the cell that each real part fell into.

>>> import torch
>>> from massaccess.forward.front_end import front_end, quantize
>>> converter = front_end(bits=1, power=2.0)
>>> seen = Quantized.of(quantize(torch.tensor([0.3 - 2.0j]), converter), converter, 1.0)
>>> mean, var = seen.moments(torch.zeros(1) + 0j, torch.ones(1))
>>> [round(mean.real.item(), 3), round(mean.imag.item(), 3), round(var.item(), 3)]
[0.399, -0.399, 0.682]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import FrontEnd, Observation
from ..errors import ConfigError, unknown
from ..forward.front_end import levels_of, optimal_step
from .linear import Linear
from .normal import LOGISTIC, hermite, log_mass, mills

LINKS = ("probit", "logistic")
"""Law of the noise in front of the comparator."""
NODES, BISECTIONS = 32, 40  # of the quadrature for logistic noise, and to find its centre
LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Quantized:
    """lower <= part(z + noise) < upper for real and imaginary part, lower and upper [... 2]; noise of total
    variance noise_var (broadcasts).

    With ``link="probit"`` the noise is Gaussian, as in front of every real converter, and all moments are closed forms. "logistic" has
    the slope 1.702 / sigma that comes nearest, sigma the noise's deviation per real part (P4's sigmoid has slope 1 whatever the noise;
    that is ``noise_var = 2 * 1.702**2``): quadrature around the mode.

    ``one_sided`` says that every cell reaches to infinity, as with one bit; its moments are then cheaper.
    """

    lower: Tensor
    upper: Tensor
    noise_var: Tensor
    link: str = "probit"
    one_sided: bool = False

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise unknown("link", self.link, LINKS)

    @staticmethod
    def of(samples: Tensor, converter: FrontEnd, noise_var: Tensor | float, *, link: str = "probit") -> Quantized:
        """The cells of samples [... T M] (complex) that ``converter`` gave, its offset taken into account; noise_var broadcasts.

        Raises ConfigError for an ideal converter (`Linear` is its likelihood).
        """
        if converter.bits is None:
            raise ConfigError("an ideal converter has no cells: use likelihoods.linear.Linear, or say how many bits it has")
        lower, upper = _cells(samples, converter)
        if converter.offset is not None:
            moved = torch.view_as_real(converter.offset.to(samples))
            lower, upper = lower - moved, upper - moved
        return Quantized(lower, upper, torch.as_tensor(noise_var, dtype=lower.dtype, device=lower.device), link, converter.bits == 1)

    def moments(self, z: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """E[z0 | y] and Var[z0 | y] for the prior z0 ~ CN(z, var), var broadcasts; as `core.Likelihood` says."""
        prior, part_var, noise = torch.view_as_real(z.resolve_conj()), (var / 2)[..., None], (self.noise_var / 2)[..., None]
        if self.link == "logistic":
            mean, spread = self._by_quadrature(prior, part_var, noise)
        else:
            mean, spread = self._gaussian(prior, part_var, noise)
        return torch.view_as_complex(mean.contiguous()), spread.sum(-1)

    def take(self, frames: Tensor) -> Quantized:
        """The frames [B] that ``frames`` (indices or a mask) picks; the noise variance is one number a frame, [B 1 1]."""
        return replace(self, lower=self.lower[frames], upper=self.upper[frames], noise_var=self.noise_var[frames])

    def at(self, times: slice) -> Quantized:
        """The symbol times ``times`` of all frames."""
        return replace(self, lower=self.lower[:, times], upper=self.upper[:, times])

    def log_evidence(self, z: Tensor, var: Tensor) -> Tensor:
        """log P(y) [...] of each sample under the prior CN(z, var), Gaussian noise."""
        prior, root = torch.view_as_real(z.resolve_conj()), ((var + self.noise_var) / 2).sqrt()[..., None]
        return log_mass((self.lower - prior) / root, (self.upper - prior) / root).sum(-1)

    def _gaussian(self, mean: Tensor, var: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of real parts N(mean, var) given that they fell into the cells after noise N(0, noise)."""
        total = var + noise
        root = total.sqrt()
        low, high = (self.lower - mean) / root, (self.upper - mean) / root
        first, second = _one_sided(low, high) if self.one_sided else _two_sided(low, high)
        share = var / root
        left = (1 - first.square() + second).clamp(0, 1)  # of the variance of signal plus noise, inside the cell
        return mean + share * first, var * noise / total + share.square() * left

    def _by_quadrature(self, prior: Tensor, var: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance under logistic noise: Gauss-Hermite around the mode."""
        slope = LOGISTIC / noise.sqrt()
        mode, spread = self._mode(prior, var, slope)
        node, weight = (prior.new_tensor(row) for row in hermite(NODES))
        point = mode[..., None] + spread.sqrt()[..., None] * node
        edges = (point - self.lower[..., None]) * slope[..., None], (self.upper[..., None] - point) * slope[..., None]
        inside = sum(torch.nn.functional.logsigmoid(edge) for edge in edges)
        log_density = inside - (point - prior[..., None]).square() / (2 * var[..., None])
        share = torch.softmax(log_density + node.square() / 2 + weight.log(), -1)
        mean = (share * point).sum(-1)
        return mean, (share * (point - mean[..., None]).square()).sum(-1)

    def _mode(self, prior: Tensor, var: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Where the posterior is highest, by bisection (its logarithm is concave), and the variance that its curvature there means."""
        reach = slope * var
        low, high = (torch.broadcast_tensors(prior - reach, self.lower)[0], torch.broadcast_tensors(prior + reach, self.lower)[0])
        for _ in range(BISECTIONS):
            spot = (low + high) / 2
            pull = torch.sigmoid((self.lower - spot) * slope) - torch.sigmoid((spot - self.upper) * slope)
            rising = slope * pull > (spot - prior) / var
            low, high = torch.where(rising, spot, low), torch.where(rising, high, spot)
        steep = [torch.sigmoid((edge - spot) * slope) for edge in (self.lower, self.upper)]
        curvature = slope.square() * sum(value * (1 - value) for value in steep) + 1 / var
        return (low + high) / 2, 1 / curvature


def likelihood(obs: Observation, *, link: str = "probit") -> Linear | Quantized:
    """What the front end of ``obs`` says of its frames [B L+D M], pilots first; noise variance [B 1 1]."""
    samples = torch.cat([obs.pilot_rx, obs.data_rx], 1)
    noise_var = samples.real.new_full((obs.frames, 1, 1), obs.noise_var)
    if obs.front_end.bits is None:
        return Linear(samples, noise_var)
    if obs.rows is not None:
        raise ConfigError(
            "the matched filter of bursts blurs the levels of converters: use a receiver that takes few bits for noise, such as jcedd, or "
            "frames of symbols (samples_per_symbol=1)"
        )
    return Quantized.of(samples, obs.front_end, noise_var, link=link)


def _cells(samples: Tensor, converter: FrontEnd) -> tuple[Tensor, Tensor]:
    """Lower and upper edges [... 2] of the cells, in units of the converter's input."""
    assert converter.bits is not None
    level = levels_of(samples, converter)
    width, last = optimal_step(converter.bits)[0] * converter.scale, 2 ** (converter.bits - 1) - 0.5
    lower = torch.where(level > -last, (level - 0.5) * width, -torch.inf)
    return lower, torch.where(level < last, (level + 0.5) * width, torch.inf)


def _one_sided(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """`_two_sided` where one edge is infinite: the inverse Mills ratio."""
    above = high.isinf()  # the cell reaches to plus infinity
    inner = torch.where(above, -low, high)
    ratio = mills(inner)
    return torch.where(above, ratio, -ratio), -inner * ratio


def _two_sided(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(phi(low) - phi(high)) / P and (low phi(low) - high phi(high)) / P, P = Phi(high) - Phi(low)."""
    log_p = log_mass(low, high)

    def density(edge: Tensor) -> Tensor:
        return torch.exp(-edge.square() / 2 - LOG_ROOT_2PI - log_p)

    at_low, at_high = density(low), density(high)
    weighted = [torch.where(edge.isinf(), 0, edge * value) for edge, value in ((low, at_low), (high, at_high))]
    return at_low - at_high, weighted[0] - weighted[1]
