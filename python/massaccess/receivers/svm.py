"""P4's baseline: channels and symbols as support vector machines."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import Symbols, finish
from ..errors import ConfigError, ShapeError, unknown
from ..likelihoods.real_form import joined, stacked
from ..priors.constellation import ConstellationPrior
from .coherent import known_active
from .selection import Selection
from .signs import Signs, decided, to_power, turned, unbiased

LOSSES = ("hinge", "squared_hinge")
SEED = 0  # of the order in which liblinear visits the signs


@dataclass(frozen=True)
class Svm:
    """Every antenna's channels, then every time's symbols, by a linear support vector machine that separates the pluses from the minuses
    (P4 section 1.2, eq. 9 and 14: no intercept, hinge loss, cost ``c``, or ``c_channel`` and ``c_data`` apart), each antenna brought to
    its mean power (eq. 10); ``rounds`` of both with hard decisions as more pilots.

    The solver is scikit-learn's liblinear, one fit an antenna or a time, shared out to ``jobs`` processes (0: as many as torch has
    threads). Not to threads: in one process all fits draw from one stream of random numbers, and answers would differ from run to run.
    ``tolerance`` and ``steps`` are its stopping rule; 0.01 makes no more errors and takes two thirds of the time, and with large costs it
    hits ``steps``. The paper does not say which cost it takes: 1 is far better than what it prints, 100 about as bad. The noise variance
    is not used.

    Soft outputs are made unbiased, and get their variance, by `signs.unbiased`: the amplitude and spread of each user's outputs around
    the constellation, over the frame. Known offsets of the converter enter as one more input with a weight of its own. Of converters
    with more than one bit, the signs alone are used.
    """

    c: float = 1.0
    c_channel: float | None = None
    c_data: float | None = None
    rounds: int = 3
    loss: str = "hinge"
    jobs: int = 1
    tolerance: float = 1e-4
    steps: int = 1000

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``).

        info: rounds [B], cut [B] bool (time was up).
        """
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if self.rounds < 0 or min(self._costs) <= 0:
            raise ConfigError("rounds is 0 or more, c, c_channel and c_data are above 0: one of svm's is not")
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots = Selection.of(active)
        signs = Signs.of(obs, slots)
        channel = self._channel(signs, signs.pilots, signs.sent, signs.pilot_shift)
        symbols, used, late = self._symbols(signs, channel, obs), 0, False
        for _ in range(self.rounds if obs.data_len else 0):
            late = obs.late
            if late:
                break
            sent = torch.cat([signs.sent, decided(symbols.symbols, signs.present, obs)], 1)
            channel = self._channel(signs, signs.both, sent, signs.both_shifts)
            symbols, used = self._symbols(signs, channel, obs), used + 1
        count = torch.full((obs.frames,), used, device=active.device)
        info = {"rounds": count, "cut": torch.full_like(count, late, dtype=torch.bool)}
        return slots.estimate(active.to(obs.pilot_rx.real.dtype), channel, symbols.symbols, symbols.symbol_var, **info)

    @property
    def _costs(self) -> tuple[float, float]:
        """Of channels and of data."""
        return self.c if self.c_channel is None else self.c_channel, self.c if self.c_data is None else self.c_data

    def _channel(self, signs: Signs, seen: Tensor, sent: Tensor, shift: Tensor | None) -> Tensor:
        found = self._fits(stacked(sent), seen, self._costs[0], shift)
        channel = joined(found) * signs.present[..., None]
        return channel * to_power(channel, signs.gain)

    def _symbols(self, signs: Signs, channel: Tensor, obs: Observation) -> Symbols:
        shift = None if signs.data_shift is None else turned(signs.data_shift)
        soft = joined(self._fits(stacked(channel.mT), turned(signs.data), self._costs[1], shift)).mT
        prior = ConstellationPrior(obs.modulation)
        return finish(*unbiased(soft * signs.present[:, None, :], prior), signs.present, prior)

    def _fits(self, design: Tensor, labels: Tensor, cost: float, shift: Tensor | None) -> Tensor:
        """Weights [B k p] of the machines that tell labels [B n p] from design [B n k], with shift [B n p] as one more input."""
        machine = _linear_svc()(
            C=cost, loss=self.loss, dual=True, fit_intercept=False, tol=self.tolerance, max_iter=self.steps, random_state=SEED
        )
        inputs, wanted = design.double().cpu().numpy(), labels.mT.cpu().numpy()
        offsets = None if shift is None else shift.mT[..., None].double().cpu().numpy()
        workers = self.jobs or torch.get_num_threads()
        shares = np.array_split(np.arange(wanted.shape[1]), workers)
        tasks = [
            (machine, inputs[frame], wanted[frame, share], None if offsets is None else offsets[frame, share])
            for frame in range(len(wanted))
            for share in shares
            if len(share)
        ]
        found = np.concatenate([np.zeros((0, design.shape[2])), *_all(tasks, workers)])
        return torch.from_numpy(found.reshape(*wanted.shape[:2], design.shape[2])).to(design).mT


def _all(tasks: list[tuple[Any, ...]], workers: int) -> list[np.ndarray]:
    if workers == 1:
        return [_weights(*task) for task in tasks]
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=workers)(delayed(_weights)(*task) for task in tasks))


def _weights(machine: Any, inputs: np.ndarray, wanted: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
    """The weights [p k] of the machines for labels wanted [p n]; where all labels are the same, the sum of what they label."""
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    size, found = inputs.shape[1], np.zeros((len(wanted), inputs.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for column, labels in enumerate(wanted):
            seen = inputs if offsets is None else np.hstack([inputs, offsets[column]])
            one_sided = abs(labels.sum()) == len(labels)
            found[column] = labels @ inputs if one_sided else clone(machine).fit(seen, labels).coef_[0, :size]
    return found


def _linear_svc() -> Any:
    try:
        from sklearn.svm import LinearSVC
    except ImportError:
        raise ConfigError("the receiver 'svm' needs scikit-learn: pip install scikit-learn") from None
    return LinearSVC
