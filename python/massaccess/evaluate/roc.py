"""False alarms against missed detections at every threshold, and whether posteriors mean what they say; counted as frames come in.

Nothing is stored but counts at fixed thresholds, however many frames there are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Estimate, Frame
from ..errors import ShapeError
from .metrics import cluster_sums, rate_and_interval

LEVELS = tuple(float(f"{digit}e{power}") for power in range(-5, 0) for digit in (1, 2, 5))
"""Rates of one kind of error at which the other kind is told."""
STEP, LIMIT = 0.02, 1e4
THRESHOLDS = torch.sinh(torch.arange(-round(math.asinh(LIMIT) / STEP), round(math.asinh(LIMIT) / STEP) + 1, dtype=torch.float64) * STEP)
"""Fixed thresholds on the score: 0.02 apart around 0, 2 % of their size further out."""
BINS = (0.0, 1e-3, 1e-2, 0.05, *(round(0.1 * tenth, 1) for tenth in range(1, 10)), 0.95, 0.99, 0.999, 1.0)
"""Edges of the bins of the posterior probability."""
ENOUGH = 10  # errors that a rate must stand for to be a level
SCORES = ("log_odds", "margin")  # in the info of an estimate: log odds of being active, or any score that grows with them
KEYS = ("auc", "roc", "log_loss", "calibration_slope", "reliability")


class Ranking:
    """What the scores of a detector are worth, over batches of frames.

    A receiver that gives neither ``log_odds`` nor ``margin`` decides hard, and everything is ``None``; with a ``margin`` (a score on a
    scale of its own) there are no posteriors to judge.

    >>> from massaccess.core import SystemConfig
    >>> from massaccess.forward.simulate import Simulation
    >>> frame, obs = Simulation(SystemConfig(users=8, pilot_len=6, data_len=0, channel="rayleigh")).frames(0, 16)
    >>> ranking = Ranking()
    >>> ranking.add(frame, Estimate(frame.active.float(), info={"log_odds": 20.0 * frame.active - 10}))
    >>> ranking.summary()["auc"], ranking.summary()["roc"]["best"]["errors"]
    (1.0, 0)
    """

    def __init__(self) -> None:
        self.frames = 0
        self.posterior = False
        size = len(THRESHOLDS) + 1
        self._missed, self._alarmed = (torch.zeros(size, 5, dtype=torch.float64) for _ in range(2))  # sums of `cluster_sums`
        self._said = torch.zeros(len(BINS) - 1, 6, dtype=torch.float64)  # the same of active users in a bin, and the sum of posteriors
        self._loss = 0.0
        self._scores = torch.zeros(2, size, dtype=torch.float64)  # users silent, active, between two thresholds

    def add(self, frame: Frame, estimate: Estimate) -> None:
        """Counts the scores of ``estimate`` against the truth ``frame``, both of the same frames."""
        name = next((name for name in SCORES if name in estimate.info), None)
        if name is None:
            return
        scores, truth = torch.nan_to_num(estimate.info[name].double(), nan=-LIMIT).clamp(-LIMIT, LIMIT), frame.active
        if scores.shape != truth.shape:
            raise ShapeError(f"{name} is {list(scores.shape)} but the truth is {list(truth.shape)}: give one score a frame and user")
        self.frames += len(truth)
        place = torch.bucketize(scores, THRESHOLDS.to(scores.device))
        awake, asleep = (_histogram(place, kind, len(THRESHOLDS) + 1) for kind in (truth, ~truth))
        above_awake, above_asleep = (counts.flip(-1).cumsum(-1).flip(-1) for counts in (awake, asleep))
        self._missed += cluster_sums((above_awake[:, :1] - above_awake), above_awake[:, :1].expand_as(awake))
        self._alarmed += cluster_sums(above_asleep, above_asleep[:, :1].expand_as(asleep))
        self._scores += torch.stack([asleep.sum(0), awake.sum(0)]).cpu()
        if name == "log_odds":
            self.posterior = True
            self._believe(scores, truth)

    def _believe(self, scores: Tensor, truth: Tensor) -> None:
        self._loss += float(torch.nn.functional.softplus(torch.where(truth, -scores, scores)).sum())
        said = torch.sigmoid(scores)
        inner = torch.tensor(BINS[1:-1], dtype=said.dtype, device=said.device)
        place, size = torch.bucketize(said, inner), len(BINS) - 1
        counts = cluster_sums(_histogram(place, truth, size), _histogram(place, torch.ones_like(truth), size))
        total = torch.bincount(place.flatten(), said.flatten(), size).cpu()
        self._said += torch.cat([counts, total[:, None]], 1)

    def summary(self) -> dict[str, Any]:
        """auc: area under detections over false alarms, 1 is perfect. roc: ``p_md_at``, the missed detections at each of `LEVELS` of false
        alarms that stands for 10 false alarms or more, with ``_ci95``, ``_errors`` and the threshold on the score; ``p_fa_at``, the same
        the other way round; ``best``, the threshold that makes fewest errors on these very frames, and how many.
        log_loss: -log posterior of the truth, nats per user and frame. calibration_slope: what the log odds are best multiplied by; below
        1 they are overconfident. reliability: per bin of the posterior its mean, and the share that was active, with ``_ci95``.

        Between two thresholds rates are interpolated, as a detector would that tosses a coin between them. Intervals take the frame as the
        independent unit, and the threshold as given.
        """
        if not self.frames:
            return dict.fromkeys(KEYS)
        missed, alarmed = (_rates(sums) for sums in (self._missed, self._alarmed))
        area = float(np.sum((alarmed[:-1] - alarmed[1:]) * (1 - (missed[:-1] + missed[1:]) / 2)))
        roc = {
            "p_md_at": [self._at(level, "p_fa", "p_md") for level in LEVELS if level * self._alarmed[0, 1] >= ENOUGH],
            "p_fa_at": [self._at(level, "p_md", "p_fa") for level in LEVELS if level * self._missed[0, 1] >= ENOUGH],
            "best": self._best(),
        }
        users = float(self._alarmed[0, 1] + self._missed[0, 1])
        beliefs = [self._loss / users, self._slope(), self._reliability()] if self.posterior else [None] * 3
        return dict(zip(KEYS, (area, roc, *beliefs), strict=True))

    def _at(self, level: float, given: str, asked: str) -> dict[str, Any]:
        """The rate called ``asked`` where the one called ``given`` is ``level``."""
        kinds = {"p_fa": self._alarmed, "p_md": self._missed}
        known = _rates(kinds[given])
        falling = given == "p_fa"  # with the threshold
        after = int(np.argmax(known <= level)) if falling else int(np.argmax(known > level)) if (known > level).any() else len(known) - 1
        before = max(after - 1, 0)
        gap = known[before] - known[after]
        share = float((level - known[after]) / gap) if gap else 0.0  # of the threshold before
        mix = [((1 - share), after), (share, before)]
        told = [(part, *rate_and_interval(kinds[asked][place], self.frames)) for part, place in mix]
        edges = [-math.inf, *THRESHOLDS.tolist()]
        return {
            given: level,
            asked: sum(part * rate for part, rate, _ in told),
            f"{asked}_ci95": [sum(part * ends[side] for part, _, ends in told) for side in (0, 1)],
            f"{asked}_errors": round(sum(part * float(kinds[asked][place, 0]) for part, place in mix)),
            "threshold": sum(part * edges[place] for part, place in mix) if before else edges[after],
        }

    def _best(self) -> dict[str, Any]:
        errors = self._missed[:, 0] + self._alarmed[:, 0]
        place = int(errors.argmin())
        return {"threshold": float(THRESHOLDS[max(place - 1, 0)]), "errors": int(errors[place])}

    def _slope(self) -> float:
        """By golden section on the logarithm, over the scores as counted."""
        middle = torch.cat([THRESHOLDS[:1], (THRESHOLDS[1:] + THRESHOLDS[:-1]) / 2, THRESHOLDS[-1:]])

        def loss(logarithm: float) -> float:
            scaled = middle * math.exp(logarithm)
            both = torch.stack([torch.nn.functional.softplus(scaled), torch.nn.functional.softplus(-scaled)])
            return float((self._scores * both).sum())

        low, high, ratio = math.log(1e-3), math.log(1e3), (math.sqrt(5) - 1) / 2
        for _ in range(40):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            low, high = (low, right) if loss(left) < loss(right) else (left, high)
        return math.exp((low + high) / 2)

    def _reliability(self) -> list[dict[str, Any]]:
        told = []
        for index, sums in enumerate(self._said):
            if sums[1] > 0:
                share, interval = rate_and_interval(sums[:5], self.frames)
                about = {"from": BINS[index], "to": BINS[index + 1], "users": int(sums[1]), "said": float(sums[5] / sums[1])}
                told.append({**about, "active": share, "active_ci95": interval})
        return told


def _histogram(place: Tensor, kept: Tensor, size: int) -> Tensor:
    """How many users of each frame [B size] are at each place [B N], of those that are ``kept``."""
    return torch.zeros(len(place), size, dtype=torch.float64, device=place.device).scatter_add_(1, place, kept.double())


def _rates(sums: Tensor) -> np.ndarray:
    errors, trials = sums[:, 0].numpy(), sums[:, 1].numpy()
    return np.divide(errors, trials, out=np.zeros_like(errors), where=trials > 0)
