"""NCSN++ for planar arrays: the papers' network, an image U-Net over 2 x rows x columns, used as a denoiser.

>>> import torch
>>> network = Ncsnpp(4, 4, width=8, multipliers=[1, 2], blocks=1, attention=[2])
>>> mean, error = network(torch.ones(3, 16) + 0j, torch.ones(3))
>>> mean.shape, error
(torch.Size([3, 16]), None)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError
from .preconditioning import NoiseEmbedding, check_form, denoise

RESCALE = math.sqrt(0.5)  # a sum of two unit-variance branches keeps unit variance


class Ncsnpp(nn.Module):
    """NCSN++ (Song et al. 2021, "Score-based generative modeling through SDEs", appendix H), the prior network of P1 and P2.

    ``width`` channels times ``multipliers`` a level, ``blocks`` residual blocks a level, self-attention where the longer side is in
    ``attention``; ``fir`` resamples with the filter (1, 3, 3, 1) instead of plain averages; ``progressive`` adds a shrunken copy of the
    input to every level. Each level halves both sides, so rows and columns must be multiples of 2**(levels - 1).

    The mean is made with EDM preconditioning, or, with form="printed", as the papers have it: the network sees unscaled input and gives
    minus the unit noise. It has no error head. Departures: no dropout; the embedding is of log sigma with frequencies of deviation
    ``fourier`` (16 in the original, which is noise for small networks); positions are marked by a learned map, since antennas of a row
    are alike but elevation is not.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (4,),
        fir: bool = True,
        progressive: bool = True,
        form: str = "edm",
        fourier: float = 1.0,
    ) -> None:
        super().__init__()
        factor = 2 ** (len(multipliers) - 1)
        if rows % factor or columns % factor:
            raise ConfigError(f"{len(multipliers)} levels need sides that {factor} divides, not {rows}x{columns}: give fewer multipliers")
        self.rows, self.columns, self.form = rows, columns, check_form(form)
        self.embedding = NoiseEmbedding(4 * width, scale=fourier)
        self.place = nn.Parameter(torch.zeros(width, rows, columns))
        self.first = nn.Conv2d(2, width, 3, padding=1)
        sides = [max(rows, columns) >> level for level in range(len(multipliers))]
        widths = [width * multiplier for multiplier in multipliers]
        attend = [side in attention for side in sides]
        self.down, skips = _down(width, widths, blocks, attend, fir, progressive)
        self.middle = nn.ModuleList(
            [_Block(widths[-1], widths[-1], 4 * width), _Attention(widths[-1]), _Block(widths[-1], widths[-1], 4 * width)]
        )
        self.up = _up(width, widths, blocks, attend, fir, skips)
        self.last = nn.Sequential(_norm(widths[0]), nn.SiLU(), _zero(nn.Conv2d(widths[0], 2, 3, padding=1)))

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, None]:
        """Mean [R M] for antenna rows x [R M] with noise of variance noise_var [R]."""
        mean = denoise(self._image, x.unflatten(1, (self.rows, self.columns)), noise_var, form=self.form)
        return mean.flatten(1), None

    def _image(self, image: Tensor, log_sigma: Tensor) -> Tensor:
        level = self.embedding(log_sigma)
        current, shrunk = self.first(image) + self.place, image
        kept = [current]
        for stage in self.down:
            current, shrunk = stage(current, shrunk, level)
            kept.append(current)
        for part in self.middle:
            current = part(current, level)
        for stage in self.up:
            current = stage(current, kept.pop() if stage.joins else None, level)
        found: Tensor = self.last(current)
        return found


class _Down(nn.Module):
    """A residual block, halving or with attention, and the shrunken input beside it."""

    def __init__(self, inner: int, outer: int, level: int, *, attend: bool, halve: bool, fir: bool, progressive: bool) -> None:
        super().__init__()
        self.block = _Block(inner, outer, level, resample=_Resample("down", fir) if halve else None)
        self.attention = _Attention(outer) if attend else None
        self.shrink = _Resample("down", fir) if halve else None
        self.join = nn.Conv2d(2, outer, 1) if halve and progressive else None

    def forward(self, x: Tensor, shrunk: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        x = self.block(x, level)
        if self.shrink is not None:
            shrunk = self.shrink(shrunk)
        if self.join is not None:
            x = (x + self.join(shrunk)) * RESCALE
        return (x if self.attention is None else self.attention(x)), shrunk


class _Up(nn.Module):
    """A residual block on what comes from below and what was kept on the way down; or a doubling one."""

    def __init__(self, inner: int, outer: int, level: int, *, attend: bool, double: bool, fir: bool) -> None:
        super().__init__()
        self.joins = not double
        self.block = _Block(inner, outer, level, resample=_Resample("up", fir) if double else None)
        self.attention = _Attention(outer) if attend else None

    def forward(self, x: Tensor, kept: Tensor | None, level: Tensor) -> Tensor:
        x = self.block(x if kept is None else torch.cat([x, kept], 1), level)
        return x if self.attention is None else self.attention(x)


class _Block(nn.Module):
    """BigGAN residual block: norm, swish, resampling, convolution, twice; the noise level shifts and scales the second norm."""

    def __init__(self, inner: int, outer: int, level: int, *, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.norm1, self.norm2 = _norm(inner), _norm(outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(outer, outer, 3, padding=1))
        self.level = nn.Linear(level, 2 * outer)
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        inner = functional.silu(self.norm1(x))
        if self.resample is not None:
            inner, x = self.resample(inner), self.resample(x)
        shift, scale = self.level(functional.silu(level))[..., None, None].chunk(2, 1)
        inner = self.norm2(self.conv1(inner)) * (1 + scale) + shift
        found: Tensor = (self.skip(x) + self.conv2(functional.silu(inner))) * RESCALE
        return found


class _Attention(nn.Module):
    """Self-attention of one head over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = _zero(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        query, key, value = self.query_key_value(self.norm(x)).flatten(2).mT.chunk(3, 2)
        seen = functional.scaled_dot_product_attention(query, key, value)
        found: Tensor = (x + self.out(seen.mT.unflatten(2, x.shape[2:]))) * RESCALE
        return found


class _Resample(nn.Module):
    """Halves or doubles both sides, with the separable filter (1, 3, 3, 1) or plainly."""

    def __init__(self, way: str, fir: bool) -> None:
        super().__init__()
        self.way = way
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8 if fir else None
        self.register_buffer("taps", None if taps is None else torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.taps
        if not isinstance(taps, Tensor):
            return functional.avg_pool2d(x, 2) if self.way == "down" else functional.interpolate(x, scale_factor=2.0)
        kernel = taps.to(x).expand(x.shape[1], 1, 4, 4)
        if self.way == "down":
            return functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
        return functional.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=x.shape[1])


def _down(width: int, widths: list[int], blocks: int, attend: list[bool], fir: bool, progressive: bool) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the widths of all that it keeps."""
    stages, kept, current = nn.ModuleList(), [width], width
    for index, outer in enumerate(widths):
        for block in range(blocks + (index > 0)):
            halve = index > 0 and block == 0
            goal = current if halve else outer
            stages.append(
                _Down(current, goal, 4 * width, attend=attend[index] and not halve, halve=halve, fir=fir, progressive=progressive)
            )
            current = goal
            kept.append(current)
    return stages, kept


def _up(width: int, widths: list[int], blocks: int, attend: list[bool], fir: bool, kept: list[int]) -> nn.ModuleList:
    """The way up, which takes all that was kept."""
    stages, current, left = nn.ModuleList(), widths[-1], list(kept)
    for index in range(len(widths) - 1, -1, -1):
        for block in range(blocks + 1):
            last = attend[index] and block == blocks
            stages.append(_Up(current + left.pop(), widths[index], 4 * width, attend=last, double=False, fir=fir))
            current = widths[index]
        if index:
            stages.append(_Up(current, current, 4 * width, attend=False, double=True, fir=fir))
    return stages


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, min(max(width // 4, 1), 32)), width, eps=1e-6)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Starts as nothing, so that a new network is the Wiener filter."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
