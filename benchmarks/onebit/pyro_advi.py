"""The toolkit's ADVI beside Pyro's automatic guide, same posterior, same machine: ``python benchmarks/onebit/pyro_advi.py --json FILE``.

One frame's channel estimation of P4 Fig. 1 (128 antennas, 20 users, 80 pilots, one bit): independent Gaussians for 128 x 40 real unknowns,
probit likelihood, prior variance 1/2. Pyro (`pip install pyro-ppl`): AutoDiagonalNormal, SVI, Trace_ELBO with vectorised particles, Adam
whose rate falls by ten over the run, every run of `GRID`. Ours: `samplers.advi.newton`.

Both are stopped by one rule, outside their clocks: every so many steps the ELBO is evaluated with `JUDGES` draws, the same for all; a
method has converged once it has reached `CLOSE` of the best ELBO that any of them ends with. Compared: the time until then, and the last
ELBO. The Pyro run that counts is the fastest that converges, and failing that the one with the best ELBO.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from massaccess import __version__
from massaccess.core import SystemConfig
from massaccess.forward.simulate import Simulation
from massaccess.likelihoods.real_form import stacked
from massaccess.receivers.selection import Selection
from massaccess.receivers.signs import Signs
from massaccess.samplers.advi import Factors, SignProblem, elbo, newton

FIG1 = SystemConfig(
    users=20,
    active_users=20,
    rows=8,
    columns=16,
    pilot_len=80,
    data_len=200,
    snr_convention="per-user",
    adc_bits=1,
    channel="rayleigh",
)
GRID = [(0.03, 1, 3000), (0.1, 1, 3000), (0.2, 1, 3000), (0.03, 8, 800), (0.1, 8, 800), (0.2, 8, 800)]  # rate, particles, steps
JUDGES, CLOSE, LOOKS = 500, 0.005, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr-db", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = compare(channel_problem(args.snr_db, args.seed))
    document = {"version": __version__, "snr_db": args.snr_db, "seed": args.seed, "threads": torch.get_num_threads(), **result}
    print(json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")


def channel_problem(snr_db: float, seed: int) -> SignProblem:
    """What the pilots of one frame say of its channels."""
    _, obs = Simulation(FIG1.replace(snr_db=snr_db), seed).frames(0, 1)
    signs = Signs.of(obs, Selection.of(torch.ones(1, obs.users, dtype=torch.bool)))
    return SignProblem(signs.pilots, stacked(signs.sent) / math.sqrt(obs.noise_var / 2), torch.full((1, 2 * obs.users, 1), 0.5))


def compare(problem: SignProblem) -> dict[str, Any]:
    """Times until both have converged, and their ELBOs."""
    judge = torch.Generator().manual_seed(99)
    eta = torch.randn(JUDGES, *Factors.prior(problem).mean.shape, generator=judge)
    runs = [{"method": "ours", "trace": ours(problem, eta)}]
    runs += [
        {"method": "pyro", "rate": rate, "particles": particles, "steps": steps, "trace": pyro_run(problem, eta, rate, particles, steps)}
        for rate, particles, steps in GRID
    ]
    best = max(run["trace"][-1][1] for run in runs)
    for run in runs:
        run["seconds"] = next((clock for clock, value in run["trace"] if value >= best - CLOSE * abs(best)), None)
        run["elbo"] = run["trace"][-1][1]
    mine, theirs = runs[0], fastest(runs[1:])
    return {
        "ours": {key: mine[key] for key in ("seconds", "elbo")},
        "pyro": {key: theirs[key] for key in ("rate", "particles", "steps", "seconds", "elbo")},
        "elbo_difference": (mine["elbo"] - theirs["elbo"]) / abs(best),
        "times_faster": (theirs["seconds"] or theirs["trace"][-1][0]) / mine["seconds"],
        "runs": runs,
    }


def fastest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The first to converge, or the highest."""
    converged = [run for run in runs if run["seconds"] is not None]
    return min(converged, key=lambda run: run["seconds"]) if converged else max(runs, key=lambda run: run["elbo"])


def judged(problem: SignProblem, q: Factors, eta: Tensor) -> float:
    """The mean ELBO of an antenna."""
    with torch.inference_mode():
        return float(torch.stack([elbo(problem, q, part).mean() for part in eta.split(20)]).mean())


def ours(problem: SignProblem, eta: Tensor) -> list[tuple[float, float]]:
    """(seconds, ELBO) after every step."""
    newton(problem, steps=2)  # as Pyro's first step, this one is not counted
    q, clock, trace = Factors.prior(problem), 0.0, list[tuple[float, float]]()
    for _ in range(20):
        start = time.perf_counter()
        q, _ = newton(problem, q, steps=1, tolerance=0.0)
        clock += time.perf_counter() - start
        trace.append((clock, judged(problem, q, eta)))
    return trace


def pyro_run(problem: SignProblem, eta: Tensor, rate: float, particles: int, steps: int) -> list[tuple[float, float]]:
    """(seconds, ELBO) after every so many steps."""
    svi, guide, shape = automatic(problem, rate, particles, steps)
    svi.step()
    clock, trace = 0.0, list[tuple[float, float]]()
    for _ in range(LOOKS):
        start = time.perf_counter()
        for _ in range(steps // LOOKS):
            svi.step()
        clock += time.perf_counter() - start
        trace.append((clock, judged(problem, factors(guide, shape), eta)))
    return trace


def automatic(problem: SignProblem, rate: float, particles: int, steps: int) -> tuple[Any, Any, torch.Size]:
    """Pyro's SVI and guide for ``problem``, and the shape of its unknowns."""
    import pyro
    from pyro import distributions
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoDiagonalNormal
    from pyro.optim import ClippedAdam

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    start = Factors.prior(problem)

    def model() -> None:
        u = pyro.sample("u", distributions.Normal(torch.zeros_like(start.mean), start.log_sd.exp()).to_event(3))
        pyro.factor("signs", problem.log_link(problem.margin(u)).sum((-1, -2, -3)))

    guide = AutoDiagonalNormal(model, init_loc_fn=pyro.infer.autoguide.init_to_value(values={"u": start.mean}), init_scale=0.1)
    optimiser = ClippedAdam({"lr": rate, "lrd": 0.1 ** (1 / steps), "clip_norm": 1e6})
    return SVI(model, guide, optimiser, Trace_ELBO(particles, vectorize_particles=particles > 1)), guide, start.mean.shape


def factors(guide: Any, shape: torch.Size) -> Factors:
    """What the guide has found."""
    return Factors(guide.loc.detach().reshape(shape), guide.scale.detach().log().reshape(shape))


if __name__ == "__main__":
    main()
