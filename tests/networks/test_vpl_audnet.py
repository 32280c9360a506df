"""VPL-AUDNet: what its form promises before it has learned anything, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.errors import ConfigError, ShapeError, UnknownNameError
from massaccess.networks.heterogeneous import Attention, Layer
from massaccess.networks.spatial_correlation import SpatialCorrelation
from massaccess.networks.vpl_audnet import LengthAdaptive, VplAudNet
from massaccess.rng import complex_normal

SMALL = {"layers": 2, "width": 16, "heads": 2, "max_len": 10}
KINDS = [{}, {"plam": False}, {"scm": True}, {"features": "physics"}, {"features": "physics", "stages": 2, "scm": True}]


def situation(generator, length=7, users=9, grid=(3, 4)):
    rx = 2 * complex_normal(3, length, grid[0] * grid[1], generator=generator)
    pilots = complex_normal(3, length, users, generator=generator)
    return rx, pilots, torch.ones(3), torch.full((3,), 0.1), grid


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_any_size_and_any_order_of_users(options, generator):
    network = VplAudNet(**{**SMALL, **options})
    for length, users, grid in ((7, 9, (3, 4)), (10, 4, (2, 2)), (1, 20, (5, 5))):
        given = situation(generator, length, users, grid)
        found = network(*given)
        assert found.shape == (3, users) and bool(torch.isfinite(found).all())
        order = torch.randperm(users, generator=generator)
        torch.testing.assert_close(network(given[0], given[1][..., order], *given[2:]), found[:, order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_frames_do_not_see_one_another_and_units_do_not_matter(options, generator):
    network = VplAudNet(**{**SMALL, **options})
    rx, pilots, noise_var, activity, grid = situation(generator)
    found = network(rx, pilots, noise_var, activity, grid)
    torch.testing.assert_close(network(rx[1:2], pilots[1:2], noise_var[1:2], activity[1:2], grid), found[1:2], rtol=1e-3, atol=1e-4)
    if options.get("features") == "physics":  # raw pilots say their units
        torch.testing.assert_close(network(10 * rx, 10 * pilots, 100 * noise_var, activity, grid), found, rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_it_starts_near_the_prior(generator):
    for options in KINDS:
        rx, pilots, noise_var, activity, grid = situation(generator)
        found = VplAudNet(**{**SMALL, **options})(rx, pilots, noise_var, activity, grid)
        assert float((found - torch.logit(activity)[:, None]).abs().max()) < 2


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_mixed_precision_stays_close(options, generator):
    given, network = situation(generator), VplAudNet(**{**SMALL, **options})
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(*given)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, network(*given), rtol=0.05, atol=0.1)


@torch.no_grad()
def test_padding_is_in_the_symbols_alone(generator):
    """Raw frames that end in zeros are those of fewer pilots but for the length that PLAM is told."""
    network = VplAudNet(**SMALL, plam=False)
    rx, pilots, noise_var, activity, _ = situation(generator)
    longer = [torch.cat([one, torch.zeros_like(one[:, :2])], 1) for one in (rx, pilots)]
    scale = (0.1 * pilots.abs().square().mean(1).sum(1) + 1).div(0.1 * longer[1].abs().square().mean(1).sum(1) + 1).sqrt()
    short, long = network(rx, pilots, noise_var, activity), network(longer[0] / scale[:, None, None], longer[1], noise_var, activity)
    torch.testing.assert_close(short, long, rtol=0.05, atol=0.05)
    gates = VplAudNet(**SMALL).plams
    assert len(gates) == 1 and len(VplAudNet(**SMALL, plam=False).plams) == 0


def test_too_many_pilots_are_an_error_only_where_they_do_not_fit(generator):
    given = situation(generator, length=12)
    with pytest.raises(ShapeError, match="10 at most"):
        VplAudNet(**SMALL)(*given)
    assert VplAudNet(**SMALL, features="physics")(*given).shape == (3, 9)


def test_options_that_do_not_fit_are_named(generator):
    for options in ({"heads": 3}, {"layers": 0}, {"stages": 2}):
        with pytest.raises(ConfigError, match="vpl-audnet"):
            VplAudNet(**{**SMALL, **options})
    with pytest.raises(UnknownNameError, match="physics"):
        VplAudNet(**SMALL, features="cooked")
    with pytest.raises(ConfigError, match="rows and columns"):
        VplAudNet(**SMALL, scm=True)(*situation(generator)[:4])


@torch.no_grad()
def test_attention_has_weights_of_its_own_for_the_received_signal(generator):
    attention = Attention(8, 2)
    tokens = torch.randn(2, 5, 8, generator=generator)
    query, key, value = attention.into(tokens).chunk(3, -1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        score = torch.softmax(query[..., part] @ key[..., part].mT / math.sqrt(4), -1)
        heads.append(score @ value[..., part])
    torch.testing.assert_close(attention(tokens), attention.out(torch.cat(heads, -1)))
    same = torch.cat([tokens[:, :1], tokens[:, :1]], 1)
    assert not torch.allclose(attention(same)[:, 0], attention(same)[:, 1])
    assert Layer(8, 2, 16)(tokens).shape == tokens.shape


@torch.no_grad()
def test_modules_of_the_paper(generator):
    gate, tokens = LengthAdaptive(8), torch.randn(2, 5, 8, generator=generator)
    ratio = gate(tokens, 0.5) / tokens
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert not torch.allclose(gate(tokens, 0.5), gate(tokens, 0.9))
    module, parts = SpatialCorrelation(width=4), torch.randn(2, 3, 12, 2, generator=generator)
    parts[:, 2] = 0
    found = module(parts, (3, 4))
    assert found.shape == parts.shape and not bool(found[:, 2].any())
    assert module(torch.randn(1, 2, 144, 2, generator=generator), (12, 12)).shape == (1, 2, 144, 2)
