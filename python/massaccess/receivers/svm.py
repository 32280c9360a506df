"""P4's baseline: channels and symbols as support vector machines."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..detection.linear import Symbols, finish
from ..errors import ConfigError, ShapeError, unknown
from ..priors.constellation import ConstellationPrior
from .coherent import known_active
from .selection import Selection
from .signs import Signs, at_power, decided, joined, stacked, turned, unbiased

LOSSES = ("hinge", "squared_hinge")
SEED = 0  # of the order in which liblinear visits the signs


@dataclass(frozen=True)
class Svm:
    """Every antenna's channels, then every time's symbols, by a linear support vector machine that separates the pluses from the minuses
    (P4 section 1.2, eq. 9 and 14: no intercept, hinge loss, cost ``c_channel`` and ``c_data``), each antenna brought to its mean power
    (eq. 10); ``rounds`` of both with hard decisions as more pilots.

    The solver is scikit-learn's liblinear, one fit an antenna or a time; ``jobs`` of them run at a time, in threads (liblinear lets go of
    the interpreter's lock; 0: as many as torch uses). ``tolerance`` and ``steps`` are its stopping rule; with large costs it hits
    ``steps``. The paper does not say which cost it takes: 1 is far better than what it prints, 100 is as bad. The noise variance is not
    used.

    Soft outputs are made unbiased, and get their variance, by `signs.unbiased`: the amplitude and spread of each user's outputs around
    the constellation, over the frame. Known offsets of the converter enter as one more input with a weight of its own. Of converters
    with more than one bit, the signs alone are used.
    """

    c_channel: float = 1.0
    c_data: float = 1.0
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
        if self.rounds < 0 or min(self.c_channel, self.c_data) <= 0:
            raise ConfigError("rounds is 0 or more, c_channel and c_data are above 0: one of svm's is not")
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

    def _channel(self, signs: Signs, seen: Tensor, sent: Tensor, shift: Tensor | None) -> Tensor:
        found = self._fits(stacked(sent), seen, self.c_channel, shift)
        return at_power(joined(found) * signs.present[..., None], signs.gain)

    def _symbols(self, signs: Signs, channel: Tensor, obs: Observation) -> Symbols:
        shift = None if signs.data_shift is None else turned(signs.data_shift)
        soft = joined(self._fits(stacked(channel.mT), turned(signs.data), self.c_data, shift)).mT
        prior = ConstellationPrior(obs.modulation)
        return finish(*unbiased(soft * signs.present[:, None, :], prior), signs.present, prior)

    def _fits(self, design: Tensor, labels: Tensor, cost: float, shift: Tensor | None) -> Tensor:
        """Weights [B k p] of the machines that tell labels [B n p] from design [B n k], with shift [B n p] as one more input."""
        machine = _linear_svc()(
            C=cost, loss=self.loss, dual=True, fit_intercept=False, tol=self.tolerance, max_iter=self.steps, random_state=SEED
        )
        inputs, wanted = design.double().cpu().numpy(), labels.mT.cpu().numpy()
        offsets = None if shift is None else shift.mT[..., None].double().cpu().numpy()
        frames, columns = wanted.shape[:2]
        pairs = ((frame, column) for frame in range(frames) for column in range(columns))

        def job(frame: int, column: int) -> np.ndarray:
            seen = inputs[frame] if offsets is None else np.hstack([inputs[frame], offsets[frame, column]])
            return _fit(machine, seen, wanted[frame, column])[: design.shape[2]]

        weights = _all(job, pairs, self.jobs or torch.get_num_threads())
        size = (frames, columns, design.shape[2])
        found = np.array(weights).reshape(size) if weights else np.zeros(size)
        return torch.from_numpy(found).to(design).mT


def _fit(machine: Any, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The weights; zero where all labels are the same and nothing is to be told apart."""
    from sklearn.base import clone

    if abs(labels.sum()) == len(labels):
        return np.asarray(labels @ inputs)
    return np.asarray(clone(machine).fit(inputs, labels).coef_[0])


def _all(job: Any, pairs: Iterable[tuple[int, int]], workers: int) -> list[np.ndarray]:
    with warnings.catch_warnings():
        from sklearn.exceptions import ConvergenceWarning

        warnings.simplefilter("ignore", ConvergenceWarning)
        if workers == 1:
            return [job(*pair) for pair in pairs]
        from joblib import Parallel, delayed

        return list(Parallel(n_jobs=workers, prefer="threads")(delayed(job)(*pair) for pair in pairs))


def _linear_svc() -> Any:
    try:
        from sklearn.svm import LinearSVC
    except ImportError:
        raise ConfigError("the receiver 'svm' needs scikit-learn: pip install scikit-learn") from None
    return LinearSVC
