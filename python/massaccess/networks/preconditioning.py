"""How the output of an image network becomes a denoiser, and how complex rows become images.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", table 1, for complex entries of mean power
``power``: mean = skip * x + out * F(scale * x, embedding of sigma), which is the scalar Wiener filter when F = 0. The printed form of
score networks (Song et al. 2021; P1, P2) is mean = x + sigma_real * F(x, sigma_real), where F learns minus the unit noise and sigma_real =
sigma / sqrt(2) is the deviation of a real part.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import unknown

FORMS = ("edm", "printed")
TINY = 1e-20  # noise variances below it are the same to a network: log stays finite


def as_image(x: Tensor) -> Tensor:
    """Complex [R H W] to real [R 2 H W]."""
    return torch.view_as_real(x.contiguous()).permute(0, 3, 1, 2)


def as_complex(image: Tensor) -> Tensor:
    """Real [R 2 H W] to complex [R H W], at least in single precision."""
    image = image if image.dtype == torch.float64 else image.float()
    return torch.view_as_complex(image.permute(0, 2, 3, 1).contiguous())


def denoise(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, noise_var: Tensor, *, form: str, power: float = 1.0) -> Tensor:
    """Mean [R H W] complex for x [R H W] and noise_var [R]; ``network`` takes an image [R 2 H W] and log sigma [R]."""
    noise = noise_var.clamp_min(TINY)[:, None, None, None]
    log_sigma = 0.5 * noise.flatten().log()
    image = as_image(x)
    if form == "printed":
        return as_complex(image + (noise / 2).sqrt() * network(image, log_sigma - 0.5 * math.log(2)))
    total = noise + power
    inner = network(image * (2 / total).sqrt(), log_sigma - 0.5 * math.log(power))
    return as_complex(power / total * image + (noise * power / (2 * total)).sqrt() * inner)


def check_form(form: str) -> str:
    """``form``, if it is one."""
    if form not in FORMS:
        raise unknown("form of a denoiser", form, FORMS)
    return form


class NoiseEmbedding(nn.Module):
    """Gaussian Fourier features of log sigma (Song et al. 2021), then two layers: [R] to [R width]."""

    def __init__(self, width: int, *, features: int = 32, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.randn(features) * scale)
        self.layers = nn.Sequential(nn.Linear(2 * features + 1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, log_sigma: Tensor) -> Tensor:
        turns = 2 * math.pi * log_sigma[:, None] * self.get_buffer("frequency")
        found: Tensor = self.layers(torch.cat([turns.sin(), turns.cos(), log_sigma[:, None] / 4], 1))
        return found
