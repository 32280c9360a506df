"""Where the messages of the one-bit receiver stand, and its single steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..detection.linear import MatchedFilter, Symbols
from ..estimation.estimate import ChannelEstimate
from ..likelihoods.linearised import Linearised
from .coherent import Detector
from .jcedd import Exchange

BLAME = 0.75
"""Share of the symbols' posterior variance that weakens their own channel estimate. 1 is expectation maximisation, which makes channels too
small where symbols are uncertain; 0 takes soft symbols for pilots, and channels grow from round to round."""

SPREAD = 0.5
"""Of a user's mean channel power over the antennas: its standard deviation, in units of its expectation, where the prior is not Gaussian
and says so itself."""


@dataclass(frozen=True)
class Rows:
    """What channels are estimated from: symbols [B T K] that were sent, the first T of them with samples; the rest are rows of zeros that
    stand for the uncertainty of soft symbols."""

    sent: Tensor
    blame: Tensor | None = None  # [B K], precision that each user's channel gets without news
    spread: Tensor | None = None  # [B T K], variance of the symbols


@dataclass(frozen=True)
class State:
    """Where the messages of a batch stand; ``guessed``: the noise variance is a guess."""

    exchange: Exchange
    samples: Linearised
    guessed: bool = False

    @property
    def channel(self) -> ChannelEstimate:
        """The channels' posterior [B K M], in beams."""
        return self.exchange.channel

    @property
    def has_data(self) -> bool:
        """Whether frames are longer than their pilots."""
        return self.samples.rx.shape[1] > self.exchange.link.pilots.shape[1]

    def take(self, frames: Tensor) -> State:
        """The frames that ``frames`` (indices or a mask) picks."""
        return State(self.exchange.take(frames), self.samples.take(frames), self.guessed)

    def started(self, times: slice) -> State:
        """The first Gaussians for the symbol times ``times``: all symbols unknown, of unit power."""
        link, channel = self.exchange.link, self.channel
        power = (channel.mean.abs().square() + channel.error) * link.present[..., None]
        total = power.sum(1, keepdim=True).mean(-1, keepdim=True)
        rx = self.samples.rx[:, times]
        return replace(self, samples=self.samples.again(torch.zeros_like(rx), total.expand(-1, rx.shape[1], -1), 1.0, times))

    def pilots(self) -> Rows:
        return Rows(self.exchange.link.pilots)

    def known(self, soft: Symbols) -> Rows:
        """Pilots and soft symbols."""
        pilots = self.exchange.link.pilots
        weight = 1 / self.samples.noise[:, pilots.shape[1] :]
        spread = torch.cat([torch.zeros_like(pilots.real), soft.var], 1)
        return Rows(torch.cat([pilots, soft.mean], 1), BLAME * (soft.var * weight).sum(1), spread)

    def detect(self, detector: Detector) -> Symbols:
        """All symbols, the channel error counted as noise."""
        link, channel = self.exchange.link, self.channel
        first = link.pilots.shape[1]
        noise = self.samples.noise[:, first:].mean(1) + channel.error.sum(1)
        rx = link.beams.into(self.samples.rx[:, first:])
        return detector(MatchedFilter.of(rx, channel.mean, noise, link.present), link.prior)

    def predicted(self, soft: Symbols, share: float, times: slice) -> State:
        """New Gaussians for the data, from what channels and symbols say of them."""
        link, channel = self.exchange.link, self.channel
        mean = link.beams.back(soft.mean @ channel.mean)
        power = channel.mean.abs().square() + channel.error
        var = soft.mean.abs().square() @ _mean(channel.error) + soft.var @ _mean(power)
        return replace(self, samples=self.samples.again(mean, var.clamp_min(1e-9), share, times))

    def explained(self, rows: Rows, share: float, times: slice = slice(None)) -> State:
        """New Gaussians from the channels that ``rows`` say."""
        posterior = self._linear(rows)
        samples = self.samples.again(*self._samples(rows, posterior), share, times)
        return replace(self, exchange=replace(self.exchange, channel=posterior), samples=samples)

    def evidence(self) -> Tensor:
        """Mean log probability [B] of the pilot samples, each predicted from all others: comparable between priors."""
        rows = self.pilots()
        mean, var = self._predicted(rows, self._linear(rows))
        return self.samples.likelihood.at(slice(0, rows.sent.shape[1])).log_evidence(mean, var.expand(mean.shape)).mean((1, 2))

    def _predicted(self, rows: Rows, posterior: ChannelEstimate) -> tuple[Tensor, Tensor]:
        """Mean [B T M] and variance [B T 1] of the noiseless samples of ``rows``, each from all others, given the channels."""
        return self.samples.cavity(*self._samples(rows, posterior), slice(0, rows.sent.shape[1]))

    def _samples(self, rows: Rows, posterior: ChannelEstimate) -> tuple[Tensor, Tensor]:
        """Mean [B T M] and variance [B T 1] of the noiseless samples of ``rows``."""
        mean = self.exchange.link.beams.back(rows.sent @ posterior.mean)
        own = rows.sent.abs().square() @ _mean(posterior.error)
        var = own * self._share(rows, posterior, own, self._noise(rows))
        if rows.spread is not None:
            var = var + rows.spread @ _mean(posterior.mean.abs().square() + posterior.error)
        return mean, var.clamp_min(1e-9)

    def evaluate(self, rows: Rows, soft: Symbols | None = None) -> State:
        """Channels from ``rows``, then one evaluation of the prior."""
        exchange = self.exchange.evaluate(self._linear(rows), soft=soft)
        return replace(self, exchange=exchange)

    def anchored(self, rows: Rows | None = None) -> State:
        """Channels of the amplitude, one for all users of a frame, that the power which the prior expects and the samples of ``rows`` (each
        predicted from all others) make most likely together. Where symbols are soft, samples only hold on to the amplitude that there is:
        symbols that follow the samples say nothing against it. Without ``rows``: the power that the prior expects."""
        exchange, channel = self.exchange, self.channel
        power = (channel.mean.abs().square() + channel.error).sum((1, 2)).clamp_min(1e-9)
        expected = (exchange.chance * exchange.link.gain).sum(1) * exchange.link.beams.power.sum()
        step = torch.log(expected.clamp_min(1e-9) / power) / 2
        if rows is not None:
            beams = exchange.link.beams.power
            spread = float(beams.square().sum().sqrt() / beams.sum()) if exchange.closed else SPREAD
            known = exchange.chance.sum(1).clamp_min(1) / (spread / 2) ** 2
            predicted = self._predicted(rows, self._linear(rows))
            slope, information = self.samples.amplitude(*predicted, slice(0, rows.sent.shape[1]))
            said = self.samples.believed.to(slope.dtype)  # nothing, where the noise is not what it is taken for
            step = (known * step + said * (slope if rows.spread is None else 0)) / (known + said * information)
        scale = step.clamp(-3, 3).exp()[:, None, None]
        return replace(self, exchange=replace(exchange, channel=ChannelEstimate(channel.mean * scale, channel.error)))

    def quieter(self, rows: Rows) -> State:
        """With the noise variance under which the samples of ``rows`` are most likely, each predicted from all others, channels having the
        power that the prior expects: to one bit, a louder receiver is a quieter user."""
        state = self.anchored()
        return replace(state, samples=state.samples.refitted(*state._predicted(rows, state.channel), slice(0, rows.sent.shape[1])))

    def _noise(self, rows: Rows) -> Tensor:
        return self.samples.noise[:, : rows.sent.shape[1]]

    def _linear(self, rows: Rows) -> ChannelEstimate:
        link, noise = self.exchange.link, self._noise(rows)
        rx, sent = link.beams.into(self.samples.rx[:, : rows.sent.shape[1]]), rows.sent
        if rows.blame is not None:
            extra = torch.diag_embed(rows.blame.sqrt()).to(sent.dtype)
            rx = torch.cat([rx, rx.new_zeros(len(rx), extra.shape[1], rx.shape[2])], 1)
            sent, noise = torch.cat([sent, extra], 1), torch.cat([noise, noise.new_ones(len(noise), extra.shape[1], 1)], 1)
        return self.exchange.linear((rx, sent, noise))

    def _share(self, rows: Rows, posterior: ChannelEstimate, own: Tensor, noise: Tensor) -> Tensor:
        """How much smaller the variances of the samples' means are than with independent errors ``own`` [B T 1]; [B 1 1].

        Errors of users that were told apart by the same pilots are correlated. The sum over all samples of variance over noise is what the
        samples took off the channels' uncertainty, in units of the prior's: sum of 1 - error / message error.
        """
        here = self.exchange.link.present[..., None]
        taken = torch.where(here, 1 - posterior.error / self.exchange.message.error, 0).sum((1, 2))
        counted = (own / noise).sum((1, 2))
        if rows.blame is not None:
            counted = counted + (rows.blame[..., None] * _mean(posterior.error)).sum((1, 2))
        return (taken / (counted * posterior.mean.shape[2]).clamp_min(1e-9)).clamp(0.05, 2.0)[:, None, None]


def _mean(values: Tensor) -> Tensor:
    """Over the antennas (beams) [... 1]."""
    return values.mean(-1, keepdim=True)
