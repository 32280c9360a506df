"""The training loop. Data of step i depend on the seed and i alone, so a training that is interrupted goes on as if it had not been."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import weights
from ..errors import ConfigError, NotFiniteError
from ..networks import build
from ..priors.beams import Beams
from ..rng import derive
from . import checkpoint, em, policy, validation
from .checkpoint import State
from .curves import write_curves
from .data import TrainingData, linear
from .objective import loss, noise_levels, weigh
from .recipe import Recipe
from .results import header_of, result_of

POINTS = 200  # of the loss curve
LAST_RATE = 0.01  # of the cosine schedule, relative

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Training:
    """One training: ``recipe`` into the weights file ``out``, beside which the checkpoint and the curves lie.

    ``time_limit_s``: stop after so many seconds, and write what there is; ``by_clock``: the cosine then ends with the clock instead of the
    last step (such a training cannot be repeated exactly); ``checkpoint_s``: seconds between checkpoints; on_step(step, loss): progress.
    """

    recipe: Recipe
    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    time_limit_s: float = math.inf
    by_clock: bool = False
    checkpoint_s: float = 60.0
    on_step: Progress = lambda step, loss: None

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors" or not self.out.absolute().parent.is_dir():
            raise ConfigError(f"cannot write weights to {self.out}: pass a name that ends in .safetensors, in a folder that exists")
        if not self.time_limit_s > 0 or (self.by_clock and math.isinf(self.time_limit_s)):
            raise ConfigError(f"the time limit is {self.time_limit_s} s: pass seconds above 0 (a schedule by the clock needs one)")

    @property
    def checkpoint_path(self) -> Path:
        """Where the state lies."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.safetensors")

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Trains, and returns what was made: metrics, steps, seconds, files. With ``resume``, goes on from the checkpoint.

        Raises NotFiniteError when the training diverges; the checkpoint before stays.
        """
        if self.recipe.fitted:
            return em.fit(self, resume=resume)
        began = time.monotonic()
        data = TrainingData.of(self.recipe, device=self.device)
        state = _fresh(self.recipe, data, self.device)
        beams = _beams(data, state.network)
        if resume:
            checkpoint.restore(self.checkpoint_path, state)
        earlier = state.seconds
        try:
            self._steps(state, data, beams, lambda: time.monotonic() - began)
        except KeyboardInterrupt:
            state.seconds = earlier + time.monotonic() - began
            checkpoint.save(self.checkpoint_path, state)
            raise
        state.seconds = earlier + time.monotonic() - began
        checkpoint.save(self.checkpoint_path, state)
        return self._finish(state, data, beams)

    def _steps(self, state: State, data: TrainingData, beams: Beams, clock: Callable[[], float]) -> None:
        steps, saved, earlier = self.recipe.optimiser.steps, clock(), state.seconds
        network = torch.compile(state.network) if self.recipe.optimiser.compile else state.network
        gathered = torch.tensor(state.total, dtype=torch.float64, device=self.device)
        every = max(steps // POINTS, 1)
        while state.step < steps and clock() < self.time_limit_s:
            done = state.step / steps
            done = max(done, clock() / self.time_limit_s) if self.by_clock else done
            gathered += _step(network, state, data, beams, done)
            state.step, state.counted = state.step + 1, state.counted + 1
            if state.step % every == 0 or state.step == steps:
                self._note(state, float(gathered))
                gathered.zero_()
            if state.step % self.recipe.validation.every == 0:
                metrics = validation.denoising(averaged(state), data.held, linear(data), seed=self.recipe.seed)
                state.curves["validation"].append({"step": state.step, "nmse_db": metrics["nmse_db"]})
            state.total = 0.0
            if clock() - saved > self.checkpoint_s:
                state.total, state.seconds, saved = float(gathered), earlier + clock(), clock()
                checkpoint.save(self.checkpoint_path, state)
        state.total = float(gathered)

    def _note(self, state: State, total: float) -> None:
        mean = total / state.counted
        if not math.isfinite(mean):
            raise NotFiniteError(
                f"the loss is {mean} at step {state.step}: lower optimiser.rate or optimiser.clip, or lengthen its warm-up"
            )
        state.curves["loss"].append({"step": state.step, "loss": mean})
        state.counted = 0
        self.on_step(state.step, mean)

    def _finish(self, state: State, data: TrainingData, beams: Beams) -> dict[str, Any]:
        network, recipe = averaged(state), self.recipe
        metrics = validation.denoising(network, data.held, linear(data), seed=recipe.seed)
        metrics |= {"steps": state.step, "parameters": sum(one.numel() for one in network.parameters())}
        header = header_of(recipe, metrics)
        table = validation.calibration(network, data.held, beams, seed=recipe.seed) if recipe.kind == "channel" else None
        weights.save(self.out, network, header, covariance=data.covariance, calibration=table)
        last = {"step": state.step, "nmse_db": metrics["nmse_db"]}
        seen = [one for one in state.curves["validation"] if one["step"] != state.step]
        curves = write_curves(self.out.with_suffix(""), {**state.curves, "validation": [*seen, last]}, header)
        finished = state.step >= recipe.optimiser.steps
        return result_of(self, curves, metrics, finished=finished, steps=state.step, seconds=state.seconds)


def averaged(state: State) -> nn.Module:
    """The averaged network, ready to use."""
    network = copy.deepcopy(state.network)
    network.load_state_dict(state.average)
    return network.eval().requires_grad_(False)


def _beams(data: TrainingData, network: nn.Module) -> Beams:
    """Where the network's errors are nearly uncorrelated: in its own basis, where it has one."""
    return linear(data) if data.covariance is None else weights.beams_of(network, data.covariance, like=data.held)


def _fresh(recipe: Recipe, data: TrainingData, device: torch.device) -> State:
    """The network, from the recipe's seed; buffers that depend on the channel are set by its own ``prepare(covariance)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, "network"))
        network = build(recipe.network, recipe.network_config)
        if hasattr(network, "prepare"):
            if data.covariance is None:
                raise ConfigError(f"{recipe.network} is for rows of channels: train it with kind='channel'")
            network.prepare(data.covariance.cpu())  # type: ignore[operator]
    if recipe.policy.rows and not getattr(network, "coloured", False):
        raise ConfigError(f"{recipe.network} takes white noise only: leave out the table [policy]")
    network = network.to(device).train()
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, foreach=True
    )
    return State(recipe, network, optimiser, {name: value.clone() for name, value in network.state_dict().items()})


def rate_at(recipe: Recipe, step: int, done: float) -> float:
    """Learning rate of step ``step``, when a share ``done`` of the training is over."""
    settings = recipe.optimiser
    rate = settings.rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "constant":
        return rate
    return rate * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _step(network: Callable[..., Any], state: State, data: TrainingData, beams: Beams, done: float) -> Tensor:
    """One optimiser step; returns the weighted error."""
    recipe, settings = state.recipe, state.recipe.optimiser
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(recipe, state.step, done)
    clean, white, draw = data.batch(recipe, state.step)
    noise_var = noise_levels(recipe.noise, len(clean), generator=draw)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=settings.autocast and clean.is_cuda):
        total, parts = loss(network, clean, white, noise_var, noise=recipe.noise, beams=beams, nll=settings.nll)
        if recipe.policy.rows:
            total = total + _in_use(state, data, beams, draw)
    state.optimiser.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    state.optimiser.step()
    _average(state, min(settings.ema, (1 + state.step) / (10 + state.step)))
    return parts["error"].double()


def _in_use(state: State, data: TrainingData, beams: Beams, draw: torch.Generator) -> Tensor:
    """The loss of rows out of the receiver's iterations, their share of the step's rows over that of the others."""
    recipe = state.recipe
    channels = beams.into(data.mixture.draw(recipe.policy.rows, generator=draw))
    x, noise_var, clean = policy.rows(state.network, channels, recipe.policy, generator=draw)
    mean, head = state.network.in_beams(x, noise_var)  # type: ignore[operator]
    total, _ = weigh(mean - clean, head, noise_var, noise=recipe.noise, beams=replace(beams, basis=None), nll=recipe.optimiser.nll)
    return total * (recipe.policy.rows / recipe.optimiser.batch)


@torch.no_grad()
def _average(state: State, decay: float) -> None:
    now = dict(state.network.named_parameters())
    kept = [state.average[name] for name in now]
    torch._foreach_mul_(kept, decay)
    torch._foreach_add_(kept, [value.detach() for value in now.values()], alpha=1 - decay)
