"""The one list of algorithms: stable names that result files, flowgraphs and scripts carry.

>>> [name for name, entry in RECEIVERS.items() if entry.kind == "genie"][:3]
['perfect-data-ls', 'perfect-data-lmmse', 'perfect-data-jcedd']
>>> create("covariance+iterative-lmmse-ep", rounds=2).coherent.rounds
2
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError, unknown

KINDS = ("activity", "coherent", "joint", "noncoherent", "genie")
"""Finds who is active · needs to know who is active · does everything · finds who sent which of its sequences · is told part of the
truth."""


@dataclass(frozen=True)
class Entry:
    """target "module:Class", imported on demand, or the registry name that a role stands for; ``parts`` are constructor arguments that are
    themselves targets, or (target, options). ``draws``: the answer depends on the generator, so that frames of a batch and users of a frame
    share one stream of numbers."""

    target: str
    kind: str
    summary: str
    source: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False

    @property
    def genie(self) -> bool:
        return self.kind == "genie"


_LS, _LMMSE = "estimation.ls:LeastSquares", "estimation.lmmse:Lmmse"
_ZF, _LMMSE_DD = "detection.linear:ZeroForcing", "detection.linear:LmmseDetector"
_OAMP, _EP = "detection.oamp:Oamp", "detection.ep:ExpectationPropagation"
_COHERENT, _DATA, _CSI = "receivers.coherent:Coherent", "receivers.genie:PerfectData", "receivers.genie:PerfectCsi"
_SAMPLED_H, _SAMPLED_X = "receivers.diffusion_genie:SampledChannel", "receivers.diffusion_genie:SampledData"
_EP_STEP = (_EP, {"rounds": 2, "damping": 0.2})
_SEARCH = "detection.search:Searched"
_LEARNED_EP = {"detector": (_SEARCH, {"detector": _EP_STEP}), "final": (_SEARCH, {"detector": (_EP, {"rounds": 20, "damping": 0.2})})}
_QUANTIZED_EP = {"detector": (_EP, {"rounds": 5, "damping": 0.5}), "final": _LEARNED_EP["final"]}
_ITERATIVE_EP = {"estimator": _LMMSE, "detector": _EP_STEP, "final": _EP}
_PVI, _IN_TURN = "receivers.pvi:Pvi", {"mode": "sequential"}
_AT_ONCE, _ANY_TIME = {"mode": "synchronous", "damping": 0.7, "sweeps": 6}, {"mode": "asynchronous", "damping": 0.7, "sweeps": 6}
ROUNDS = 24
_FAST = {"components": 23, "neglect": 0.06, "effort": 0.5, "hold": 1, "ignore": -4.0}

RECEIVERS: dict[str, Entry] = {
    "activity": Entry("angular-covariance", "activity", "the default activity detector; today: angular-covariance", "this toolkit"),
    "activity-fast": Entry(
        "activity.angular:AngularCovariance",
        "activity",
        "the quick activity detector; today: angular-covariance with fewer profiles, beams and sweeps",
        "this toolkit",
        options=_FAST,
    ),
    "angular-covariance": Entry(
        "activity.angular:AngularCovariance",
        "activity",
        "soft covariance descent beam by beam, angular profiles as prior",
        "this toolkit",
    ),
    "covariance": Entry(
        "activity.covariance:Covariance",
        "activity",
        "covariance maximum likelihood by coordinate descent, MAP decision",
        "Fengler et al. 2021",
    ),
    "mmv-amp": Entry(
        "activity.mmv_amp:MmvAmp", "activity", "damped MMV-AMP, Bernoulli-Gaussian MMSE denoiser", "Liu, Yu 2018; P1 baseline"
    ),
    "somp": Entry(
        "activity.somp:Somp", "activity", "simultaneous orthogonal matching pursuit, noise-level stop", "Tropp et al. 2006; P1 baseline"
    ),
    "vpl-audnet": Entry(
        "activity.learned:LearnedDetector",
        "activity",
        "heterogeneous Transformer; the weights that ship see features of the covariance, not raw pilots",
        "P1 section IV",
    ),
    "unrolled-covariance": Entry(
        "activity.learned:LearnedDetector",
        "activity",
        "covariance descent in a few parallel stages with learned steps",
        "this toolkit",
        options={"network": "unrolled-covariance"},
    ),
    "onebit-activity": Entry(
        "activity.row_sparse:SeenLinearly",
        "activity",
        "few-bit converters: activity-fast on pilots where Gaussians stand in for the converters' cells",
        "this toolkit",
        {"detector": ("activity.angular:AngularCovariance", _FAST)},
    ),
    "row-sparse-ep": Entry(
        "activity.row_sparse:RowSparse",
        "activity",
        "few-bit converters: expectation propagation, a user's channel is zero or Gaussian",
        "this toolkit",
    ),
    "score-jadce": Entry(
        "receivers.score_jadce:ScoreJadce",
        "activity",
        "Langevin sampling of the user x antenna matrix: who is active, and the channels",
        "P0 Algorithm 1",
        draws=True,
    ),
    "ls-zf": Entry(_COHERENT, "coherent", "least squares from pilots, zero forcing", "textbook", {"estimator": _LS, "detector": _ZF}),
    "ls-oamp": Entry(
        _COHERENT, "coherent", "least squares from pilots, OAMP detection", "P1 Fig. 10", {"estimator": _LS, "detector": _OAMP}
    ),
    "lmmse-lmmse": Entry(
        _COHERENT, "coherent", "LMMSE from pilots, LMMSE detection", "textbook", {"estimator": _LMMSE, "detector": _LMMSE_DD}
    ),
    "iterative-lmmse-oamp": Entry(
        _COHERENT,
        "coherent",
        "LMMSE estimation and OAMP detection in turns",
        "P1 Fig. 10",
        {"estimator": _LMMSE, "detector": _OAMP},
        {"rounds": ROUNDS},
    ),
    "iterative-lmmse-ep": Entry(
        _COHERENT, "coherent", "LMMSE estimation and EP detection in turns", "this toolkit", _ITERATIVE_EP, {"rounds": ROUNDS}
    ),
    "learned-ep": Entry(
        "receivers.jcedd:LearnedEp",
        "coherent",
        "expectation propagation between a learned channel prior and EP detection",
        "this toolkit",
        _LEARNED_EP,
    ),
    "onebit-ep": Entry(
        "receivers.one_bit:QuantizedEp",
        "coherent",
        "few-bit converters: expectation propagation between samples, a learned channel prior and EP detection",
        "this toolkit",
        _QUANTIZED_EP,
    ),
    "onebit-gaussian": Entry(
        "receivers.one_bit:QuantizedEp",
        "coherent",
        "onebit-ep with the Gaussian prior of the array covariance",
        "this toolkit",
        _QUANTIZED_EP,
        {"weights": "gaussian"},
    ),
    "bussgang-lmmse": Entry(
        "receivers.bussgang:BussgangLmmse",
        "coherent",
        "one-bit: LMMSE with the converters made linear, detected symbols as more pilots",
        "Li et al. 2017",
    ),
    "svm": Entry(
        "receivers.svm:Svm", "coherent", "one-bit: support vector machines, antenna by antenna and time by time", "P4 section 1.2"
    ),
    "pc-jcedd": Entry(
        "receivers.diffusion:Jcedd", "coherent", "predictor-corrector samplers of channel and data in turns", "P1 Algorithm 2", draws=True
    ),
    "ald-jcedd-async": Entry(
        "receivers.diffusion:Jcedd",
        "coherent",
        "annealed Langevin samplers of channel and data in turns",
        "P2 Algorithm 1",
        options={"method": "ald"},
        draws=True,
    ),
    "ald-jcedd-sync": Entry(
        "receivers.diffusion:Synchronous", "coherent", "one Langevin chain of channel and data together", "P2 Fig. 2", draws=True
    ),
    "pvi-sequential": Entry(
        _PVI, "coherent", "one-bit: partitioned variational inference, access points in turn", "P4 section 1.3", options=_IN_TURN
    ),
    "pvi-synchronous": Entry(
        _PVI, "coherent", "one-bit: partitioned variational inference, access points at once, damped", "P4 section 1.3", options=_AT_ONCE
    ),
    "pvi-asynchronous": Entry(
        _PVI,
        "coherent",
        "one-bit: partitioned variational inference, access points as they get ready",
        "P4 section 1.3",
        options=_ANY_TIME,
        draws=True,
    ),
    "jcedd": Entry(
        "activity-fast+learned-ep",
        "joint",
        "the default receiver; today: activity-fast+learned-ep, activity decided by the whole frame, failed users looked at again",
        "this toolkit",
        options={"spare": 6, "reexamine": 4, "temper": 1.5},
    ),
    "noncoherent": Entry(
        "activity.sections:SectionCovariance",
        "noncoherent",
        "the default detector of index-modulated pilots: posterior of each device's sequences, any array, gains known or not",
        "this toolkit",
    ),
    "onebit": Entry(
        "onebit-activity+onebit-ep",
        "joint",
        "the default receiver for one-bit converters; today: onebit-activity+onebit-ep, activity decided by the whole frame",
        "this toolkit",
        options={"spare": 6, "temper": 1.5},
    ),
    "noncoherent-amp": Entry(
        "activity.index_amp:IndexAmp", "noncoherent", "AMP over the sequences of all devices, row by row, MAP decision", "P3 eq. 14-35"
    ),
    "noncoherent-amp-threshold": Entry(
        "activity.index_amp:IndexAmp",
        "noncoherent",
        "the same with the paper's threshold, which drops the prior",
        "P3 eq. 36-37",
        options={"decision": "paper"},
    ),
    "noncoherent-amp-sections": Entry(
        "activity.index_amp:IndexAmp",
        "noncoherent",
        "AMP whose denoiser knows that a device sends one sequence, MAP decision",
        "P3 section IV-B, remark 1",
        options={"sections": True},
    ),
    "noncoherent-covariance": Entry(
        "activity.index_covariance:IndexCovariance",
        "noncoherent",
        "covariance descent, then the MAP decision by moves of one device at a time",
        "this toolkit",
    ),
    "noncoherent-covariance-lr": Entry(
        "activity.index_covariance:IndexCovariance",
        "noncoherent",
        "covariance descent, then a likelihood ratio device by device",
        "this toolkit",
        options={"decision": "lr"},
    ),
    "noncoherent-covariance-fixed": Entry(
        "activity.index_covariance:IndexCovariance",
        "noncoherent",
        "covariance descent, the largest power of a device against half of its gain",
        "P3 section VI-A",
        options={"decision": "fixed"},
    ),
    "advi": Entry(
        "receivers.advi:Advi",
        "joint",
        "one-bit: mean-field variational inference; with activity unknown, activity and channels together",
        "P4 sections 1.4, 2.2, 2.3",
        draws=True,
    ),
    "dl-mampnet": Entry(
        "activity.dl_mampnet:DlMampNetReceiver",
        "noncoherent",
        "unfolded AMP with learned matrices, gains and thresholds; of one pilot book and one cell",
        "P3 sections IV, V",
    ),
    "perfect-data-ls": Entry(_DATA, "genie", "least squares, all symbols known", "bound", {"estimator": _LS}),
    "perfect-data-lmmse": Entry(_DATA, "genie", "LMMSE, all symbols known", "bound", {"estimator": _LMMSE}),
    "perfect-data-jcedd": Entry(
        "receivers.genie:PerfectDataLearned", "genie", "learned channel prior, all symbols known", "bound of learned-ep"
    ),
    "perfect-csi-zf": Entry(_CSI, "genie", "zero forcing, channels known", "bound", {"detector": _ZF}),
    "perfect-csi-lmmse": Entry(_CSI, "genie", "LMMSE detection, channels known", "bound", {"detector": _LMMSE_DD}),
    "perfect-csi-oamp": Entry(_CSI, "genie", "OAMP detection, channels known", "bound", {"detector": _OAMP}),
    "perfect-csi-ep": Entry(_CSI, "genie", "EP detection, channels known", "bound", {"detector": _EP}),
    "perfect-csi-jcedd": Entry(
        _CSI, "genie", "EP detection and local search, channels known", "bound of learned-ep", {"detector": _LEARNED_EP["final"]}
    ),
    "perfect-data-pc": Entry(_SAMPLED_H, "genie", "predictor-corrector channel sampler, all symbols known", "P1 Algorithm 1", draws=True),
    "perfect-csi-pc": Entry(_SAMPLED_X, "genie", "predictor-corrector data sampler, channels known", "P1 Fig. 10", draws=True),
    "perfect-data-ald": Entry(
        _SAMPLED_H, "genie", "annealed Langevin channel sampler, all symbols known", "P2 Fig. 2", options={"method": "ald"}, draws=True
    ),
    "perfect-csi-ald": Entry(
        _SAMPLED_X, "genie", "annealed Langevin data sampler, channels known", "P2 Fig. 2", options={"method": "ald"}, draws=True
    ),
}

GENIE_ACTIVITY, TWO_STAGE = "perfect-activity", "receivers.two_stage:TwoStage"


def entry(name: str) -> Entry:
    """The entry of ``name``, which may join an activity detector, or perfect-activity, and a coherent receiver: "covariance+ls-zf"."""
    first, plus, second = name.partition("+")
    if not plus:
        if name not in RECEIVERS:
            raise unknown("receiver", name, RECEIVERS)
        return RECEIVERS[name]
    detector = None if first == GENIE_ACTIVITY else entry(first)
    coherent = entry(second)
    if (detector and detector.kind != "activity") or coherent.kind != "coherent":
        raise ConfigError(f"{name!r} does not join an activity detector and a coherent receiver: see `massaccess receivers` for the kinds")
    kind = "genie" if detector is None else "joint"
    drawn = coherent.draws or (detector is not None and detector.draws)
    return Entry("", kind, f"{first}, then {second}", coherent.source, draws=drawn)


def check_frames(name: str, sequences: int) -> None:
    """ConfigError unless the receiver called ``name`` takes frames of devices with so many sequences each."""
    if entry(name).kind != "noncoherent" and sequences > 1:
        raise ConfigError(
            f"{name} takes each device to have one sequence, but they have {sequences}: pass a receiver of kind noncoherent "
            "(`massaccess receivers`), or index_bits=0"
        )


def create(name: str, **options: Any) -> Any:
    """The receiver called ``name``; ``options`` go to its constructor. Of a joined one: those that `receivers.two_stage.TwoStage` has go
    to it, ``detector_options``, a dict, to the detector, all others to the coherent part."""
    found = entry(name)
    first, plus, second = name.partition("+")
    if not plus:
        if ":" not in found.target:
            return create(found.target, **{**found.options, **options})
        return _build(found, {**found.options, **options}, name)
    detector_options = options.pop("detector_options", {})
    if first == GENIE_ACTIVITY:
        return _class("receivers.genie:PerfectActivity")(create(second, **options))
    defaults = _joint_defaults()
    joint = {option: options.pop(option) for option in tuple(options) if option in defaults}
    for option, value in joint.items():
        _check_number(option, value, defaults[option], name)
    return _class(TWO_STAGE)(create(first, **detector_options), create(second, **options), **joint)


def takes(name: str, option: str) -> bool:
    """Whether the receiver called ``name``, or of a joined one its coherent part, has an option of that name.

    >>> takes("jcedd", "weights"), takes("covariance+ls-zf", "weights")
    (True, False)
    """
    found, (first, plus, second) = entry(name), name.partition("+")
    if plus:
        return takes(second, option) or (first != GENIE_ACTIVITY and option in _joint_defaults())
    if ":" not in found.target:
        return takes(found.target, option)
    return option in {item.name for item in dataclasses.fields(_class(found.target))} - set(found.parts)


def _build(found: Entry, options: Mapping[str, Any], name: str) -> Any:
    made = {key: _part(value) for key, value in found.parts.items()}
    known = {item.name: item.default for item in dataclasses.fields(_class(found.target)) if item.name not in made}
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {name}", option, known)
        _check_number(option, value, known[option], name)
    return _class(found.target)(**made, **options)


def _check_number(option: str, value: Any, default: Any, name: str) -> None:
    if isinstance(value, str) and isinstance(default, int | float):
        raise ConfigError(f"option {option} of {name} is {value!r}: pass a number, as {default!r} is")


def _joint_defaults() -> dict[str, Any]:
    """The options of a joined receiver itself, with their defaults."""
    return {item.name: item.default for item in dataclasses.fields(_class(TWO_STAGE)) if item.default is not dataclasses.MISSING}


def _part(value: str | tuple[str, Mapping[str, Any]]) -> Any:
    """A part and, where its options are (target, options) themselves, its parts."""
    target, options = (value, {}) if isinstance(value, str) else value
    return _class(target)(**{name: _part(option) if isinstance(option, tuple) else option for name, option in options.items()})


def _class(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), attribute)
