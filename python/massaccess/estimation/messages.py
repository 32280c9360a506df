"""Messages between what was received and what a channel prior knows: expectation propagation with Gaussians, entry by entry in beams.

The prior's message to the estimator is CN(mean, error) of every entry; the estimator's posterior (`lmmse.combine`) divided by that message
is the cavity, which the prior sees as a noisy channel; the prior's posterior divided by the cavity is its next message. Both divisions
are the Onsager terms of VAMP: without them the received samples would count twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .estimate import ChannelEstimate

LEAST_NEWS = 1e-3  # a cavity holds at least this share of the posterior's precision
LEAST_GAIN = 0.02  # where the prior adds less than this share of its precision to the cavity's, its message is nearly empty
EMPTY = 50.0  # its variance then, in units of the cavity's


def first_message(power: Tensor, like: Tensor) -> ChannelEstimate:
    """What is known before anything was received: mean zero, variance ``power`` (broadcasts), in the shape of ``like`` [B K M]."""
    return ChannelEstimate(torch.zeros_like(like), power.expand(like.shape).contiguous())


def cavity(posterior: ChannelEstimate, message: ChannelEstimate) -> ChannelEstimate:
    """What the received samples alone say of the channel."""
    news = (1 / posterior.error - 1 / message.error).maximum(LEAST_NEWS / posterior.error)
    return ChannelEstimate((posterior.mean / posterior.error - message.mean / message.error) / news, 1 / news)


def next_message(denoised: ChannelEstimate, seen: ChannelEstimate) -> ChannelEstimate:
    """The prior's message, from its posterior and the cavity that it saw."""
    gain = 1 / denoised.error - 1 / seen.error
    sound = gain > LEAST_GAIN / denoised.error
    error = torch.where(sound, 1 / gain.clamp_min(1e-9), EMPTY * denoised.error.maximum(seen.error))
    mean = torch.where(sound, error * (denoised.mean / denoised.error - seen.mean / seen.error), denoised.mean)
    return ChannelEstimate(mean, error)


def damped(new: ChannelEstimate, old: ChannelEstimate, share: float) -> ChannelEstimate:
    """``share`` of the new message and the rest of the old one, in natural parameters."""
    if share >= 1:
        return new
    fresh, kept = share / new.error, (1 - share) / old.error
    error = 1 / (fresh + kept)
    return ChannelEstimate(error * (fresh * new.mean + kept * old.mean), error)
