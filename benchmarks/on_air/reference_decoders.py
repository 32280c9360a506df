"""Decoders written from the definitions, in numpy, to compare others with: exact Viterbi, successive cancellation list, union bound."""

from __future__ import annotations

import math

import numpy as np


def viterbi(llrs: np.ndarray, taps: tuple[tuple[int, ...], ...], info_bits: int) -> np.ndarray:
    """Maximum likelihood information bits [n info_bits] of llrs [n 2 (info_bits + memory)], log p(0)/p(1), of a terminated code whose
    outputs are the sums of the inputs delayed by ``taps``."""
    memory = max(max(delays) for delays in taps)
    states = 1 << memory
    history = np.arange(2 * states)  # newest bit first: bit d of it is the input d steps ago
    outputs = np.stack([sum((history >> delay) & 1 for delay in delays) % 2 for delays in taps], -1)
    sign = 1 - 2 * outputs  # [2 states, outputs]
    steps = info_bits + memory
    ratios = llrs.reshape(len(llrs), steps, len(taps))
    metric = np.full((len(llrs), states), -np.inf)
    metric[:, 0] = 0
    chosen = np.empty((steps, len(llrs), states), bool)
    now = np.arange(states)  # state: the last `memory` inputs, newest lowest
    before = np.stack([now >> 1, (now >> 1) | (states >> 1)])  # its two predecessors
    edge = now | (np.array([[0], [1]]) * states)  # their histories
    for step in range(steps):
        branch = ratios[:, step] @ sign.T / 2
        candidates = metric[:, before] + branch[:, edge]
        chosen[step] = candidates[:, 1] > candidates[:, 0]
        metric = candidates.max(1)
        if step >= info_bits:
            metric[:, now & 1 == 1] = -np.inf
    state, bits, rows = np.zeros(len(llrs), int), np.empty((len(llrs), steps), np.uint8), np.arange(len(llrs))
    for step in reversed(range(steps)):
        bits[:, step] = state & 1
        state = np.where(chosen[step, rows, state], before[1, state], before[0, state])
    return bits[:, :info_bits]


def spectrum(taps: tuple[tuple[int, ...], ...], most: int) -> np.ndarray:
    """Information bits in error on all paths of weight d [most + 1] that leave state 0 and come back to it."""
    memory = max(max(delays) for delays in taps)
    states = 1 << memory
    paths, bits = np.zeros((states, most + 1)), np.zeros((states, most + 1))
    back = np.zeros(most + 1)
    first = sum(0 in delays for delays in taps)
    paths[1, first] = bits[1, first] = 1
    while paths.any():
        new_paths, new_bits = np.zeros_like(paths), np.zeros_like(bits)
        for state in range(1, states):
            for new in (0, 1):
                history = (state << 1) | new
                weight = sum(sum(history >> delay & 1 for delay in delays) % 2 for delays in taps)
                target = history & (states - 1)
                room = most + 1 - weight
                new_paths[target, weight:] += paths[state, :room]
                new_bits[target, weight:] += bits[state, :room] + new * paths[state, :room]
        back += new_bits[0]
        new_paths[0], new_bits[0] = 0, 0
        paths, bits = new_paths, new_bits
    return back


def union_bound(weights: np.ndarray, rate: float, ebn0_db: float) -> float:
    """Upper bound of the bit error rate with soft decisions: sum of weights[d] Q(sqrt(2 d rate Eb/N0))."""
    ebn0 = 10 ** (ebn0_db / 10)
    return sum(float(count) * 0.5 * math.erfc(math.sqrt(d * rate * ebn0)) for d, count in enumerate(weights) if count)


def successive_cancellation_list(llrs: np.ndarray, info: np.ndarray, size: int) -> np.ndarray:
    """Information bits [n len(info)] of llrs [n N] of x = u F^(x)n, natural order, zeros at all inputs but ``info`` (rising): the path of
    least metric of a list of ``size`` (Tal and Vardy 2015, in ratios after Balatsoukas-Stimming et al. 2015, with their exact updates)."""
    count, length = llrs.shape
    carries = np.zeros(length, bool)
    carries[info] = True
    metric = np.full((count, size), np.inf)
    metric[:, 0] = 0
    decided = np.zeros((count, size, length), np.uint8)
    state = {"metric": metric, "decided": decided}

    def descend(ratios: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Codeword bits [n size width] of the inputs from ``first`` on, and which earlier path [n size] each path goes back to."""
        width = ratios.shape[-1]
        if width == 1:
            return _decide(state, ratios[..., 0], first, bool(carries[first]))
        upper, lower = ratios[..., : width // 2], ratios[..., width // 2 :]
        left, origin = descend(_check(upper, lower), first)
        upper, lower = _follow(upper, origin), _follow(lower, origin)
        right, later = descend(lower + (1 - 2.0 * left) * upper, first + width // 2)
        left = _follow(left, later)
        return np.concatenate([left ^ right, right], -1), np.take_along_axis(origin, later, 1)

    descend(np.repeat(llrs[:, None], size, 1).astype(float), 0)
    best = state["metric"].argmin(1)
    return state["decided"][np.arange(count), best][:, info]


def _check(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sign(a) * np.sign(b) * np.minimum(abs(a), abs(b)) + np.log1p(np.exp(-abs(a + b))) - np.log1p(np.exp(-abs(a - b)))


def _follow(values: np.ndarray, origin: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, origin[..., None], 1)


def _decide(state: dict[str, np.ndarray], ratio: np.ndarray, index: int, free: bool) -> tuple[np.ndarray, np.ndarray]:
    count, size = ratio.shape
    costs = [state["metric"] + np.logaddexp(0, -sign * ratio) for sign in (1, -1)]  # of a zero, of a one
    if not free:
        state["metric"] = costs[0]
        return np.zeros((count, size, 1), np.uint8), np.broadcast_to(np.arange(size), (count, size))
    both = np.concatenate(costs, 1)
    kept = np.argsort(both, 1, kind="stable")[:, :size]
    origin, bit = kept % size, (kept // size).astype(np.uint8)
    state["metric"] = np.take_along_axis(both, kept, 1)
    state["decided"] = _follow(state["decided"], origin)
    state["decided"][..., index] = bit
    return bit[..., None], origin
