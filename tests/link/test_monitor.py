"""What people see of users: errors and phases that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from massaccess.errors import UnknownNameError
from massaccess.forward.modulation import MODULATIONS as LIBRARY
from massaccess.forward.modulation import constellation
from massaccess.link.monitor import COUNTERS, FIELDS, MODULATIONS, UserTrack, blank, nearest


def sent(modulation, users, length, seed=0):
    points = constellation(modulation).points.numpy()
    return points[np.random.default_rng(seed).integers(0, len(points), (1, length, users))]


def test_modulations_are_those_of_the_library_and_decided_alike():
    assert set(MODULATIONS) == set(LIBRARY)
    rng = np.random.default_rng(1)
    for name in MODULATIONS:
        points = constellation(name).points.numpy()
        seen = 0.7 * (rng.standard_normal(500) + 1j * rng.standard_normal(500))
        due = points[np.abs(seen[:, None] - points).argmin(1)]
        assert np.abs(nearest(seen, name) - due).max() < 1e-6


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_error_and_drift_are_those_that_were_put_in(modulation):
    symbols, rng = sent(modulation, 3, 96), np.random.default_rng(2)
    noise = rng.standard_normal((2, *symbols.shape)) * np.sqrt(0.5) * 0.05
    drift = np.radians([20, -20, 0])
    turned = symbols * np.exp(1j * drift * np.linspace(-0.5, 0.5, 96)[:, None])
    track = UserTrack(4, modulation)
    active = np.array([[True, True, True, False]])
    whole = np.concatenate([turned + noise[0] + 1j * noise[1], np.zeros((1, 96, 1))], 2)
    for _ in range(3):
        track.hear(active, whole)
    assert track.heard.tolist() == [3, 3, 3, 0]
    assert track.drift_deg[:3] == pytest.approx([20, -20, 0], abs=4)
    assert track.error_db[2] == pytest.approx(20 * np.log10(0.05), abs=1)
    assert track.error_db[0] > track.error_db[2] + 3
    assert np.isnan([track.error_db[3], track.drift_deg[3], track.failed[3]]).all()


def test_recent_failures_weigh_more():
    track = UserTrack(2)
    for ok in (True, False, True):
        track.check(1, ok)
    assert track.failed[1] == pytest.approx(0.1 * 0.9)
    assert np.isnan(track.failed[0])


def test_what_is_not_known_is_not_a_number():
    state = blank(users=3, antennas=2)
    assert state.keys() == FIELDS.keys()
    assert np.isnan(state["user_fer"]).all()
    assert state["antenna_verdict"].tolist() == [255, 255]
    with pytest.raises(UnknownNameError, match="qpsk"):
        UserTrack(2, "8psk")


def test_the_page_names_every_array_and_counter():
    page = (Path(__file__).resolve().parents[2] / "docs/coded_payloads.md").read_text()
    for name in (*FIELDS, *COUNTERS):
        assert name in page
