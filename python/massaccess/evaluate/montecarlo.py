"""Monte Carlo: several receivers on the very same frames, at one or more points."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import torch

from .. import __version__
from ..core import Frame, Observation, SystemConfig
from ..errors import ConfigError, MassaccessError, unknown
from ..forward.channels import gain_range_db, make_channel
from ..forward.coding import Decoder
from ..forward.modulation import MODULATIONS
from ..forward.noise import NOISE, with_estimated_noise
from ..forward.simulate import Simulation
from ..forward.waveform import OFFSETS
from ..priors.gain_memory import GAINS, GainMemory
from ..registry import check_frames, create, entry
from ..rng import derive, generator
from .metrics import Tally
from .roc import Ranking

DEVICES = ("auto", "cpu", "cuda")
LEARNING = 512


@dataclass(frozen=True)
class Campaign:
    """What to run: ``receivers`` (registry names) on ``frames`` frames of each of the ``points``.

    All points share the seed's payloads, channels and noise shapes (common random numbers). ``books`` splits the frames over that many
    pilot books, seeds ``pilot_seed``, ``pilot_seed + 1``, ..., and placements likewise: figures then do not hang on one. ``calibrate``
    sets the threshold of each activity detector that has one, on that many frames of another seed; it changes nothing in the frames that
    are counted.
    ``steps`` tells iterative receivers that time is up after so many of their steps (0: never).
    ``noise="estimated"`` hides the noise variance: receivers get what `forward.noise` reads from the frames of each batch.
    ``gains="unknown"`` hides the users' mean powers, where the channel model tells them: receivers know the limits of the cell alone, and
    those that make nothing of them take all users for equal.
    ``gains="learned"`` as well, but receivers remember what earlier frames of the same placement told (`priors.gain_memory`), beginning
    with `LEARNING` frames of another seed that are not counted; devices must stay where they are (``placement_seed``).
    ``offsets="known"`` tells receivers each user's delay and carrier in bursts: ideal synchronisation, to compare with.
    ``covariance`` names the channel model whose array covariance receivers are told, instead of the one that the channels are drawn from.
    """

    points: Sequence[SystemConfig]
    receivers: Sequence[str]
    frames: int
    seed: int = 0
    batch: int = 32
    books: int = 1
    calibrate: int = 0
    device: str = "auto"
    noise: str = "known"
    gains: str = "known"
    offsets: str = "unknown"
    covariance: str = ""
    steps: int = 0
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames < 1 or self.batch < 1 or not 1 <= self.books <= self.frames:
            raise ConfigError(
                f"frames {self.frames}, batch {self.batch}, books {self.books}: pass 1 or more, and no more books than frames"
            )
        if not self.receivers:
            raise ConfigError("no receiver named: pass --receivers A,B; `massaccess receivers` lists them")
        for name, config in itertools.product(self.receivers, self.points):
            check_frames(name, config.sequences)
        for name in self.options:
            if name not in self.receivers:
                raise unknown("receiver, among those to be compared,", name, self.receivers)
        if self.steps < 0:
            raise ConfigError(f"steps is {self.steps}: pass how many steps receivers may take, or 0 for all that they want")
        if self.noise not in NOISE:
            raise unknown("noise", self.noise, NOISE)
        if self.gains not in GAINS:
            raise unknown("gains", self.gains, GAINS)
        if self.offsets not in OFFSETS:
            raise unknown("offsets", self.offsets, OFFSETS)
        if self.offsets == "known" and any(point.burst is None for point in self.points):
            raise ConfigError("frames of symbols have no offsets to know: pass --samples-per-symbol 2 or more, or leave offsets unknown")
        if self.gains == "learned" and any(gain_range_db(point) is None or point.placement_seed is None for point in self.points):
            raise ConfigError(
                "gains are learned of devices that stay where they are: pass --placement-seed, a path-loss channel and --no-power-control"
            )
        self.where  # a device that is not there fails here

    @property
    def where(self) -> torch.device:
        """The device that computes: with "auto" the GPU where there is one."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise unknown("device", self.device, DEVICES)
        if kind == "cuda" and not torch.cuda.is_available():
            raise ConfigError("there is no CUDA device: pass auto or cpu; `massaccess doctor` shows what there is")
        return torch.device(self.device)


Coder = Callable[[str, int], Decoder]
"""A decoder for a code and the number of bits on the air, as `gnuradio.massaccess.fec_decoder` makes them."""


def evaluate(campaign: Campaign, *, on_frames: Callable[[int], None] | None = None, coder: Coder | None = None) -> dict[str, Any]:
    """Runs the campaign; the result is the document that ``massaccess evaluate --json`` writes. ``on_frames`` reports progress; ``coder``
    makes the decoders of coded payloads, whose frame error rate is left out without one."""
    results = [row for config in campaign.points for row in _point(campaign, config, on_frames, coder)]
    settings = {
        name: getattr(campaign, name)
        for name in ("frames", "seed", "batch", "books", "calibrate", "noise", "gains", "offsets", "covariance", "steps", "options")
    }
    return {"config": campaign.points[0].to_dict(), "version": __version__, **settings, "results": results}


def batches(config: SystemConfig, *, frames: int, seed: int, batch: int, books: int) -> Any:
    """Yields (frame, observation) until ``frames`` frames are out, in ``books`` shares of consecutive frames."""
    for book in range(books):
        yield from _stretch(_of_book(config, book), seed, frames * book // books, frames * (book + 1) // books, batch)


def _of_book(config: SystemConfig, book: int) -> SystemConfig:
    """The same cell with another pilot book, and devices that stay somewhere at other places."""
    placement = None if config.placement_seed is None else config.placement_seed + book
    return config.replace(pilot_seed=config.pilot_seed + book, placement_seed=placement)


def _stretch(config: SystemConfig, seed: int, first: int, last: int, batch: int) -> Any:
    simulation = Simulation(config, seed)
    for start in range(first, last, batch):
        yield simulation.frames(start, min(batch, last - start))


def seen(campaign: Campaign, frame: Frame, obs: Observation) -> Observation:
    """What the receivers of the campaign get to see of ``obs``, on their device; of ``frame`` only what is to be known of its offsets."""
    if campaign.offsets == "known":
        obs = replace(obs, timing_range=0.0, cfo_range=0.0, user_delay=frame.delay, user_cfo=frame.cfo)
    obs = obs.to(campaign.where)
    if campaign.gains != "known" and obs.user_gain is not None:
        obs = replace(obs, user_gain=None, gain_range_db=gain_range_db(campaign.points[0]))
    if campaign.covariance:
        obs = replace(obs, channel_cov=_covariance(campaign.covariance, campaign.points[0], campaign.where))
    return with_estimated_noise(obs) if campaign.noise == "estimated" else obs


@lru_cache(maxsize=4)
def _covariance(name: str, config: SystemConfig, where: torch.device) -> torch.Tensor | None:
    """The same tensor each time: receivers remember what they made of it."""
    known = make_channel(config.replace(channel=name)).covariance
    return None if known is None else known.to(where)


def _point(campaign: Campaign, config: SystemConfig, on_frames: Callable[[int], None] | None, coder: Coder | None) -> list[dict[str, Any]]:
    decoder = coder(config.code, config.data_len * MODULATIONS[config.modulation]) if coder and config.code != "none" else None
    runs = [_Run(name, _options(campaign, config, name), campaign, decoder) for name in campaign.receivers]
    for book in range(campaign.books):
        cell = _of_book(config, book)
        for run in runs if campaign.gains == "learned" else ():
            run.learn(campaign, cell)
        first, last = (campaign.frames * edge // campaign.books for edge in (book, book + 1))
        for frame, obs in _stretch(cell, campaign.seed, first, last, campaign.batch):
            frame, obs = frame_to(frame, campaign.where), seen(campaign, frame, obs)
            for run in runs:
                run.receive(config, frame, obs)
            if on_frames is not None:
                on_frames(len(frame))
    return [run.row(config, campaign) for run in runs]


WARM_UP = 30  # steps after which the first, unmeasured call is cut short: more than any receiver of a few steps has


class _Countdown:
    """Says that time is up once it has been asked ``steps`` times."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class _Run:
    """One receiver at one point."""

    def __init__(self, name: str, options: dict[str, Any], campaign: Campaign, decoder: Decoder | None = None) -> None:
        self.name, self.options, self.seed, self.steps = name, options, campaign.seed, campaign.steps
        self.genie = entry(name).genie
        self.receiver = create(name, **options)
        self.tally, self.ranking = Tally(decoder), Ranking()
        self.seconds, self.evaluations, self.iterations, self.warm = 0.0, 0.0, 0.0, False
        self.memory: GainMemory | None = None

    def learn(self, campaign: Campaign, cell: SystemConfig) -> None:
        """Gains of the devices of ``cell``, from frames that are not counted."""
        limits = gain_range_db(cell)
        assert limits is not None
        self.memory = GainMemory(users=cell.users, range_db=limits)
        for frame, obs in _stretch(cell, derive(campaign.seed, "learn"), 0, LEARNING, campaign.batch):
            self.memory.learn(self._call(frame, self.memory.tell(seen(campaign, frame, obs)), 0))

    def receive(self, config: SystemConfig, frame: Frame, obs: Observation) -> None:
        obs = obs if self.memory is None else self.memory.tell(obs)
        if not self.warm:  # compilation and first-touch costs are not the algorithm's
            self._call(frame, obs, min(self.steps or WARM_UP, WARM_UP))
            self.warm = True
        started = time.perf_counter()
        estimate = self._call(frame, obs, self.steps)
        self.seconds += time.perf_counter() - started
        self.evaluations += float(estimate.info.get("nfe", 0)) * len(frame)
        self.iterations += float(torch.as_tensor(estimate.info.get("iterations", 0)).double().mean()) * len(frame)
        if self.memory is not None:
            self.memory.learn(estimate)
        self.tally.add(config, frame, estimate)
        self.ranking.add(frame, estimate)

    def _call(self, frame: Frame, obs: Observation, steps: int) -> Any:
        """The receiver's answer; ``steps`` says how often it may ask whether time is up, 0 for always."""
        draw = generator(self.seed, "receiver", frame.start, device=obs.pilot_rx.device)  # as the receiver block draws
        known = {"truth": frame} if self.genie else {}
        obs = replace(obs, hurry=_Countdown(steps)) if steps else obs
        try:
            with torch.inference_mode():
                estimate = self.receiver(obs, generator=draw, **known)
                if obs.pilot_rx.is_cuda:
                    torch.cuda.synchronize()
                return estimate
        except MassaccessError as error:
            raise type(error)(f"receiver {self.name}: {error}") from error

    def row(self, config: SystemConfig, campaign: Campaign) -> dict[str, Any]:
        where = {
            "snr_db": config.snr_db,
            "snr_convention": config.snr_convention,
            "pilots": config.pilot_len,
            "data": config.data_len,
            "users": config.users,
            "antennas": config.antennas,
            "activity": config.activity_prior,
            "channel": config.channel,
            "adc_bits": config.adc_bits,
            "index_bits": config.index_bits,
            "tx_power_dbm": config.tx_power_dbm if config.link_budget else None,
            "modulation": config.modulation,
            "code": config.code,
            "noise": campaign.noise,
            "gains": campaign.gains,
            "offsets": campaign.offsets,
            "covariance": campaign.covariance,
        }
        cost = {
            "nfe": self.evaluations / campaign.frames,
            "iterations": self.iterations / campaign.frames,
            "seconds_per_frame": self.seconds / campaign.frames,
            "device": str(campaign.where),
            "threads": torch.get_num_threads(),
        }
        return {"receiver": self.name, **where, **self.tally.summary(), **self.ranking.summary(), **cost, "options": self.options}


def _options(campaign: Campaign, config: SystemConfig, name: str) -> dict[str, Any]:
    options = dict(campaign.options.get(name, {}))
    if not campaign.calibrate:
        return options
    detector, plus, _ = name.partition("+")
    if not plus and entry(name).kind == "activity":
        return {**options, **_threshold(campaign, config, name, options)}
    if plus and entry(name).kind == "joint":
        inner = options.get("detector_options", {})
        return {**options, "detector_options": {**inner, **_threshold(campaign, config, detector, inner)}}
    return options


def _threshold(campaign: Campaign, config: SystemConfig, name: str, options: dict[str, Any]) -> dict[str, float]:
    """The threshold on the log odds that makes fewest errors on ``calibrate`` frames of a seed of their own; nothing for hard decisions."""
    receiver = create(name, **options)
    scores, truths = [], []
    seed = derive(campaign.seed, "calibrate")
    for frame, obs in batches(
        config, frames=campaign.calibrate, seed=seed, batch=campaign.batch, books=min(campaign.books, campaign.calibrate)
    ):
        with torch.inference_mode():
            estimate = receiver(seen(campaign, frame, obs), generator=generator(seed, name, frame.start, device=campaign.where))
        if "log_odds" not in estimate.info:
            return {}
        scores.append(estimate.info["log_odds"].cpu().flatten())
        truths.append(frame.active.flatten())
    return {"threshold": best_threshold(torch.cat(scores), torch.cat(truths))}


def best_threshold(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """The threshold t that makes fewest errors in "active where score > t"; halfway between the scores around it.

    >>> best_threshold(torch.tensor([3.0, 1.0, -1.0]), torch.tensor([True, True, False]))
    0.0
    """
    ranked, order = scores.double().sort(descending=True)
    hits = truth[order]
    errors = torch.cat([hits.sum()[None], hits.sum() + torch.cumsum(1 - 2 * hits.long(), 0)])
    cut = int(errors.argmin())
    edges = torch.cat([ranked[:1] + 1, ranked, ranked[-1:] - 1])
    return float((edges[cut] + edges[cut + 1]) / 2)


def frame_to(frame: Frame, device: torch.device) -> Frame:
    """The truth on another device."""
    tensors = {item.name: getattr(frame, item.name) for item in fields(frame)}
    moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    return replace(frame, **moved)
