"""The base station: samples of an array from wherever they come, through synchronizer and receiver, to whoever listens."""

import inspect

from gnuradio import blocks, gr

from ._array import SYSTEM_FIELDS
from .air_simulator import air_simulator
from .air_source import air_source
from .array_corrector import array_corrector
from .array_health import array_health
from .array_replay import array_replay
from .population import population
from .uplink import (
    _known,
    _known_channel,
    _parameters,
    make_payload_decoder,
    make_publisher,
    make_receiver,
    make_recorder,
    make_synchronizer,
)

SOURCES = ("sim", "zmq", "sigmf", "uhd")


class station(gr.top_block):
    """source -> [recorder], and source -> [array_health] -> [level] -> [array_corrector] -> synchronizer -> receiver ->
    [payload_decoder] -> [publisher].

    ``source`` is one of `SOURCES`: "sim", users and air in this flowgraph; "zmq", a broker of a virtual air; "sigmf", a recording of an
    array, whose metadata replace ``config``; "uhd", USRPs. ``where`` are parameters of the source block: of `air_simulator` (and
    ``frames``, the slots that it lasts), `air_source`, `array_replay` or `usrp_array_source`. All else is the same for all of them.

    ``config`` is a `massaccess.SystemConfig` with a waveform; ``calibration`` a file of array calibrations; ``epoch`` when slot 0 began
    [s], -1 for the first slot that is found, ``None`` for what is usual: 0 for simulations and their recordings, otherwise -1. ``mask``:
    whether antennas that do not work are found by the traffic and filled in from the others; ``None``: off the air only, and in recordings
    made there. It follows from the samples alone, so that a recording gives the same answers again. ``full_scale`` of the samples, with
    ``mask``: ``None`` for 1 off the air and that of the simulation's converters, where it says one. ``level_db`` is the power that a user's
    symbol has at an antenna, in the samples of the source (0: 1, as in simulations): receivers expect 1, and are given it.
    ``record`` is the path of a SigMF recording of what comes out of the source, ``publish`` a ZMQ endpoint for what the receiver finds,
    ``streaming`` parameters of the receiver block.
    """

    def __init__(
        self,
        source,
        config=None,
        receiver="",
        options=None,
        *,
        where=None,
        seed=0,
        calibration="",
        mask=None,
        full_scale=None,
        level_db=0.0,
        epoch=None,
        record="",
        overwrite=False,
        publish="",
        overflow="block",
        **streaming,
    ):
        from massaccess.errors import unknown

        if source not in SOURCES:
            raise unknown("source", source, SOURCES)
        gr.top_block.__init__(self, "massaccess station")
        self.kind = source
        self.source, self.config = getattr(self, f"_{source}")(config, dict(where or {}), seed)
        simulated = source in ("sim", "zmq") or (source == "sigmf" and self.source.seed is not None)
        self.synchronizer = make_synchronizer(self.config, epoch=_epoch(epoch, simulated), overflow=overflow)
        self.receiver = make_receiver(
            self.config, receiver, options, seed=seed, channel_cov=_known_channel(self.config), overflow=overflow, **streaming
        )
        self.health = self._health(simulated, full_scale, where or {}) if (not simulated if mask is None else mask) else None
        self.connect(*self._corrected(calibration, level_db), self.synchronizer, self.receiver)
        if record:
            self.recorder = make_recorder(record, self.config, seed=seed if simulated else None, overwrite=overwrite)
            self.connect(self.source, self.recorder)
        if publish:
            self.publisher = make_publisher(self, self.config, publish)
            if self.health and hasattr(self, "monitor"):
                self.msg_connect(self.health, "health", self.monitor, "health")
        self.payloads = make_payload_decoder(self, self.config)

    def stats(self):
        """Counters of synchronizer, source and health, by the names that these have for them."""
        found = {"synchronizer": self.synchronizer.stats()}
        if hasattr(self.source, "stats"):
            found["source"] = self.source.stats()
        if self.health:
            found["health"] = {"looks": self.health.looks, "verdicts": list(self.health.verdicts), "mask": self.health.mask}
        return found

    def _health(self, simulated, full_scale, where):
        if full_scale is None:
            full_scale = where.get("full_scale", 0.0) if simulated else 1.0
        return array_health(self.config.antennas, full_scale=full_scale)

    def _corrected(self, path, level_db):
        """The source, and the blocks between it and the synchronizer."""
        config, chain = self.config, [self.source]
        if self.health:
            chain.append(self.health)
        if level_db:
            self.level = blocks.multiply_const_cc(10 ** (-level_db / 20), config.antennas)
            chain.append(self.level)
        if path or self.health:
            known = {"channel_cov": _covariance(config), "masking": self.health is not None}
            known |= {"snr_db": config.snr_db} if config.snr_convention == "received" else {}
            self.corrector = array_corrector(config.rows, config.columns, str(path), **known)
            chain.append(self.corrector)
        return chain

    def _sim(self, config, where, seed):
        _check(config, "sim")
        self.population = population(**_parameters(population, _known(config)), seed=seed, frames=where.pop("frames", 0))
        air = air_simulator(**{**_parameters(air_simulator, _known(config)), **where}, seed=seed)
        self.connect(self.population, air)
        return air, config

    def _zmq(self, config, where, seed):
        _check(config, "zmq")
        return air_source(**{**_parameters(air_source, _known(config)), **where}), config

    def _sigmf(self, config, where, seed):
        replay = array_replay(**where)
        return replay, replay.config

    def _uhd(self, config, where, seed):
        from massaccess.errors import ConfigError, MassaccessError

        from .usrp_array_source import usrp_array_source

        _check(config, "uhd")
        tuned = {"rate": config.sample_rate_hz, "freq": config.carrier_hz}
        try:
            radio = usrp_array_source(**{**tuned, **where})
        except MassaccessError as error:
            raise type(error)(f"{error}; without radios, the same receiver runs with --source sim") from error
        found = len(radio.channels)
        if found != config.antennas:
            raise ConfigError(f"the radios have {found} channels and the array {config.antennas} antennas: pass rows and columns to match")
        return radio, config


def source_options(source):
    """Parameters of a source's block that `station` takes in ``where``, with their defaults."""
    from .usrp_array_source import usrp_array_source

    block = {"sim": air_simulator, "zmq": air_source, "sigmf": array_replay, "uhd": usrp_array_source}[source]
    found = {name: item.default for name, item in inspect.signature(block.__init__).parameters.items() if name != "self"}
    return {name: value for name, value in found.items() if name not in SYSTEM_FIELDS and name != "seed"}


def _covariance(config):
    """The channel model that fills masked antennas in, where antennas know of one another; "" otherwise."""
    from massaccess.forward.channels import make_channel

    known = _known_channel(config)
    return known if known and make_channel(config).covariance is not None else ""


def _check(config, source):
    from massaccess.errors import ConfigError
    from massaccess.forward.air import burst_of

    if config is None:
        raise ConfigError(f"source {source} does not say what the system is: pass a SystemConfig")
    burst_of(config)


def _epoch(epoch, simulated):
    return (0.0 if simulated else -1.0) if epoch is None else epoch
