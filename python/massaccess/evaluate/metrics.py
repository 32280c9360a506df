"""How well a receiver did: counts per frame, rates with confidence intervals."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..core import Estimate, Frame, SystemConfig
from ..errors import ShapeError
from ..forward.coding import Decoder
from ..forward.framing import CRC_BYTES, Framing
from ..forward.index_modulation import to_bits
from ..forward.modulation import constellation

RATES = {
    "aep": "activity error probability: wrong decisions, per user and frame",
    "p_fa": "false alarms, per silent user and frame",
    "p_md": "missed detections, per active user and frame",
    "ser": "symbol error rate of the active users",
    "ser_devices": "symbol error rate of all devices, silence counted as a symbol: wrong state, or wrong sequence (P3's SER)",
    "ber": "bit error rate of the active users",
    "fer": "frame error rate: active users whose payload and CRC did not come through, after decoding, per active user and frame",
}
"""Every rate and what it counts. A missed user's symbols are zeros: all its symbols and its frame are wrong, about half of its bits."""
LOADS = {
    "aep_underloaded": "the same over frames with no more active users than pilots",
    "aep_overloaded": "the same over frames with more active users than pilots",
}
"""The activity error probability apart, by what frames ask of a detector."""
NMSE = {
    "nmse": "squared error over squared norm of the active users' channels; a missed user counts as zero, a false alarm in full",
    "nmse_rows": "the same after each antenna's row, over the active users, was brought to the same norm in both (P4's measure)",
    "nmse_scaled": "the same with the best scale for each frame: one-bit samples hardly tell the amplitude",
}
"""Errors of channels, each told in dB."""


_NOTHING = torch.zeros(5, dtype=torch.float64)
TINY = 1e-30  # below any norm: keeps 0 / 0 at 0


class Tally:
    """Counts errors over batches of frames. Frames of a code need its ``decoder``: without one, nothing is said of ``fer``.

    >>> from massaccess.forward.simulate import Simulation
    >>> config = SystemConfig(users=8, pilot_len=6, data_len=12, channel="rayleigh")
    >>> frame, obs = Simulation(config).frames(0, 16)
    >>> tally = Tally()
    >>> tally.add(config, frame, Estimate(frame.active.float()))
    >>> tally.summary()["aep"], tally.summary()["aep_errors"], tally.summary()["fer"]
    (0.0, 0, None)
    """

    def __init__(self, decoder: Decoder | None = None) -> None:
        self.frames = 0
        self._decoder = decoder
        self._sums: dict[str, Tensor] = {}  # rate -> sums over frames of (errors, trials, errors^2, errors*trials, trials^2)

    def add(self, config: SystemConfig, frame: Frame, estimate: Estimate) -> None:
        """Counts the errors of ``estimate`` against the truth ``frame``, both of the same frames."""
        truth, found = frame.active, estimate.active
        if found.shape != truth.shape:
            raise ShapeError(f"activity is {list(found.shape)} but the truth is {list(truth.shape)}: compare the same frames and users")
        self.frames += len(truth)
        wrong = truth ^ found
        self._count("aep", wrong, torch.ones_like(truth))
        self._count("p_fa", wrong & ~truth, ~truth)
        self._count("p_md", wrong & truth, truth)
        over = truth.sum(1) > config.pilot_len
        self._split("aep_overloaded", wrong, over)
        self._split("aep_underloaded", wrong, ~over)
        if estimate.channel is not None:
            self._channel(frame, estimate.channel, found)
        if estimate.symbols is not None and config.data_len:
            self._data(config, frame, estimate, found)
        if estimate.sequence_odds is not None:
            self._index(frame, estimate.sequence_odds, found)

    def coded(self, payloads: int) -> dict[str, Any]:
        """The frame error rate of coded frames of which so many payloads came out of a decoder elsewhere, as `summary` tells it; one that
        slipped through the CRC, one wrong codeword in 65,536, counts as right. Its interval takes users for independent."""
        trials = int(self._sums.get("p_md", _NOTHING)[1])
        if not trials:
            return {}
        errors = max(trials - payloads, 0)
        rate = errors / trials
        return {"fer": rate, "fer_ci95": _interval(torch.tensor([errors, trials]), rate, 0.0), "fer_errors": errors}

    def summary(self) -> dict[str, Any]:
        """Each rate of `RATES` and `LOADS` with ``_ci95`` and ``_errors``, and of `NMSE` with ``_db`` and ``_db_ci95``; ``None`` where
        nothing was measured.

        Intervals take the frame as the independent unit, since errors come in bursts: the ratio estimator's normal interval, widened where
        the exact binomial interval (Clopper-Pearson) is wider, as with few or no errors.
        """
        result: dict[str, Any] = {"frames": self.frames}
        for name in (*RATES, *LOADS):
            sums = self._sums.get(name, _NOTHING)
            counted = bool(sums[1] > 0)
            rate, interval = rate_and_interval(sums, self.frames) if counted else (None, None)
            result[name], result[f"{name}_ci95"] = rate, interval
            result[f"{name}_errors"] = int(sums[0]) if counted else None
        for name in NMSE:
            sums = self._sums.get(name, _NOTHING)
            ratio, half = _ratio(sums, self.frames)
            known = bool(sums[1] > 0)
            result[f"{name}_db"] = _db(ratio) if known else None
            result[f"{name}_db_ci95"] = [_db(max(ratio - half, ratio / 100)), _db(ratio + half)] if known else None
        return result

    def _channel(self, frame: Frame, channel: Tensor, found: Tensor) -> None:
        """The sums of `NMSE`."""
        truth, claimed = frame.channel * frame.active[..., None], channel * found[..., None]
        energy = _power(truth)
        self._sum("nmse", _power(claimed - truth), energy)
        match = (claimed.conj() * truth).real.sum((1, 2)) / _power(claimed).clamp_min(TINY)
        self._sum("nmse_scaled", _power(match.clamp_min(0)[:, None, None] * claimed - truth), energy)
        ours, theirs = (_rows(rows * frame.active[..., None]) for rows in (claimed, truth))
        self._sum("nmse_rows", _power(ours - theirs), _power(theirs))

    def _data(self, config: SystemConfig, frame: Frame, estimate: Estimate, found: Tensor) -> None:
        alphabet, symbols = constellation(config.modulation), estimate.symbols
        assert symbols is not None
        active = frame.active[..., None]
        missed = active & ~found[..., None]
        wrong = (alphabet.decide(symbols.mT) != frame.bits) & active
        self._count("ber", wrong, active.expand_as(wrong))
        lost = wrong.unflatten(-1, (-1, alphabet.bits_per_symbol)).any(-1) | missed
        self._count("ser", lost, active.expand_as(lost))
        framing = _framing(config.users, frame.bits.shape[-1], config.code)
        if framing.coding is None:
            used = 8 * (framing.payload_bytes + CRC_BYTES) if framing.payload_bytes else frame.bits.shape[-1]
            self._count("fer", wrong[..., :used].any(-1) | missed[..., 0], frame.active)
        elif self._decoder is not None:
            self._count("fer", _undecoded(framing, self._decoder, config, frame, estimate) | missed[..., 0], frame.active)

    def _index(self, frame: Frame, odds: Tensor, found: Tensor) -> None:
        chosen = to_bits(odds.argmax(-1), frame.bits.shape[-1]) * found[..., None]
        wrong = chosen != frame.bits
        lost = (wrong.any(-1) | ~found) & frame.active
        self._count("ser_devices", lost | (found & ~frame.active), torch.ones_like(found))
        if not frame.bits.shape[-1]:
            return
        self._count("ser", lost, frame.active)
        self._count("ber", wrong & frame.active[..., None], frame.active[..., None].expand_as(wrong))

    def _count(self, name: str, wrong: Tensor, trials: Tensor) -> None:
        self._sum(name, wrong.flatten(1).sum(1), trials.flatten(1).sum(1))

    def _split(self, name: str, wrong: Tensor, frames: Tensor) -> None:
        """Errors of the ``frames`` [B] alone; the others count as frames without trials."""
        self._count(name, wrong & frames[:, None], frames[:, None].expand_as(wrong))

    def _sum(self, name: str, errors: Tensor, trials: Tensor) -> None:
        sums = cluster_sums(errors, trials)
        self._sums[name] = sums if name not in self._sums else self._sums[name] + sums


@lru_cache(maxsize=16)
def _framing(users: int, bits: int, code: str) -> Framing:
    """The same object each time: whitening sequences are slow to draw."""
    return Framing(users, bits, code)


def _undecoded(framing: Framing, decoder: Decoder, config: SystemConfig, frame: Frame, estimate: Estimate) -> Tensor:
    """Active users [B N] bool that were found, and whose codeword is decoded wrongly."""
    assert framing.coding is not None
    assert estimate.symbols is not None
    rows, users = (frame.active & estimate.active).nonzero(as_tuple=True)
    symbols = estimate.symbols[rows, :, users]
    var = symbols.real.new_ones(symbols.shape) if estimate.symbol_var is None else estimate.symbol_var[rows, :, users]
    llrs = constellation(config.modulation).ratios(symbols, var)
    sent = framing.soft(1 - 2 * frame.bits[rows, users].to(llrs.dtype), users) < 0
    info = torch.as_tensor(decoder(framing.soft(llrs, users).cpu(), framing.holds))
    wrong = torch.zeros_like(frame.active)
    wrong[rows, users] = (framing.coding.encode(info).to(sent.device) != sent).any(1)
    return wrong


def _power(rows: Tensor) -> Tensor:
    """Squared norm [B] of rows [B N M]."""
    return rows.abs().square().sum((1, 2))


def _rows(channel: Tensor) -> Tensor:
    """Channels [B N M] whose norm over the users is 1 at every antenna, or 0 where there is nothing."""
    return channel / channel.norm(dim=1, keepdim=True).clamp_min(TINY)


def cluster_sums(errors: Tensor, trials: Tensor) -> Tensor:
    """Sums over frames [..., 5] of (errors, trials, errors^2, errors*trials, trials^2), for counts [B ...]: all that an interval needs."""
    e, t = errors.double(), trials.double()
    return torch.stack([part.sum(0) for part in (e, t, e * e, e * t, t * t)], -1).cpu()


def rate_and_interval(sums: Tensor, frames: int) -> tuple[float, list[float]]:
    """errors / trials and its 95 % interval, from the `cluster_sums` of so many frames; see `Tally.summary`.

    >>> rate_and_interval(cluster_sums(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 4.0])), 2)[0]
    0.125
    """
    rate, half = _ratio(sums, frames)
    return rate, _interval(sums, rate, half)


def _ratio(sums: Tensor, frames: int) -> tuple[float, float]:
    """errors / trials and the half width of its 95 % interval, frames taken as independent clusters."""
    errors, trials, ee, et, tt = (float(value) for value in sums)
    if not trials:
        return 0.0, 0.0
    rate = errors / trials
    spread = max(ee - 2 * rate * et + rate * rate * tt, 0.0) * frames / max(frames - 1, 1)
    return rate, 1.96 * math.sqrt(spread) / trials


def _interval(sums: Tensor, rate: float, half: float) -> list[float]:
    from scipy.stats import beta

    errors, trials = float(sums[0]), float(sums[1])
    low = beta.ppf(0.025, errors, trials - errors + 1) if errors else 0.0
    high = beta.ppf(0.975, errors + 1, trials - errors) if errors < trials else 1.0
    return [max(min(float(low), rate - half), 0.0), min(max(float(high), rate + half), 1.0)]


def _db(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-30))
