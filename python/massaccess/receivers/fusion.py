"""The fusion centre: holds the factors of all access points, and decides whose turn it is."""

from __future__ import annotations

from ..errors import ConfigError, unknown
from .factor import Factor

MODES = ("sequential", "synchronous", "asynchronous")
"""One access point after another · all at once, damped · each as soon as it is free, on a posterior that may be stale."""


class Fusion:
    """Posterior = prior x factors of the access points (P4 section 1.3, the server).

    A stage is ``sweeps`` updates of every access point under one channel estimate. `ready` names those to be asked now, `take` stores an
    answer; `pause`, `resume` and `drop` are for access points that are late, back and lost. ``damping`` is the share of a new factor that
    is taken. Only this object holds factors: an access point gets the posterior without its own (`rest`), so that the two sides can never
    disagree on what has been counted.
    """

    def __init__(self, prior: Factor, clients: int, *, mode: str = "sequential", sweeps: int = 4, damping: float = 1.0) -> None:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if clients < 1 or sweeps < 1 or not 0 < damping <= 1:
            raise ConfigError(f"clients {clients}, sweeps {sweeps}, damping {damping}: pass 1 or more, 1 or more, and a share in (0, 1]")
        self.prior, self.mode, self.sweeps, self.damping = prior, mode, sweeps, damping
        self.factors = [prior.nothing() for _ in range(clients)]
        self.present, self.busy, self.left = [True] * clients, [False] * clients, [0] * clients
        self._waiting: dict[int, Factor] = {}

    @property
    def posterior(self) -> Factor:
        """Summed afresh each time, in the order of the access points: no drift, and the same numbers wherever they were computed."""
        total = self.prior
        for factor in self.factors:
            total = total + factor
        return total

    def rest(self, client: int) -> Factor:
        """The posterior without the factor of ``client``."""
        total = self.prior
        for other, factor in enumerate(self.factors):
            total = total if other == client else total + factor
        return total

    def begin(self) -> None:
        """A new stage: every access point that is present gets ``sweeps`` turns."""
        self.left = [self.sweeps * here for here in self.present]
        self.busy, self._waiting = [False] * len(self.left), {}

    @property
    def done(self) -> bool:
        """Whether the stage is over."""
        return not any(self.busy) and not any(self.left)

    def ready(self) -> list[int]:
        """Access points to be asked now; they count as busy until they answer or are given up."""
        if self.mode != "asynchronous" and any(self.busy):
            return []
        free = [client for client, turns in enumerate(self.left) if turns and not self.busy[client]]
        if self.mode == "sequential" and free:
            free = [max(free, key=lambda client: (self.left[client], -client))]
        for client in free:
            self.busy[client] = True
        return free

    def take(self, client: int, factor: Factor) -> None:
        """The answer of ``client``. In synchronous mode it counts once all others have answered too."""
        self._finish(client)
        self._waiting[client] = factor
        self._settle()

    def pause(self, client: int) -> None:
        """``client`` is late: its last factor stays, nobody waits for it until `resume`."""
        self.present[client], self.busy[client], self.left[client] = False, False, 0
        self._settle()

    def resume(self, client: int, factor: Factor | None = None) -> None:
        """``client`` is there again, perhaps with a late answer: it gets as many turns as anybody has left."""
        self.present[client], self.left[client] = True, max(self.left)
        if factor is not None:
            self._waiting[client] = factor
            self._settle()

    def drop(self, client: int) -> None:
        """``client`` is lost: what it said is forgotten, since nobody can say it again under new channels."""
        self.factors[client] = self.prior.nothing()
        self._waiting.pop(client, None)
        self.pause(client)

    def _finish(self, client: int) -> None:
        if self.busy[client]:
            self.busy[client], self.left[client] = False, self.left[client] - 1

    def _settle(self) -> None:
        if self.mode == "synchronous" and any(self.busy):
            return
        for client, factor in self._waiting.items():
            self.factors[client] = self.factors[client].towards(factor, self.damping)
        self._waiting = {}
