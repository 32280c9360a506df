"""Frames for the training of activity detectors: they are the library's signal model, and any step can be drawn again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from massaccess.errors import ConfigError, UnknownNameError
from massaccess.forward.banks import save_bank
from massaccess.forward.pilots import pilot_book
from massaccess.rng import complex_normal, generator
from massaccess.train.frames import FrameData
from massaccess.train.recipe import Recipe, from_dict, read

CPU = torch.device("cpu")
BASE = {
    "name": "x",
    "network": "unrolled-covariance",
    "kind": "activity",
    "data": {"sources": [{"channel": "rayleigh"}]},
    "frames": {"pilots": [5, 9], "users": [30, 20]},
    "optimiser": {"batch": 200},
}


def recipe(**changes: object) -> Recipe:
    return from_dict({**BASE, **changes})


def test_batches_follow_the_step_alone():
    data = FrameData.of(recipe(), device=CPU)
    first, again = data.batch(4), FrameData.of(recipe(), device=CPU).batch(4)
    assert torch.equal(first.rx, again.rx) and torch.equal(first.active, again.active) and torch.equal(first.pilots, again.pilots)
    sizes = {(one.rx.shape[1], one.active.shape[1]) for one in map(data.batch, range(60))}
    assert {length for length, _ in sizes} == set(range(5, 10)) and {users for _, users in sizes} == {20, 30}


@pytest.mark.parametrize("channel", ["rayleigh", "paths", "kronecker", "uma"])
def test_received_power_is_that_of_the_convention(channel):
    """Signal over noise is the received SNR, in the ensemble; every active user's channel has mean power 1."""
    frames = {**BASE["frames"], "users": [100], "activity": [0.2, 0.2], "snr_db": [6.0, 6.0]}
    batch = FrameData.of(recipe(frames=frames, data={"sources": [{"channel": channel}]}), device=CPU).batch(0)
    assert batch.noise_var[0] == pytest.approx(20 / 10**0.6)
    assert float(batch.rx.abs().square().mean()) == pytest.approx(20 + float(batch.noise_var[0]), rel=0.05)
    assert float(batch.active.float().mean()) == pytest.approx(0.2, abs=0.01)


def test_without_noise_frames_are_combinations_of_the_active_pilots():
    frames = {**BASE["frames"], "pilots": [25, 25], "snr_db": [200.0, 200.0], "gain_db": 6.0}
    batch = FrameData.of(recipe(frames=frames), device=CPU).batch(3)
    for frame in range(5):
        book = batch.pilots[frame][:, batch.active[frame]]
        assert book.shape[1] < 25
        found = torch.linalg.lstsq(book, batch.rx[frame]).solution
        torch.testing.assert_close(book @ found, batch.rx[frame], rtol=1e-3, atol=1e-3)
    power = batch.pilots.abs().square().mean(1)
    assert 10**-0.6 <= float(power.min()) < 0.5 and 2 < float(power.max()) <= 10**0.6 + 1e-4


def test_a_fixed_book_is_the_one_that_the_header_names():
    setup = recipe(frames={**BASE["frames"], "book": "fixed", "book_seed": 7}, validation={"pilots": [6]})
    data = FrameData.of(setup, device=CPU)
    batch = data.batch(0)
    length, users = batch.pilots.shape[1:]
    assert torch.equal(batch.pilots[0], pilot_book(users=users, pilot_len=length, seed=7))
    assert setup.frames.knows == {"book": "fixed", "kind": "qpsk", "seed": 7, "users": 30, "shortest": 5, "longest": 9}
    other = FrameData.of(recipe(), device=CPU).batch(0).pilots
    assert not torch.equal(other[0], other[1])


def test_parts_of_the_array():
    data = FrameData.of(recipe(frames={**BASE["frames"], "arrays": [[2, 3], [8, 8]]}), device=CPU)
    grids = {(one.grid, one.rx.shape[2]) for one in map(data.batch, range(20))}
    assert grids == {((2, 3), 6), ((8, 8), 64)}


def test_banks_are_held_out_in_part(tmp_path):
    h = complex_normal(400, 64, generator=generator(0)).numpy()
    path = str(save_bank(tmp_path / "mine.npz", h, np.zeros(400), 400, {}))
    data = FrameData.of(recipe(data={"sources": [{"channel": "rayleigh"}, {"channel": path}]}), device=CPU)
    assert set(data.held) == {"rayleigh", "mine.npz"}
    assert len(data.drawers[1].h) == 350 and len(data.held["mine.npz"].h) == 50
    check = data.check("mine.npz", 6, 0, 10)
    assert check.rx.shape == (10, 6, 64) and torch.equal(check.rx, data.check("mine.npz", 6, 0, 10).rx)
    small = str(save_bank(tmp_path / "small.npz", h[:80], np.zeros(80), 80, {}))
    with pytest.raises(ConfigError, match="too few"):
        FrameData.of(recipe(data={"sources": [{"channel": small}]}), device=CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "channel"}, "does not go with"),
        ({"network": "gate"}, "does not go with"),
        ({"frames": {"pilots": [9, 5]}}, "shortest"),
        ({"frames": {"users": []}}, "users"),
        ({"frames": {"arrays": [[9, 8]]}}, r"up to \[8, 8\]"),
        ({"frames": {"activity": [0.0, 0.1]}}, "activity"),
        ({"frames": {"book": "mine"}}, "choose one of fixed, redrawn"),
        ({"frames": {"book": "fixed"}, "validation": {"pilots": [40]}}, "ends before"),
        ({"data": {"sources": [{"channel": "uma"}], "power_jitter_db": 1.0}}, "gain_db"),
        ({"validation": {"activity": 1.0}}, "between 0 and 1"),
        ({"optimiser": {"decay": 0}}, "decay"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        recipe(**change)


def test_recipes_may_begin_with_another(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('like = "vpl-audnet"\n[config]\nplam = false\n[[data.sources]]\nchannel = "rayleigh"\n')
    mine, base = read(str(path)), read("vpl-audnet")
    assert mine.name == "mine" and mine.config == {**base.config, "plam": False} and mine.optimiser == base.optimiser
    assert [one.channel for one in mine.data.sources] == ["rayleigh"]
    same = dataclasses.replace(mine, name=base.name, config=base.config, data=base.data)
    assert same == base
