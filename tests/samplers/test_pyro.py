"""Our ascent against Pyro's automatic guide: the same ELBO."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

from massaccess.samplers.advi import Factors, SignProblem, elbo, newton

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("pyro", reason="pip install pyro-ppl")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/onebit/pyro_advi.py"


@pytest.mark.filterwarnings("ignore")
def test_same_bound_as_the_automatic_guide() -> None:
    spec = importlib.util.spec_from_file_location("pyro_advi", SCRIPT)
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    design = 3 * torch.randn(1, 40, 8)
    u = 0.7 * torch.randn(1, 8, 6)
    problem = SignProblem(torch.sign(design @ u + torch.randn(1, 40, 6)), design, torch.full((1, 8, 1), 0.5))
    svi, guide, shape = benchmark.automatic(problem, 0.05, 8, 600)
    for _ in range(600):
        svi.step()
    mine, theirs = newton(problem, steps=40, tolerance=1e-6)[0], benchmark.factors(guide, shape)
    bounds = [float(elbo(problem, Factors(q.mean, q.log_sd), nodes=40).mean()) for q in (mine, theirs)]
    assert bounds[1] < bounds[0] + 0.001 * abs(bounds[0])
    assert bounds[1] > bounds[0] - 0.01 * abs(bounds[0])
