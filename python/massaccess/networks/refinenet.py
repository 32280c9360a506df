"""RefineNet: P0's network for whole channel matrices, fully convolutional over users x antennas.

>>> import torch
>>> network = RefineNet(width=8)
>>> [network(torch.ones(1, users, antennas) + 0j, torch.ones(1))[0].shape[1:] for users, antennas in ((8, 8), (13, 32))]
[torch.Size([8, 8]), torch.Size([13, 32])]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigError, ShapeError
from .preconditioning import NoiseEmbedding, check_form, denoise

SMALLEST = 8  # users or antennas: three halvings leave one


class RefineNet(nn.Module):
    """RefineNet (Lin et al. 2017) as a noise-conditional score network (Song, Ermon 2019 and 2020), P0 section 3.

    Residual stages at full, half, quarter and eighth size (``multipliers`` times ``width`` channels, ``depth`` blocks each) are fused from
    coarse to fine by residual convolution units, multi-resolution fusion and chained residual pooling. Sizes are free from 8 x 8 on: the
    weights do not know the array. ``power`` is the mean power of a matrix entry, silent users included.

    ``conditional`` lets the noise level shift and scale every instance norm (NCSN); without, the network finds the level in the scaled
    input itself (NCSNv2), which P0 does not say. form="printed" is minus the unit noise, otherwise EDM preconditioning. Departures: coarse
    stages are halved by averages rather than dilated; convolutions do not treat users as exchangeable, which they are.
    """

    def __init__(
        self,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        depth: int = 2,
        power: float = 1.0,
        conditional: bool = True,
        form: str = "edm",
    ) -> None:
        super().__init__()
        if not 1 <= len(multipliers) <= 4 or depth < 1 or not power > 0:
            raise ConfigError(
                f"{len(multipliers)} stages of {depth} blocks, power {power}: pass 1 to 4 stages, 1 block or more, power above 0"
            )
        self.form, self.power = check_form(form), power
        level = 4 * width if conditional else 0
        self.embedding = NoiseEmbedding(level) if conditional else None
        widths = [width * multiplier for multiplier in multipliers]
        inner = [width, *widths]
        self.first = nn.Conv2d(2, width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.ModuleList(_Residual(inner[index] if block == 0 else widths[index], widths[index], level) for block in range(depth))
            for index in range(len(widths))
        )
        coarser = [*widths[1:], 0]
        self.refine = nn.ModuleList(_Refine(own, below, level) for own, below in zip(widths, coarser, strict=True))
        self.norm = _Norm(widths[0], level)
        self.last = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, None]:
        """Mean [R users antennas] for matrices x with noise of variance noise_var [R]; ShapeError below 8 users or antennas."""
        if x.ndim != 3 or min(x.shape[1:]) < SMALLEST:
            raise ShapeError(f"x is {list(x.shape)}: pass matrices [R, users, antennas] with {SMALLEST} of both or more")
        return denoise(self._image, x, noise_var, form=self.form, power=self.power), None

    def _image(self, image: Tensor, log_sigma: Tensor) -> Tensor:
        level = None if self.embedding is None else self.embedding(log_sigma)
        current, kept = self.first(image), []
        for index, stage in enumerate(self.stages):
            current = current if index == 0 else functional.avg_pool2d(current, 2, ceil_mode=True)
            for block in stage:  # type: ignore[attr-defined]
                current = block(current, level)
            kept.append(current)
        fused: Tensor | None = None
        for own, refine in zip(reversed(kept), reversed(self.refine), strict=True):
            fused = refine(own, fused, level)
        assert fused is not None
        found: Tensor = self.last(functional.elu(self.norm(fused, level)))
        return found


class _Norm(nn.Module):
    """InstanceNorm++ (Song, Ermon 2019): the instance norm plus what it takes away of the channel means; noise shifts and scales it."""

    def __init__(self, width: int, level: int) -> None:
        super().__init__()
        self.scale, self.shift, self.mean = (nn.Parameter(torch.full((width,), value)) for value in (1.0, 0.0, 0.0))
        self.level = nn.Linear(level, 2 * width) if level else None
        if self.level is not None:
            nn.init.normal_(self.level.weight, std=0.02)

    def forward(self, x: Tensor, level: Tensor | None) -> Tensor:
        means = x.mean((2, 3))
        residue = x - means[..., None, None]
        flat = residue * (residue.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()
        centred = means - means.mean(1, keepdim=True)
        spread = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        scale, shift = self.scale, self.shift + self.mean * spread
        if self.level is not None and level is not None:
            more = self.level(functional.silu(level)).chunk(2, 1)
            scale, shift = scale * (1 + more[0]), shift + more[1]
        found: Tensor = flat * scale.expand(len(x), -1)[..., None, None] + shift[..., None, None]
        return found


class _Residual(nn.Module):
    """Two normalised convolutions beside a short cut."""

    def __init__(self, inner: int, outer: int, level: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Norm(inner, level), _Norm(outer, level)
        self.conv1, self.conv2 = nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, level: Tensor | None) -> Tensor:
        inner = self.conv1(functional.elu(self.norm1(x, level)))
        found: Tensor = self.skip(x) + self.conv2(functional.elu(self.norm2(inner, level)))
        return found


class _Refine(nn.Module):
    """RefineNet block: adapt both inputs, fuse them at the finer size, pool context in, adapt the sum."""

    def __init__(self, own: int, below: int, level: int) -> None:
        super().__init__()
        self.adapt_own = _Residual(own, own, level)
        self.adapt_below = _Residual(below, below, level) if below else None
        self.fuse_own = nn.Conv2d(own, own, 3, padding=1)
        self.fuse_below = nn.Conv2d(below, own, 3, padding=1) if below else None
        self.pools = nn.ModuleList(nn.Conv2d(own, own, 3, padding=1, bias=False) for _ in range(2))
        self.out = _Residual(own, own, level)

    def forward(self, own: Tensor, below: Tensor | None, level: Tensor | None) -> Tensor:
        total = self.adapt_own(own, level)
        if below is not None and self.adapt_below is not None and self.fuse_below is not None:
            coarse = self.fuse_below(self.adapt_below(below, level))
            total = self.fuse_own(total) + functional.interpolate(coarse, size=own.shape[2:], mode="bilinear")
        path = total = functional.elu(total)
        for convolution in self.pools:
            path = convolution(functional.max_pool2d(path, 5, stride=1, padding=2))
            total = total + path
        found: Tensor = self.out(total, level)
        return found
