"""Weights files: what goes in comes out, damage is named, and `choose` takes what fits."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from massaccess import weights
from massaccess.core import Observation, SystemConfig
from massaccess.errors import ConfigError, FormatError, MassaccessWarning, NotFiniteError, ShapeError, UnknownNameError
from massaccess.forward.channels import make_channel
from massaccess.forward.simulate import Simulation
from massaccess.networks import build
from massaccess.priors.bernoulli_gaussian import BernoulliGaussian
from massaccess.priors.gaussian import Gaussian
from massaccess.priors.learned import Learned
from massaccess.priors.learned_matrix import LearnedMatrix
from massaccess.weights.stored import read_tensors, write

CONFIG = {"rows": 4, "columns": 4, "width": 8, "multipliers": [1, 2], "attention": []}
SYSTEM = SystemConfig(rows=4, columns=4, users=6, pilot_len=4, data_len=3, channel="kronecker")


def covariance() -> torch.Tensor:
    found = make_channel(SYSTEM).covariance
    assert found is not None
    return found


def header(**changes: object) -> weights.Header:
    fields = {"network": "ncsnpp", "config": CONFIG, "rows": 4, "columns": 4, "channel": "kronecker", "metrics": {"nmse_db": [-6.0]}}
    return weights.Header(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    network = build("ncsnpp", CONFIG)
    torch.nn.init.normal_(network.last[-1].weight, std=0.1)
    table = torch.cat([torch.tensor([[0.01], [1.0]]), torch.tensor([[0.01], [0.4]]).expand(2, 16)], 1)
    return weights.save(tmp_path / "toy.safetensors", network, header(), covariance=covariance(), calibration=table)


def observation(**changes: object) -> Observation:
    return Simulation(SYSTEM.replace(**changes)).frames(0, 2)[1]


def index_of(file: Path, name: str = "toy", sha256: str | None = None) -> Path:
    index = file.with_name("index.toml")
    sha256 = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
    index.write_text(f'[[weights]]\nname = "{name}"\nfile = "{file.name}"\nsha256 = "{sha256}"\nsummary = "toy"\n')
    return index


def test_what_goes_in_comes_out(file):
    found = weights.load(file)
    assert found.header == header()
    torch.testing.assert_close(found.covariance, covariance())
    x, noise = torch.randn(3, 16, dtype=torch.complex64), torch.ones(3)
    twin = build("ncsnpp", CONFIG)
    twin.load_state_dict(dict(found.state))
    assert torch.equal(found.network(x, noise)[0], twin.eval()(x, noise)[0])
    assert not found.network.training and not any(one.requires_grad for one in found.network.parameters())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_tensors_lie_where_complex_arithmetic_may_use_them(tmp_path):
    """Whatever the length of the header before them in the file."""
    for spaces in range(0, 64, 8):
        path = write(tmp_path / "x.safetensors", {"a": torch.ones(3), "b": torch.ones(4, 4, 2, dtype=torch.float64)}, {"x": " " * spaces})
        assert all(value.data_ptr() % 16 == 0 for value in read_tensors(path)[0].values())


def test_loading_does_not_touch_the_global_generator(file):
    state = torch.get_rng_state()
    weights.read(file)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_that_is_not_finite_is_written(tmp_path):
    network = build("ncsnpp", CONFIG)
    with torch.no_grad():
        network.place[0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match="diverged"):
        weights.save(tmp_path / "bad.safetensors", network, header(), covariance=covariance())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_named(file, cut):
    content = file.read_bytes()
    file.write_bytes(content[:cut])
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        weights.load(file)


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer": torch.ones(2)}, path)
    with pytest.raises(FormatError, match="massaccess train"):
        weights.load(path)
    path.write_bytes(b"PK\x03\x04 certainly a pickle")
    with pytest.raises(FormatError):
        weights.load(path)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"format": "massaccess-weights/9"}, "a version of massaccess"),
        ({"network": "resnet"}, "newer version"),
        ({"kind": "image"}, "newer version"),
        ({"config": {**CONFIG, "width": 16}}, "belong together"),
        ({"config": {**CONFIG, "deep": 16}}, "belong together"),
        ({"config": {**CONFIG, "width": "wide"}}, "belong together"),
        ({"config": {**CONFIG, "width": 10**9}}, "belong together"),
        ({"config": {**CONFIG, "width": -8}}, "belong together"),
        ({"config": {**CONFIG, "rows": 0}}, "belong together"),
        ({"config": {**CONFIG, "multipliers": []}}, "belong together"),
        ({"config": []}, "train again"),
        ({"pilots": {"book": "redrawn"}}, "of pilots"),
        ({"kind": "activity"}, "none of kind"),
        ({"kind": "activity", "network": "vpl-audnet"}, "activity detector 0"),
        ({"rows": 8}, "covariance"),
        ({"rows": -1}, "1 or more"),
        ({"rows": "8"}, "1 or more"),
    ],
)
def test_a_header_that_does_not_fit_is_named(file, change, cure):
    from safetensors import safe_open

    with safe_open(str(file), "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        document = json.loads(stored.metadata()["massaccess"])
    save_file(tensors, file, {"massaccess": json.dumps(document | change)})
    with pytest.raises(FormatError, match=cure):
        weights.load(file)
    save_file(tensors, file, {"massaccess": "[1]"})
    with pytest.raises(FormatError, match="header"):
        weights.load(file)


def test_shipped_weights_are_the_ones_that_were_meant(file):
    assert weights.load("toy", index=index_of(file)).header.channel == "kronecker"
    with pytest.raises(FormatError, match="install massaccess again"):
        weights.load("toy", index=index_of(file, sha256="0" * 64))


def test_unknown_names_and_missing_files(file):
    with pytest.raises(UnknownNameError, match="toy"):
        weights.load("toi", index=index_of(file))
    with pytest.raises(ConfigError, match="massaccess weights"):
        weights.load(file.with_name("gone.safetensors"))


def test_a_damaged_index_is_named(file):
    index = index_of(file)
    index.write_text("[[weights]]\nname = 3")
    with pytest.raises(FormatError, match="install"):
        weights.available(index)


def test_auto_takes_what_fits(file):
    prior = weights.choose("auto", observation(), index=index_of(file))
    assert isinstance(prior, Learned)
    assert weights.choose("auto", observation(), index=index_of(file)) is prior
    assert weights.explain("auto", observation(), index=index_of(file)) == ""


def test_auto_without_a_fit_is_gaussian_and_says_why(file):
    index = index_of(file)
    other = observation()
    object.__setattr__(other, "channel_cov", torch.eye(16) + 0j)
    assert isinstance(weights.choose("auto", other, index=index), Gaussian)
    assert "nearest covariance" in weights.explain("auto", other, index=index)
    small = observation(rows=2)
    assert "array of 8 antennas" in weights.explain("auto", small, index=index)
    with pytest.warns(MassaccessWarning, match="8 antennas"):
        weights.warn_unless_fit("auto", small, index=index)


def test_gaussian_and_white_channels_need_no_explanation(file):
    index = index_of(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, obs in (("gaussian", observation()), ("auto", observation(channel="rayleigh"))):
            assert isinstance(weights.choose(name, obs, index=index), Gaussian)
            weights.warn_unless_fit(name, obs, index=index)


def test_an_explicit_name_is_obeyed_where_the_array_fits(file):
    assert isinstance(weights.choose(str(file), observation(channel="rayleigh")), Learned)
    with pytest.raises(ShapeError, match="4x4"):
        weights.choose(str(file), observation(rows=2))
    with pytest.raises(UnknownNameError, match="auto"):
        weights.choose("best", observation())


def test_a_prior_of_matrices_is_no_prior_of_rows(tmp_path):
    config = {"width": 8, "multipliers": [1], "depth": 1}
    path = tmp_path / "p0.safetensors"
    weights.save(path, build("refinenet", config), header(network="refinenet", kind="matrix", config=config, rows=0, columns=0))
    with pytest.raises(ConfigError, match="whole matrices"):
        weights.choose(str(path), observation())
    prior = weights.choose_matrix(str(path), observation(users=9))
    assert isinstance(prior, LearnedMatrix)
    mean, var = prior.moments(torch.randn(2, 9, 16, dtype=torch.complex64), torch.tensor(0.3))
    assert mean.shape == (2, 9, 16) and var.shape == (2, 9)
    with pytest.raises(ShapeError, match="6 and 16"):
        weights.choose_matrix(str(path), observation())


def test_the_closed_form_of_matrices_is_the_default(file):
    assert isinstance(weights.choose_matrix("auto", observation()), BernoulliGaussian)
    with pytest.raises(ConfigError, match="single rows"):
        weights.choose_matrix(str(file), observation())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_follows_the_observation(file, dtype):
    obs = observation()
    for name in ("pilot_rx", "data_rx", "pilots"):
        object.__setattr__(obs, name, getattr(obs, name).to(dtype))
    prior = weights.choose(str(file), obs)
    x = torch.randn(2, 3, 16, dtype=dtype)
    mean, error = prior.in_beams(x, torch.full((2, 3, 1), 0.1, dtype=x.real.dtype))
    assert mean.dtype == dtype and error.dtype == x.real.dtype and error.shape == x.shape
    assert prior.moments(x, x.real[..., 0].abs() + 0.1)[1].shape == (2, 3)


def test_the_calibration_is_interpolated_in_decibels(file):
    prior = weights.choose(str(file), observation())
    error = prior._error(torch.tensor([0.001, 0.01, 0.1, 1.0, 5.0]))
    torch.testing.assert_close(error[:, 0], torch.tensor([0.01, 0.01, (0.01 * 0.4) ** 0.5, 0.4, 0.4]))


def test_what_ships_loads_and_beats_lmmse():
    for name in weights.available():
        found = weights.load(name).header
        if found.kind == "channel":
            assert all(a < b for a, b in zip(found.metrics["nmse_db"], found.metrics["lmmse_db"], strict=True))


def test_every_file_that_lies_here_is_in_the_index():
    assert {path.name for path in weights.INDEX.parent.glob("*.safetensors")} == {one.path.name for one in weights.available().values()}


def test_distance():
    assert weights.covariance_distance(covariance(), 3 * covariance()) == pytest.approx(0, abs=1e-6)
    assert weights.covariance_distance(torch.eye(16) + 0j, covariance()) > weights.LARGEST_DISTANCE
