"""The training loop. Data of step i depend on the seed and i alone, so a training that is interrupted goes on as if it had not been."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError, NotFiniteError
from ..networks import build
from ..rng import derive
from ..weights import Header
from . import checkpoint, em
from .checkpoint import State
from .curves import write_curves
from .denoising import Denoising
from .detecting import Detecting
from .phases import phase_at
from .recipe import Recipe
from .results import header_of, result_of
from .sequences import Sequences

POINTS = 200  # of the loss curve
LAST_RATE = 0.01  # of the cosine schedule, relative

Progress = Callable[[int, float], None]
TASKS: dict[str, Any] = {"activity": Detecting, "noncoherent": Sequences}
"""Kind of recipe -> what is learned; `Denoising` for all others."""


class Task(Protocol):
    """What a network learns, and from which data; made by ``of(recipe, network, device)``, which also puts the network on the device."""

    def loss(self, network: Callable[..., Any], bare: nn.Module, step: int) -> tuple[Tensor, Tensor]:
        """What step ``step`` descends, and what the curve shows; ``network`` may be a compiled version of ``bare``."""
        ...

    def check(self, network: nn.Module) -> dict[str, Any]:
        """Metrics on data that are never trained on."""
        ...

    def point(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """What of the metrics the curves show."""
        ...

    def save(self, out: Path, network: nn.Module, header: Header) -> None: ...


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
        if self.by_clock and self.recipe.optimiser.phases:
            raise ConfigError(f"the phases of {self.recipe.name} are counted in steps: leave out --by-clock, or pass --steps")

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
        state, task = _fresh(self.recipe, self.device)
        if resume:
            checkpoint.restore(self.checkpoint_path, state)
        earlier = state.seconds
        try:
            self._steps(state, task, lambda: time.monotonic() - began)
        except KeyboardInterrupt:
            state.seconds = earlier + time.monotonic() - began
            checkpoint.save(self.checkpoint_path, state)
            raise
        state.seconds = earlier + time.monotonic() - began
        checkpoint.save(self.checkpoint_path, state)
        return self._finish(state, task)

    def _steps(self, state: State, task: Task, clock: Callable[[], float]) -> None:
        steps, saved, earlier = self.recipe.optimiser.steps, clock(), state.seconds
        network = torch.compile(state.network) if self.recipe.optimiser.compile else state.network
        gathered = torch.tensor(state.total, dtype=torch.float64, device=self.device)
        every = max(steps // POINTS, 1)
        while state.step < steps and clock() < self.time_limit_s:
            done = state.step / steps
            done = max(done, clock() / self.time_limit_s) if self.by_clock else done
            gathered += _step(network, state, task, done)
            state.step, state.counted = state.step + 1, state.counted + 1
            if state.step % every == 0 or state.step == steps:
                self._note(state, float(gathered))
                gathered.zero_()
            if state.step % self.recipe.validation.every == 0:
                state.curves["validation"].append({"step": state.step, **task.point(task.check(averaged(state)))})
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

    def _finish(self, state: State, task: Task) -> dict[str, Any]:
        network, recipe = averaged(state), self.recipe
        metrics = task.check(network)
        metrics |= {"steps": state.step, "parameters": sum(one.numel() for one in network.parameters()), "device": _named(self.device)}
        header = header_of(recipe, metrics)
        task.save(self.out, network, header)
        last = {"step": state.step, **task.point(metrics)}
        seen = [one for one in state.curves["validation"] if one["step"] != state.step]
        curves = write_curves(self.out.with_suffix(""), {**state.curves, "validation": [*seen, last]}, header)
        finished = state.step >= recipe.optimiser.steps
        return result_of(self, curves, metrics, finished=finished, steps=state.step, seconds=state.seconds)


def averaged(state: State) -> nn.Module:
    """The averaged network, ready to use."""
    network = copy.deepcopy(state.network)
    network.load_state_dict(state.average)
    return network.eval().requires_grad_(False)


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _fresh(recipe: Recipe, device: torch.device) -> tuple[State, Task]:
    """The network, from the recipe's seed, and its task."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, "network"))
        network = build(recipe.network, recipe.network_config)
    task: Task = TASKS.get(recipe.kind, Denoising).of(recipe, network, device)
    network.train()
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, foreach=True
    )
    return State(recipe, network, optimiser, {name: value.clone() for name, value in network.state_dict().items()}), task


def rate_at(recipe: Recipe, step: int, done: float) -> float:
    """Learning rate of step ``step``, when a share ``done`` of the training is over."""
    settings = recipe.optimiser
    if settings.phases:
        phase = phase_at(settings, step)
        settings = replace(settings, rate=phase.rate, steps=phase.steps, phases=())
        return rate_at(recipe.replace(optimiser=settings), step - phase.first, (step - phase.first) / phase.steps)
    rate = settings.rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "constant":
        return rate
    if settings.schedule == "step":
        return rate * 0.1 ** int(min(done, 1.0) * settings.steps / settings.decay)
    return rate * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _step(network: Callable[..., Any], state: State, task: Task, done: float) -> Tensor:
    """One optimiser step; returns the loss that is reported."""
    recipe, settings = state.recipe, state.recipe.optimiser
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(recipe, state.step, done)
    total, reported = task.loss(network, state.network, state.step)
    state.optimiser.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    state.optimiser.step()
    _average(state, min(settings.ema, (1 + state.step) / (10 + state.step)))
    return reported.double()


@torch.no_grad()
def _average(state: State, decay: float) -> None:
    now = dict(state.network.named_parameters())
    kept = [state.average[name] for name in now]
    torch._foreach_mul_(kept, decay)
    torch._foreach_add_(kept, [value.detach() for value in now.values()], alpha=1 - decay)
