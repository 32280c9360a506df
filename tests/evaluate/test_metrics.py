"""Counts and intervals against hand-made errors."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.core import Estimate, SystemConfig
from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.evaluate import montecarlo
from massaccess.evaluate.metrics import Tally
from massaccess.evaluate.montecarlo import Campaign, best_threshold, evaluate
from massaccess.forward.modulation import constellation
from massaccess.forward.simulate import Simulation
from massaccess.registry import create

CONFIG = SystemConfig(users=10, rows=2, columns=2, pilot_len=8, data_len=15, activity=0.4, channel="rayleigh")


def perfect(frame):
    symbols = frame.symbols * frame.active[:, None, :]
    var = torch.full(symbols.shape, 0.01)
    return Estimate(frame.active.float(), frame.channel * frame.active[..., None], symbols, var)


def summary(frame, estimate, config=CONFIG):
    tally = Tally()
    tally.add(config, frame, estimate)
    return tally.summary()


def test_a_perfect_estimate_has_no_errors():
    frame, _ = Simulation(CONFIG, 1).frames(0, 20)
    result = summary(frame, perfect(frame))
    for rate in ("aep", "p_fa", "p_md", "ser", "ber", "fer"):
        assert result[rate] == 0
        assert result[f"{rate}_errors"] == 0
        low, high = result[f"{rate}_ci95"]
        assert low == 0 < high
    assert result["nmse_db"] < -200


def test_every_planted_error_is_counted_once():
    frame, _ = Simulation(CONFIG, 1).frames(0, 20)
    good = perfect(frame)
    awake, asleep = frame.active.nonzero()[0], (~frame.active).nonzero()[0]
    activity = good.activity.clone()
    activity[tuple(awake)], activity[tuple(asleep)] = 0.0, 1.0
    symbols, channel = good.symbols.clone(), good.channel.clone()
    symbols[awake[0], :, awake[1]] = 0
    channel[tuple(awake)] = 0
    other = frame.active.nonzero()[5]
    symbols[other[0], 3, other[1]] *= -1  # both bits of one QPSK symbol
    result = summary(frame, Estimate(activity, channel, symbols, good.symbol_var))
    active = int(frame.active.sum())
    assert result["aep_errors"] == 2
    assert result["p_fa"] == pytest.approx(1 / (200 - active))
    assert result["p_md"] == pytest.approx(1 / active)
    assert result["ser_errors"] == 15 + 1
    assert result["fer_errors"] == 2
    decided = constellation("qpsk").decide(torch.zeros(15, dtype=torch.complex64))
    assert result["ber_errors"] == 2 + int((decided != frame.bits[tuple(awake)]).sum())
    lost = float(frame.channel[tuple(awake)].abs().square().sum() / (frame.channel * frame.active[..., None]).abs().square().sum())
    assert result["nmse_db"] == pytest.approx(10 * math.log10(lost), abs=1e-3)


def test_channel_errors_that_forgive_the_amplitude():
    frame, _ = Simulation(CONFIG, 1).frames(0, 20)
    good, draw = perfect(frame), torch.Generator().manual_seed(2)

    def measured(channel, active=None):
        estimate = dataclasses.replace(good, channel=channel, activity=good.activity if active is None else active)
        return [summary(frame, estimate)[f"{name}_db"] for name in ("nmse", "nmse_scaled", "nmse_rows")]

    a_frame, an_antenna = (torch.rand(shape, generator=draw) + 0.1 for shape in ((20, 1, 1), (20, 1, 4)))
    assert [round(value) <= -100 for value in measured(good.channel)] == [True, True, True]
    assert [value < -100 for value in measured(a_frame * good.channel)] == [False, True, True]
    assert [value < -100 for value in measured(an_antenna * good.channel)] == [False, False, True]
    assert measured(0 * good.channel) == pytest.approx([0, 0, 0])
    assert measured(-good.channel) == pytest.approx([10 * math.log10(4), 0, 10 * math.log10(4)], abs=1e-4)
    noisy = good.channel + 0.3 * torch.randn(good.channel.shape, dtype=torch.complex64, generator=draw) * frame.active[..., None]
    raw, scaled, _ = measured(noisy)
    assert scaled < raw == pytest.approx(20 * math.log10(0.3), abs=0.5)
    alarm = torch.where(frame.active[..., None], noisy, 1)
    assert measured(alarm, torch.ones_like(good.activity))[2] == pytest.approx(measured(noisy)[2])


def test_rows_of_the_one_bit_paper_by_hand():
    """P4 brings each row to the norm sqrt(active users)."""
    frame, _ = Simulation(CONFIG.replace(active_users=6), 1).frames(0, 1)
    noisy = frame.channel + 0.5 * torch.randn(frame.channel.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    estimate = dataclasses.replace(perfect(frame), channel=noisy * frame.active[..., None])
    true, found = (channel[0, frame.active[0]].mT for channel in (frame.channel, noisy))
    true, found = (6**0.5 * rows / rows.norm(dim=1, keepdim=True) for rows in (true, found))
    wanted = float((found - true).norm() ** 2 / true.norm() ** 2)
    assert summary(frame, estimate)["nmse_rows_db"] == pytest.approx(10 * math.log10(wanted), abs=1e-4)


def test_intervals_cover_as_often_as_they_say():
    """Bursty frames (all ten users wrong at once): the interval must take the frame as the unit."""
    draw, hits = torch.Generator().manual_seed(1), 0
    for _ in range(200):
        tally = Tally()
        frame, _ = Simulation(CONFIG.replace(data_len=0), 1).frames(0, 128)
        burst = (torch.rand(128, 1, generator=draw) < 0.2).expand(128, 10)
        tally.add(CONFIG.replace(data_len=0), frame, Estimate((frame.active ^ burst).float()))
        low, high = tally.summary()["aep_ci95"]
        hits += low <= 0.2 <= high
    assert 180 <= hits <= 200


def test_batches_add_up():
    frame, obs = Simulation(CONFIG, 1).frames(0, 32)
    estimate = create("jcedd")(obs)
    whole, parts = Tally(), Tally()
    whole.add(CONFIG, frame, estimate)
    for rows in (slice(0, 5), slice(5, 32)):
        piece = {
            field.name: getattr(estimate, field.name)[rows]
            for field in dataclasses.fields(estimate)
            if field.name not in ("info", "sequence_odds")
        }
        truth = {name: getattr(frame, name)[rows] for name in ("active", "bits", "symbols", "channel")}
        parts.add(CONFIG, dataclasses.replace(frame, **truth), Estimate(**piece))
    for name, value in whole.summary().items():
        assert parts.summary()[name] == pytest.approx(value)


def test_other_frames_are_refused():
    frame, _ = Simulation(CONFIG, 1).frames(0, 4)
    with pytest.raises(ShapeError, match="same frames"):
        Tally().add(CONFIG, frame, Estimate(torch.zeros(4, 9)))


def test_receivers_of_a_campaign_see_the_same_frames():
    """A receiver listed twice has the same results, and they are those of a loop by hand."""
    campaign = Campaign(
        [CONFIG, CONFIG.replace(snr_db=5.0)],
        ["jcedd", "jcedd", "perfect-csi-ep"],
        frames=40,
        seed=3,
        batch=16,
        device="cpu",
    )
    rows = evaluate(campaign)["results"]
    assert [row["receiver"] for row in rows] == 2 * list(campaign.receivers)
    tally = Tally()
    for start in range(0, 40, 16):
        frame, obs = Simulation(CONFIG, 3).frames(start, min(16, 40 - start))
        tally.add(CONFIG, frame, create("jcedd")(obs))
    for name in ("aep_errors", "ber_errors", "fer_errors", "nmse_db"):
        assert rows[0][name] == rows[1][name] == pytest.approx(tally.summary()[name])
    assert rows[2]["aep"] == 0
    assert rows[3]["ber"] > rows[0]["ber"]
    assert rows[0]["seconds_per_frame"] > 0


def test_calibration_uses_frames_of_its_own():
    options = {"frames": 64, "seed": 3, "device": "cpu"}
    config = CONFIG.replace(users=60, rows=8, columns=8, pilot_len=10, data_len=0, activity=0.1)
    plain, tuned = (evaluate(Campaign([config], ["mmv-amp", "covariance"], calibrate=frames, **options))["results"] for frames in (0, 128))
    assert "threshold" not in plain[0]["options"]
    assert tuned[0]["options"]["threshold"] != 0
    assert tuned[0]["aep"] < plain[0]["aep"]


def test_thresholds_minimise_errors():
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    truth = torch.tensor([True, True, False, True, False, False])
    cut = best_threshold(scores, truth)
    assert int(((scores > cut) != truth).sum()) == 1
    assert best_threshold(scores, torch.zeros(6, dtype=torch.bool)) > 5
    assert best_threshold(scores, torch.ones(6, dtype=torch.bool)) < 0


def test_campaigns_that_make_no_sense():
    with pytest.raises(UnknownNameError, match="jcedd"):
        Campaign([CONFIG], ["jced"], frames=10)
    with pytest.raises(ConfigError, match="more books than frames"):
        Campaign([CONFIG], ["jcedd"], frames=2, books=3)
    with pytest.raises(ConfigError, match="no receiver"):
        Campaign([CONFIG], [], frames=2)
    with pytest.raises(ConfigError, match="receiver iterative-lmmse-ep"):
        evaluate(Campaign([CONFIG], ["iterative-lmmse-ep"], frames=2, device="cpu"))


@dataclasses.dataclass(frozen=True)
class Patient:
    """Takes as many steps as it may, at most 9."""

    def __call__(self, obs, *, generator=None):
        steps = next((step for step in range(9) if obs.late), 9)
        return Estimate(torch.ones(obs.frames, obs.users), info={"nfe": steps})


@pytest.mark.parametrize(("allowed", "taken"), [(0, 9), (1, 1), (4, 4), (20, 9)])
def test_a_campaign_may_limit_the_steps(monkeypatch, allowed: int, taken: int) -> None:
    monkeypatch.setattr(montecarlo, "create", lambda name: Patient())
    campaign = Campaign([SystemConfig(channel="rayleigh")], ["jcedd"], frames=3, batch=2, device="cpu", steps=allowed)
    document = evaluate(campaign)
    assert document["steps"] == allowed
    assert document["results"][0]["nfe"] == taken
    with pytest.raises(ConfigError, match="steps"):
        Campaign([SystemConfig()], ["jcedd"], frames=1, steps=-1)
