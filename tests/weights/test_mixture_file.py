"""A Gaussian mixture as weights: chosen like a network, and refused where it is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from massaccess import weights
from massaccess.core import Observation, SystemConfig
from massaccess.errors import FormatError, ShapeError
from massaccess.forward.channels import make_channel
from massaccess.forward.simulate import Simulation
from massaccess.networks import build
from massaccess.priors.mixture import GaussianMixture
from massaccess.rng import complex_normal, generator
from massaccess.weights.stored import read_tensors, write

CONFIG = {"rows": 4, "columns": 4, "components": 3, "structure": "full"}
SYSTEM = SystemConfig(rows=4, columns=4, users=6, pilot_len=4, data_len=3, channel="kronecker")
Tensors = dict[str, torch.Tensor]


def mixture() -> GaussianMixture:
    factor = complex_normal(3, 16, 16, generator=generator(0))
    return GaussianMixture.of(torch.tensor([0.2, 0.5, 0.3]), factor @ factor.mH / 16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    network = build("mixture", CONFIG)
    network.load_state_dict(mixture().to_tensors())
    header = weights.Header("mixture", CONFIG, rows=4, columns=4, channel="kronecker")
    return weights.save(tmp_path / "mixture.safetensors", network, header, covariance=make_channel(SYSTEM).covariance)


def observation(dtype: torch.dtype = torch.complex64, **changes: object) -> Observation:
    obs = Simulation(SYSTEM.replace(**changes)).frames(0, 2)[1]
    for name in ("pilot_rx", "data_rx", "pilots"):
        object.__setattr__(obs, name, getattr(obs, name).to(dtype))
    return obs


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_it_is_chosen_in_the_precision_of_the_data(file, dtype):
    prior = weights.choose(str(file), observation(dtype))
    assert isinstance(prior, GaussianMixture) and prior.basis.dtype == dtype
    assert weights.choose(str(file), observation(dtype)) is prior
    torch.testing.assert_close(prior.covariance.to(torch.complex64), mixture().covariance, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="4x4"):
        weights.choose(str(file), observation(rows=2))


def test_auto_takes_it_where_it_fits(file):
    index = file.with_name("index.toml")
    index.write_text(f'[[weights]]\nname = "m"\nfile = "{file.name}"\nsha256 = "{weights.load(file).sha256}"\nsummary = "toy"\n')
    assert isinstance(weights.choose("auto", observation(), index=index), GaussianMixture)


def test_the_holder_answers_as_the_prior_does(file):
    x, noise_var = complex_normal(20, 16, generator=generator(1)), torch.linspace(0.05, 3, 20)
    mean, error = weights.load(file).network(x, noise_var)
    torch.testing.assert_close(mean, mixture().moments(x, noise_var.sqrt())[0], rtol=1e-3, atol=1e-4)
    assert error is None


def _scaled(name: str, factor: float) -> Callable[[Tensors], None]:
    return lambda tensors: tensors[name].mul_(factor)  # type: ignore[return-value]


def _turned(tensors: Tensors) -> None:
    tensors["network.covariance"][0, 0, 1, 0] += 0.1


def _negative(tensors: Tensors) -> None:
    tensors["network.weight"] += torch.tensor([-0.3, 0.3, 0])


def _low(tensors: Tensors) -> None:
    tensors["network.covariance"][1, ..., 0] -= 0.3 * torch.eye(16)


def _short(tensors: Tensors) -> None:
    tensors["network.weight"] = tensors["network.weight"][:2].clone()


def _endless(tensors: Tensors) -> None:
    tensors["network.covariance"] = tensors["network.covariance"].double() * 1e60


def _infinite(tensors: Tensors) -> None:
    tensors["network.covariance"][0, 0, 0, 0] = torch.inf


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_scaled("network.weight", 1.01), "sum to 1.01"),
        (_negative, "none below 0"),
        (_scaled("network.covariance", 0.0), "no power"),
        (_turned, "not Hermitian"),
        (_low, "negative eigenvalues"),
        (_short, "belong together"),
        (_endless, "NaN or infinity"),
        (_infinite, "NaN or infinity"),
        (lambda tensors: tensors.pop("network.weight"), "missing"),
        (lambda tensors: tensors.pop("covariance"), "covariance is missing"),
    ],
)
def test_damage_is_named(file, damage, says):
    tensors, metadata = read_tensors(file)
    damage(tensors)
    write(file, tensors, metadata)
    with pytest.raises(FormatError, match=says):
        weights.load(file)


@pytest.mark.parametrize("config", [{"components": 10**9}, {"components": 0}, {"components": "many"}, {"rows": 2, "columns": 8}])
def test_a_header_of_another_mixture_is_named(file, config):
    tensors, _ = read_tensors(file)
    header = weights.Header("mixture", CONFIG | config, rows=4, columns=4)
    write(file, tensors, {"massaccess": header.to_json()})
    with pytest.raises(FormatError, match="belong together"):
        weights.load(file)
