"""Falling noise levels.

>>> [round(level, 2) for level in geometric(0.01, 1.0, 4).tolist()]
[1.0, 0.32, 0.1, 0.03, 0.01]
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError


def geometric(low: float, high: float, steps: int) -> Tensor:
    """``steps`` + 1 levels from ``high`` to ``low``, each the same fraction of the one before (P1 and P2: sigma(t), tau(t)); float64."""
    _check(low, high, steps)
    return torch.logspace(0, 1, steps + 1, base=low / high, dtype=torch.float64) * high


def karras(low: float, high: float, steps: int, *, rho: float = 7.0) -> Tensor:
    """``steps`` levels from ``high`` to ``low``, even in sigma**(1/rho), and a last 0 (Karras et al. 2022, eq. 5): for few steps."""
    _check(low, high, steps)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def _check(low: float, high: float, steps: int) -> None:
    if not 0 < low < high:
        raise ConfigError(f"noise levels from {high} down to {low}: pass 0 < low < high")
    if steps < 1:
        raise ConfigError(f"{steps} steps: pass 1 or more")
