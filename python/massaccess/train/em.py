"""Trainings without a gradient: a Gaussian mixture by expectation maximisation, with the files and limits of every training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import weights
from ..errors import ConfigError, FormatError
from ..networks import build
from ..networks.separable import vertical_basis, with_columns
from ..priors import profiles_fit
from ..priors.mixture_fit import Iterate, Model
from ..rng import generator
from . import checkpoint, validation
from .curves import write_curves
from .data import Rows, TrainingData, linear
from .recipe import Recipe
from .results import header_of, result_of

if TYPE_CHECKING:
    from .loop import Training

REAL = "parameters.real"  # of a structure whose parameters are complex, both parts lie in a last dimension


@dataclass(frozen=True, eq=False)
class Fitting:
    """One fit under way: ``seconds`` spent and ``checks`` (validation so far) before it began."""

    training: Training
    data: TrainingData
    model: Model | profiles_fit.Model
    clock: Callable[[], float]
    seconds: float = 0.0
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        return self.training.recipe


def fit(training: Training, *, resume: bool = False) -> dict[str, Any]:
    """`loop.Training.run` for a mixture. A step is an iteration of EM, and the time limit is looked at between two; the start takes longer
    than one. ``resume`` goes on from the checkpoint, exactly as if there had been no break."""
    began = time.monotonic()
    recipe, path = training.recipe, training.checkpoint_path
    if training.by_clock:
        raise ConfigError(f"{recipe.network} is fitted by EM, which has no rate to lower: leave out --by-clock")
    stored = checkpoint.read_state(path, recipe) if resume else None
    data = TrainingData.of(recipe, device=training.device)
    options = dict(recipe.config)
    with torch.device("meta"):
        build(recipe.network, recipe.network_config)
    model = _model(recipe, data)
    clock = lambda: time.monotonic() - began  # noqa: E731
    if stored is None:
        begin = model.begin(options["components"], generator=generator(recipe.seed, "mixture"))
        fitting = Fitting(training, data, model, clock)
    else:
        begin = _restored(path, model, *stored)
        fitting = Fitting(training, data, model, clock, stored[1]["seconds"], stored[1]["checks"])
    return _finish(fitting, _iterate(fitting, begin))


def _iterate(fitting: Fitting, begin: Iterate) -> Iterate:
    """The last iterate: at the recipe's end, the time limit, or convergence."""
    training, em, now, saved = fitting.training, fitting.recipe.em, begin, fitting.clock()
    try:
        for now in fitting.model.iterate(begin, tolerance=em.tolerance):
            step = len(now.history) - 1
            training.on_step(step, now.history[-1])
            if step >= em.iterations or fitting.clock() >= training.time_limit_s:
                break
            if step and step % fitting.recipe.validation.every == 0:
                _check(fitting, now)
            if fitting.clock() - saved > training.checkpoint_s:
                saved = fitting.clock()
                _save(fitting, now)
    finally:  # also when interrupted
        if now.history:
            _save(fitting, now)
    return now


def _finish(fitting: Fitting, now: Iterate) -> dict[str, Any]:
    training, recipe, data = fitting.training, fitting.recipe, fitting.data
    network = build(recipe.network, recipe.network_config)
    network.load_state_dict(_state(fitting, now))
    steps = len(now.history) - 1
    metrics = validation.denoising(_denoiser(fitting, now), data.held, linear(data), seed=recipe.seed)
    metrics |= {"steps": steps, "parameters": sum(one.numel() for one in network.parameters()), "log_likelihood": now.history[-1]}
    header = header_of(recipe, metrics)
    weights.save(training.out, network, header, covariance=data.covariance)
    seen = [one for one in fitting.checks if one["step"] != steps]
    curves = {
        "log_likelihood": [{"step": step, "log_likelihood": value} for step, value in enumerate(now.history)],
        "validation": [*seen, {"step": steps, "nmse_db": metrics["nmse_db"]}],
    }
    pictured = write_curves(training.out.with_suffix(""), curves, header)
    finished = now.converged or steps >= recipe.em.iterations
    return result_of(training, pictured, metrics, finished=finished, steps=steps, seconds=fitting.seconds + fitting.clock())


def _check(fitting: Fitting, now: Iterate) -> None:
    data = fitting.data
    metrics = validation.denoising(_denoiser(fitting, now), data.held, linear(data), seed=fitting.recipe.seed)
    fitting.checks.append({"step": len(now.history) - 1, "nmse_db": metrics["nmse_db"]})


def _model(recipe: Recipe, data: TrainingData) -> Model | profiles_fit.Model:
    rows = _rows(recipe, data)
    if recipe.network == "angles":
        return profiles_fit.Model.of(rows, with_columns(_vertical(recipe, data), recipe.columns))
    grid = (recipe.rows, recipe.columns)
    return Model.of(rows, recipe.config["components"], structure=recipe.config.get("structure", "full"), grid=grid)


def _vertical(recipe: Recipe, data: TrainingData) -> Tensor:
    assert data.covariance is not None  # rows of channels have one
    return vertical_basis(data.covariance, recipe.rows, recipe.columns)


def _state(fitting: Fitting, now: Iterate) -> dict[str, Tensor]:
    """Of the network that holds the fit."""
    if fitting.recipe.network == "angles":
        vertical = torch.view_as_real(_vertical(fitting.recipe, fitting.data).to(torch.complex64)).contiguous()
        return {"weight": now.weight.float(), "power": now.parameters.float(), "vertical": vertical}
    return now.mixture(like=fitting.data.held).to_tensors()


def _denoiser(fitting: Fitting, now: Iterate) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """As a network of rows: x [R M] and noise_var [R] to the mean, and the error in beams."""
    if fitting.recipe.network == "angles":
        network = build("angles", fitting.recipe.network_config).to(fitting.data.held.device)
        network.load_state_dict(_state(fitting, now))
        return network
    mixture = now.mixture(like=fitting.data.held)

    def denoise(x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        mean, error = mixture.in_beams(mixture.beams.into(x), noise_var[:, None])
        return mixture.beams.back(mean), error

    return denoise


def _rows(recipe: Recipe, data: TrainingData) -> Tensor:
    """The first ``em.channels`` of a bank, as they are; of anything else, as many as drawn once."""
    (first, *others), count = data.mixture.drawers, recipe.em.channels
    if isinstance(first, Rows) and not others and not recipe.data.power_jitter_db:
        return first.h[: count or None]
    if not count:
        raise ConfigError("em.channels is 0, all of them, but the channels are drawn: say how many, or name one bank alone")
    return data.mixture.draw(count, generator=generator(recipe.seed, "fit", device=data.held.device))


def _save(fitting: Fitting, now: Iterate) -> None:
    real = {REAL: torch.view_as_real(now.parameters)} if now.parameters.is_complex() else {"parameters": now.parameters}
    plain = {"history": list(now.history), "checks": fitting.checks, "seconds": fitting.seconds + fitting.clock()}
    checkpoint.write_state(fitting.training.checkpoint_path, fitting.recipe, {"weight": now.weight, **real}, plain)


def _restored(path: Path, model: Model | profiles_fit.Model, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> Iterate:
    """The iterate of a checkpoint; FormatError when it is none of these rows."""
    try:
        real = REAL in tensors
        parameters = torch.view_as_complex(tensors[REAL]) if real else tensors["parameters"]
        weight, device = tensors["weight"], model.rows.device
        begin = model.at(weight.to(device), parameters.to(device), tuple(map(float, document["history"])))
        if begin.covariance.shape != (len(weight), *model.pooled.shape[1:]) or not begin.history:
            raise ValueError(f"covariances are {list(begin.covariance.shape)}")
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise FormatError(f"{path} does not hold this mixture ({error!s:.120}): leave out --resume to begin again") from error
    return begin
