"""Whole flowgraphs, assembled from the blocks: a simulated uplink and its comparison with the truth, and a recording that is decoded."""

from gnuradio import blocks, gr

from ._array import buffer_samples
from ._base import ABSENT
from .activity_detector import activity_detector
from .air_monitor import air_monitor
from .air_simulator import air_simulator
from .array_recorder import array_recorder
from .channel_simulator import channel_simulator
from .meter import meter
from .noncoherent_receiver import noncoherent_receiver
from .payload_decoder import payload_decoder
from .population import population
from .quantizer import quantizer
from .receiver import receiver
from .sample_packer import sample_packer
from .sample_unpacker import sample_unpacker
from .sigmf_recorder import sigmf_recorder
from .sigmf_replay import sigmf_replay
from .synchronizer import synchronizer
from .zmq_publisher import zmq_publisher

BOOK = ("users", "pilot_len", "pilot_kind", "pilot_seed", "pilot_energy")
DATA = ("data_len", "modulation")
ARRAY = ("rows", "columns")
BURST = ("samples_per_symbol", "preamble_len", "guard_len", "roll_off", "timing_offset", "cfo_hz", "sample_rate_hz")
SLOTS_IN_SYNC = 256  # that a synchronizer may hold: in its queue, until it has found the slots, and in its buffer
METERED = {"activity": ((0, 1),), "all": ((0, 1), (1, 3), (2, 4)), "sequences": ((1, 1),)}  # outputs of the receiver, inputs of the meter
PACKED_IN_FLIGHT = 512  # frames that the buffers of packer and unpacker may hold besides: pages of few octets are many frames
SLOWEST = 0.1  # frames per second
THROTTLE_SECONDS = 0.1  # the throttle sleeps for all that it passes on at once, and neither frames nor Ctrl-C get through meanwhile


class uplink(gr.top_block):
    """population -> [throttle] -> channel_simulator -> [quantizer] -> [packer -> unpacker] -> receiver -> meter, with a recorder and a
    publisher on request; payloads of a ``code`` go through a payload_decoder, ``payloads``.

    Everything about the system comes from ``config``, a `massaccess.SystemConfig`. ``record`` is the path of a SigMF recording of what the
    receiver sees, ``publish`` a ZMQ endpoint for what it finds, ``rate`` a limit in frames per second (0: none). ``packed`` sends and
    records the converters' bits in place of samples. ``streaming`` are parameters of the receiver block; without a name it is
    `default_receiver`. A detector of activity, or a frame without data, is compared by activity alone, index-modulated frames by sequences.

    Sent frames and answers are the library's: frame f is frame f of ``Simulation(config, seed)``.

    With a waveform (``samples_per_symbol`` of 2 or more) it is population -> [throttle] -> air_simulator -> synchronizer -> receiver ->
    meter, and the recording has the samples of the array; ``air`` are impairments and overflows, parameters of the air_simulator.
    """

    def __init__(
        self,
        config,
        receiver="",
        options=None,
        *,
        seed=0,
        frames=0,
        rate=0.0,
        record="",
        packed=False,
        publish="",
        overwrite=False,
        air=None,
        **streaming,
    ):
        gr.top_block.__init__(self, "massaccess uplink")
        known = _known(config)
        self.config, self.seed = config, seed
        self.population = population(**_parameters(population, known), seed=seed, frames=frames)
        kind = air_simulator if config.burst else channel_simulator
        self.channel = kind(**_parameters(kind, known), **(air or {}), seed=seed)
        self.receiver = make_receiver(config, receiver, options, seed=seed, channel_cov=config.channel, **streaming)
        compare = self.receiver.ANSWERS
        more = PACKED_IN_FLIGHT if packed else _in_the_air(config) if config.burst else 0
        self.meter = meter(compare, **_parameters(meter, known), hold_frames=_in_flight(**streaming) + more)
        sent = self._throttled(rate)
        on_the_wire = self._air(sent, packed)
        self.connect(self._framed(on_the_wire, packed), self.receiver)
        self.connect(sent, (self.meter, 0))
        if compare == "all":
            self.connect((self.channel, 1), (self.meter, 2))
        for port, into in METERED[compare]:
            self.connect((self.receiver, port), (self.meter, into))
        if record:
            self.recorder = make_recorder(record, config, seed=seed, overwrite=overwrite, **({"packed": True} if packed else {}))
            self.connect(on_the_wire, self.recorder)
        if publish:
            self.publisher = make_publisher(self, config, publish)
        self.payloads = make_payload_decoder(self, config)

    def rates(self):
        """What the meter says; of coded payloads with the frame error rate behind their decoder."""
        decoded = self.meter.coded(self.payloads.stats()["payloads"]) if self.payloads else {}
        return {**self.meter.summary(), **decoded}

    def _throttled(self, rate):
        if not rate:
            return self.population
        if not rate >= SLOWEST:
            raise _too_slow(rate)
        self.throttle = blocks.throttle(self.population.output_signature().sizeof_stream_item(0), rate)
        self.throttle.set_max_noutput_items(max(1, int(rate * THROTTLE_SECONDS)))
        self.connect(self.population, self.throttle)
        return self.throttle

    def _air(self, sent, packed):
        """What the array gives: frames, samples of a waveform, or the converters' bits."""
        config = self.config
        self.connect(sent, self.channel)
        if config.burst and (config.adc_bits or packed):
            raise _no_bits()
        if not config.adc_bits and not packed:
            return self.channel
        from massaccess.forward.channels import received_power

        scale = (received_power(config) / 2) ** 0.5
        sizes = {"frame_len": config.frame_len, "antennas": config.antennas, "bits": config.adc_bits or 0}
        known = {"scale": scale, "offset": config.adc_offset, "dither": config.adc_dither}
        self.quantizer = quantizer(config.frame_len * config.antennas, sizes["bits"], **known)
        self.connect(self.channel, self.quantizer)
        if not packed:
            return self.quantizer
        self.packer, self.unpacker = sample_packer(**sizes), sample_unpacker(**sizes)
        self.connect(self.quantizer, self.packer, self.unpacker)
        return self.packer

    def _framed(self, on_the_wire, packed):
        """The frames that the receiver gets."""
        if packed:
            return self.unpacker
        if not self.config.burst:
            return on_the_wire
        self.synchronizer = make_synchronizer(self.config, epoch=0.0)
        self.connect(on_the_wire, self.synchronizer)
        return self.synchronizer


class capture(gr.top_block):
    """sigmf_replay -> receiver -> null sink, or publisher: decodes a recording, whose metadata says all that the receiver must know."""

    def __init__(self, path, receiver="", options=None, *, seed=0, publish="", check_hash=True, salvage=False, **streaming):
        gr.top_block.__init__(self, "massaccess capture")
        self.replay = sigmf_replay(str(path), check_hash=check_hash, salvage=salvage)
        self.config = self.replay.config
        self.receiver = make_receiver(self.config, receiver, options, seed=seed, channel_cov=_known_channel(self.config), **streaming)
        self.connect(self.replay, self.receiver)
        if publish:
            self.publisher = make_publisher(self, self.config, publish)
        self.payloads = make_payload_decoder(self, self.config)


def _too_slow(rate):
    from massaccess.errors import ConfigError

    return ConfigError(f"rate is {rate} frames per second: pass {SLOWEST} or more, or 0 for no limit; a throttle asleep cannot be stopped")


def _no_bits():
    from massaccess.errors import ConfigError

    return ConfigError("bursts on the air go through converters of --converter-bits: leave adc_bits (--adc-bits) and packed out")


def make_recorder(path, config, *, seed=None, **options):
    """A recorder for what an array gives: frames, or samples of a waveform; ``seed`` is that of a simulation."""
    kind = array_recorder if config.burst else sigmf_recorder
    return kind(path, **_parameters(kind, _known(config)), seed=-1 if seed is None else seed, **options)


def make_synchronizer(config, *, epoch=-1.0, overflow="block", full_scale=0.0):
    """The synchronizer of a system with a waveform, for receivers that take waveforms."""
    known = {**_known(config), "antennas": config.antennas}
    return synchronizer(**_parameters(synchronizer, known), epoch=epoch, overflow=overflow, full_scale=full_scale)


def default_receiver(config):
    """The name of the toolkit's default for frames of ``config``."""
    return "noncoherent" if config.index_bits else "jcedd"


def make_receiver(config, name, options=None, *, gains="known", gain_range_db=None, **parameters):
    """The receiver block for a SystemConfig: a noncoherent_receiver for index-modulated frames, an activity_detector where the receiver
    only detects, or there are no data. ``gain_range_db``: limits of gains that are not known, those of the channel model unless given."""
    from massaccess.registry import entry

    name = name or default_receiver(config)
    detects = not config.data_len or entry(name).kind == "activity"
    kind = noncoherent_receiver if config.index_bits else activity_detector if detects else receiver
    _check_code(config, detects)
    if config.index_bits or gains != "known" or gain_range_db is not None:
        parameters |= _gains(config, gains, gain_range_db)
    fields = (*BOOK, "index_bits") if config.index_bits else (*BOOK, *DATA) if detects else (*BOOK, *DATA, "code")
    fields = (*fields, *BURST) if config.burst else fields
    known = _known(config)  # but not of the converters: tags say how they are set
    return kind(name, options=options, **_pick(known, fields, ARRAY, "activity", "active_users"), **parameters)


def _check_code(config, detects):
    from massaccess.errors import ConfigError

    if detects and config.code != "none":
        raise ConfigError(f"payloads are coded by {config.code!r}, but the receiver does not decode symbols: pass code none (--code none)")


def make_payload_decoder(tb, config):
    """A payload_decoder behind the receiver of ``tb``, connected, to its monitor as well; nothing without a code."""
    if config.code == "none":
        return None
    watched = hasattr(tb, "monitor")
    decoder = payload_decoder(**_parameters(payload_decoder, _known(config)), keep_failed=watched)
    tb.msg_connect(tb.receiver, "llrs", decoder, "llrs")
    tb.receiver.wait_for(decoder.behind)
    if watched:
        tb.msg_connect(decoder, "payload", tb.monitor, "payload")
        tb.msg_connect(decoder, "stats", tb.monitor, "decoder")
    return decoder


def _gains(config, gains, range_db):
    """Parameters of a noncoherent_receiver that say what is known of gains."""
    from massaccess.errors import ConfigError
    from massaccess.forward.channels import gain_range_db

    if gains == "known":
        if range_db is not None:
            raise ConfigError("a range of gains is given, but gains are known: pass gains unknown or learned (--gains), or leave it out")
        return {}
    if not config.index_bits:
        raise ConfigError(f"gains {gains} are for index-modulated frames: pass --index-bits 1 --data 0, or leave gains known")
    own = gain_range_db(config) if range_db is None else range_db
    if own is None:
        raise ConfigError(
            f"channel {config.channel} says nothing of gains that are not known: pass their range (--gain-range-db LOW HIGH), or a "
            "path-loss channel and --no-power-control"
        )
    if gains == "learned" and range_db is None and config.placement_seed is None:
        raise ConfigError(
            "gains are learned of devices that stay where they are: pass --placement-seed, or --gains unknown; or --gain-range-db LOW HIGH "
            "if they do stay"
        )
    return {"gains": gains, "gain_low_db": own[0], "gain_high_db": own[1]}


def make_publisher(tb, config, endpoint):
    """A publisher on the receiver of ``tb``, connected; where there are symbols, with a monitor, ``tb.monitor``."""
    all_of_it = tb.receiver.ANSWERS == "all"
    sizes = {"antennas": config.antennas, "data_len": config.data_len} if all_of_it else {"antennas": 0, "data_len": 0}
    publisher = zmq_publisher(users=config.users, endpoint=endpoint, **sizes, index_bits=config.index_bits, monitor=all_of_it)
    for port in range({"all": 3, "sequences": 2, "activity": 1}[tb.receiver.ANSWERS]):
        tb.connect((tb.receiver, port), (publisher, port))
    if all_of_it:
        tb.monitor = air_monitor(config.users, config.antennas, config.data_len, config.modulation)
        for port in range(2):
            tb.connect((tb.receiver, port), (tb.monitor, port))
        tb.msg_connect(tb.receiver, "stats", tb.monitor, "receiver")
        if hasattr(tb, "synchronizer"):
            tb.msg_connect(tb.synchronizer, "stats", tb.monitor, "sync")
        tb.msg_connect(tb.monitor, "monitor", publisher, "monitor")
    return publisher


def _known(config):
    """Fields of a SystemConfig as block parameters have them."""
    return {**config.to_dict(), **{name: absent for name, absent in ABSENT.items() if getattr(config, name) is None}}


def _in_flight(*, max_batch=32, queue_frames=64, **others):
    """Frames that can be between the source and the meter, with room to spare: the comparison then holds nothing up."""
    return 128 + 4 * max_batch + queue_frames


def _in_the_air(config):
    """Frames that can be between population and receiver with a waveform."""
    return SLOTS_IN_SYNC + 3 * buffer_samples(config.antennas, 2 * config.burst.slot_samples) // config.burst.slot_samples


def _known_channel(config):
    """The channel model of a recording, where this machine has it: a bank that stayed behind only costs its covariance."""
    from massaccess.errors import MassaccessError
    from massaccess.forward.channels import make_channel

    try:
        make_channel(config)
    except MassaccessError:
        return ""
    return config.channel


def _pick(values, *groups):
    names = [name for group in groups for name in ((group,) if isinstance(group, str) else group)]
    return {name: values[name] for name in names}


def _parameters(block, values):
    """Those of ``values`` that a block takes."""
    names = block.__init__.__code__.co_varnames[1 : block.__init__.__code__.co_argcount]
    return {name: values[name] for name in names if name in values}
