"""Fitting angular profiles to training channels: expectation maximisation on the powers of their beams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .mixture_fit import Iterate

CHUNK = 8192  # rows at once
FLOOR = 1e-3  # of the mean power of a beam: no profile is sure that nothing comes from a direction


@dataclass(frozen=True, eq=False)
class Model:
    """EM, one iteration at a time, for channels whose beams have the powers ``energy`` [N M]; the twin of `mixture_fit.Model`.

    An iterate's parameters, and its ``covariance``, are the profiles' powers [K M].
    """

    energy: Tensor

    @staticmethod
    def of(rows: Tensor, basis: Tensor) -> Model:
        """For channel rows [N M], which turn into beams with ``basis`` [M M]."""
        return Model(torch.view_as_real(rows @ basis.to(rows)).square().sum(-1))

    @property
    def rows(self) -> Tensor:
        return self.energy

    @property
    def pooled(self) -> Tensor:
        """Mean powers [1 M]."""
        return self.energy.mean(0, keepdim=True)

    def begin(self, components: int, *, generator: torch.Generator) -> Iterate:
        """Halfway between some channel and the mean, for each profile."""
        pick = torch.randperm(len(self.energy), generator=generator, device=generator.device)[:components].to(self.energy.device)
        power = (self.energy[pick] + self.pooled) / 2
        return self.at(power.new_full((len(pick),), 1 / len(pick), dtype=torch.float64), power)

    def at(self, weight: Tensor, parameters: Tensor, history: tuple[float, ...] = ()) -> Iterate:
        """An iterate of an earlier fit."""
        return Iterate(weight, parameters, parameters, history)

    def iterate(self, begin: Iterate, *, tolerance: float) -> Iterator[Iterate]:
        """As `mixture_fit.Model.iterate`: without end, or until a channel gains less than ``tolerance`` nats."""
        weight, power, history = begin.weight, begin.parameters, begin.history[:-1]
        floor = FLOOR * self.energy.mean()
        while True:
            likelihood, count, sums = self._expect(weight, power)
            history += (likelihood / len(self.energy),)
            converged = len(history) > 1 and history[-1] - history[-2] < tolerance
            yield Iterate(weight, power, power, history, converged)
            if converged:
                return
            weight = (count / count.sum()).clamp_min(1e-9)
            weight, power = weight / weight.sum(), (sums / count.clamp_min(1e-9)[:, None]).to(power).clamp_min(floor)

    def _expect(self, weight: Tensor, power: Tensor) -> tuple[float, Tensor, Tensor]:
        """Log-likelihood of all channels (but for their dimensions times log pi); how many each profile has [K], and their powers' sums."""
        total = 0.0
        count, sums = torch.zeros_like(weight), torch.zeros(power.shape, dtype=torch.float64, device=power.device)
        offset = weight.log().to(power) - power.log().sum(1)
        inverse = (1 / power).mT
        for part in self.energy.split(CHUNK):
            joint = offset - part @ inverse
            evidence = joint.logsumexp(1, keepdim=True)
            share = (joint - evidence).exp()
            total += float(evidence.double().sum())
            count += share.sum(0).double()
            sums += (share.mT @ part).double()
        return total, count, sums
