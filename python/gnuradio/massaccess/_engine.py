"""A receiver of the library behind a queue: entries in, answers out. Knows nothing of GNU Radio."""

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ._queue import ESTIMATE, Entry, Side

WARM_UP_STEPS = 32
MOST = 1e30  # log odds of strong devices are millions: this only keeps differences of infinities finite
BLOCKS = {  # which block is for receivers of other kinds
    "activity": "only detects activity: use the block activity_detector",
    "noncoherent": "is for frames without data: use the block noncoherent_receiver",
}
STRAY_SYMBOLS, STRAY_CYCLES = 0.05, 1e-4  # of slots and their carrier, as a synchronizer finds them: added to the ranges of the users' own
ANSWERS = ("all", "activity", "sequences")  # of `receiver`, `activity_detector`, `noncoherent_receiver`; what the meter compares


class Answer(NamedTuple):
    """Results of a batch: frames with the tags to hand on, active [B N], and streams, of which activity [B N] is the first; payload [B N C]
    with its check ok [B N], octets, or the bits of sequences with their llrs [B N J], or of coded frames the octets of decisions that no
    check has passed, and no ok; cut: how many of the frames got fewer steps than
    they should, because time was up; estimate: what the receiver found, to learn gains from."""

    frames: list
    tags: list
    active: np.ndarray
    streams: tuple
    payload: np.ndarray | None = None
    ok: np.ndarray | None = None
    llrs: np.ndarray | None = None
    cut: int = 0
    estimate: object = None

    @property
    def activity(self):
        return self.streams[0]


class Engine:
    """A receiver of the registry with everything that it needs to know beforehand: entries of the queue in, answers out."""

    def __init__(self, name, options, *, config, answers, channel_cov, weights, gains, seed, max_batch, threads, device, warm_up):
        from massaccess.errors import ConfigError
        from massaccess.forward.simulate import Population
        from massaccess.registry import create, entry

        found = entry(name)
        if found.genie:
            raise ConfigError(
                f"receiver {name!r} is a genie: it needs the truth, which no stream carries; choose another, see `massaccess receivers`"
            )
        if answers == "all" and found.kind in BLOCKS:
            raise ConfigError(f"receiver {name!r} {BLOCKS[found.kind]}, or a receiver that decodes symbols")
        if answers == "sequences" and found.kind != "noncoherent":
            raise ConfigError(
                f"receiver {name!r} does not tell sequences apart: choose one that `massaccess receivers --kind noncoherent` lists"
            )
        if answers == "sequences" and not config.index_bits:
            raise ConfigError("index_bits is 0, one sequence a device: pass 1 to 8, or use the block activity_detector")
        if found.kind == "coherent" and config.activity_prior < 1:
            raise ConfigError(
                f"receiver {name!r} must know who is active: put a detector before it, 'covariance+{name}', "
                f"or pass active_users={config.users}"
            )
        self.name, self.config, self.answers = name, config, answers
        self.population = Population(config)
        self._covariance = _covariance(config, channel_cov)
        options = _with_weights(name, options, weights)
        self._receiver = create(name, **options)
        self.fit, self.gains = _fit(self._receiver, config, self._covariance), gains
        if gains.mode == "learned" and not getattr(self._receiver, "tells_levels", False):
            raise ConfigError(
                f"gains are to be learned, but receiver {name!r} does not tell their levels: choose 'noncoherent', or pass gains='unknown'"
            )
        self._seed, self._max_batch, self._threads, self._device = seed, max_batch, threads, device
        self._warm_up = warm_up

    def start(self, stopped=lambda: False):
        """Once, in the thread that will decode. ``warm_up`` decodes a frame of noise, so that compiling does not cost the first frames; a
        receiver of many steps makes `WARM_UP_STEPS` of them, or fewer when ``stopped()``."""
        import torch

        if self._threads:
            torch.set_num_threads(self._threads)
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.population.pilots, self.population.constellation, self.population.framing.whitening  # made before the first frame
        if self._warm_up:
            noise = np.random.default_rng(0).standard_normal((rows_of(self.config) * self.config.antennas, 2)).astype(np.float32)
            steps = itertools.count()

            def hurry():
                return stopped() or next(steps) >= WARM_UP_STEPS

            self([Entry(0, Side(2.0, 0, 1.0), noise.view(np.complex64).ravel())], hurry)

    def __call__(self, entries, hurry=None):
        """The answers to entries that share their side information; ``hurry()`` says whether time is up."""
        import torch

        from massaccess.rng import generator

        draw = generator(self._seed, "receiver", entries[0].frame // self._max_batch * self._max_batch, device=self._device)
        with torch.inference_mode():
            obs = self.gains.tell(self._observe(entries).to(self._device), entries[0].frame)
            estimate = self._receiver(replace(obs, hurry=hurry), generator=draw)
            return self._answer(entries, estimate)

    def learn(self, answer):
        """Takes in what an answer tells of the gains: once for each answer, before the frames after it are decoded."""
        self.gains.learn(answer.frames[0], answer.estimate)

    def soft(self, estimate, rows, users):
        """Log-likelihood ratios [n bits] of the bits on the air that ``users`` [n] sent in the frames ``rows`` [n] of a batch, finite, and
        the mean noise variance [n] of their symbols."""
        import torch

        with torch.inference_mode():
            symbols = estimate.symbols[rows, :, users].cpu()
            noise = symbols.real.new_ones(symbols.shape) if estimate.symbol_var is None else estimate.symbol_var[rows, :, users].cpu()
            return self.population.constellation.ratios(symbols, noise).float().numpy(), noise.mean(1).numpy()

    def _observe(self, entries):
        import torch

        from massaccess.forward.front_end import front_end
        from massaccess.forward.noise import with_estimated_noise
        from massaccess.forward.simulate import observe

        config, side = self.config, entries[0].side
        rx = torch.from_numpy(np.stack([entry.samples for entry in entries])).reshape(len(entries), rows_of(config), config.antennas)
        gain = None if entries[0].gain is None else torch.from_numpy(np.stack([entry.gain for entry in entries]))
        unknown = side.noise_var == ESTIMATE
        seen = observe(
            rx,
            self.population.pilots,
            burst=config.burst,
            timing_range=config.timing_offset + STRAY_SYMBOLS if config.burst else 0.0,
            cfo_range=config.cfo_hz / config.symbol_rate_hz + STRAY_CYCLES if config.burst else 0.0,
            noise_var=1.0 if unknown else side.noise_var,
            activity=config.activity_prior,
            modulation=config.modulation,
            code=config.code,
            front_end=front_end(
                bits=side.adc_bits or None,
                power=2 * side.adc_scale**2,
                threshold=side.adc_offset,
                dither=side.adc_dither,
                frame=(config.frame_len, config.antennas),
            ),
            user_gain=gain,
            channel_cov=self._covariance,
            array=(config.rows, config.columns),
            sequences=config.sequences,
        )
        return with_estimated_noise(seen) if unknown else seen

    def _answer(self, entries, estimate):
        frames, tags = [entry.frame for entry in entries], [entry.tags for entry in entries]
        active, cut = estimate.active.cpu(), _cut(estimate, len(frames))
        streams, decoded = [estimate.activity.float().cpu()], {}
        if self.answers == "all":
            symbols = estimate.symbols.cpu()
            bits = self.population.constellation.decide(symbols.transpose(1, 2))
            if self.config.code == "none":
                payload, ok = self.population.framing.decode(bits)
                decoded = {"payload": payload.numpy(), "ok": (ok & active).numpy()}
            else:
                decoded = {"payload": np.packbits(bits.numpy(), axis=-1)}
            streams += [symbols, estimate.channel.cpu()]
        elif self.answers == "sequences":
            bits, odds, llrs = _index(estimate.sequence_odds.float().cpu(), self.config.index_bits)
            decoded = {"payload": bits.numpy(), "ok": active.numpy(), "llrs": llrs.numpy()}
            streams += [odds, llrs]
        flat = tuple(value.reshape(len(frames), -1).numpy() for value in streams)
        return Answer(frames, tags, active.numpy(), flat, **decoded, cut=cut, estimate=estimate)


def rows_of(config):
    """Rows of a frame: symbols, or those of a burst's waveform."""
    return config.burst.rows if config.burst else config.frame_len


def _index(odds, index_bits):
    """Bits [B N J] that the likeliest sequences tell, odds [B N Q] and log-likelihood ratios [B N J]: finite, as a stream wants them."""
    from massaccess.forward.index_modulation import llrs, to_bits

    odds = odds.clamp(-MOST, MOST)
    return to_bits(odds.argmax(-1), index_bits), odds, llrs(odds)


def _covariance(config, name):
    if not name:
        return None
    from massaccess.forward.channels import make_channel

    return make_channel(config.replace(channel=name)).covariance


def _with_weights(name, options, weights):
    """Options of the receiver, with ``weights`` among them where it has such an option; ConfigError where it has none."""
    from massaccess.errors import ConfigError
    from massaccess.registry import takes

    asked = options.get("weights", weights)
    if weights not in ("auto", asked):
        raise ConfigError(f"weights are {weights!r} as a parameter and {asked!r} in the options: say it once, as the parameter")
    if takes(name, "weights"):
        return {**options, "weights": str(asked)}
    if asked != "auto":
        raise ConfigError(
            f"receiver {name!r} has no weights to choose, but weights are {asked!r}: leave them 'auto', or choose a receiver "
            "that `massaccess receivers` marks with a dagger"
        )
    return options


def _fit(receiver, config, covariance):
    """What `massaccess.weights.fit` says of the weights of the receiver, of a joined one: of its coherent part; ``None`` without any."""
    from massaccess.weights.fit import fit

    part = getattr(receiver, "coherent", receiver)
    if not hasattr(part, "weights"):
        return None
    kind, network = getattr(part, "weights_kind", "channel"), getattr(part, "network", "")
    return fit(part.weights, rows=config.rows, columns=config.columns, covariance=covariance, kind=kind, network=network)


def _cut(estimate, frames):
    """Frames that time was up for: info ``cut`` is one answer for the batch, or one a frame."""
    import torch

    return int(torch.as_tensor(estimate.info.get("cut", False)).expand(frames).sum())
