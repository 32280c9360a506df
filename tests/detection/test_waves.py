"""Detection in frequency: linear detection of users out of step is that of the whole system of equations; both paths agree."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from massaccess.detection import waves
from massaccess.detection.waves import WaveEp, WaveFilter
from massaccess.forward.modulation import constellation
from massaccess.priors.constellation import ConstellationPrior
from massaccess.rng import complex_normal, generator

QPSK = ConstellationPrior("qpsk")
NOISE = 0.05


def planted(users: int = 3, window: int = 24, edge: int = 4, antennas: int = 8, frames: int = 2) -> tuple[WaveFilter, torch.Tensor]:
    """Users with random channels and delays, band-limited pulses without excess: a filter, and their symbols."""
    draw = generator(3, "planted")
    channel = complex_normal(frames, users, antennas, generator=draw).to(torch.complex128)
    delay = torch.rand(frames, users, generator=draw, dtype=torch.double) - 0.5
    bins = torch.fft.fftfreq(window, dtype=torch.double)
    shape = torch.polar(torch.ones(frames, window, users, dtype=torch.double), -2 * math.pi * bins[:, None] * delay[:, None])
    data = window - 2 * edge
    sent = constellation("qpsk").points[torch.randint(0, 4, (frames, data, users), generator=draw)].to(torch.complex128)
    grid = torch.fft.fft(torch.nn.functional.pad(sent, (0, 0, edge, edge)), dim=1, norm="ortho")
    noise = complex_normal(frames, window, antennas, generator=draw).to(torch.complex128) * math.sqrt(NOISE)
    rx = (grid * shape) @ channel + noise
    gram = (channel.conj() @ channel.mT)[:, None] * shape.conj()[..., None] * shape[..., None, :] / NOISE
    match = (rx @ channel.mH) * shape.conj() / NOISE
    present = torch.ones(frames, users, dtype=torch.bool)
    turn = torch.ones(frames, data, users, dtype=torch.complex128)
    return WaveFilter(gram, match, turn, torch.zeros(turn.shape, dtype=torch.double), edge, present), sent


def test_the_first_step_is_linear_detection_of_the_whole_window():
    filtered, _ = planted()
    frames, window, users = filtered.match.shape
    fourier = torch.fft.fft(torch.eye(window, dtype=torch.complex128), norm="ortho")
    mean, spread = filtered.start
    for frame in range(frames):
        gram = torch.zeros(window, users, window, users, dtype=torch.complex128)
        for bin_ in range(window):
            gram[bin_, :, bin_] = filtered.gram[frame, bin_]
        turn = torch.kron(fourier, torch.eye(users, dtype=torch.complex128))
        whole = turn.mH @ gram.reshape(window * users, -1) @ turn
        inverse = torch.linalg.inv(whole + torch.eye(len(whole)))
        dense = (inverse @ (turn.mH @ filtered.match[frame].flatten())).unflatten(0, (window, users))
        var = inverse.diagonal().real.unflatten(0, (window, users)).mean(0)
        torch.testing.assert_close(spread[frame], 1 / (1 / var - 1))
        torch.testing.assert_close(mean[frame], (dense * spread[frame] / var)[filtered.edge : -filtered.edge])


def test_symbols_are_found_and_claimed_variances_are_right():
    filtered, sent = planted(users=6, window=200, frames=8)
    found = WaveEp()(filtered, QPSK)
    error = (found.symbols - sent).abs().square()
    assert torch.equal(constellation("qpsk").decide(found.symbols), constellation("qpsk").decide(sent))
    assert float((error / found.symbol_var).mean()) == pytest.approx(1, abs=0.1)


def test_more_rounds_are_better_than_linear_detection():
    filtered, sent = planted(users=8, window=200, antennas=8, frames=8)
    decide = constellation("qpsk").decide
    wrong = [int((decide(WaveEp(rounds)(filtered, QPSK).symbols) != decide(sent)).sum()) for rounds in (1, 8)]
    assert 0.7 * wrong[0] > wrong[1]


def test_turning_symbols_are_turned_back():
    filtered, sent = planted()
    angle = torch.linspace(0, 1, sent.shape[1], dtype=torch.double)[:, None].expand(sent.shape)
    turn = torch.polar(torch.ones_like(angle), angle)
    after = filtered.match.shape[1] - sent.shape[1] - filtered.edge
    pad = (0, 0, filtered.edge, after)
    difference = torch.fft.fft(torch.nn.functional.pad(sent * turn - sent, pad), dim=1, norm="ortho")
    turned = dataclasses.replace(filtered, match=filtered.match + (filtered.gram @ difference[..., None])[..., 0], turn=turn)
    found, plain = WaveEp()(turned, QPSK), WaveEp()(filtered, QPSK)
    torch.testing.assert_close(found.mean, plain.mean, atol=1e-3, rtol=0)


def test_a_carrier_that_is_not_known_makes_symbols_less_sure():
    filtered, _ = planted()
    blur = torch.linspace(0, 0.5, filtered.turn.shape[1], dtype=torch.double)[:, None].expand(filtered.turn.shape)
    plain, blurred = WaveEp()(filtered, QPSK), WaveEp()(dataclasses.replace(filtered, blur=blur), QPSK)
    assert bool((blurred.symbol_var[:, -1] > plain.symbol_var[:, -1] + 0.45).all())
    assert bool((blurred.symbol_var[:, -1] > blurred.symbol_var[:, 0] + 0.45).all())


def test_the_compiled_and_the_batched_path_agree(monkeypatch):
    filtered, _ = planted(users=5, window=75)
    filtered = dataclasses.replace(filtered, present=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    here = filtered.present.to(filtered.gram.dtype)
    gram = filtered.gram * here[:, None, :, None] * here[:, None, None, :]
    filtered = dataclasses.replace(filtered, gram=gram, match=filtered.match * here[:, None])
    compiled = WaveEp()(filtered, QPSK)
    monkeypatch.setattr(waves, "_compiled", waves._batched)
    batched = WaveEp()(filtered, QPSK)
    for name in ("symbols", "symbol_var", "mean", "var"):
        torch.testing.assert_close(getattr(compiled, name), getattr(batched, name))
    assert bool(compiled.symbol_var[1, :, 3:].isinf().all())
