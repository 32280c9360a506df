"""What every name in the registry promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from massaccess.core import Estimate, Frame, Observation, SystemConfig
from massaccess.errors import ConfigError, NotFiniteError, ShapeError, UnknownNameError
from massaccess.forward.simulate import Simulation
from massaccess.registry import RECEIVERS, create, entry
from massaccess.rng import generator

JOINED = (
    "covariance+iterative-lmmse-ep",
    "covariance+learned-ep",
    "somp+ls-zf",
    "mmv-amp+lmmse-lmmse",
    "covariance+pc-jcedd",
    "covariance+ald-jcedd-async",
    "score-jadce+iterative-lmmse-ep",
    "perfect-activity+iterative-lmmse-oamp",
)
OF_ONE_CELL = ("dl-mampnet",)  # whose weights are for one pilot book: tests/activity/test_dl_mampnet.py
NAMES = (*(name for name in RECEIVERS if name not in OF_ONE_CELL), *JOINED)
CONFIG = SystemConfig(users=10, rows=4, columns=4, pilot_len=12, data_len=9, activity=0.3, snr_db=12.0, channel="kronecker")


_JCEDD, _FEW = {"n_h": 60, "n_x": 20, "n_update": 5}, {"n_h": 40, "n_x": 40}
QUICK = {  # options of receivers whose default step counts would take minutes
    "pc-jcedd": _JCEDD,
    "ald-jcedd-async": _JCEDD,
    "covariance+pc-jcedd": {**_JCEDD, "start": "noise"},
    "covariance+ald-jcedd-async": _JCEDD,
    "ald-jcedd-sync": _FEW,
    "perfect-data-pc": _FEW,
    "perfect-data-ald": _FEW,
    "perfect-csi-pc": _FEW,
    "perfect-csi-ald": _FEW,
    "score-jadce": {"levels": 40, "steps": 4},
    "advi": {"access_steps": 150},
}
SHARES_NOTHING = [name for name in NAMES if not entry(name).draws]  # frames and users take nothing from a common stream of numbers


def situation(name: str, config: SystemConfig = CONFIG, frames: int = 5) -> tuple[Frame, Observation]:
    if entry(name).kind == "coherent":
        config = config.replace(active_users=config.users)
    return Simulation(config, 3).frames(0, frames)


def receive(name: str, frame: Frame, obs: Observation, **options: object) -> Estimate:
    truth = {"truth": frame} if entry(name).genie else {}
    return create(name, **QUICK.get(name, {}), **options)(obs, generator=generator(1, name), **truth)


def rows_of(estimate: Estimate) -> dict[str, torch.Tensor]:
    fields = ("activity", "channel", "symbols", "symbol_var", "sequence_odds")
    return {field: getattr(estimate, field) for field in fields if getattr(estimate, field) is not None}


def assert_same(left: Estimate, right: Estimate) -> None:
    assert rows_of(left).keys() == rows_of(right).keys()
    for field, value in rows_of(left).items():
        torch.testing.assert_close(value, rows_of(right)[field], rtol=2e-3, atol=2e-4, msg=lambda text, field=field: f"{field}: {text}")


def frames_of(frame: Frame, obs: Observation, rows: slice) -> tuple[Frame, Observation]:
    truth = Frame(frame.active[rows], frame.bits[rows], frame.symbols[rows], frame.channel[rows], frame.start)
    return truth, dataclasses.replace(obs, pilot_rx=obs.pilot_rx[rows], data_rx=obs.data_rx[rows])


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes(name: str) -> None:
    frame, obs = situation(name)
    estimate = receive(name, frame, obs)
    frames, users, antennas, times = 5, CONFIG.users, CONFIG.antennas, CONFIG.data_len
    assert estimate.activity.shape == (frames, users)
    assert estimate.activity.dtype == torch.float32
    assert bool(((estimate.activity >= 0) & (estimate.activity <= 1)).all())
    if entry(name).kind in ("activity", "noncoherent"):
        return
    assert estimate.channel.shape == (frames, users, antennas)
    assert estimate.symbols.shape == estimate.symbol_var.shape == (frames, times, users)
    assert estimate.channel.dtype == estimate.symbols.dtype == torch.complex64
    assert bool(torch.isfinite(torch.view_as_real(estimate.channel)).all())
    assert bool(torch.isfinite(torch.view_as_real(estimate.symbols)).all())
    silent = ~estimate.active
    assert not bool(estimate.channel[silent].any())
    assert bool(torch.isinf(estimate.symbol_var.mT[silent]).all())
    assert bool((estimate.symbol_var > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_answer(name: str) -> None:
    frame, obs = situation(name)
    first, second = receive(name, frame, obs), receive(name, frame, obs)
    for field, value in rows_of(first).items():
        assert torch.equal(value, rows_of(second)[field]), field


@pytest.mark.parametrize("name", SHARES_NOTHING)
def test_batch_of_one_is_batch_of_many(name: str) -> None:
    frame, obs = situation(name)
    whole = receive(name, frame, obs)
    for index in range(3):
        rows = slice(index, index + 1)
        alone = receive(name, *frames_of(frame, obs, rows))
        assert_same(alone, Estimate(**{field: value[rows] for field, value in rows_of(whole).items()}))


@pytest.mark.parametrize("name", SHARES_NOTHING)
def test_permuting_users_permutes_the_answer(name: str) -> None:
    frame, obs = situation(name)
    order = torch.randperm(CONFIG.users, generator=torch.Generator().manual_seed(0))
    shuffled = Frame(frame.active[:, order], frame.bits[:, order], frame.symbols[..., order], frame.channel[:, order])
    mixed = receive(name, shuffled, dataclasses.replace(obs, pilots=obs.pilots[:, order]))
    plain = receive(name, frame, obs)
    expected = {field: value[..., order] if field.startswith("symbol") else value[:, order] for field, value in rows_of(plain).items()}
    assert_same(mixed, Estimate(**expected))


NONCOHERENT = [name for name in NAMES if entry(name).kind == "noncoherent"]
INDEXED = CONFIG.replace(users=8, data_len=0, index_bits=2, channel="pathloss-uniform", power_control=False, pilot_energy="sequence")
INDEXED = INDEXED.replace(snr_convention="link-budget")


@pytest.mark.parametrize("gains", ["known", "unknown"])
@pytest.mark.parametrize("name", NONCOHERENT)
def test_sequences_of_a_device_and_devices_are_sets(name: str, gains: str) -> None:
    """Odds of each sequence, finite; another order of the devices, or of a device's sequences, is the same order of the odds."""
    frame, obs = situation(name, INDEXED)
    obs = obs if gains == "known" else dataclasses.replace(obs, user_gain=None, gain_range_db=(0.0, 47.8))
    plain = receive(name, frame, obs)
    assert plain.sequence_odds.shape == (5, 8, 4)
    assert bool(torch.isfinite(plain.sequence_odds).all())
    order = torch.argsort(torch.rand(8, 4), -1)[torch.randperm(8)]
    devices = torch.randperm(8)
    columns = (devices[:, None] * 4 + order).flatten()
    gain = None if obs.user_gain is None else obs.user_gain[:, devices]
    mixed = receive(name, frame, dataclasses.replace(obs, pilots=obs.pilots[:, columns], user_gain=gain))
    odds = plain.sequence_odds[:, devices].gather(2, order.expand(5, -1, -1))
    torch.testing.assert_close(mixed.sequence_odds, odds, rtol=2e-3, atol=2e-3)
    assert torch.equal(mixed.active, plain.active[:, devices])


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone(name: str) -> None:
    frame, obs = situation(name)
    before = {field.name: value.clone() for field in dataclasses.fields(obs) if isinstance(value := getattr(obs, field.name), torch.Tensor)}
    receive(name, frame, obs)
    for field, value in before.items():
        assert torch.equal(value, getattr(obs, field)), field


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changes",
    [
        {"data_len": 0},
        {"adc_bits": 1},
        {"adc_bits": 2, "adc_dither": 0.3, "adc_offset": 0.1},
        {"modulation": "16qam"},
        {"channel": "rayleigh", "pilot_kind": "gaussian"},
        {"channel": "pathloss", "power_control": False},
    ],
)
def test_other_situations(name: str, changes: dict[str, object]) -> None:
    frame, obs = situation(name, CONFIG.replace(**changes), 3)
    estimate = receive(name, frame, obs)
    assert bool(torch.isfinite(estimate.activity).all())
    for value in (estimate.channel, estimate.symbols):
        assert value is None or bool(torch.isfinite(torch.view_as_real(value)).all())


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).kind != "coherent"])
def test_frames_in_which_nobody_speaks(name: str) -> None:
    frame, obs = situation(name)
    quiet = dataclasses.replace(obs, pilot_rx=0.01 * obs.pilot_rx, data_rx=0.01 * obs.data_rx)
    nobody = dataclasses.replace(frame, active=torch.zeros_like(frame.active))
    assert not bool(receive(name, nobody, quiet).active.any())


@pytest.mark.parametrize("name", [name for name in NAMES if entry(name).kind == "coherent"])
def test_coherent_receivers_refuse_unknown_activity(name: str) -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    with pytest.raises(ConfigError, match=r"covariance\+iterative-lmmse-ep"):
        create(name)(obs)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match="choose one of"):
        create(name, colour="blue")


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="jcedd"):
        create("jced")
    with pytest.raises(ConfigError, match="join"):
        create("ls-zf+covariance")


@pytest.mark.parametrize(
    ("field", "spoil"),
    [
        ("pilot_rx", lambda x: x[:, :-1]),
        ("pilot_rx", lambda x: x[0]),
        ("pilot_rx", lambda x: x.real),
        ("data_rx", lambda x: x[..., :-1]),
        ("data_rx", lambda x: x[:-1]),
        ("pilots", lambda x: x[:-1]),
        ("pilots", lambda x: x[None]),
        ("channel_cov", lambda x: x[:-1]),
    ],
)
def test_wrong_shapes_are_named(field: str, spoil: object) -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    with pytest.raises(ShapeError, match=r"pass|cut|slice"):
        dataclasses.replace(obs, **{field: spoil(getattr(obs, field))})


@pytest.mark.parametrize("field", ["pilot_rx", "data_rx", "pilots"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_named(field: str, value: float) -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    spoiled = getattr(obs, field).clone()
    spoiled[..., 0] = value
    with pytest.raises(NotFiniteError, match=field):
        dataclasses.replace(obs, **{field: spoiled})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_gains_that_are_no_powers_are_named(value: float) -> None:
    _, obs = Simulation(CONFIG, 3).frames(0, 2)
    gain = torch.ones(2, CONFIG.users)
    gain[1, 4] = value
    with pytest.raises(ConfigError, match="user_gain"):
        dataclasses.replace(obs, user_gain=gain)
