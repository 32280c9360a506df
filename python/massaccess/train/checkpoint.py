"""The state of a training, in one safetensors file: the header is its JSON, so that both appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, FormatError
from ..weights.stored import read_tensors, write
from .recipe import Recipe, from_dict

FORMAT = "massaccess-checkpoint/1"


@dataclass
class State:
    """What a training is at after ``step`` steps; ``average``: state of the averaged network; total, counted: losses since the last entry
    of the curves; seconds: spent so far, earlier runs included."""

    recipe: Recipe
    network: nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    total: float = 0.0
    counted: int = 0
    curves: dict[str, list[Any]] = field(default_factory=lambda: {"loss": [], "validation": []})


def save(path: Path, state: State) -> Path:
    """Writes ``state`` to ``path``."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return write_state(path, state.recipe, tensors, {name: getattr(state, name) for name in _PLAIN})


def write_state(path: Path, recipe: Recipe, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Path:
    """Writes tensors and ``plain`` JSON values, and of which recipe they are."""
    return write(path, tensors, {"massaccess": json.dumps({"format": FORMAT, "recipe": recipe.to_dict(), **plain})})


def read_state(path: Path, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values of `write_state`; FormatError when they are damaged, ConfigError when they are of another recipe."""
    tensors, metadata = read_tensors(path, "checkpoint")
    document = _document(path, metadata)
    stored, wanted = from_dict(document["recipe"]).to_dict(), recipe.to_dict()
    different = sorted(name for name in wanted if stored[name] != wanted[name])
    if different:
        raise ConfigError(f"{path} is of another recipe ({', '.join(different)} differ): leave out --resume, or pass what it began with")
    return tensors, document


def restore(path: Path, state: State) -> None:
    """Puts the training of ``path`` into the fresh ``state``; FormatError when it is damaged, ConfigError when it is of another recipe."""
    tensors, document = read_state(path, state.recipe)
    try:
        state.network.load_state_dict(_under("network.", tensors))
        state.average = {name: _under("average.", tensors)[name].to(value.device) for name, value in state.average.items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser.", tensors).items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        state.optimiser.load_state_dict({"state": moments, "param_groups": state.optimiser.state_dict()["param_groups"]})
        for name in _PLAIN:
            setattr(state, name, document[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} does not hold this network ({error!s:.120}): leave out --resume to begin again") from error


def _document(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        document = json.loads(metadata["massaccess"])
        if document["format"] != FORMAT or not isinstance(document["recipe"], dict):
            raise ValueError(document["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is no checkpoint of {FORMAT} ({error!s:.60}): leave out --resume to begin again") from error
    return dict(document)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


_PLAIN = ("step", "seconds", "total", "counted", "curves")
