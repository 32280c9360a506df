"""Partitioned variational inference: access points that hold antennas of their own and agree on the symbols."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Estimate, Observation
from ..errors import ConfigError, ShapeError, unknown
from ..rng import generator as make_generator
from .access_point import AccessPoint, Settings
from .coherent import known_active
from .factor import COVARIANCES, Factor
from .fusion import MODES, Fusion
from .selection import Selection


@dataclass(frozen=True)
class Pvi:
    """Partitioned variational inference from signs (P4 section 1.3), all access points in one process.

    The antennas are divided among ``clients`` (contiguous groups, at most one a antenna). Each estimates its channels from its own pilots,
    antenna by antenna; then each in turn refines its Gaussian factor of the symbols' posterior given the factors of all others, ``sweeps``
    times under each channel estimate. ``refinements`` times the access points take the constellation means of the posterior as additional
    pilots, with their uncertainty as noise, and go on from there. Only signs of the samples are used, whatever the converter.

    mode: "sequential", "synchronous" (all at once, each new factor taken with the share ``damping``) or "asynchronous" (clients finish at
    random times drawn from ``generator``, each on the posterior of when it started). covariance of the symbols' posterior: "diagonal"
    (P4's mean field), "shared" by all symbols of a frame, or "full"; channel_covariance: "shared" by a client's antennas or "diagonal".

    Departures from P4: its (17) as docs/papers.md corrects it; slope of the likelihood and prior variances follow noise and power;
    natural gradients with closed-form expectations; the channel's uncertainty counts as noise; soft instead of hard pseudo-pilots. Rows
    are normalised as in P4 (``normalise``), except where a known offset before the comparators tells the scale.
    """

    mode: str = "sequential"
    clients: int = 4
    refinements: int = 3
    sweeps: int = 4
    damping: float = 1.0
    covariance: str = "shared"
    channel_covariance: str = "shared"
    channel_steps: int = 10
    channel_steps_again: int = 3
    steps: int = 3
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if self.covariance not in COVARIANCES:
            raise unknown("covariance", self.covariance, COVARIANCES)
        if self.clients < 1 or self.refinements < 0:
            raise ConfigError(f"clients {self.clients}, refinements {self.refinements}: pass 1 or more access points, 0 or more rounds")

    @property
    def settings(self) -> Settings:
        """What each access point has to know."""
        return Settings(self.channel_steps, self.channel_steps_again, self.steps, self.channel_covariance, self.normalise)

    def fusion(self, prior: Factor, clients: int) -> Fusion:
        """The fusion centre for ``clients`` access points."""
        return Fusion(prior, clients, mode=self.mode, sweeps=self.sweeps, damping=self.damping)

    def __call__(self, obs: Observation, *, active: Tensor | None = None, generator: torch.Generator | None = None) -> Estimate:
        """``active`` [B N] bool names the users to receive; without it all must be known to be active (``obs.activity == 1``).

        info: updates (factors that were computed), refinements (that were done), cut (time was up).
        """
        active = known_active(obs) if active is None else active
        if active.shape != (obs.frames, obs.users):
            raise ShapeError(f"active is {list(active.shape)}: pass [{obs.frames}, {obs.users}] booleans")
        slots = Selection.of(active)
        points = [AccessPoint(share, slots, self.settings) for share in shares(obs, self.clients)]
        prior = Factor.prior(obs.frames, obs.data_len, slots.present.shape[1], covariance=self.covariance, like=obs.pilot_rx.real)
        posterior, updates, done = self.agree(points, prior, hurry=lambda: obs.late, generator=generator)
        found = posterior.symbols(points[0].prior)
        channel = torch.cat([point.rows for point in points], 2)
        activity = active.to(obs.pilot_rx.real.dtype)
        cut = done < self.refinements and bool(obs.data_len)
        return slots.estimate(activity, channel, found.symbols, found.symbol_var, updates=updates, refinements=done, cut=cut)

    def agree(
        self,
        points: list[AccessPoint],
        prior: Factor,
        *,
        hurry: Callable[[], bool] = lambda: False,
        generator: torch.Generator | None = None,
    ) -> tuple[Factor, int, int]:
        """The posterior that ``points`` agree on, how many factors were computed for it, and how many refinements; ``hurry`` says, before
        each of those, whether time is up."""
        fusion, clock = self.fusion(prior, len(points)), _Clock(generator)
        for point in points:
            point.estimate()
        if not prior.shift.shape[1]:
            return prior, 0, 0
        updates, done = clock.run(fusion, points), 0
        while done < self.refinements and not hurry():
            posterior = fusion.posterior
            for point in points:
                point.estimate(posterior)
            updates, done = updates + clock.run(fusion, points), done + 1
        return fusion.posterior, updates, done


def shares(obs: Observation, clients: int) -> list[Observation]:
    """What each of ``clients`` access points (at most one an antenna) sees of ``obs``."""
    return [share(obs, index, clients) for index in range(min(clients, obs.antennas))]


def share(obs: Observation, index: int, of: int) -> Observation:
    """The observation of one access point, which holds the contiguous group ``index`` of ``of`` of the antennas."""
    own = part_of(obs.antennas, index, of)
    end = obs.front_end
    end = end if end.offset is None else replace(end, offset=end.offset[:, own])
    return replace(obs, pilot_rx=obs.pilot_rx[..., own], data_rx=obs.data_rx[..., own], channel_cov=None, array=None, front_end=end)


def part_of(antennas: int, index: int, of: int) -> slice:
    """The contiguous group ``index`` of ``of``, or of as many as there are antennas.

    >>> part_of(10, 2, 3)
    slice(6, 10, None)
    """
    count = min(of, antennas)
    if not 0 <= index < count:
        raise ConfigError(f"access point {index} of {of} with {antennas} antennas: pass 0 to {count - 1}, each needs an antenna")
    return slice(index * antennas // count, (index + 1) * antennas // count)


class _Clock:
    """Who finishes when: in asynchronous mode at random times, otherwise at once."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._draw = generator or make_generator(0, "pvi")

    def run(self, fusion: Fusion, points: list[AccessPoint]) -> int:
        """One stage; returns how many factors were computed."""
        fusion.begin()
        jobs: list[tuple[float, int, Factor]] = []
        now, updates = 0.0, 0
        while not fusion.done:
            for client in fusion.ready():
                heapq.heappush(jobs, (now + self._duration(fusion.mode), client, fusion.rest(client)))
            now, client, rest = heapq.heappop(jobs)
            fusion.take(client, points[client].update(rest))
            updates += 1
        return updates

    def _duration(self, mode: str) -> float:
        if mode != "asynchronous":
            return 0.0
        return 0.5 + float(torch.rand((), generator=self._draw, device=self._draw.device))
