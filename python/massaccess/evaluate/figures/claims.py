"""Whether a result bears a paper's sentence out.

Kinds of checks and their terms; ``from`` and ``to`` limit x, both included; ``full`` leaves a claim to the full run:

    gain         curve, over, y, at, least, most   how much less x ``curve`` needs than ``over`` for y = ``at``
    difference   curve, over, y, least, most       y of ``over`` minus y of ``curve`` at every x, in dB: rates and times as 10 log10
    shift        curve, over, y, at, by, least     y of ``over`` at x = ``at`` + ``by`` minus y of ``curve`` at x = ``at``, in dB
    value        curve, y, least, most             y of ``curve`` at every x
    above        curve, over, y                    y of ``curve`` is as large as that of ``over`` at every x, or larger
    settles      curve, y, within, last            first x from which y stays within so many dB of its value at x = ``last``
    falls        curve, y                          y at each x less y at the one before, in dB: none above 0
    swing        curve, y, most                    largest y over least y, in dB
    early        curve, y, share, least            how much of y's whole fall is done after that share of the x axis
    rise         curve, over, y, least, most       y at the last x over y at the first, in dB; less that of ``over``, where one is named
    contrast     curve, over, than, than_over, y   how much more ``curve`` gains over ``over`` than ``than`` over ``than_over`` at every x,
                                                   in dB

>>> rows = [{"curve": c, "x": x, "ber": b} for c, x, b in [("a", 0, 1e-2), ("a", 4, 1e-4), ("b", 0, 1e-1), ("b", 4, 1e-3)]]
>>> judge(Claim("a is better", "gain", {"curve": "a", "over": "b", "y": "ber", "at": 1e-3, "least": 1.5}), rows)
('agrees', '2.00')
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import unknown
from .definition import Claim

AGREES, DISAGREES, NOT_REACHED, UNCHECKED = "agrees", "does not agree", "not reached", "for the reader"
Rows = Sequence[Mapping[str, Any]]
Line = dict[float, float]


def judge(claim: Claim, rows: Rows, *, full: bool = True) -> tuple[str, str]:
    """(verdict, what was measured) for the rows of a figure. Not reached: a point, a curve or enough errors are missing, or the claim is
    about what the quick run cuts down."""
    if not claim.kind:
        return UNCHECKED, ""
    if claim.kind not in _KINDS:
        raise unknown("kind of claim", claim.kind, _KINDS)
    found = _KINDS[claim.kind](claim.terms, rows) if full or not claim.terms.get("full") else []
    if not found:
        return NOT_REACHED, ""
    terms = {**_LIMITS.get(claim.kind, {}), **claim.terms}
    least, most = terms.get("least", -math.inf), terms.get("most", math.inf)
    low, high = min(found), max(found)
    told = _told(low) if len(found) == 1 else f"{_told(low)} to {_told(high)}"
    return AGREES if least <= low and high <= most else DISAGREES, told


def _told(value: float) -> str:
    return f"{value:.2g}" if 0 < abs(value) < 0.1 else f"{value:.2f}"


def line(rows: Rows, curve: str, y: str, terms: Mapping[str, Any] | None = None) -> Line:
    """x -> y of a curve, as far as it was measured and lies within the terms' ``from`` and ``to``; a flat one has x ``nan``."""
    terms = terms or {}
    points = {}
    for row in rows:
        if row["curve"] != curve or row.get(y) is None:
            continue
        x = math.nan if row["x"] is None else float(row["x"])
        if math.isnan(x) or terms.get("from", -math.inf) <= x <= terms.get("to", math.inf):
            points[x] = float(row[y])
    return points


def _gain(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    ours, theirs = (_crossing(line(rows, terms[name], terms["y"]), terms["y"], terms["at"]) for name in ("curve", "over"))
    return [] if ours is None or theirs is None else [theirs - ours]


def _crossing(points: Line, y: str, level: float) -> float | None:
    """The first x at which a falling curve gets down to ``level``, straight between points (rates: on a logarithmic axis)."""
    known = [(x, _decibel(y, value)) for x, value in sorted(points.items()) if not math.isnan(x)]
    target = _decibel(y, level)
    for (x0, y0), (x1, y1) in itertools.pairwise(known):
        if y1 <= target <= y0 and math.isfinite(y1):
            return x0 if y0 == y1 else x0 + (y0 - target) / (y0 - y1) * (x1 - x0)
    return None


def _difference(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    y = terms["y"]
    ours, theirs = (line(rows, terms[name], y, terms) for name in ("curve", "over"))
    places = sorted({x for x in (*ours, *theirs) if not math.isnan(x)}) or ([math.nan] if ours and theirs else [])
    pairs = [(_at(ours, x), _at(theirs, x)) for x in places]
    gaps = [_decibel(y, b) - _decibel(y, a) for a, b in pairs if a is not None and b is not None]
    return [gap for gap in gaps if math.isfinite(gap)]


def _shift(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    y, place = terms["y"], float(terms["at"])
    ours, theirs = (line(rows, terms[name], y) for name in ("curve", "over"))
    if place not in ours or place + terms["by"] not in theirs:
        return []
    gap = _decibel(y, theirs[place + terms["by"]]) - _decibel(y, ours[place])
    return [gap] if math.isfinite(gap) else []


def _at(points: Line, x: float) -> float | None:
    """The value at x; a flat curve has it everywhere."""
    flat = [value for place, value in points.items() if math.isnan(place)]
    return flat[0] if flat else points.get(x)


def _value(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    return list(line(rows, terms["curve"], terms["y"], terms).values())


def _decibel(y: str, value: float) -> float:
    if y.endswith("_db"):
        return value
    return 10 * math.log10(value) if value > 0 else -math.inf


def _above(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    ours, theirs = (line(rows, terms[name], terms["y"], terms) for name in ("curve", "over"))
    return [ours[x] - theirs[x] for x in ours.keys() & theirs.keys()]


def _settles(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    points = sorted(line(rows, terms["curve"], terms["y"], terms).items())
    if not points or points[-1][0] < terms["last"]:
        return []
    final = _decibel(terms["y"], points[-1][1])
    moving = [x for x, value in points if not abs(_decibel(terms["y"], value) - final) <= terms["within"]]
    return [min(x for x, _ in points if not moving or x > max(moving))] if math.isfinite(final) else []


def _falls(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    values = [_decibel(terms["y"], value) for _, value in sorted(line(rows, terms["curve"], terms["y"], terms).items())]
    steps = [after - before for before, after in itertools.pairwise(values)]
    return [step for step in steps if math.isfinite(step)]  # no further from no error at all


def _swing(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    values = [_decibel(terms["y"], value) for value in line(rows, terms["curve"], terms["y"], terms).values()]
    return [max(values) - min(values)] if len(values) > 1 else []


def _early(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    points = sorted(line(rows, terms["curve"], terms["y"], terms).items())
    if len(points) < 5:
        return []
    first, last = points[0], points[-1]
    soon = [value for x, value in points if x <= first[0] + terms["share"] * (last[0] - first[0])]
    return [(first[1] - soon[-1]) / (first[1] - last[1])] if first[1] > last[1] else [0.0]


def _rise(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    rises = []
    for name in [terms["curve"], *([terms["over"]] if "over" in terms else [])]:
        points = sorted(line(rows, name, terms["y"], terms).items())
        if len(points) < 2:
            return []
        rises.append(_decibel(terms["y"], points[-1][1]) - _decibel(terms["y"], points[0][1]))
    found = rises[0] - sum(rises[1:])
    return [found] if math.isfinite(found) else []


def _contrast(terms: Mapping[str, Any], rows: Rows) -> list[float]:
    y = terms["y"]
    lines = [line(rows, terms[name], y, terms) for name in ("curve", "over", "than", "than_over")]
    found = []
    for x in sorted(set.intersection(*(set(one) for one in lines))):
        ours, others, theirs, rest = (_decibel(y, one[x]) for one in lines)
        found.append((others - ours) - (rest - theirs))
    return [gap for gap in found if math.isfinite(gap)]


_KINDS = {
    "gain": _gain,
    "shift": _shift,
    "difference": _difference,
    "value": _value,
    "above": _above,
    "settles": _settles,
    "falls": _falls,
    "swing": _swing,
    "early": _early,
    "rise": _rise,
    "contrast": _contrast,
}
_LIMITS = {"above": {"least": 0.0}, "falls": {"most": 0.0}, "contrast": {"least": 0.0}}  # what these kinds mean
