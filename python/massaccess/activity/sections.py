"""The toolkit's non-coherent detector: the posterior of each device's section of sequences, from the covariance of what was received."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..core import Estimate, Observation, sequence_estimate
from ..errors import ConfigError
from ..lanes import split
from ..parallel import over_frames
from ..priors.profiles import AngularProfiles
from ..weights import choose_profiles
from . import angular
from .section_problem import Found, Problem
from .section_tensors import batched


@dataclass(frozen=True)
class SectionCovariance:
    """Which devices are active and which of their Q sequences they send (P3), for any number of devices, sequences, pilots and antennas.

    A device is silent, or in one of Q x K states: which sequence, and which of K profiles the power of its channel follows over the beams
    of the array (`priors.profiles`; with ``channel_cov`` unknown the antennas are alike and their sample covariance says it all). Given
    the states, received pilots are Gaussian, beam by beam, and channels are integrated out. Two kinds of sweeps over the devices
    work on that likelihood (the one of Fengler et al. 2021; P3 compares with its descent), always with the powers of the others in the
    covariance matrices, by rank-one updates:

    * soft: a device puts in its expected power, over all of its states, while the likelihood counts more and more (annealing). That
      mean field alone ends near the best decisions.
    * sampled, only in frames in which a device is in doubt, and of devices that may be active: it puts in one state, drawn from its
      posterior given the states of the others (Gibbs), and posteriors are averaged over the sweeps. With independent antennas and known
      gains the likelihood is exact, and so is their limit: no detector makes fewer symbol errors. Uniform numbers come from a fixed seed,
      the same for each frame: equal frames have equal answers.

    Where mean powers of users are not known, ``gain_range_db`` of the observation gives each profile the levels of that range, as
    likely as users evenly spread over the distance make them.

    Options: weights, components, foreign, neglect: the profiles and beams, see `activity.angular.AngularCovariance`; sweeps: of the sampled
    kind, 0 for none (not given: 150, or 60 where beams differ); ignore: log odds below which a device is left out of most sweeps;
    certain: least difference of log odds between the two best states of a device that is not in doubt; threshold: on the log odds, 0
    decides for fewest symbol errors.
    """

    weights: str = "auto"
    components: int = 0
    foreign: float = 0.07
    neglect: float = 0.02
    sweeps: int | None = None
    ignore: float = -6.0
    certain: float = 3.0
    threshold: float = 0.0
    weights_kind: ClassVar[str] = "profiles"
    tells_levels: ClassVar[bool] = True

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``activity`` [B N] and ``sequence_odds`` [B N Q]; info: log_odds, power (expected of a device, per antenna) [B N],
        sweeps [B]; where gains are not known also level_mass [B N G] and silence [B N], see `priors.gain_memory.GainMemory`.

        Raises ConfigError, ShapeError and the errors of `weights.choose_profiles`.
        """
        self._check()
        profiles = angular.prepared(choose_profiles(self.weights, obs), self.components, self.foreign, 0.0)
        leveled = _leveled(profiles, obs.gain_range_db)
        problem = Problem.of(obs, leveled, sweeps=self.sweeps, neglect=self.neglect, ignore=self.ignore, certain=self.certain)
        found = (compiled if obs.pilot_rx.device.type == "cpu" else batched)(problem)
        odds = (found.odds - self.threshold).to(obs.pilot_rx.real.dtype)
        told = {"power": found.power, "sweeps": found.sweeps}
        if obs.gain_range_db is not None:
            told |= {"level_mass": found.level_mass, "silence": found.silence}
        return sequence_estimate(odds, told)

    def _check(self) -> None:
        for name, value, high in (("foreign", self.foreign, 0.5), ("neglect", self.neglect, 0.5), ("sweeps", self.sweeps or 0, 100_000)):
            if not 0 <= value <= high:
                raise ConfigError(f"{name} is {value}: pass 0 to {high}")
        if self.components < 0 or self.certain < 0:
            raise ConfigError(f"components is {self.components}, certain is {self.certain}: pass 0 or more")


@functools.lru_cache(maxsize=16)
def _leveled(profiles: AngularProfiles, gain_range_db: tuple[float, float] | None) -> AngularProfiles:
    """Each profile at every level of a range of gains; remembered for each object."""
    return profiles if gain_range_db is None else profiles.leveled(*gain_range_db)


def compiled(problem: Problem) -> Found:
    """The sweeps on the CPU, frames shared out to threads."""
    from . import _section_kernel as kernel

    frames, users = problem.amplitude.shape
    odds, power = np.zeros((frames, users, problem.book.shape[1])), np.zeros((frames, users))
    mass, silence, used = np.zeros((frames, users, problem.levels)), np.zeros((frames, users)), np.zeros(frames, np.int64)
    out = (odds, power, mass, silence, used)
    device = (*split(problem.book), problem.amplitude.numpy(), problem.order.numpy())
    course = (problem.exponents.numpy(), problem.everybody.numpy(), problem.sampled.numpy(), problem.numbers.numpy())
    rest = (problem.log_weight.numpy(), problem.prior, problem.noise_var, *course, problem.ignore, problem.certain, *out)
    if problem.looks:
        levels = np.ascontiguousarray(problem.power[0].numpy())
        over_frames(kernel.alike, frames, *split(problem.rx), float(problem.looks), *device, levels, *rest)
    else:
        beams = problem.kept.numpy(), problem.kept_count.numpy()
        over_frames(kernel.beams, frames, *split(problem.rx), *beams, *device, problem.power.numpy(), *rest)
    return Found(*map(torch.from_numpy, out))
