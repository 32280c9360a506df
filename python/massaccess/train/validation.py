"""How good a network is, on channels that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..priors.beams import Beams
from ..rng import complex_normal, generator

SNR_DB = (0, 5, 10, 15, 20)
"""Of the figures that a weights file carries: mean channel power over noise, per entry."""
TABLE_DB = tuple(range(-30, 51, 5))
"""SNR of the calibration table's rows, falling noise."""
CHUNK = 512  # rows at once

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""A network, or what answers like one."""


@torch.no_grad()
def denoising(network: Denoiser, held: Tensor, beams: Beams, *, seed: int) -> dict[str, Any]:
    """``snr_db``, ``nmse_db`` of the network and ``lmmse_db`` beside it (for matrices: the scalar Wiener filter), on held-out samples in
    white noise that depends on nothing but ``seed``; ``error_ratio``: predicted over measured error, where there is an error head."""
    power = float(held.abs().square().mean())
    metrics: dict[str, Any] = {"snr_db": list(SNR_DB), "nmse_db": [], "lmmse_db": [], "channels": len(held)}
    ratios = []
    for snr_db in SNR_DB:
        noise_var = power * 10 ** (-snr_db / 10)
        noisy = held + math.sqrt(noise_var) * complex_normal(*held.shape, generator=generator(seed, "validate", snr_db, device=held.device))
        mean, head = evaluate(network, noisy, noise_var)
        plain = beams.back(beams.into(noisy) * (beams.power / (beams.power + noise_var)))
        metrics["nmse_db"].append(_nmse_db(mean, held))
        metrics["lmmse_db"].append(_nmse_db(plain, held))
        ratios += [] if head is None else [float(head.mean() / (mean - held).abs().square().mean())]
    return metrics | ({"error_ratio": ratios} if ratios else {})


@torch.no_grad()
def calibration(network: Denoiser, held: Tensor, beams: Beams, *, seed: int) -> Tensor:
    """Table [S 1+M]: noise variances, rising, and the measured error variance in each beam."""
    lines = []
    for snr_db in reversed(TABLE_DB):
        noise_var = 10 ** (-snr_db / 10)
        noisy = held + math.sqrt(noise_var) * complex_normal(*held.shape, generator=generator(seed, "table", snr_db, device=held.device))
        error = beams.into(evaluate(network, noisy, noise_var)[0] - held).abs().square().mean(0)
        lines.append(torch.cat([error.new_tensor([noise_var]), error.clamp_min(1e-12)]))
    return torch.stack(lines).cpu()


def evaluate(network: Denoiser, noisy: Tensor, noise_var: float) -> tuple[Tensor, Tensor | None]:
    """The network on ``noisy``, a chunk at a time."""
    parts = [network(rows, torch.full((len(rows),), noise_var, device=rows.device)) for rows in noisy.split(CHUNK)]
    heads = [head for _, head in parts if head is not None]
    return torch.cat([mean for mean, _ in parts]), torch.cat(heads) if heads else None


def _nmse_db(found: Tensor, truth: Tensor) -> float:
    return round(10 * math.log10(float((found - truth).abs().square().sum() / truth.abs().square().sum())), 3)
