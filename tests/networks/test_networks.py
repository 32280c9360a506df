"""Networks start as the scalar Wiener filter, take any batch, and learn what a closed form knows."""

from __future__ import annotations

import pytest
import torch

from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.networks import DETECTORS, NETWORKS, NONCOHERENT, build
from massaccess.networks.ncsnpp import Ncsnpp
from massaccess.networks.refinenet import RefineNet
from massaccess.rng import complex_normal, generator

SMALL = {"width": 8, "multipliers": [1, 2], "attention": [2]}


def wiener(x: torch.Tensor, noise_var: torch.Tensor) -> torch.Tensor:
    return x / (1 + noise_var.reshape(-1, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize("options", [{}, {"fir": False}, {"progressive": False}, {"blocks": 2, "attention": []}])
def test_new_ncsnpp_is_the_wiener_filter(options, generator):
    network = Ncsnpp(4, 8, **{**SMALL, **options})
    x, noise = complex_normal(5, 32, generator=generator), torch.logspace(-4, 3, 5)
    mean, error = network(x, noise)
    assert error is None
    torch.testing.assert_close(mean, wiener(x, noise))


def test_new_refinenet_is_the_wiener_filter_at_its_power(generator):
    x, noise = complex_normal(3, 9, 12, generator=generator), torch.tensor([0.1, 1.0, 10.0])
    mean, error = RefineNet(width=8, power=0.25)(x, noise)
    assert error is None
    torch.testing.assert_close(mean, 0.25 / (0.25 + noise)[:, None, None] * x)


@pytest.mark.parametrize("make", [lambda: Ncsnpp(4, 4, **SMALL, form="printed"), lambda: RefineNet(width=8, form="printed")])
def test_printed_form_returns_its_input_until_it_is_trained(make, generator):
    network = make()
    x = complex_normal(2, 16, generator=generator) if isinstance(network, Ncsnpp) else complex_normal(2, 8, 8, generator=generator)
    torch.testing.assert_close(network(x, torch.ones(2))[0], x)


@pytest.mark.parametrize("sizes", [(8, 8), (16, 64), (11, 9)])
@pytest.mark.parametrize("conditional", [True, False])
def test_refinenet_takes_any_size(sizes, conditional, generator):
    network = RefineNet(width=8, multipliers=[1, 1, 1, 1], depth=1, conditional=conditional)
    torch.nn.init.normal_(network.last.weight)
    x = complex_normal(2, *sizes, generator=generator)
    mean, _ = network(x, torch.ones(2))
    assert mean.shape == x.shape and bool(torch.isfinite(torch.view_as_real(mean)).all())
    assert not torch.allclose(mean, wiener(x, torch.ones(2)))


def test_too_small_a_matrix_says_so(generator):
    with pytest.raises(ShapeError, match="8 of both"):
        RefineNet(width=8)(complex_normal(1, 4, 8, generator=generator), torch.ones(1))


def test_rows_do_not_see_one_another(generator):
    network = Ncsnpp(4, 4, **SMALL)
    torch.nn.init.normal_(network.last[-1].weight)
    x, noise = complex_normal(6, 16, generator=generator), torch.rand(6) + 0.1
    together = network(x, noise)[0]
    torch.testing.assert_close(network(x[2:3], noise[2:3])[0], together[2:3], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"angles", "mixture", *DETECTORS, *NONCOHERENT}))  # which are fitted, not trained
def test_mixed_precision_stays_close(name, generator):
    config = {"width": 16} if name == "refinenet" else {"rows": 8, "columns": 8}
    network = build(name, config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    x = complex_normal(4, 64, generator=generator)
    x = x.reshape(4, 8, 8).repeat(1, 2, 2) if name == "refinenet" else x
    noise = torch.full((4,), 0.3)
    exact = network(x, noise)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, noise)[0]
    assert mixed.dtype == torch.complex64
    assert float((mixed - exact).norm() / exact.norm()) < 0.02


def test_double_precision_goes_through(generator):
    x = complex_normal(2, 16, generator=generator, dtype=torch.complex128)
    assert Ncsnpp(4, 4, **SMALL).double()(x, torch.ones(2, dtype=torch.float64))[0].dtype == torch.complex128


def test_refinenet_learned_at_one_size_serves_another():
    """Silent users are the rows without energy: a short training at 16 x 16 beats the Wiener filter at 24 x 32 too."""
    torch.manual_seed(0)
    network = RefineNet(width=16, multipliers=[1, 1], depth=1, power=0.25)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)

    def excess(users: int, antennas: int, step: int) -> torch.Tensor:
        draw = generator(1, "matrix", users, step)
        rows = complex_normal(8, users, antennas, generator=draw) * (torch.rand(8, users, 1, generator=draw) < 0.25)
        noise = torch.full((8,), 0.3)
        x = rows + noise.sqrt()[:, None, None] * complex_normal(8, users, antennas, generator=draw)
        plain = 0.25 / 0.55 * x
        return (network(x, noise)[0] - rows).abs().square().mean() / (plain - rows).abs().square().mean()

    for step in range(100):
        optimiser.zero_grad()
        excess(16, 16, step).backward()
        optimiser.step()
    with torch.no_grad():
        assert excess(16, 16, 1000) < 0.7
        assert excess(24, 32, 1000) < 0.7


def test_odd_arrays_want_fewer_levels():
    with pytest.raises(ConfigError, match="fewer multipliers"):
        Ncsnpp(6, 8, multipliers=[1, 1, 1])


def test_names():
    assert isinstance(build("ncsnpp", {"rows": 4, "columns": 4, **SMALL}), Ncsnpp)
    with pytest.raises(UnknownNameError, match="refinenet"):
        build("resnet", {})
    with pytest.raises(ConfigError, match="names of its options"):
        build("refinenet", {"depht": 3})
    assert {"gate", "mixture", "ncsnpp", "refinenet"} <= set(NETWORKS)
