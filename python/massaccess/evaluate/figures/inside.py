"""What is inside DL-mAMPnet in one frame (P3 Fig. 10): a row of the figure's results for each row of each of the five matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...core import Frame, Observation, SystemConfig
from ...errors import ConfigError
from ...forward.index_modulation import to_index
from ...forward.simulate import Simulation
from ...weights import choose_sequences
from .definition import PublishedFigure

FRAMES = 1000  # for how often decisions are wrong


def rows(figure: PublishedFigure, *, seed: int) -> list[dict[str, Any]]:
    """Of each curve, by its key, the matrix of that name: ``x``, number of the row from 1; ``values``, its entries over the largest of the
    matrix; ``strength``, their mean; for "decided" also ``wrong``, in which share of `FRAMES` frames the decision is.

    The frame is the first in which no decision is wrong, as the paper shows one; the network that of option ``weights`` of the first
    curve."""
    first = figure.curves[0]
    config = SystemConfig.from_dict({**figure.system, **first.system})
    frame, obs = Simulation(config, seed).frames(0, FRAMES)
    shown = _shown(frame, obs, str(first.options.get("weights", "auto")))
    wrong = (shown["decided"] != shown["active"])[..., 0]
    chosen = int(wrong.any(1).int().argmin())
    share = wrong.double().mean(0).tolist()
    return [
        {"curve": curve.key, "label": curve.label, "x": number, "strength": sum(values) / len(values), "values": values}
        | ({"wrong": share[number - 1]} if curve.key == "decided" else {})
        for curve in figure.curves
        for number, values in enumerate(_relative(_named(shown, curve.key)[chosen]).tolist(), 1)
    ]


@torch.no_grad()
def _shown(frame: Frame, obs: Observation, weights: str) -> dict[str, Tensor]:
    """The five matrices of every frame, [B 2NQ M], [B 2NQ 1] or [B NQ 1]."""
    network = choose_sequences(weights, "dl-mampnet", obs, denoiser="element").network
    inner = network.inside(obs.pilot_rx, obs.pilots, obs.pilot_rx.real.new_full((obs.frames,), obs.noise_var))  # type: ignore[operator]
    sent = torch.nn.functional.one_hot(to_index(frame.bits), obs.sequences) * frame.active[..., None]
    truth = (sent[..., None] * frame.channel[:, :, None]).flatten(1, 2)
    return {
        "estimate": inner["estimate"].transpose(0, 1).abs(),
        "truth": torch.cat([truth.real, truth.imag], 1).abs(),
        "pooled": inner["pooled"][..., None],
        "decided": (inner["log_odds"].flatten(1)[..., None] > 0).float(),
        "active": sent.flatten(1)[..., None].float(),
    }


def _named(shown: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in shown:
        raise ConfigError(f"a figure over rows shows no {key!r}: name its curves {', '.join(shown)}")
    return shown[key]


def _relative(matrix: Tensor) -> Tensor:
    return matrix / matrix.max().clamp_min(1e-30)
