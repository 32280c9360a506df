"""Curves and posteriors against hand-made scores."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.core import Estimate, Frame, SystemConfig
from massaccess.errors import ShapeError
from massaccess.evaluate.metrics import Tally
from massaccess.evaluate.montecarlo import Campaign, evaluate
from massaccess.evaluate.roc import KEYS, LEVELS, Ranking
from massaccess.registry import create

CONFIG = SystemConfig(users=32, rows=4, columns=4, pilot_len=6, data_len=0, channel="rayleigh", snr_db=10)


def frame(active):
    return Frame(active, *(torch.zeros(len(active), 1, 1) for _ in range(3)))


def posteriors(frames=4000, users=50, seed=0, spread=2.0):
    """Truths, and the log odds of Gaussian scores of distance ``spread``, which are the true posterior."""
    draw = torch.Generator().manual_seed(seed)
    active = torch.rand(frames, users, generator=draw) < 0.1
    seen = torch.randn(frames, users, generator=draw) + spread * active
    return active, spread * seen - spread**2 / 2 + math.log(0.1 / 0.9)


def ranked(active, scores, name="log_odds", batch=1000):
    ranking = Ranking()
    for start in range(0, len(active), batch):
        rows = slice(start, start + batch)
        ranking.add(frame(active[rows]), Estimate(active[rows].float(), info={name: scores[rows]}))
    return ranking.summary()


def test_the_curve_is_that_of_sorting_the_scores() -> None:
    active, scores = posteriors()
    found = ranked(active, scores)
    silent, awake = scores[~active].sort().values, scores[active].sort().values
    for row in found["roc"]["p_md_at"]:
        threshold = silent[-max(round(row["p_fa"] * len(silent)), 1)]
        exact = float((awake <= threshold).double().mean())
        assert row["p_md"] == pytest.approx(exact, rel=0.02, abs=0.002)
        assert row["p_md_ci95"][0] <= row["p_md"] <= row["p_md_ci95"][1]
        assert row["threshold"] == pytest.approx(float(threshold), abs=0.15)
    for row in found["roc"]["p_fa_at"]:
        threshold = awake[round(row["p_md"] * len(awake))]
        assert row["p_fa"] == pytest.approx(float((silent > threshold).double().mean()), rel=0.03)
    area = torch.searchsorted(silent, awake).double().mean() / len(silent)
    assert found["auc"] == pytest.approx(float(area), abs=1e-4)
    exact = int(((scores > 0) != active).sum())
    assert found["roc"]["best"]["errors"] <= exact


def test_true_posteriors_are_found_reliable_and_sharpened_ones_are_not() -> None:
    active, scores = posteriors()
    honest, loud = ranked(active, scores), ranked(active, 2 * scores)
    assert honest["calibration_slope"] == pytest.approx(1, abs=0.05)
    assert loud["calibration_slope"] == pytest.approx(0.5, abs=0.03)
    assert honest["log_loss"] < loud["log_loss"] < ranked(active, 4 * scores)["log_loss"]
    assert honest["auc"] == pytest.approx(loud["auc"], abs=1e-4)
    rows = honest["reliability"]
    assert sum(row["users"] for row in rows) == active.numel()
    assert sum(row["active_ci95"][0] <= row["said"] <= row["active_ci95"][1] for row in rows) >= len(rows) - 2
    (sure,) = (row for row in loud["reliability"] if row["from"] == 0.99)
    assert sure["active_ci95"][1] < sure["said"]


def test_batches_do_not_matter_and_only_reachable_levels_are_told() -> None:
    active, scores = posteriors(frames=40)
    found, parts = ranked(active, scores), ranked(active, scores, batch=7)
    assert found["roc"] == parts["roc"]
    assert found["log_loss"] == pytest.approx(parts["log_loss"])
    silent = int((~active).sum())
    assert [row["p_fa"] for row in found["roc"]["p_md_at"]] == [level for level in LEVELS if level * silent >= 10]


def test_intervals_cover_as_often_as_they_say() -> None:
    """Frames whose users are all hard to hear: the frame is the unit."""
    truth = 0.0
    hits, draws = 0, 100
    for seed in range(-1, draws):
        draw = torch.Generator().manual_seed(seed + 1)
        active = torch.rand(20000 if seed < 0 else 200, 20, generator=draw) < 0.2
        weak = torch.rand(len(active), 1, generator=draw) < 0.2
        found = ranked(active, torch.randn(active.shape, generator=draw) + torch.where(weak, 1.0, 4.0) * active)
        (row,) = (row for row in found["roc"]["p_md_at"] if row["p_fa"] == 0.05)
        if seed < 0:
            truth = row["p_md"]
        hits += seed >= 0 and row["p_md_ci95"][0] <= truth <= row["p_md_ci95"][1]
    assert hits >= 0.86 * draws


def test_extremes() -> None:
    active = torch.tensor([[True, False, True, False]]).expand(100, -1)
    infinite = torch.where(active, torch.inf, -torch.inf)
    assert ranked(active, infinite)["auc"] == 1
    assert all(row["p_md"] == 0 for row in ranked(active, infinite)["roc"]["p_md_at"])
    assert ranked(active, torch.zeros(active.shape))["auc"] == 0.5
    assert math.isfinite(ranked(active, torch.full(active.shape, torch.nan))["log_loss"])
    with pytest.raises(ShapeError, match="one score"):
        ranked(active, torch.zeros(100, 3))
    assert Ranking().summary() == dict.fromkeys(KEYS)


def test_hard_decisions_have_no_curve_and_margins_no_posterior() -> None:
    rows = evaluate(Campaign([CONFIG], ["covariance", "somp", "covariance+ls-zf"], frames=200, device="cpu"))["results"]
    assert rows[0]["auc"] > 0.9
    assert rows[0]["log_loss"] > 0
    assert rows[1]["auc"] > 0.8
    assert [rows[1][key] for key in ("log_loss", "calibration_slope", "reliability")] == [None] * 3
    hard = Ranking()
    hard.add(frame(torch.ones(3, 4, dtype=torch.bool)), Estimate(torch.ones(3, 4)))
    assert hard.summary()["roc"] is None


def test_the_margin_of_matching_pursuit_holds_its_answers_for_all_limits() -> None:
    from scipy.stats import gamma

    from massaccess.forward.simulate import Simulation

    _, obs = Simulation(CONFIG, 1).frames(0, 32)
    whole = create("somp", false_alarm=float(obs.users))(obs).info["margin"]
    for false_alarm in (1e-3, 1.0, 10.0):
        limit = float(gamma.isf(false_alarm / obs.users, obs.antennas))
        assert torch.equal(whole > limit, create("somp", false_alarm=false_alarm)(obs).active)
        assert torch.equal(create("somp", false_alarm=false_alarm)(obs).info["margin"] > 0, whole > limit)


def test_errors_are_split_by_load() -> None:
    active = torch.zeros(4, 32, dtype=torch.bool)
    active[0, :7], active[1, :6] = True, True
    wrong = active.clone()
    wrong[0, :3], wrong[1, 0], wrong[2, 5] = False, False, True
    tally = Tally()
    tally.add(CONFIG, frame(active), Estimate(wrong.float()))
    found = tally.summary()
    assert (found["aep_overloaded_errors"], found["aep_underloaded_errors"], found["aep_errors"]) == (3, 2, 5)
    assert found["aep_overloaded"] == pytest.approx(3 / 32)
    assert found["aep_underloaded"] == pytest.approx(2 / 96)
    light = Tally()
    light.add(CONFIG, frame(active[1:]), Estimate(wrong[1:].float()))
    assert light.summary()["aep_overloaded"] is None


def test_gains_may_be_hidden() -> None:
    config = CONFIG.replace(channel="pathloss", power_control=False, snr_db=20, users=64, pilot_len=12, rows=8, columns=8)
    known, hidden = (
        evaluate(Campaign([config], ["covariance"], frames=200, device="cpu", gains=gains))["results"][0] for gains in ("known", "unknown")
    )
    assert (known["gains"], hidden["gains"]) == ("known", "unknown")
    assert known["auc"] > hidden["auc"]
