"""VPL-AUDNet: activity detection with a heterogeneous Transformer, one model for all pilot lengths."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError, ShapeError, unknown
from . import covariance_statistics as physics
from .heterogeneous import Layer, Twofold, joined_heads, split_heads
from .spatial_correlation import SpatialCorrelation

FEATURES = ("raw", "physics")
DECODER_SCALE = 0.1  # of the decoder's first weight: with the usual one the first loss is eight times that of knowing only the prior
OF_FRAME = 6  # features of the received signal, features = "physics"


class VplAudNet(nn.Module):
    """Log odds of being active for every user of a frame (P1 section IV and Appendix A).

    features="raw", as published: a pilot's token is [Re p, Im p], zero-padded to ``max_len`` symbols; that of the received signal is the
    sample covariance C = Y Y^H / M of the zero-padded samples, [Re vec C, Im vec C]. ``layers`` heterogeneous encoder layers of ``heads``
    heads follow, with a pilot length adaptive module (``plam``) between each two, and the activity decoder of eq. 8. ``scm`` puts the
    spatial correlation module before the covariance.

    features="physics": a user's token is what the covariance says of it in closed form (`covariance_statistics.features`), at the prior's
    powers and after each of ``stages`` plain updates of them; that of the received signal is the dimensions of the frame. Then the same
    model fits every pilot length, number of antennas, noise variance and pilot book, and needs no ``max_len``.

    Departures: samples are divided by the root of the power that the prior expects, so that units do not matter; the prior's log odds are
    added to C tanh(.); W is real, as all that it multiplies; layer norms, a feed-forward network of ``hidden`` = 4 ``width`` neurons and a
    sigmoid at the end of the PLAM, of which the paper says nothing; the two linear maps in a row at its entrance are one.

    >>> network = VplAudNet(max_len=8, layers=2, width=16, heads=2)
    >>> rx, pilots = torch.ones(3, 6, 4, dtype=torch.complex64), torch.ones(3, 6, 5, dtype=torch.complex64)
    >>> network(rx, pilots, torch.ones(3), torch.full((3,), 0.1), (2, 2)).shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        *,
        features: str = "raw",
        max_len: int = 28,
        layers: int = 5,
        width: int = 512,
        heads: int = 8,
        hidden: int = 0,
        plam: bool = True,
        scm: bool = False,
        stages: int = 0,
        clip: float = 10.0,
    ) -> None:
        super().__init__()
        if features not in FEATURES:
            raise unknown("kind of features", features, FEATURES)
        if width % heads or layers < 1 or (stages and features == "raw"):
            raise ConfigError("vpl-audnet: pass a width that heads divides, 1 layer or more, and stages with features='physics' only")
        self.features, self.max_len, self.stages, self.clip, self.heads = features, max_len, stages, clip, heads
        sizes = (2 * max_len, 2 * max_len**2) if features == "raw" else (2 + 4 * (1 + stages), OF_FRAME)
        self.embed_pilot, self.embed_received = nn.Linear(sizes[0], width), nn.Linear(sizes[1], width)
        self.scm = SpatialCorrelation() if scm else None
        self.layers = nn.ModuleList(Layer(width, heads, hidden or 4 * width) for _ in range(layers))
        self.plams = nn.ModuleList(LengthAdaptive(width) for _ in range(layers - 1 if plam else 0))
        self.into = Twofold(nn.Linear(width, 2 * width), nn.Linear(width, width))
        self.out = nn.Linear(width, width)
        self.bilinear = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.bilinear.weight.mul_(DECODER_SCALE)

    @property
    def longest(self) -> int | None:
        """Most pilot symbols that it takes."""
        return self.max_len if self.features == "raw" else None

    def forward(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """rx [B L M], pilots [B L N] (times the root of each user's mean gain), noise_var [B], prior activity [B] in (0, 1),
        rows and columns of the array where ``scm`` wants them: log odds [B N]. ShapeError beyond ``max_len`` symbols."""
        parts, length = torch.view_as_real(rx.resolve_conj()), rx.shape[1]
        if self.scm is not None:
            if grid is None:
                raise ConfigError("the spatial correlation module has to know the array: pass rows and columns")
            parts = self.scm(parts, grid)
        seen = (self._raw if self.features == "raw" else self._physics)(parts, pilots, noise_var, activity)
        dtype = self.embed_pilot.weight.dtype
        tokens = torch.cat([self.embed_pilot(seen[0].to(dtype)), self.embed_received(seen[1].to(dtype))[:, None]], 1)
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index < len(self.plams):
                tokens = self.plams[index](tokens, length / self.max_len)
        return self._decoded(tokens).to(noise_var.dtype) + torch.logit(activity)[:, None]

    def _raw(self, parts: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor) -> tuple[Tensor, Tensor]:
        """[B N 2 max_len] and [B 2 max_len^2], in real operations throughout: compilers know no others."""
        length = parts.shape[1]
        if length > self.max_len:
            raise ShapeError(f"frames of {length} pilots, but this network takes {self.max_len} at most: cut them, or train a longer one")
        power = activity * torch.view_as_real(pilots).square().mean(1).sum((1, 2)) + noise_var
        scaled = parts * power.rsqrt()[:, None, None, None]
        real, imag = (functional.pad(part, (0, 0, 0, self.max_len - length)) for part in scaled.unbind(-1))
        with torch.autocast(parts.device.type, enabled=False):  # what a user shows is a small part of it
            cov = torch.stack([real @ real.mT + imag @ imag.mT, imag @ real.mT - real @ imag.mT], 1) / parts.shape[2]
        book = functional.pad(torch.view_as_real(pilots).permute(0, 2, 3, 1), (0, self.max_len - length))
        return book.flatten(2), cov.flatten(1)

    def _physics(self, parts: Tensor, pilots: Tensor, noise_var: Tensor, activity: Tensor) -> tuple[Tensor, Tensor]:
        """[B N 2 + 4 (1 + stages)] and [B OF_FRAME]."""
        rx = torch.view_as_complex(parts.contiguous())
        antennas, length, users = rx.shape[2], rx.shape[1], pilots.shape[2]
        seen, prior = physics.whitened(rx, pilots, noise_var), torch.logit(activity)[:, None]
        power = activity[:, None].expand(-1, users)
        told, fits = [], []
        for _ in range(self.stages + 1):
            found = physics.statistics(seen, power)
            told.append(physics.features(found.precision, found.energy, antennas))
            fits.append(found.fit)
            power = 0.5 * power + 0.5 * torch.sigmoid(prior + antennas * physics.evidence(found.precision, found.energy))
        matched = (seen.book.conj() * (seen.cov @ seen.book)).sum(1).real.clamp_min(1e-12).log()
        energy = seen.book.abs().square().sum(1).clamp_min(1e-12).log()
        plain = torch.stack([matched - matched.mean(1, keepdim=True), energy - energy.mean(1, keepdim=True)], -1)
        sizes = [math.log(antennas) - 4, length / self.max_len, math.log(users / length) - 2]
        frame = [
            prior[:, 0] / 2,
            fits[0].log().clamp(-3, 3),
            fits[-1].log().clamp(-3, 3),
            *(torch.full_like(fits[0], one) for one in sizes),
        ]
        return torch.cat([plain, *told], -1), torch.stack(frame, -1)

    def _decoded(self, tokens: Tensor) -> Tensor:
        """Eq. 8: what all pilots together contribute to the received signal, correlated with each of them."""
        key, value = (split_heads(part, self.heads) for part in self.into.pilot(tokens[:, :-1]).chunk(2, -1))
        query = split_heads(self.into.received(tokens[:, -1:]), self.heads)
        context = self.out(joined_heads(functional.scaled_dot_product_attention(query, key, value)))
        match = (self.bilinear(context) @ tokens[:, :-1].mT)[:, 0] / math.sqrt(tokens.shape[2])
        return self.clip * torch.tanh(match.float())


class LengthAdaptive(nn.Module):
    """Pilot length adaptive module: a gate for every feature, from the mean token and the pilot length (P1 Fig. 3). [B T d] -> [B T d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width + 1, width), nn.ReLU(), nn.Linear(width, width), nn.Sigmoid())

    def forward(self, tokens: Tensor, length: float) -> Tensor:
        mean = tokens.mean(1)
        weight: Tensor = self.gate(torch.cat([mean, torch.full_like(mean[:, :1], length)], 1))
        return tokens * weight[:, None]
