"""Linear MMSE channel estimation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..lanes import split
from ..parallel import over_frames
from ..priors.beams import Beams
from .estimate import ChannelEstimate


@dataclass(frozen=True)
class Lmmse:
    """E[channel | rx] for user k's channel ~ CN(0, gain_k R), with R the covariance behind ``beams``: identity, sample or given.

    In the eigenbasis of R the beams separate: with S the symbols, W_m the reciprocal noise variances of beam m and r_m its power, the
    estimate is (S^H W_m S + diag(1 / (gain_k r_m)))^-1 S^H W_m y_m, one K x K system a beam. This is the LMMSE estimator of
    P1 eq. (32)-(33) without its M K x M K inverse, and with noise that may differ from beam to beam.
    """

    def __call__(self, rx: Tensor, sent: Tensor, *, noise_var: Tensor, gain: Tensor, present: Tensor, beams: Beams) -> ChannelEstimate:
        """Channel, in beams, of rx [B T M] (in beams) = sent [B T K] channel [B K M] + noise of variance noise_var [B T M] or [B T 1];
        gain [B K]: mean power of each user; present [B K] bool: slots that are taken, the first ones."""
        power = torch.where(present, gain, 1)[..., None] * beams.power
        silent = ChannelEstimate(torch.zeros_like(power, dtype=rx.dtype), power)
        return combine(rx, sent, noise_var=noise_var, known=silent, present=present)


def combine(rx: Tensor, sent: Tensor, *, noise_var: Tensor, known: ChannelEstimate, present: Tensor) -> ChannelEstimate:
    """The posterior of channels that are CN(known.mean, known.error), entry by entry in beams, given rx as `Lmmse` takes it."""
    prec = 1 / known.error
    alike = noise_var.shape[-1] == 1 and bool((prec == prec[..., :1]).all())
    run = _shared if alike else _compiled if rx.device.type == "cpu" else _batched
    mean, error = run(rx, sent, 1 / noise_var, prec, known.mean * prec, present)
    return ChannelEstimate(mean, error)


def _shared(rx: Tensor, sent: Tensor, weight: Tensor, prec: Tensor, shift: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The same where all beams are alike: one K x K system a frame."""
    sent = (sent * present[:, None, :]).to(torch.complex128)
    heard = sent.mH * weight.mT
    gram = heard @ sent + torch.diag_embed(prec[..., 0]).to(sent.dtype)
    inverse = torch.linalg.inv(gram)
    here, error = present[..., None], inverse.diagonal(dim1=-2, dim2=-1).real[..., None]
    mean = inverse.to(rx.dtype) @ (heard.to(rx.dtype) @ rx + shift)
    return mean * here, (error.to(prec.dtype) * here).expand(prec.shape)


def _compiled(rx: Tensor, sent: Tensor, weight: Tensor, prec: Tensor, shift: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    from . import _lmmse_kernel as kernel

    frames, slots = present.shape
    out = torch.zeros(3, frames, slots, rx.shape[2], dtype=torch.float64)
    known = (weight.double().contiguous().numpy(), prec.double().contiguous().numpy(), *split(shift))
    over_frames(kernel.estimate, frames, *split(rx), *split(sent), *known, present.sum(1).numpy(), *out.numpy())
    return torch.complex(out[0], out[1]).to(rx.dtype), out[2].to(rx.real.dtype)


def _batched(rx: Tensor, sent: Tensor, weight: Tensor, prec: Tensor, shift: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The same in tensor operations: the path for a GPU."""
    frames, _, slots = sent.shape
    sent = sent * present[:, None, :]
    pairs = (sent.conj()[..., None] * sent[..., None, :]).flatten(2)
    rows = weight.expand(rx.shape).mT.contiguous()
    gram = torch.complex(rows @ pairs.real, rows @ pairs.imag).reshape(frames, -1, slots, slots)
    inverse = torch.linalg.inv(gram + torch.diag_embed(prec.mT).to(gram.dtype))
    mean = (inverse @ (sent.mH @ (rx * weight) + shift).mT[..., None])[..., 0].mT
    error = inverse.diagonal(dim1=-2, dim2=-1).real.mT
    here = present[..., None]
    return mean * here, error * here
