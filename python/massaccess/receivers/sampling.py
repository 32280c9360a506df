"""What the diffusion receivers share: their options, the channel's and the data's posterior scores, and what they answer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import rng
from ..core import ChannelPrior, Estimate, Observation
from ..detection.linear import MatchedFilter
from ..errors import ConfigError, ShapeError, unknown
from ..priors.constellation import ConstellationPrior
from ..samplers import guidance, langevin, predictor_corrector, schedules
from ..samplers.guidance import LinearGaussian
from ..weights import choose
from .coherent import Link, known_active
from .selection import Selection

METHODS = ("pc", "ald")
GUIDANCE = {"flat": guidance.flat, "prior": guidance.guided}
ROOT_2 = math.sqrt(2.0)  # the papers' noise levels are per real part, ours per complex entry

Stop = Callable[[int, Tensor], bool | None]


@dataclass(frozen=True)
class Sampling:
    """Options of all diffusion receivers, with the values of P1 and P2.

    weights: the channel prior, see `weights.choose`. method: "pc" (P1 Algorithm 1) or "ald" (P2 eq. 3, one Langevin step a level).
    corrections: Q, Langevin steps after each prediction of "pc". r, step_rule: see `samplers.langevin.step_size`; the papers print
    "printed". channel_weight, data_weight: lambda_h, lambda_x, weights of the likelihoods. guidance: "flat" (P1 eq. 20) or "prior", which
    uses the prior's variance (then weight 1 is exact for Gaussian channels). n_h, n_x: steps from sigma_max to sigma_min (channel) and from
    tau_max to tau_min (data), levels of a complex entry: the papers' 30, 0.01 and 1, 0.01 per real part times the root of 2. clean: answer
    with symbols cleaned of the sample's own noise, see `Scene.estimate`, which halves the bit errors; ``False`` for the papers' samples.
    """

    weights: str = "auto"
    method: str = "pc"
    corrections: int = 3
    r: float = 0.3
    step_rule: str = "song"
    channel_weight: float = 2.5
    data_weight: float = 2.5
    guidance: str = "flat"
    n_h: int = 1500
    n_x: int = 1500
    sigma_min: float = 0.01 * ROOT_2
    sigma_max: float = 30 * ROOT_2
    tau_min: float = 0.01 * ROOT_2
    tau_max: float = ROOT_2
    clean: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown("method", self.method, METHODS)
        if self.guidance not in GUIDANCE:
            raise unknown("guidance", self.guidance, GUIDANCE)
        if self.corrections < 0 or self.channel_weight < 0 or self.data_weight < 0:
            raise ConfigError("corrections, channel_weight and data_weight count from 0: pass no negative ones")
        langevin.check_rule(self.step_rule, self.r)
        self.sigmas, self.taus

    @functools.cached_property
    def sigmas(self) -> Tensor:
        """Channel levels [n_h + 1], falling: index n_h - i holds the papers' sigma_i."""
        return schedules.geometric(self.sigma_min, self.sigma_max, self.n_h)

    @functools.cached_property
    def taus(self) -> Tensor:
        """Data levels [n_x + 1], falling."""
        return schedules.geometric(self.tau_min, self.tau_max, self.n_x)

    @property
    def cost(self) -> int:
        """Scores per step."""
        return 1 + self.corrections if self.method == "pc" else 1

    def run(
        self, score: langevin.Score, x: Tensor, levels: Tensor, *, mask: Tensor, generator: torch.Generator, on_step: Stop | None = None
    ) -> Tensor:
        """The chain from ``levels[0]`` to ``levels[-1]``."""
        some = None if bool(mask.all()) else mask
        shared = {"r": self.r, "step_rule": self.step_rule, "mask": some, "generator": generator, "on_step": on_step}
        if self.method == "pc":
            return predictor_corrector.sample(score, x, levels, corrections=self.corrections, **shared)  # type: ignore[arg-type]
        return langevin.sample(score, x, levels[:-1], **shared)  # type: ignore[arg-type]

    def channel_score(self, scene: Scene, seen: LinearGaussian) -> langevin.Score:
        """The posterior score of the channel, P1 eq. (23)."""
        return GUIDANCE[self.guidance](scene.moments, seen, weight=self.channel_weight)

    def sample_channel(self, scene: Scene, seen: LinearGaussian, generator: torch.Generator, on_step: Stop | None = None) -> Tensor:
        """P1 Algorithm 1 from noise: channels [B K M] of power 1, in beams."""
        start = scene.noise(self.sigma_max, generator)
        score = self.channel_score(scene, seen)
        return self.run(score, start, self.sigmas, mask=scene.mask, generator=generator, on_step=on_step)

    def sample_data(self, scene: Scene, channel: Tensor, generator: torch.Generator, on_step: Stop | None = None) -> Tensor:
        """Symbols [B D K] from the posterior of P1 eq. (30) given ``channel`` [B K M] (in beams), from noise."""
        score, start = data_score(scene.link, channel, self.data_weight), scene.data_noise(self.tau_max, generator)
        return complex_of(self.run(score, start, self.taus, mask=scene.data_mask, generator=generator, on_step=on_step))


def data_score(link: Link, channel: Tensor, weight: float, *, squared: bool = False) -> langevin.Score:
    """The posterior score of the symbols, P1 eq. (28)-(30), on real parts [B 2K D]: one small real product and one tanh an evaluation.

    The likelihood's part is affine in the symbols; its matrix and offset are made once a level.
    """
    seen = LinearGaussian.of(link.data_rx.mT, channel.mT, noise_var=link.noise_var, squared=squared)
    eye = torch.eye(2 * channel.shape[1], dtype=link.data_rx.real.dtype, device=channel.device)

    @functools.lru_cache(maxsize=2)
    def affine(tau: float) -> tuple[Tensor, Tensor]:
        matrix, offset = seen.affine(tau**2, weight)
        upper, lower = torch.cat([matrix.real, -matrix.imag], 2), torch.cat([matrix.imag, matrix.real], 2)
        return torch.cat([upper, lower], 1).add_(eye, alpha=tau**-2).neg_(), torch.cat([offset.real, offset.imag], 1)

    def score(x: Tensor, tau: float) -> Tensor:
        matrix, offset = affine(tau)
        return torch.baddbmm(offset, matrix, x).add_(link.prior.mean_of_parts(x, tau**2), alpha=tau**-2)

    return score


def complex_of(parts: Tensor) -> Tensor:
    """Real parts [B 2K D] to symbols [B D K]."""
    real, imag = parts.chunk(2, 1)
    return torch.complex(real, imag).mT.contiguous()


@dataclass(frozen=True)
class Scene:
    """One batch in the beams of its channel prior; channels inside have power 1, their gains go with the symbols."""

    obs: Observation
    slots: Selection
    link: Link
    prior: ChannelPrior
    root_gain: Tensor  # [B K], of the gains

    @staticmethod
    def of(obs: Observation, active: Tensor | None, weights: str) -> Scene:
        """Of the users that ``active`` [B N] names; without it all must be known to be active."""
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots, prior = Selection.of(active), choose(weights, obs)
        beams = prior.beams
        gain = slots.gain(obs)
        rx = beams.into(obs.pilot_rx), beams.into(obs.data_rx)
        link = Link(*rx, slots.pilots(obs), gain, slots.present, beams, obs.linear_noise_var, ConstellationPrior(obs.modulation))
        return Scene(obs, slots, link, prior, gain.sqrt())

    def take(self, rows: Tensor) -> Scene:
        """The frames that ``rows`` picks, for the inner steps (``obs`` and ``slots`` stay whole)."""
        return replace(self, link=self.link.take(rows), root_gain=self.root_gain[rows])

    @property
    def mask(self) -> Tensor:
        return self.link.present[..., None]

    @property
    def data_mask(self) -> Tensor:
        return torch.cat([self.mask, self.mask], 1)

    def noise(self, sigma: float, generator: torch.Generator) -> Tensor:
        """Channels [B K M] of power 1 under so much noise that nothing is known of them."""
        start = langevin.noise_like(self.link.pilots.new_zeros(self.shape), generator)
        return langevin.masked(start, self.mask) * math.sqrt(sigma**2 + 1)

    def data_noise(self, tau: float, generator: torch.Generator) -> Tensor:
        """Symbols, as real parts [B 2K D], under noise of level tau: variance tau^2 + 1 (the papers forget the 1)."""
        frames, slots = self.root_gain.shape
        start = self.root_gain.new_zeros(frames, 2 * slots, self.link.data_rx.shape[1])
        return langevin.masked(langevin.noise_like(start, generator), self.data_mask) * math.sqrt(tau**2 + 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.root_gain.shape, self.link.pilot_rx.shape[2])

    def moments(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The prior's E and Var of channels of power 1 at noise level ``sigma``, in beams."""
        return self.prior.in_beams(x, x.real.new_full((1,), sigma**2))

    def channel(self, x: Tensor) -> Tensor:
        """Channels with their gains, in beams."""
        return x * self.root_gain[..., None]

    def known(self, symbols: Tensor | None, var: Tensor | None = None, *, squared: bool = False) -> LinearGaussian:
        """What pilots and ``symbols`` [B D K] with variances ``var`` say of the channels of power 1; ``None``: pilots alone."""
        rx, sent = self.link.pilot_rx, self.link.pilots
        row_noise = None
        if symbols is not None:
            rx, sent = torch.cat([rx, self.link.data_rx], 1), torch.cat([sent, symbols], 1)
            if var is not None:
                quiet = var.new_zeros(len(var), self.link.pilots.shape[1])
                row_noise = torch.cat([quiet, (var * self.root_gain.square()[:, None, :]).sum(2)], 1)
        sent = sent * self.root_gain[:, None, :]
        return LinearGaussian.of(rx, sent, noise_var=self.link.noise_var, row_noise=row_noise, squared=squared)

    def estimate(self, x: Tensor, symbols: Tensor, *, clean: bool = True, **info: object) -> Estimate:
        """The answer for channels ``x`` of power 1 and sampled ``symbols``.

        Unbiased symbols: each user's matched filter once the sampled symbols of all others are subtracted; their variance counts the noise
        and the channel error that pilots and data leave, but takes the others' symbols as right, so it is too small where they are wrong.
        ``clean=False`` leaves the symbols as sampled, with the same variance, which then is a label more than a measure.
        """
        link, channel = self.link, self.channel(x)
        power = self.root_gain.square()
        heard = (link.pilots.abs().square().sum(1) + symbols.abs().square().sum(1)) / link.noise_var
        error = power / (1 + heard * power)
        noise = (link.noise_var + error.sum(1))[:, None].expand(-1, x.shape[2])
        filtered = MatchedFilter.of(link.data_rx, channel, noise, link.present)
        strength = filtered.gram.diagonal(dim1=-2, dim2=-1).real.clamp_min(1e-12)[:, None, :]
        if clean:
            symbols = symbols + (filtered.match - symbols @ filtered.gram.mT) / strength
        active = self.slots.put(torch.ones_like(power))
        rows = link.beams.back(channel)
        return self.slots.estimate(active, rows, symbols, (1 / strength).expand(symbols.shape), error_var=self.slots.put(error), **info)


def draws(generator: torch.Generator | None, obs: Observation) -> torch.Generator:
    """The generator, or one with a fixed seed on the observation's device."""
    return rng.generator(0, "sampling", device=obs.pilot_rx.device) if generator is None else generator
