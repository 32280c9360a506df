"""DL-mAMPnet: what it is before any training, and what its parts promise."""

from __future__ import annotations

import math

import pytest
import torch

from massaccess.errors import ConfigError
from massaccess.networks.dl_mampnet import DlMampNet, denoised, denoised_rows, one_each, real_form, times
from massaccess.priors.bernoulli_gaussian import BernoulliGaussian
from massaccess.rng import complex_normal

USERS, SEQUENCES, LENGTH, ANTENNAS, ACTIVITY = 12, 2, 14, 3, 0.2
SIZES = {"users": USERS, "sequences": SEQUENCES, "pilot_len": LENGTH, "antennas": ANTENNAS}


def frames(generator, count=5):
    """Book, received samples, and rows on the air, of users with gains over 20 dB; noise of variance 0.3."""
    book = complex_normal(LENGTH, USERS * SEQUENCES, generator=generator, dtype=torch.complex128)
    book = book / torch.linalg.vector_norm(book, dim=0)
    gain = (10 ** torch.linspace(0, 2, USERS, dtype=torch.float64)).repeat_interleave(SEQUENCES)
    sent = torch.rand(count, USERS * SEQUENCES, generator=generator) < ACTIVITY / SEQUENCES
    rows = complex_normal(count, USERS * SEQUENCES, ANTENNAS, generator=generator, dtype=torch.complex128)
    rows = rows * (gain.sqrt() * sent)[..., None]
    noise = complex_normal(count, LENGTH, ANTENNAS, generator=generator, dtype=torch.complex128)
    return book, gain, book @ rows + math.sqrt(0.3) * noise, rows


def begun(book, gain, **options):
    network = DlMampNet(**SIZES, **options).double()
    network.begin(book, power=gain, activity=ACTIVITY)
    return network


@torch.no_grad()
def test_untrained_layers_with_shared_decisions_are_complex_amp(generator):
    """With B = S^H and a denoiser of whole rows, real form or not is the same: three iterations of (14)-(16), (28)-(32)."""
    book, gain, rx, _ = frames(generator)
    noise_var = torch.full((len(rx),), 0.3, dtype=torch.float64)
    found, level = begun(book, gain, denoiser="row", layers=3).estimate(rx, book, noise_var)
    prior = BernoulliGaussian(ACTIVITY / SEQUENCES, gain)
    x, residual = torch.zeros(len(rx), len(gain), ANTENNAS, dtype=book.dtype), rx
    for _ in range(3):
        sigma = residual.abs().square().mean((1, 2)).sqrt()[:, None]
        x, var = prior.moments(x + book.mH @ residual, sigma)
        residual = rx - book @ x + (var / sigma.square()).sum(1)[:, None, None] / LENGTH * residual
    half = found.shape[0] // 2
    same = torch.complex(found[:half], found[half:]).transpose(0, 1) * math.sqrt(0.3)
    torch.testing.assert_close(same, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(2 * 0.3 * level, sigma[:, 0].square(), rtol=1e-6, atol=1e-6)


def test_the_real_form_is_the_complex_product(generator):
    matrix, x = (complex_normal(*shape, generator=generator) for shape in ((4, 6), (6, 2)))
    y = matrix @ x
    torch.testing.assert_close(real_form(matrix) @ torch.cat([x.real, x.imag]), torch.cat([y.real, y.imag]))
    batch = torch.randn(12, 3, 2, generator=generator)
    torch.testing.assert_close(times(real_form(matrix), batch)[:, 1], real_form(matrix) @ batch[:, 1])


@pytest.mark.parametrize("denoiser", [denoised, denoised_rows])
def test_slopes_are_the_derivative(denoiser, generator):
    """(48), against automatic differentiation; of rows, the mean over the entries of either part."""
    pseudo = 3 * torch.randn(6, 2, 4, generator=generator, dtype=torch.float64)
    whole = denoiser is denoised_rows
    gain = torch.tensor([0.3, 2.0, 40.0]).double().repeat(1 if whole else 2)[:, None, None]
    level, prior = torch.tensor([[0.5], [0.2]]).double(), torch.full_like(gain, 1.3)
    mean, slope = denoiser(pseudo, gain, level, prior)
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser(x, gain, level, prior)[0], pseudo)
    own = jacobian.reshape(48, 48).diagonal().reshape(6, 2, 4)
    expected = own.unflatten(0, (2, 3)).mean((0, 3))[..., None] if whole else own
    torch.testing.assert_close(slope, expected)
    assert bool((mean.abs() <= pseudo.abs()).all())


def test_the_denoiser_is_the_posterior_mean_of_47(generator):
    """Against quadrature over x: zero with odds 3, otherwise N(0, 2), seen in noise of variance 0.4."""
    pseudo = torch.linspace(-4, 4, 9, dtype=torch.float64)
    x = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 4) / math.sqrt(4 * math.pi) * (x[1] - x[0])
    seen = torch.exp(-((pseudo[:, None] - x).square()) / 0.8)
    silent = 3 * torch.exp(-pseudo.square() / 0.8)
    mean = (seen * density * x).sum(1) / ((seen * density).sum(1) + silent)
    found, _ = denoised(pseudo, torch.tensor(2.0).double(), torch.tensor(0.4).double(), torch.tensor(math.log(3)).double())
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-9)


def test_pooling_leaves_one_sequence_at_most(generator):
    rows = torch.rand(50, 2 * USERS * 4, generator=generator)
    left = one_each(rows, 4).unflatten(1, (2, USERS, 4))
    assert bool(((left > 0).any(1).sum(-1) == 1).all())
    energy = rows.unflatten(1, (2, USERS, 4)).square().sum(1)
    assert torch.equal((left > 0).any(1).int().argmax(-1), energy.argmax(-1))
    apart = one_each(rows, 4, apart=True).unflatten(1, (2, USERS, 4))
    assert bool(((apart > 0).any(1).sum(-1) == 2).any())  # why the halves are not pooled each by itself


def test_each_phase_trains_its_part_and_nothing_else(generator):
    book, gain, rx, _ = frames(generator)
    network = begun(book, gain)
    noise_var = torch.full((len(rx),), 0.3, dtype=torch.float64)
    names = [*(f"layers.{index}." for index in range(4)), "refinement."]
    for phase in range(6):
        network.phase(phase)
        network.zero_grad()
        found = network.estimate(rx, book, noise_var, phase + 1)[0] if phase < 4 else network(rx, book, noise_var)
        found.square().sum().backward()
        moved = {name for name, value in network.named_parameters() if value.grad is not None}
        expected = {name for name, _ in network.named_parameters() if phase == 5 or name.startswith(names[phase])}
        assert moved == expected
        assert all(bool(torch.isfinite(value.grad).all()) for value in network.parameters() if value.grad is not None)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"denoiser": "row"}, {"printed": True}, {"layers": 1, "hidden": 3}])
def test_scale_and_silence(options, generator):
    """Samples and noise that grow together say nothing new, if gains do; frames of zeros are finite, and single precision is enough."""
    book, gain, rx, _ = frames(generator)
    network, noise_var = begun(book, gain, **options), torch.full((len(rx),), 0.3, dtype=torch.float64)
    plain = network(rx, book, noise_var)
    assert plain.shape == (len(rx), USERS, SEQUENCES)
    torch.testing.assert_close(begun(book, 9 * gain, **options)(3 * rx, book, 9 * noise_var), plain)
    assert bool(torch.isfinite(network(0 * rx, book, noise_var)).all())
    single = network.float()(rx.to(torch.complex64), book.to(torch.complex64), noise_var.float())
    torch.testing.assert_close(single, plain.float(), rtol=1e-3, atol=1e-3)


def test_sizes_are_checked():
    for change in ({"layers": 0}, {"denoiser": "column"}, {"users": 0}):
        with pytest.raises(ConfigError, match="dl-mampnet"):
            DlMampNet(**{**SIZES, **change})
