"""The types that everything else is written in.

Signal model, per frame, with ``users`` N, ``antennas`` M, ``pilot_len`` L and ``data_len`` D::

    pilot_rx [L, M] = pilots  [L, N] diag(active) channel [N, M] + noise
    data_rx  [D, M] = symbols [D, N] diag(active) channel [N, M] + noise       then the front end

Non-coherent frames (P3) have no data: each device has Q = 2^J ``sequences`` of its own, columns n Q to n Q + Q - 1 of ``pilots``, and
which one it sends carries J bits.

Conventions, stated here once:

* Everything is complex and batch first. ``noise_var`` and every ``sigma**2`` are the *total* variance of a complex entry.
* A score is ``d/dx* log p``; then ``mean = x + sigma**2 * score`` and a Langevin step ``x + eta*score + sqrt(2*eta)*CN(0,1)``
  look like the real formulas.
* Planar arrays count antennas row by row: ``index = row * columns + column``, row 0 on top.
* Channels have mean power 1 per antenna and user (E||h||^2 = M) unless path loss is the point of the experiment.
* ``symbols`` of an estimate are unbiased: ``symbols = x + CN(0, symbol_var)``, so that hard decisions, log-likelihood ratios and
  constellation plots all follow from the same two tensors.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .burst import Burst
from .errors import ConfigError, NotFiniteError, ShapeError, unknown

SNR_CONVENTIONS = ("received", "per-user", "link-budget")
PILOT_ENERGIES = ("symbol", "sequence")
MAX_INDEX_BITS = 8
MAX_SNR_DB = 300.0  # beyond it, powers leave the range of single precision
LOSS_AT_1_KM_DB = 128.1  # with "link-budget", a gain of 1 is that of a user there
THERMAL_DBM_PER_HZ = 10 * math.log10(1.380649e-23 * 290 * 1e3)  # k T at 290 K: -174
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class SystemConfig:
    """One situation: who sends what over which channel to which array. Immutable; reads and writes TOML.

    ``snr_db`` is, with ``snr_convention="received"``, E||SH||^2 / E||W||^2 over the ensemble (papers P1 and P2: the noise variance is
    expected active users / snr for channels of unit power), and 1 / noise_var per user with ``"per-user"`` (P4). With ``"link-budget"``
    (P3) it is not used: users send ``tx_power_dbm`` [dBm] per unit of pilot energy, a user 1 km away (gain 1) loses 128.1 dB, and the noise
    is that of ``bandwidth_hz`` [Hz] at 290 K and ``noise_figure_db`` [dB].

    ``index_bits`` J > 0 makes frames non-coherent: pilots only (``data_len=0``), 2^J sequences a device. ``pilot_energy`` is the
    convention of the book: unit mean power per "symbol", or exactly unit norm per "sequence" (P3). ``placement_seed``: on path-loss
    channels users stand elsewhere in every frame, or, with a number, where that number puts them.

    ``active_users`` fixes the number of active users per frame; without it each user is awake with probability ``activity``.
    With ``active_users == users`` receivers know who is active. ``adc_bits`` counts bits per real part; ``None`` is an ideal converter.
    ``adc_offset`` is the threshold of every comparator and ``adc_dither`` the root mean square of a known dither, both as a fraction of the
    root mean square per real part of what the antennas receive; an ideal converter has neither (see `forward.front_end`).

    With ``samples_per_symbol`` of 2 or more, frames are bursts on the air (`burst.Burst`): ``preamble_len`` and ``guard_len`` symbols more,
    root-raised-cosine pulses of ``roll_off``, each user's start within ``timing_offset`` symbols of the slot either way, its carrier within
    ``cfo_hz`` [Hz], and ``common_cfo_hz`` [Hz] of the array's own oscillator. ``sample_rate_hz`` counts samples.

    ``code`` names the code of the payloads, one of `forward.coding.NAMES`.
    """

    users: int = 128
    rows: int = 8
    columns: int = 8
    pilot_len: int = 28
    data_len: int = 37
    activity: float = 0.1
    active_users: int | None = None
    modulation: str = "qpsk"
    snr_db: float = 15.0
    snr_convention: str = "received"
    tx_power_dbm: float = 23.0
    noise_figure_db: float = 5.0
    bandwidth_hz: float = 1e6
    adc_bits: int | None = None
    adc_offset: float = 0.0
    adc_dither: float = 0.0
    channel: str = "uma"
    power_control: bool = True
    pilot_kind: str = "qpsk"
    pilot_seed: int = 0
    pilot_energy: str = "symbol"
    index_bits: int = 0
    placement_seed: int | None = None
    sample_rate_hz: float = 15e3
    carrier_hz: float = 3.5e9
    cfo_hz: float = 0.0
    chain_phase_deg: float = 0.0
    samples_per_symbol: int = 1
    preamble_len: int = 0
    guard_len: int = 0
    roll_off: float = 0.25
    timing_offset: float = 0.0
    common_cfo_hz: float = 0.0
    code: str = "none"

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check_type(item.name, getattr(self, item.name), str(item.type))
        for name in ("users", "rows", "columns", "pilot_len"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: it counts things, pass 1 or more")
        _require(self.data_len >= 0, f"data_len is {self.data_len}: pass 0 (pilots only) or more")
        _require(0 < self.activity <= 1, f"activity is {self.activity}: a probability in (0, 1]")
        if self.active_users is not None:
            _require(1 <= self.active_users <= self.users, f"active_users is {self.active_users}: pass 1 to users={self.users}")
        if self.adc_bits is not None:
            _require(1 <= self.adc_bits <= 16, f"adc_bits is {self.adc_bits}: pass 1 to 16, or none for an ideal converter")
        _require(self.adc_dither >= 0, f"adc_dither is {self.adc_dither}: a root mean square, pass 0 (no dither) or more")
        if self.snr_convention not in SNR_CONVENTIONS:
            raise unknown("SNR convention", self.snr_convention, SNR_CONVENTIONS)
        if self.pilot_energy not in PILOT_ENERGIES:
            raise unknown("pilot energy", self.pilot_energy, PILOT_ENERGIES)
        _require(0 <= self.index_bits <= MAX_INDEX_BITS, f"index_bits is {self.index_bits}: pass 0 (coherent frames) to {MAX_INDEX_BITS}")
        if self.index_bits:
            _require(self.data_len == 0, f"index_bits is {self.index_bits} and data_len {self.data_len}: pass data_len=0 (--data 0)")
        _require(self.bandwidth_hz > 0, f"bandwidth_hz is {self.bandwidth_hz}: pass more than 0")
        for name in ("tx_power_dbm", "noise_figure_db"):
            _require(abs(getattr(self, name)) <= MAX_SNR_DB, f"{name} is {getattr(self, name)}: pass -{MAX_SNR_DB:g} to {MAX_SNR_DB:g}")
        _require(abs(self.snr_db) <= MAX_SNR_DB, f"snr_db is {self.snr_db}: pass -{MAX_SNR_DB:g} to {MAX_SNR_DB:g} dB")
        _require(self.sample_rate_hz > 0, f"sample_rate_hz is {self.sample_rate_hz}: pass samples per second")
        _require(self.samples_per_symbol >= 1, f"samples_per_symbol is {self.samples_per_symbol}: pass 1 (no waveform), 2 or more")
        _require(0 <= self.timing_offset <= 1, f"timing_offset is {self.timing_offset}: a largest offset in symbols, pass 0 to 1")
        if self.burst is None:
            waves = {name: getattr(self, name) for name in ("preamble_len", "guard_len", "timing_offset", "common_cfo_hz")}
            told = [name for name, value in waves.items() if value]
            _require(not told, f"{', '.join(told)} are given, but frames are symbols: pass samples_per_symbol of 2 or more as well")
        elif self.adc_offset or self.adc_dither or self.index_bits:
            raise ConfigError("bursts have no adc_offset, adc_dither or index_bits: leave them 0, or pass samples_per_symbol=1")

    @property
    def antennas(self) -> int:
        """Number of antennas M."""
        return self.rows * self.columns

    @property
    def frame_len(self) -> int:
        """Symbols per frame, pilots and data."""
        return self.pilot_len + self.data_len

    @property
    def burst(self) -> Burst | None:
        """The burst on the air; None where frames are symbols."""
        if self.samples_per_symbol == 1:
            return None
        return Burst(self.pilot_len, self.data_len, self.preamble_len, self.guard_len, self.samples_per_symbol, self.roll_off)

    @property
    def symbol_rate_hz(self) -> float:
        """Symbols per second."""
        return self.sample_rate_hz / self.samples_per_symbol

    @property
    def sequences(self) -> int:
        """Sequences Q of a device: 2^J, 1 for coherent frames."""
        return int(2**self.index_bits)

    @property
    def link_budget(self) -> bool:
        """Whether powers are absolute: transmit power, path loss and thermal noise."""
        return self.snr_convention == "link-budget"

    @property
    def activity_prior(self) -> float:
        """Probability that a user is active, as a receiver may know it; 1 when all are."""
        return self.activity if self.active_users is None else self.active_users / self.users

    @property
    def noise_var(self) -> float:
        """Total variance of a complex noise entry, for unit-power symbols and channels."""
        if self.link_budget:
            noise_dbm = THERMAL_DBM_PER_HZ + 10 * math.log10(self.bandwidth_hz) + self.noise_figure_db
            return float(10 ** ((noise_dbm - self.tx_power_dbm + LOSS_AT_1_KM_DB) / 10))
        snr = 10 ** (self.snr_db / 10)
        return (self.activity_prior * self.users if self.snr_convention == "received" else 1.0) / snr

    def replace(self, **changes: Any) -> SystemConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields that have a value, ready for TOML or JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SystemConfig:
        """The inverse of `to_dict`; an unknown key is an error that lists the known ones."""
        known = [item.name for item in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise unknown("field of SystemConfig", name, known)
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> SystemConfig:
        """Reads the ``[system]`` table of a TOML file."""
        try:
            document = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        if not isinstance(document.get("system"), dict):
            raise ConfigError(f"{path} has no [system] table: put the fields of SystemConfig under one")
        return cls.from_dict(document["system"])

    def to_toml(self) -> str:
        """A TOML document with one ``[system]`` table."""
        import tomli_w

        return tomli_w.dumps({"system": self.to_dict()})


@dataclass(frozen=True)
class FrontEnd:
    """The converters behind the antennas. ``bits`` per real part (``None``: ideal); ``scale`` is the root mean square per real part that
    they are set for, in the units of ``pilot_rx``; ``distortion_var`` is the variance that the converter adds to a complex
    entry when it is seen as ``output = input + distortion`` (zero for an ideal one).

    ``offset`` [L+D M] complex is what the converter adds to its input before it decides, known and the same in every frame: dither, or
    minus the thresholds of the comparators. It is taken away again behind the converter, so that samples + offset are levels of the
    converter. ``scale`` counts it in.
    """

    bits: int | None = None
    scale: float = 1.0
    distortion_var: float = 0.0
    offset: Tensor | None = None

    def first(self, times: int) -> FrontEnd:
        """That of frames cut to their first ``times`` symbols."""
        return self if self.offset is None else dataclasses.replace(self, offset=self.offset[:times])

    def to(self, device: torch.device | str) -> FrontEnd:
        """The same front end on another device."""
        return self if self.offset is None else dataclasses.replace(self, offset=self.offset.to(device))


@dataclass(frozen=True)
class Frame:
    """The truth of a batch of frames; no receiver sees it.

    active [B N] bool; bits [B N C] uint8, the C = data_len * bits-per-symbol bits on the air (payload, CRC, padding), or the C = index_bits
    bits that choose the sequence, most significant first;
    symbols [B D N] complex; channel [B N M] complex (drawn for every user, active or not); start: index of the first frame; of bursts, the
    users' delay [B N] in symbols and cfo [B N] in cycles per symbol, both from the slot's own.
    """

    active: Tensor
    bits: Tensor
    symbols: Tensor
    channel: Tensor
    start: int = 0
    delay: Tensor | None = None
    cfo: Tensor | None = None

    def __len__(self) -> int:
        return self.active.shape[0]


@dataclass(frozen=True)
class Observation:
    """Everything that a receiver may know about a batch of frames.

    pilot_rx [B L M] and data_rx [B D M] complex, as the front end gave them; pilots [L N Q] complex, with ``sequences`` Q of each user side
    by side ([L N] in coherent frames, Q = 1); noise_var: thermal noise variance per
    complex entry; activity: prior probability that a user is active (1: all are, and it is known); modulation: name of the constellation;
    front_end: the converters; user_gain [B N] real: mean channel power of each user, where it is known (otherwise 1);
    gain_range_db: limits [dB] of these powers where they are not known and not 1; level_evidence [N G] real: what earlier frames say of
    each user's level in that range, as log factors (`priors.gain_memory`);
    channel_cov [M M] complex: long-term covariance E[h h^H] over the user ensemble, where it is known; array: rows and columns of the
    planar array, where they are known; hurry: says whether time is up, polled between the steps of iterative receivers, which then answer
    with the best they have (info ``cut``); meta: free-form, never required.

    Of bursts (``burst``), ``rows`` [B rows M] complex is the waveform, two rows a symbol, and pilot_rx and data_rx what the matched filter
    makes of it for users in step with the slot. Users are out of step by up to ``timing_range`` symbols and ``cfo_range`` cycles per symbol
    either way; by ``user_delay`` and ``user_cfo`` [B N] where these are known (see `forward.waveform`).

    code: name of the payload code (`forward.coding`); with one, no check sum holds before decoding.

    Raises ShapeError, NotFiniteError or ConfigError when the parts do not fit.
    """

    pilot_rx: Tensor
    data_rx: Tensor
    pilots: Tensor
    noise_var: float
    activity: float = 0.1
    modulation: str = "qpsk"
    front_end: FrontEnd = FrontEnd()
    user_gain: Tensor | None = None
    channel_cov: Tensor | None = None
    array: tuple[int, int] | None = None
    hurry: Callable[[], bool] | None = None
    sequences: int = 1
    gain_range_db: tuple[float, float] | None = None
    level_evidence: Tensor | None = None
    rows: Tensor | None = None
    burst: Burst | None = None
    timing_range: float = 0.0
    cfo_range: float = 0.0
    user_delay: Tensor | None = None
    user_cfo: Tensor | None = None
    code: str = "none"
    meta: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        for name, rank, layout in (
            ("pilot_rx", 3, "frame, pilot, antenna"),
            ("data_rx", 3, "frame, symbol, antenna"),
            ("pilots", 2, "pilot, user"),
        ):
            _check_tensor(name, getattr(self, name), rank, layout)
        frames, pilot_len, antennas = self.pilot_rx.shape
        if self.sequences < 1 or self.pilots.shape[1] % self.sequences:
            raise ShapeError(
                f"pilots are {list(self.pilots.shape)} for {self.sequences} sequences a user: pass [pilot_len, users * sequences], the "
                "sequences of a user side by side"
            )
        if self.pilots.shape[0] != pilot_len:
            raise ShapeError(
                f"pilots are {list(self.pilots.shape)} but pilot_rx has {pilot_len} symbols a frame: "
                f"pass pilots[:{pilot_len}] or slice the frame first"
            )
        if self.data_rx.shape[0] != frames or self.data_rx.shape[2] != antennas:
            raise ShapeError(
                f"data_rx is {list(self.data_rx.shape)} but pilot_rx has {frames} frames and {antennas} antennas: "
                "cut both from the same frames"
            )
        if self.user_gain is not None and self.user_gain.shape != (frames, self.users):
            raise ShapeError(f"user_gain is {list(self.user_gain.shape)}: pass one mean power per frame and user, [{frames}, {self.users}]")
        if self.user_gain is not None:
            sound = bool((torch.isfinite(self.user_gain) & (self.user_gain > 0)).all())
            _require(self.gain_range_db is None, "user_gain and gain_range_db are both given: pass one of them")
            _require(sound, "user_gain holds powers that are not above 0, or not finite: pass 1 for users whose gain is not known")
        if self.gain_range_db is not None:
            low, high = self.gain_range_db
            _require(-MAX_SNR_DB <= low <= high <= MAX_SNR_DB, f"gain_range_db is {self.gain_range_db}: pass two levels [dB], low first")
        if self.channel_cov is not None and self.channel_cov.shape != (antennas, antennas):
            raise ShapeError(f"channel_cov is {list(self.channel_cov.shape)} but there are {antennas} antennas: pass [antennas, antennas]")
        if self.array is not None and math.prod(self.array) != antennas:
            raise ShapeError(f"array is {self.array} but pilot_rx has {antennas} antennas: pass rows and columns of the array")
        _check_offset(self.front_end.offset, (pilot_len + self.data_len, antennas))
        if self.rows is not None:
            _check_tensor("rows", self.rows, 3, "frame, row, antenna")
            _require(self.burst is not None, "rows are given without the burst that they are of: pass burst, or leave rows out")
            due = (frames, self.burst.rows if self.burst else 0, antennas)
            if self.rows.shape != due:
                raise ShapeError(
                    f"rows are {list(self.rows.shape)} but frames of this burst make {list(due)}: cut all from the same frames"
                )
        for name in ("user_delay", "user_cfo"):
            if (value := getattr(self, name)) is not None and value.shape != (frames, self.users):
                raise ShapeError(f"{name} is {list(value.shape)}: pass one number per frame and user, [{frames}, {self.users}]")
        _require(self.noise_var > 0, f"noise_var is {self.noise_var}: pass the variance of the receiver noise, above 0")
        _require(0 < self.activity <= 1, f"activity is {self.activity}: a prior probability in (0, 1]")

    @property
    def frames(self) -> int:
        return self.pilot_rx.shape[0]

    @property
    def users(self) -> int:
        return self.pilots.shape[1] // self.sequences

    @property
    def antennas(self) -> int:
        return self.pilot_rx.shape[2]

    @property
    def pilot_len(self) -> int:
        return self.pilot_rx.shape[1]

    @property
    def data_len(self) -> int:
        return self.data_rx.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the array; ConfigError where they are not known."""
        if self.array is None:
            raise ConfigError(f"this receiver has to know how the {self.antennas} antennas are arranged: pass array=(rows, columns)")
        return self.array

    @property
    def all_active(self) -> bool:
        """Whether every user is known to be active."""
        return self.activity == 1

    @property
    def by_sequence(self) -> Observation:
        """The observation in which every sequence is a user of its own, as likely as any: what row-wise methods assume."""
        gain = None if self.user_gain is None else self.user_gain.repeat_interleave(self.sequences, 1)
        return dataclasses.replace(self, sequences=1, activity=self.activity / self.sequences, user_gain=gain)

    @property
    def linear_noise_var(self) -> float:
        """Noise variance for a receiver that takes the converter's distortion as additional white noise."""
        return self.noise_var + self.front_end.distortion_var

    @property
    def late(self) -> bool:
        """Whether time is up: an iterative receiver should answer now."""
        return self.hurry is not None and self.hurry()

    def only(self, frames: Tensor) -> Observation:
        """That of the frames which ``frames`` (indices or a mask) picks."""
        names = ("pilot_rx", "data_rx", "user_gain", "level_evidence", "rows", "user_delay", "user_cfo")
        parts = {name: value[frames] for name in names if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self, **parts)

    def to(self, device: torch.device | str) -> Observation:
        """The same observation on another device."""
        fields: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        fields |= {name: value.to(device) for name, value in fields.items() if isinstance(value, (Tensor, FrontEnd))}
        return Observation(**fields)


@dataclass(frozen=True)
class Estimate:
    """What a receiver found.

    activity [B N] real in [0, 1], posterior probability or a monotone score with 0.5 as the decision threshold; channel [B N M] complex,
    zero rows for users found inactive; symbols [B D N] complex and symbol_var [B D N] real: ``symbols = x + CN(0, symbol_var)``, zero with
    infinite variance for users found inactive; info: diagnostics by name (iterations, residuals, ``nfe`` = network evaluations per frame).
    A pure activity detector leaves channel and symbols ``None``. sequence_odds [B N Q]: log odds (natural) of each sequence against
    silence, from receivers of non-coherent frames (see `sequence_estimate`).
    """

    activity: Tensor
    channel: Tensor | None = None
    symbols: Tensor | None = None
    symbol_var: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    sequence_odds: Tensor | None = None

    @property
    def active(self) -> Tensor:
        """Decisions [B N] bool. With sequences: whether any of them is likelier than silence, the decision of fewest symbol errors."""
        return self.activity > 0.5 if self.sequence_odds is None else (self.sequence_odds > 0).any(-1)


def sequence_estimate(odds: Tensor, info: Mapping[str, Any] = EMPTY) -> Estimate:
    """The estimate that log odds [B N Q] of each sequence against silence make.

    >>> sequence_estimate(torch.tensor([[[-1.0, 2.0], [-0.2, -0.2]]])).active
    tensor([[ True, False]])
    """
    total = torch.logsumexp(odds, -1)
    return Estimate(torch.sigmoid(total), sequence_odds=odds, info={"log_odds": total, **info})


@runtime_checkable
class Prior(Protocol):
    """A distribution of the unknowns, known through its denoiser. The score follows: (mean - x) / sigma**2."""

    def moments(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and Var[x0 | x] for x = x0 + sigma * CN(0, 1)."""
        ...


@runtime_checkable
class ChannelPrior(Prior, Protocol):
    """A prior of channel rows [... M]: ``sigma`` [...] is one noise level a row, and ``Var[x0|x]`` [...] the mean over its entries.

    ``beams`` (`priors.beams.Beams`) is the orthonormal basis in which its errors are (nearly) uncorrelated; receivers work in it.
    """

    @property
    def beams(self) -> Any: ...

    def in_beams(self, x: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] [... M] and the variance of each of its entries [... M] for x = x0 + sqrt(noise_var) CN(0, I), all in beams;
        noise_var [... M] or [... 1]. A prior made for white noise takes the mean over the beams."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """What the front end says of the noiseless received samples; (mean - z) / var is the score of the observation."""

    def moments(self, z: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """E[z0 | y] and Var[z0 | y] for the prior z0 ~ CN(z, var)."""
        ...


@runtime_checkable
class Receiver(Protocol):
    """Observation in, estimate out. Genies take the truth as well, as the keyword ``truth``."""

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate: ...


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check_type(name: str, value: object, annotation: str) -> None:
    """ConfigError unless ``value`` is of the kind that the annotation of a field of SystemConfig says, and finite."""
    kind, _, optional = annotation.partition(" | ")
    if optional and value is None:
        return
    expected, words = _KINDS[kind]
    _require(isinstance(value, expected) and isinstance(value, bool) == (kind == "bool"), f"{name} is {value!r:.80}: pass {words}")
    if isinstance(value, float):
        _require(math.isfinite(value), f"{name} is {value}: pass a finite number")


_KINDS: Mapping[str, tuple[type, str]] = {
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
}


def _check_offset(offset: Tensor | None, frame: tuple[int, int]) -> None:
    if offset is not None and (offset.shape != frame or not offset.is_complex()):
        raise ShapeError(
            f"front_end.offset is {offset.dtype} of shape {list(offset.shape)} but frames are {list(frame)}: "
            "pass one complex number per symbol, pilots then data, and antenna, and cut it together with the samples"
        )


def _check_tensor(name: str, value: Tensor, rank: int, layout: str) -> None:
    if value.ndim != rank or not value.is_complex():
        raise ShapeError(f"{name} is {value.dtype} of shape {list(value.shape)}: pass a complex tensor [{layout}]")
    if not bool(torch.isfinite(torch.view_as_real(value.resolve_conj())).all()):
        raise NotFiniteError(f"{name} holds NaN or infinity: drop the frame, or find the block before this one that made it")
