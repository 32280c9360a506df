"""Channel models: powers and covariances against theory, banks against broken files, the generator against Sionna's own array."""

import contextlib
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from massaccess.core import SystemConfig
from massaccess.errors import ConfigError, FormatError, MassaccessError, NotFiniteError, ShapeError, UnknownNameError
from massaccess.forward import uma
from massaccess.forward.banks import describe_bank, save_bank
from massaccess.forward.channels import (
    CHANNELS,
    DATA,
    Bank,
    Kronecker,
    PathLoss,
    Rayleigh,
    make_channel,
    path_loss_db,
    read_bank,
    received_power,
)
from massaccess.rng import complex_normal, generator

HAS_SIONNA = importlib.util.find_spec("sionna") is not None


def sample_covariance(h: torch.Tensor) -> torch.Tensor:
    rows = h.reshape(-1, h.shape[-1])
    return rows.T @ rows.conj() / len(rows)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    h = complex_normal(40, 4, generator=generator(1)).numpy()
    return save_bank(tmp_path / "bank.npz", h, np.arange(40.0), 16, {"made": "by hand"})


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_keeps_the_contract(name: str) -> None:
    config = SystemConfig(channel=name, power_control=False)
    model = make_channel(config)
    channel, gain = model.draw(20, 128, generator=generator(3))
    again, _ = model.draw(20, 128, generator=generator(3))
    other, _ = model.draw(20, 128, generator=generator(4))
    assert channel.shape == (20, 128, 64)
    assert channel.dtype == torch.complex64
    assert torch.equal(channel, again)
    assert not torch.equal(channel, other)
    assert gain is None or (gain.shape == (20, 128) and gain.dtype == torch.float32)
    mean = torch.ones(20, 128) if gain is None else gain
    assert ((channel.abs().square().mean(-1) / mean).mean() - 1).abs() < 0.1
    assert model.covariance is None or (model.covariance.shape == (64, 64) and model.covariance.dtype == torch.complex64)
    assert CHANNELS[name].description
    assert CHANNELS[name].source


@pytest.mark.parametrize("model", [Rayleigh(6), PathLoss(6), Kronecker(2, 3, 0.6)])
def test_draws_have_the_covariance_that_the_model_states(model) -> None:
    channel, _ = model.draw(400, 50, generator=generator(0))
    stated = torch.eye(6, dtype=torch.complex64) if model.covariance is None else model.covariance
    assert (sample_covariance(channel) - stated).abs().max() < 0.04
    assert (channel.reshape(-1, 6).T @ channel.reshape(-1, 6) / 20000).abs().max() < 0.04  # circular: E[h h^T] = 0


def test_kronecker_covariance_is_the_kronecker_product() -> None:
    def factor(size: int) -> np.ndarray:
        return 0.5 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))

    stated = Kronecker(3, 2, 0.5).covariance
    assert np.allclose(stated.numpy(), np.kron(factor(3), factor(2)))
    assert stated[0, 1] == 0.5
    assert stated[0, 2] == 0.5
    assert stated[0, 4] == 0.25
    assert torch.equal(Kronecker(2, 2, 0.0).covariance.real, torch.eye(4))


def test_path_loss_by_hand() -> None:
    # 1 km: 128.1; 100 m: 128.1 - 37.6; 250 m: 128.1 + 37.6 * (-0.60206) = 105.4625
    assert path_loss_db(torch.tensor([1.0, 0.1, 0.25])).tolist() == pytest.approx([128.1, 90.5, 105.4625], abs=1e-3)


def test_path_loss_gain_has_mean_one_over_the_disc() -> None:
    model = PathLoss(1, power_control=False, min_km=0.3)
    _, gain = model.draw(1000, 200, generator=generator(2))
    assert gain.mean() == pytest.approx(1, abs=0.01)
    spread_db = 10 * math.log10(gain.max() / gain.min())
    assert spread_db == pytest.approx(37.6 * math.log10(1 / 0.3), abs=0.05)
    distance = torch.linspace(0.3, 1, 100_001, dtype=torch.float64)
    density = 2 * distance / (1 - 0.3**2)
    integral = torch.trapezoid(density * 10 ** (-(path_loss_db(distance) - 128.1) / 10), distance)
    assert model.mean_gain() == pytest.approx(float(integral), rel=1e-6)


def test_a_cell_of_20_db() -> None:
    config = SystemConfig(channel="pathloss-20db", power_control=False, rows=1, columns=1)
    _, gain = make_channel(config).draw(1000, 200, generator=generator(2))
    assert 10 * math.log10(gain.max() / gain.min()) == pytest.approx(20, abs=0.05)
    assert gain.mean() == pytest.approx(1, abs=0.01)


def test_p3_cell_has_distances_evenly_spread() -> None:
    config = SystemConfig(channel="pathloss-uniform", power_control=False, snr_convention="link-budget", rows=1, columns=1)
    model = make_channel(config)
    _, gain = model.draw(1000, 200, generator=generator(2))
    loss_db = 128.1 - 10 * gain.log10()
    distance = 10 ** ((loss_db - 128.1) / 36.7)
    assert distance.min() == pytest.approx(0.05, abs=1e-3)
    assert distance.max() == pytest.approx(1, abs=1e-3)
    assert distance.mean() == pytest.approx(0.525, abs=3e-3)
    assert distance.std() == pytest.approx(0.95 / math.sqrt(12), abs=3e-3)
    assert model.mean_gain() == pytest.approx(float(gain.mean()), rel=0.05)


def test_placed_users_stay_where_they_are() -> None:
    config = SystemConfig(channel="pathloss-uniform", power_control=False, placement_seed=4)
    first, second = (make_channel(config).draw(3, 5, generator=generator(seed))[1] for seed in (1, 2))
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, make_channel(config.replace(placement_seed=5)).draw(3, 5, generator=generator(1))[1])


def test_link_budget_by_hand() -> None:
    # k T at 290 K is -173.975 dBm/Hz: -108.975 dBm in 1 MHz with 5 dB; 23 dBm less 128.1 dB arrive from 1 km
    config = SystemConfig(snr_convention="link-budget", channel="pathloss-uniform", power_control=False)
    assert -10 * math.log10(config.noise_var) == pytest.approx(23 - 128.1 + 108.975, abs=2e-3)
    assert config.replace(tx_power_dbm=33.0).noise_var == pytest.approx(config.noise_var / 10)
    assert config.replace(noise_figure_db=8.0).noise_var == pytest.approx(config.noise_var * 10**0.3)
    assert config.replace(bandwidth_hz=180e3).noise_var == pytest.approx(config.noise_var * 0.18)
    gain = make_channel(config).mean_gain()
    assert received_power(config.replace(pilot_energy="sequence", data_len=0)) == pytest.approx(12.8 * gain / 28 + config.noise_var)


def test_power_control_leaves_rayleigh_fading() -> None:
    controlled, gain = PathLoss(4).draw(2, 3, generator=generator(5))
    assert gain is None
    assert torch.equal(controlled, Rayleigh(4).draw(2, 3, generator=generator(5))[0])


def test_bank_draws_distinct_channels_of_its_half_only(bank: Path) -> None:
    stored = read_bank(bank)["h"]
    for split, half in (("train", stored[:16]), ("test", stored[16:])):
        model = Bank.load(bank, split=split)
        channel, gain = model.draw(200, 8, generator=generator(0))
        match = (channel.abs()[:, :, None] - torch.from_numpy(np.abs(half))).abs().amax(-1)  # moduli survive the common phase
        index = match.argmin(-1)
        assert gain is None
        assert match.amin(-1).max() < 1e-5
        assert all(len(set(row.tolist())) == 8 for row in index)
        assert index.unique().numel() == len(half)
        turn = channel / torch.from_numpy(half)[index]
        assert (turn - turn[..., :1]).abs().max() < 1e-3
        assert turn[..., 0].mean().abs() < 0.1


def test_bank_covariance_is_that_of_the_training_half(bank: Path) -> None:
    training = torch.from_numpy(read_bank(bank)["h"][:16])
    for split in ("train", "test"):
        assert torch.allclose(Bank.load(bank, split=split).covariance, sample_covariance(training), atol=1e-6)
    whole, _ = Bank.load(bank, split="train").draw(50, 16, generator=generator(0))  # all 16 every time: no sampling error
    assert torch.allclose(sample_covariance(whole), sample_covariance(training), atol=1e-5)


def test_bank_errors_name_the_cure(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pass users=24"):
        Bank.load(bank).draw(1, 25, generator=generator(0))
    with pytest.raises(UnknownNameError, match="choose one of test, train"):
        Bank.load(bank, split="all")
    with pytest.raises(ConfigError, match="channels generate"):
        Bank.load(tmp_path / "absent.npz")
    with pytest.raises(ConfigError, match="pass split='test'"):
        Bank.load(DATA / "florence_8x8.npz", split="train")
    with pytest.raises(ShapeError, match="pass complex"):
        Bank(torch.zeros(3, 4), torch.zeros(3))


GOOD = {"h": np.ones((5, 4), np.complex64), "gain_db": np.zeros(5), "train": np.array(2)}
BROKEN = {
    "wrong key": ({"channels": GOOD["h"], "gain_db": GOOD["gain_db"]}, "no array 'h'"),
    "no gain": ({"h": GOOD["h"]}, "no array 'gain_db'"),
    "objects": (GOOD | {"gain_db": np.array([{}] * 5, dtype=object)}, "plain arrays"),
    "other objects": (GOOD | {"site": np.array([None])}, "plain arrays"),
    "nan": (GOOD | {"h": np.full((5, 4), np.nan, np.complex64)}, "NaN"),
    "nan gain": (GOOD | {"gain_db": np.full(5, np.inf)}, "NaN"),
    "beyond single precision": (GOOD | {"h": np.full((5, 4), 1e99 + 0j)}, "infinity"),
    "rank": (GOOD | {"h": np.ones((5, 2, 2), np.complex64)}, "store complex"),
    "real": (GOOD | {"h": np.ones((5, 4))}, "store complex"),
    "empty": (GOOD | {"h": np.ones((0, 4), np.complex64)}, "store complex"),
    "gain length": (GOOD | {"gain_db": np.zeros(4)}, "one real number per channel"),
    "train too long": (GOOD | {"train": np.array(6)}, "one integer from 0 to 5"),
    "train real": (GOOD | {"train": np.array(2.5)}, "one integer from 0 to 5"),
    "recipe": (GOOD | {"recipe": np.array("{")}, "not a JSON object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(case: str, tmp_path: Path) -> None:
    arrays, message = BROKEN[case]
    np.savez(tmp_path / "broken.npz", **arrays)
    with pytest.raises(FormatError, match=message):
        Bank.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_files_are_refused(keep: float, bank: Path) -> None:
    whole = bank.read_bytes()
    bank.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(FormatError, match="copy it again whole"):
        Bank.load(bank)


def test_foreign_and_damaged_files_are_refused(bank: Path) -> None:
    whole = bytearray(bank.read_bytes())
    for position in range(40, len(whole), 97):  # whatever byte breaks: readable, or an error of ours
        bank.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with contextlib.suppress(MassaccessError):
            Bank.load(bank)
    np.save(bank.with_suffix(".npy"), GOOD["h"])
    bank.with_suffix(".npy").replace(bank)
    with pytest.raises(FormatError):
        Bank.load(bank)


def test_names(bank: Path) -> None:
    assert make_channel(SystemConfig(channel=str(bank), rows=2, columns=2)).antennas == 4
    assert len(make_channel(SystemConfig(channel=str(bank), rows=2, columns=2), split="train").rows) == 16
    with pytest.raises(UnknownNameError, match=r"FILE\.npz, florence, kronecker, pathloss, pathloss-20db, pathloss-uniform, rayleigh, uma"):
        make_channel(SystemConfig(channel="rician"))
    with pytest.raises(ShapeError, match="whose product is 4"):
        make_channel(SystemConfig(channel=str(bank)))
    for rows, columns in ((4, 4), (4, 16)):
        with pytest.raises(ShapeError, match="pass rows=8, columns=8"):
            make_channel(SystemConfig(channel="uma", rows=rows, columns=columns))
    assert make_channel(SystemConfig(channel="pathloss", power_control=False)) == PathLoss(64, power_control=False)


def test_a_bank_is_read_once_until_it_changes(bank: Path) -> None:
    config = SystemConfig(channel=str(bank), rows=2, columns=2)
    first = make_channel(config)
    assert make_channel(config) is first
    save_bank(bank, np.ones((50, 4), np.complex64), np.zeros(50), 10, {})
    assert len(make_channel(config).rows) == 40


@pytest.mark.parametrize(("name", "count", "train"), [("uma_nlos_8x8", 16384, 8192), ("florence_8x8", 1500, 0)])
def test_shipped_banks(name: str, count: int, train: int) -> None:
    path = DATA / f"{name}.npz"
    facts = describe_bank(path)
    assert (facts["channels"], facts["antennas"], facts["train"]) == (count, 64, train)
    assert facts["mean_power"] == pytest.approx(64, rel=1e-4)
    assert 3 < facts["effective_rank"] < 40
    assert path.stat().st_size < 5_000_000
    assert name in (DATA / "README.md").read_text()
    if train:
        assert facts["sha256"] in (DATA / "README.md").read_text()
        assert facts["recipe"]["seed"] == 1
        h = read_bank(path)["h"]
        assert len(np.unique(h[:, 0])) > 0.999 * count  # no user twice, so none in both halves
        for half in (h[:train], h[train:]):
            assert np.square(np.abs(half)).sum(1).mean() == pytest.approx(64, rel=0.02)
            antenna_power = np.square(np.abs(half)).mean(0)
            assert antenna_power.min() > 0.9
            assert antenna_power.max() < 1.1


def test_more_antennas_ship_for_testing() -> None:
    config = SystemConfig(channel="uma", rows=12, columns=12)
    facts = describe_bank(DATA / "uma_nlos_12x12.npz")
    assert (facts["channels"], facts["antennas"], facts["train"]) == (2048, 144, 0)
    assert facts["sha256"] in (DATA / "README.md").read_text()
    assert (DATA / "uma_nlos_12x12.npz").stat().st_size < 1.5 * 2**20
    with pytest.raises(ConfigError, match="no train half"):
        make_channel(config, split="train")
    with pytest.raises(ShapeError, match="8x8 and 12x12"):
        make_channel(config.replace(columns=8))
    known, found = make_channel(config).covariance, sample_covariance(make_channel(config).rows)
    assert known.diagonal().real.mean() == pytest.approx(1, abs=0.03)
    assert torch.linalg.matrix_norm(known - found) < 0.2 * torch.linalg.matrix_norm(known)  # 2,048 channels


def test_a_bank_may_bring_the_covariance_of_a_half_that_stayed_behind(tmp_path: Path) -> None:
    h, path = complex_normal(5, 4, generator=generator(1)).numpy(), tmp_path / "bank.npz"
    save_bank(path, h, np.zeros(5), 0, {}, covariance=2 * np.eye(4))
    assert torch.equal(Bank.load(path).covariance, 2 * torch.eye(4, dtype=torch.complex64))
    save_bank(path, h, np.zeros(5), 0, {})
    assert Bank.load(path).covariance is None
    with pytest.raises(FormatError, match=r"\[antennas, antennas\]"):
        save_bank(path, h, np.zeros(5), 0, {}, covariance=np.eye(3))


@pytest.mark.parametrize("grid", [(8, 8), (12, 12)])
def test_uma_covariance_helps_on_the_other_half(grid: tuple[int, int]) -> None:
    model = make_channel(SystemConfig(channel="uma", rows=grid[0], columns=grid[1]))
    h, _ = model.draw(4, 1000, generator=generator(0))
    noisy = h + complex_normal(*h.shape, generator=generator(1)) * math.sqrt(0.1)
    gram = model.covariance + 0.1 * torch.eye(len(model.covariance))
    estimate = noisy @ torch.linalg.solve(gram, model.covariance).conj()  # h_hat = C (C + s I)^-1 y, rows; both Hermitian
    nmse_db = 10 * math.log10((estimate - h).abs().square().sum() / h.abs().square().sum())
    assert nmse_db < -13.0  # least squares: -10


def test_save_and_describe(bank: Path, tmp_path: Path) -> None:
    stored = read_bank(bank)
    assert stored["recipe"] == {"made": "by hand"}
    assert stored["train"] == 16
    exact = complex_normal(40, 4, generator=generator(1)).numpy()
    error = np.linalg.norm(stored["h"] - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 3e-4
    save_bank(tmp_path / "full.npz", exact, np.zeros(40), 40, {}, half=False)
    assert np.array_equal(read_bank(tmp_path / "full.npz")["h"], exact)
    save_bank(tmp_path / "white.npz", np.tile(np.eye(4), (10, 1)) * 2, np.zeros(40), 0, {})
    facts = describe_bank(tmp_path / "white.npz")
    assert facts["mean_power"] == 4
    assert facts["effective_rank"] == pytest.approx(4)
    assert facts["condition_db"] == pytest.approx(0)
    np.savez(tmp_path / "white.npz", h=np.asfortranarray(np.stack([exact.real, exact.imag], -1)), gain_db=np.arange(40))
    assert np.array_equal(read_bank(tmp_path / "white.npz")["h"], exact)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bank.npz", "full.npz", "white.npz"]  # no leftovers


def test_save_refuses_what_could_not_be_read(tmp_path: Path) -> None:
    h, path = np.ones((5, 4), np.complex64), tmp_path / "bank.npz"
    for bad in (np.full((5, 4), np.nan), h * 1e6):
        with pytest.raises(NotFiniteError):
            save_bank(path, bad, np.zeros(5), 0, {})
    with pytest.raises(ShapeError):
        save_bank(path, h, np.zeros(4), 0, {})
    with pytest.raises(ConfigError):
        save_bank(path, h, np.zeros(5), 6, {})
    with pytest.raises(ConfigError, match=r"ends in \.npz"):
        save_bank(tmp_path / "bank", h, np.zeros(5), 0, {})
    with pytest.raises(TypeError):
        save_bank(path, h, np.zeros(5), 0, {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_planar_channel_is_a_sum_of_plane_waves() -> None:
    g = generator(0)
    coefficients, zenith, azimuth = (
        complex_normal(3, 7, generator=g),
        torch.rand(3, 7, generator=g) * 3,
        torch.rand(3, 7, generator=g) - 0.5,
    )
    direction = torch.stack([zenith.sin() * azimuth.cos(), zenith.sin() * azimuth.sin(), zenith.cos()], -1)
    expected = torch.zeros(3, 8, dtype=torch.complex64)
    for row in range(4):
        for column in range(2):
            half_waves = torch.tensor([0.0, column - 0.5, 1.5 - row])  # row 0 on top
            expected[:, row * 2 + column] = (coefficients * torch.exp(1j * math.pi * (direction @ half_waves))).sum(-1)
    assert torch.allclose(uma.planar_channel(coefficients, zenith, azimuth, 4, 2), expected, atol=1e-4)


def test_drops_fill_the_sector_evenly() -> None:
    x, y, z = uma.UmaCell().drop(20000, generator=generator(0)).unbind(-1)
    distance, azimuth = torch.hypot(x, y), torch.rad2deg(torch.atan2(y, x))
    assert distance.min() >= 35
    assert distance.max() <= 250.001
    assert azimuth.abs().max() <= 60.001
    assert z.unique().tolist() == [1.5]
    inner = (125**2 - 35**2) / (250**2 - 35**2)
    assert (distance < 125).float().mean() == pytest.approx(inner, abs=0.015)
    assert azimuth.mean().abs() < 1


def test_options_of_the_generator_are_checked() -> None:
    for options in ({"count": 0}, {"count": 5, "train": 6}):
        with pytest.raises(ConfigError, match="training half"):
            uma.generate_uma_bank(**options)
    with pytest.raises(ConfigError, match="10 m to 5 km"):
        uma.UmaCell(min_m=500, max_m=35)


@pytest.mark.skipif(HAS_SIONNA, reason="Sionna is installed")
def test_without_sionna_the_error_names_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'massaccess\[channels\]'"):
        uma.generate_uma_bank(10)


@pytest.mark.skipif(not HAS_SIONNA, reason="needs Sionna: pip install 'massaccess[channels]'")
@pytest.mark.filterwarnings("default")
def test_separable_response_equals_sionnas_own_array() -> None:
    sionna = uma._sionna()
    link, model = uma._Link(sionna, uma.UmaCell()), sionna.tr38901
    rays, scene = link.rays(5, 0), link.scenario
    panel = {"polarization": "single", "polarization_type": "V", "antenna_pattern": "38.901", "carrier_frequency": 3.5e9}
    array = model.PanelArray(num_rows_per_panel=8, num_cols_per_panel=8, **panel)
    angles = (torch.deg2rad(angle) for angle in (scene.los_aoa, scene.los_aod, scene.los_zoa, scene.los_zod))
    topology = model.Topology(
        scene.ut_velocities, "rx", *angles, scene.los, scene.distance_3d, scene.bs_orientations, scene.ut_orientations
    )
    respond = model.ChannelCoefficientsGenerator(3.5e9, array, link.user_array, subclustering=True)
    paths, _ = respond(1, 1.0, torch.ones(uma.BATCH, 1, 1), rays.raw, topology, scene.get_param("cDS") * 1e-9)
    by_column = paths[:, 0, 0, :, 0, :, 0].sum(1)  # Sionna counts antennas column by column
    expected = by_column.unflatten(-1, (8, 8)).transpose(1, 2).flatten(1) / rays.local.sqrt()
    mine = uma.planar_channel(rays.coefficients, rays.zenith, rays.azimuth, 8, 8)
    assert ((mine - expected).norm(dim=-1) / expected.norm(dim=-1)).max() < 1e-5


@pytest.mark.skipif(not HAS_SIONNA, reason="needs Sionna: pip install 'massaccess[channels]'")
@pytest.mark.filterwarnings("default")
def test_the_recipe_makes_the_shipped_bank() -> None:
    remade, shipped = uma.generate_uma_bank(500, seed=1)["h"], read_bank(DATA / "uma_nlos_8x8.npz")["h"][:500]
    scale = np.linalg.norm(shipped) / np.linalg.norm(remade)  # the last factor depends on the count
    assert np.linalg.norm(remade * scale - shipped) / np.linalg.norm(shipped) < 1e-3
