"""A small cell, receivers that misbehave, and flowgraphs out of blocks in a row."""

from __future__ import annotations

import sys
import time
import types
from dataclasses import dataclass, replace

import pytest
import torch

pytest.importorskip("gnuradio.gr", reason="GNU Radio is not installed")

from massaccess import Estimate, SystemConfig
from massaccess.core import sequence_estimate
from massaccess.registry import RECEIVERS, Entry


@dataclass(frozen=True)
class Energetic:
    """Answers at once: correlates with the pilots, decides by energy, and draws a little, so that its generator shows."""

    seconds: float = 0.0

    def __call__(self, obs, *, generator=None):
        time.sleep(self.seconds * obs.frames)
        power = (obs.pilots.conj().T @ obs.pilot_rx / obs.pilot_len).abs().square().mean(2)
        jitter = torch.rand(power.shape, generator=generator)
        activity = (power + 0.2 * jitter > 0.7).float()
        zeros = obs.pilot_rx.new_zeros(obs.frames, obs.data_len, obs.users)
        return Estimate(activity, obs.pilot_rx.new_zeros(obs.frames, obs.users, obs.antennas), zeros + 1)


@dataclass(frozen=True)
class Patient:
    """Makes ``steps`` steps of ``seconds`` each, unless time is up, and then answers like `Energetic`."""

    steps: int = 10**6
    seconds: float = 0.01
    each: bool = False

    def __call__(self, obs, *, generator=None):
        cut = False
        for _ in range(self.steps):
            if cut := obs.late:
                break
            time.sleep(self.seconds)
        told = torch.arange(obs.frames) < 1 if self.each else cut
        return replace(Energetic()(obs, generator=generator), info={"cut": told})


@dataclass(frozen=True)
class Matched:
    """Correlates with every sequence, and takes the energy for log odds: right where users are few and the noise is low."""

    seconds: float = 0.0

    def __call__(self, obs, *, generator=None):
        time.sleep(self.seconds * obs.frames)
        energy = obs.pilots.abs().square().sum(0)
        power = (obs.pilots.conj().T @ obs.pilot_rx).abs().square().mean(2) / energy**2
        gain = 1 if obs.user_gain is None else obs.user_gain.repeat_interleave(obs.sequences, 1)
        return sequence_estimate(((power / gain - 0.5) * 20).unflatten(1, (obs.users, obs.sequences)))


@dataclass(frozen=True)
class Poisoned:
    """Raises at the first frame."""

    def __call__(self, obs, *, generator=None):
        raise ZeroDivisionError("the model is poisoned")


@pytest.fixture(autouse=True)
def misbehaving(monkeypatch):
    """The registry knows "energetic", "patient", "poisoned" and "matched" as well."""
    module = types.ModuleType("massaccess._fakes")
    module.Energetic, module.Patient, module.Poisoned, module.Matched = Energetic, Patient, Poisoned, Matched
    monkeypatch.setitem(sys.modules, "massaccess._fakes", module)
    for name in ("Energetic", "Patient", "Poisoned"):
        monkeypatch.setitem(RECEIVERS, name.lower(), Entry(f"_fakes:{name}", "joint", "", ""))
    monkeypatch.setitem(RECEIVERS, "matched", Entry("_fakes:Matched", "noncoherent", "", ""))


@pytest.fixture
def config():
    return SystemConfig(users=16, rows=4, columns=4, pilot_len=12, data_len=20, channel="rayleigh", snr_db=12.0, active_users=3)


@pytest.fixture
def cell(config):
    """Parameters of `config` that a block takes: ``cell(massaccess.population, seed=3)`` makes the block."""

    def make(block, **changes):
        names = block.__init__.__code__.co_varnames
        known = {name: value for name, value in config.to_dict().items() if name in names or "parameters" in names}
        if "parameters" in names:  # activity_detector hands its parameters on
            from gnuradio import massaccess

            known = {name: value for name, value in known.items() if name in massaccess.receiver.__init__.__code__.co_varnames}
        return block(**{**known, **changes})

    return make
