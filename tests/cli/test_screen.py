"""What a terminal shows of a receiver."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from massaccess.cli._screen import COLUMNS, PLOT, Screen, plot, raster
from massaccess.link.monitor import COUNTERS, blank

FRAMES, USERS, DATA = 6, 12, 40


def text_of(part, width=150):
    console = Console(file=io.StringIO(), width=width)
    console.print(part)
    return console.file.getvalue()


def message(**more):
    """User 3 and 7 in all frames, user 7 with much noise."""
    rng = np.random.default_rng(0)
    activity = np.zeros((FRAMES, USERS), np.float32)
    activity[:, [3, 7]] = 1
    points = (rng.choice([-1, 1], (FRAMES, DATA, USERS)) + 1j * rng.choice([-1, 1], (FRAMES, DATA, USERS))) / np.sqrt(2)
    noise = rng.standard_normal(points.shape) * np.where(np.arange(USERS) == 7, 0.2, 0.02)
    return {"frame": np.arange(FRAMES, dtype=np.uint64), "activity": activity, "symbols": (points + noise).astype(np.complex64), **more}


def watched(**state):
    told = {**blank(USERS, 4), **state}
    return {name: np.repeat(values[None], FRAMES, 0) for name, values in told.items()}


def test_users_that_are_active_stand_in_their_column():
    found = np.zeros((4, 10), bool)
    found[0, 2] = found[3, 9] = found[2, 5] = found[3, 5] = True
    lines = raster(found).plain.split("\n")
    assert lines == ["  ▀       ", "     █   ▄"]


def test_many_users_share_columns():
    found = np.zeros((2, 3 * COLUMNS), bool)
    found[0, 3 * COLUMNS - 1] = True
    (line,) = raster(found).plain.split("\n")
    assert len(line) == COLUMNS
    assert line.strip() == "▀"


def test_points_stand_in_their_quadrant():
    lines = plot(np.full(50, (1 + 1j) / np.sqrt(2))).plain.split("\n")
    assert (len(lines[0]), len(lines)) == PLOT
    (where,) = [(row, line.index("@")) for row, line in enumerate(lines) if "@" in line]
    assert where[0] < PLOT[1] // 2
    assert where[1] > PLOT[0] // 2


def test_the_worst_user_comes_first_and_the_array_is_told():
    screen = Screen()
    state = watched(
        user_fer=np.array([np.nan] * 3 + [0.0] + [np.nan] * 3 + [0.25] + [np.nan] * 4, np.float32),
        antenna_verdict=np.array([0, 2, 0, 0], np.uint8),
        counters=np.array([6.0, 0.0] + [np.nan] * (len(COUNTERS) - 2)),
    )
    screen.take(message(**state))
    shown = text_of(screen)
    rows = [line for line in shown.splitlines() if "25%" in line or "0%" in line]
    assert "25%" in rows[0]
    assert "antennas: 3 of 4 ok, dead 1" in shown
    assert "frames 6, missing 0" in shown


def test_without_a_monitor_the_symbols_alone_tell():
    screen = Screen()
    screen.take(message())
    shown = text_of(screen)
    assert "-34." in shown or "-33." in shown  # user 3: noise of 0.02 in one part
    assert "antennas" not in shown
    assert "%" not in shown


@pytest.mark.parametrize(
    "more",
    [
        {"symbols": np.full((FRAMES, DATA, USERS), np.nan, np.complex64)},
        {"symbols": np.full((FRAMES, DATA, USERS), np.inf + 0j, np.complex64)},
        {"symbols": np.zeros((FRAMES, 0, USERS), np.complex64)},
        {"symbols": np.zeros((FRAMES, DATA, USERS + 1), np.complex64)},
        {"symbols": np.zeros((FRAMES, DATA, USERS), np.float32)},
        {"user_fer": np.zeros((FRAMES, USERS + 5), np.float32), "counters": np.zeros((FRAMES, 3))},
        {"antenna_verdict": np.full((FRAMES, 4), 77, np.uint8), "user_fer": np.zeros(FRAMES, np.float32)},
        {"antenna_verdict": np.zeros((FRAMES, 0), np.uint8), "counters": np.full((FRAMES, len(COUNTERS)), np.inf)},
    ],
)
def test_nonsense_shows_less_and_breaks_nothing(more):
    screen = Screen()
    screen.take(message(**more))
    assert "active" in text_of(screen)
    screen.take(message())
    assert "symbols" in text_of(screen, width=40)


def test_frames_of_another_cell_start_anew():
    screen = Screen()
    screen.take(message())
    other = {"frame": np.arange(1, dtype=np.uint64), "activity": np.ones((1, 3), np.float32)}
    screen.take(other)
    assert "users, worst first" not in text_of(screen)
    screen.take({"frame": np.arange(1, dtype=np.uint64), "packed": np.zeros((1, 2, 3), np.uint8)})
