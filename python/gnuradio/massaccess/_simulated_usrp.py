"""A simulated USRP array with the constructor, methods and tags of gnuradio.uhd, for those without hardware, and for tests.

Everything that hardware does to an array, and everything that goes wrong, is asked for in the device arguments (``more_args``):

    seed=3            draws of chain phases, gains, noise and losses
    signal=tone       what the antennas get: tone, preamble, noise, silence or file
    file=             samples of all antennas with signal=file, complex64 as in the data of a recording, over and over; their root mean
                      square becomes that of a signal
    snr_db=20         of the signal, per sample
    tone_hz=100e3     offset of the tone
    level=0.1         amplitude of the signal; full scale is 1
    gain_spread_db=1  standard deviation of the chains' gains
    delay_spread=0    largest delay of a chain, in samples, either way
    retune_phase=0    1: every tuning draws new phases, as mixers with dividers do
    dead=3;17         channels (of the whole device) that hear nothing
    loud=4            channels with ten times the noise amplitude
    hot=5             channels that clip
    swapped=1;2       channels whose cables changed places
    drifting=6        channels whose phase turns by drift_deg degrees a second
    drift_deg=30
    overflow_every=0  mean samples between losses of samples; 0: none
    overflow_len=500  mean length of a loss
    overflow_board=-1 the board that loses them, -1: all at once
    pps_fault=-1      a board that is out of step with the others
    unlocked=ref      "ref" or "lo": a sensor that never locks (of the last board or channel)
    late=0            1: the start time is past when the device hears of it
    throttle=0        1: no faster than the sample rate
    samples=0         ends after so many; 0: never

Time is simulated: it goes on by what `sleep` waits, and with the samples. ``log`` has every call, in order, of all devices.
"""

import itertools
import re
import threading
import time

import numpy as np
import pmt
from gnuradio import gr

from ._base import failures, to_pmt

ALL_MBOARDS = 2**64 - 1
DEFAULTS = {
    "seed": 0,
    "signal": "tone",
    "file": "",
    "snr_db": 20.0,
    "tone_hz": 100e3,
    "level": 0.1,
    "gain_spread_db": 1.0,
    "delay_spread": 0.0,
    "retune_phase": 0,
    "dead": (),
    "loud": (),
    "hot": (),
    "swapped": (),
    "drifting": (),
    "drift_deg": 30.0,
    "overflow_every": 0,
    "overflow_len": 500,
    "overflow_board": -1,
    "pps_fault": -1,
    "unlocked": "",
    "late": 0,
    "throttle": 0,
    "samples": 0,
    "missing": "",
    "master_clock_rate": 200e6,
    "preamble_len": 16,
    "samples_per_symbol": 4,
    "slot_samples": 608,
}
SIGNALS = ("tone", "preamble", "noise", "silence", "file")
KNOWN_ARGS = {"type", "num_recv_frames", "recv_frame_size", "num_send_frames", "send_frame_size", "clock_source", "time_source"}
COMMON_PHASES = 2**16  # keeps draws of phases apart from those of noise
log = []  # (method, arguments) of every call
_clock = {"now": 1000.25}  # seconds of the world outside


def sleep(seconds):
    """Lets simulated time go by."""
    _clock["now"] += seconds


def reset():
    """Forgets the calls so far, and goes back to the first moment of simulated time."""
    log.clear()
    _clock["now"] = 1000.25


class time_spec:
    """A time of UHD, in seconds."""

    def __init__(self, seconds=0.0, fraction=0.0):
        whole = int(np.floor(seconds + fraction)) if fraction >= 1 or fraction < 0 or seconds != int(seconds) else int(seconds)
        self._whole, self._fraction = whole, (seconds - whole) + fraction

    def get_full_secs(self):
        return self._whole

    def get_frac_secs(self):
        return self._fraction

    def get_real_secs(self):
        return self._whole + self._fraction

    def __add__(self, other):
        other = other if isinstance(other, time_spec) else time_spec(other)
        total = self._fraction + other._fraction
        return time_spec(self._whole + other._whole + int(total >= 1), total - int(total >= 1))

    def __repr__(self):
        return f"{self.get_real_secs():g} s"


class tune_request:
    """A frequency, and how far away the oscillator is to be."""

    def __init__(self, target_freq, lo_offset=0.0):
        self.target_freq, self.lo_offset = target_freq, lo_offset

    def __repr__(self):
        return f"{self.target_freq:.12g} Hz"


class stream_args:
    """Formats and channels of a streamer."""

    def __init__(self, cpu_format="fc32", otw_format="sc16", args="", channels=()):
        self.cpu_format, self.otw_format, self.args, self.channels = cpu_format, otw_format, args, list(channels)

    def __repr__(self):
        return f"{self.cpu_format}/{self.otw_format} {self.channels}"


class _Sensor:
    def __init__(self, value):
        self._value = value

    def to_bool(self):
        return self._value


class _Device:
    """What source and sink have in common: the boards and their settings. Methods are those of gnuradio.uhd.usrp_block."""

    def _open(self, device_addr, args):
        values = dict(part.split("=", 1) for part in device_addr.split(",") if "=" in part)
        self.boards = [values.pop(name) for name in sorted(values, key=_number) if re.fullmatch(r"(addr|serial)\d+", name)]
        unknown = set(values) - set(DEFAULTS) - KNOWN_ARGS
        if unknown:
            raise _unknown("argument of the simulated array", sorted(unknown)[0], DEFAULTS)
        self.options = {name: _parsed(values[name], default) if name in values else default for name, default in DEFAULTS.items()}
        if not self.boards or self.options["missing"] in self.boards:
            raise RuntimeError(f"LookupError: KeyError: No devices found for ----->\nDevice Address: {device_addr}")
        if self.options["signal"] not in SIGNALS:
            raise _unknown("signal", self.options["signal"], SIGNALS)
        self.antennas = len(args.channels)
        self.per_board = self.antennas // len(self.boards)
        self._zero = {}  # moment of the world at which each board's time was 0
        self._set_at = _clock["now"]
        for board in range(len(self.boards)):
            self._zero[board] = _clock["now"] - 0.003 * board  # powered up one after the other
        self.rate, self.freqs, self.gains = 1e6, np.zeros(self.antennas), np.zeros(self.antennas)
        self.tunings = 0
        self._lock = threading.Lock()

    def _note(self, name, *arguments):
        log.append((name, arguments))

    def _time(self, board):
        return time_spec(_clock["now"] - self._zero[board])

    def get_num_mboards(self):
        return len(self.boards)

    def get_usrp_info(self, chan=0):
        return {"mboard_serial": self.boards[chan // self.per_board], "mboard_id": "simulated"}

    def set_clock_source(self, source, mboard=0):
        self._note("set_clock_source", source, mboard)

    def set_time_source(self, source, mboard=0):
        self._note("set_time_source", source, mboard)

    def set_subdev_spec(self, spec, mboard=0):
        self._note("set_subdev_spec", spec, mboard)

    def set_samp_rate(self, rate):
        self._note("set_samp_rate", rate)
        clock = self.options["master_clock_rate"]
        self.rate = clock / max(1, round(clock / rate))

    def get_samp_rate(self):
        return self.rate

    def get_clock_rate(self, mboard=0):
        return self.options["master_clock_rate"]

    def get_mboard_sensor_names(self, mboard=0):
        return ["ref_locked"]

    def get_mboard_sensor(self, name, mboard=0):
        self._note("get_mboard_sensor", name, mboard)
        return _Sensor(self.options["unlocked"] != "ref" or mboard != len(self.boards) - 1)

    def get_sensor_names(self, chan=0):
        return ["lo_locked"]

    def get_sensor(self, name, chan=0):
        self._note("get_sensor", name, chan)
        return _Sensor(self.options["unlocked"] != "lo" or chan != self.antennas - 1)

    def set_time_now(self, when, mboard=ALL_MBOARDS):
        self._note("set_time_now", when.get_real_secs())
        for board in self._zero:
            self._zero[board] = _clock["now"] - when.get_real_secs()

    def set_time_unknown_pps(self, when):
        self._note("set_time_unknown_pps", when.get_real_secs())
        sleep(1.0)
        self._at_next_pps(when)
        sleep(1.0)

    def set_time_next_pps(self, when, mboard=ALL_MBOARDS):
        self._note("set_time_next_pps", when.get_real_secs())
        self._at_next_pps(when)

    def _at_next_pps(self, when):
        edge = np.floor(_clock["now"]) + 1
        for board in self._zero:
            self._zero[board] = edge - when.get_real_secs() + (1.0 if board == self.options["pps_fault"] else 0.0)

    def get_time_last_pps(self, mboard=0):
        self._note("get_time_last_pps", mboard)
        sleep(1e-4)
        return time_spec(float(np.floor(_clock["now"]) - self._zero[mboard]))

    def get_time_now(self, mboard=0):
        return self._time(mboard)

    def set_command_time(self, when, mboard=0):
        self._note("set_command_time", when.get_real_secs(), mboard)

    def clear_command_time(self, mboard=0):
        self._note("clear_command_time", mboard)

    def set_center_freq(self, request, chan=0):
        freq = getattr(request, "target_freq", request)
        self._note("set_center_freq", freq, chan)
        with self._lock:
            self.freqs[chan] = freq
            self.tunings += 1

    def get_center_freq(self, chan=0):
        return float(self.freqs[chan])

    def set_gain(self, gain, chan=0):
        self._note("set_gain", gain, chan)
        with self._lock:
            self.gains[chan] = gain

    def get_gain(self, chan=0):
        return float(self.gains[chan])

    def set_antenna(self, name, chan=0):
        self._note("set_antenna", name, chan)

    def set_bandwidth(self, bandwidth, chan=0):
        self._note("set_bandwidth", bandwidth, chan)

    def set_start_time(self, when):
        self._note("set_start_time", when.get_real_secs())
        self.start_time = when


class usrp_source(_Device, gr.basic_block):
    """A receiving device; ``lost`` is the list of (board, tick, samples) that it lost so far."""

    def __init__(self, device_addr, args, issue_stream_cmd_on_start=True):
        log.append(("usrp_source", (device_addr, repr(args))))
        self._open(device_addr, args)
        gr.basic_block.__init__(self, "usrp_source", in_sig=None, out_sig=[np.complex64] * self.antennas)
        self.start_time, self.lost = None, []
        if self.options["signal"] == "file":
            self._played = _samples_of(self.options["file"], self.antennas)
            self._rms = np.sqrt(np.mean(np.abs(self._played) ** 2)) or 1.0

    def set_rx_agc(self, enable, chan=0):
        self._note("set_rx_agc", enable, chan)
        raise RuntimeError("NotImplementedError: set_rx_agc is not supported on this device")

    def set_recv_timeout(self, timeout, one_packet=True):
        self._note("set_recv_timeout", timeout, one_packet)

    def start(self):
        begin = self.start_time or self._time(0) + time_spec(0.1)
        self.start_time = None
        self._begin, self._tick, self._pieces, self._began = begin, 0, [], time.monotonic()
        self._tag_next = [True] * self.antennas
        self._rng = np.random.default_rng([self.options["seed"], _number_of(self.boards[0])])
        self._silent = bool(self.options["late"])
        self._tuned, self._held = -1, None
        return True

    def general_work(self, input_items, output_items):
        try:
            return self._work(output_items)
        except Exception as error:
            failures.record("simulated usrp_source", error)
            return -1

    def _work(self, outputs):
        if self._silent:
            time.sleep(0.02)
            return 0
        count = min(min(map(len, outputs)), BLOCK)
        if self.options["samples"]:
            count = min(count, self.options["samples"] - self._tick)
            if count <= 0:
                return -1
        self._pace(count)
        samples = self._receive(self._tick, count)
        gaps = self._gaps(self._tick, count)
        for channel, items in enumerate(outputs):
            self._deliver(channel, items, samples[channel], gaps)
        self._tick += count
        sleep(count / self.rate)
        return -2  # the ports have said how many each

    def _deliver(self, channel, items, samples, gaps):
        """Writes what is left of ``samples``, and says the time behind each gap."""
        written, first = 0, 0
        for start, stop in [*gaps.get(channel // self.per_board, []), (len(samples), len(samples))]:
            piece = samples[first:start]
            if len(piece):
                items[written : written + len(piece)] = piece
                if self._tag_next[channel]:
                    self._tag(channel, self.nitems_written(channel) + written, self._tick + first)
                written += len(piece)
            if stop > start:
                self._tag_next[channel] = True
            first = stop
        self.produce(channel, written)

    def _tag(self, channel, offset, tick):
        seconds = self._begin.get_frac_secs() + tick / self.rate
        when = (self._begin.get_full_secs() + int(seconds), seconds - int(seconds))
        for key, value in (("rx_time", when), ("rx_rate", float(self.rate)), ("rx_freq", float(self.freqs[channel]))):
            self.add_item_tag(channel, offset, pmt.intern(key), to_pmt(value))
        self._tag_next[channel] = False

    def _pace(self, count):
        if self.options["throttle"]:
            ahead = (self._tick + count) / self.rate - (time.monotonic() - self._began)
            if ahead > 0:
                time.sleep(min(ahead, 0.1))

    def _gaps(self, tick, count):
        """{board: [(first lost sample, first behind)]} within ``count`` samples from ``tick`` on; losses end with the block."""
        every = self.options["overflow_every"]
        if not every:
            return {}
        found = {}
        chosen = range(len(self.boards)) if self.options["overflow_board"] < 0 else [self.options["overflow_board"]]
        at = 0
        while True:
            at += int(self._rng.exponential(every)) + 1
            if at >= count - 1:
                return found
            length = min(1 + int(self._rng.exponential(self.options["overflow_len"])), count - at)
            for board in chosen:
                found.setdefault(board, []).append((at, at + length))
            self.lost.append((chosen[0], tick + at, length))
            at += length

    def _receive(self, tick, count):
        """What the converters give, [antennas count]."""
        options = self.options
        with self._lock:
            if self.tunings != self._tuned:
                self._held, self._tuned = self._chains(), self.tunings
            gain, delay, noise = self._held
            level = 10 ** ((self.gains - self.gains.mean()) / 20)
        when = tick + np.arange(count)
        amplitude = options["level"]
        spread = amplitude * 10 ** (-options["snr_db"] / 20)
        draw = np.random.default_rng([options["seed"], 1, tick])
        samples = self._signal(when, delay) * (amplitude * gain)[:, None]
        turns = np.zeros(self.antennas)
        turns[list(options["drifting"])] = np.deg2rad(options["drift_deg"]) / self.rate
        if options["drifting"]:
            samples = samples * np.exp(1j * turns[:, None] * when)
        shape = (self.antennas, count)
        samples = samples + (spread * noise)[:, None] * (draw.standard_normal(shape) + 1j * draw.standard_normal(shape)) * np.sqrt(0.5)
        samples = samples * level[:, None]
        hot = list(options["hot"])
        samples[hot] *= 4 / amplitude
        return (np.clip(samples.real, -1, 1) + 1j * np.clip(samples.imag, -1, 1)).astype(np.complex64)

    def _chains(self):
        """Complex gains, delays and noise amplitudes of all channels; phases belong to seed, serial number, channel and frequency."""
        options = self.options
        gain, delay = np.zeros(self.antennas, complex), np.zeros(self.antennas)
        for channel in range(self.antennas):
            serial, index = self.boards[channel // self.per_board], channel % self.per_board
            path = [options["seed"], COMMON_PHASES, _number_of(serial), index]
            fixed = np.random.default_rng(path)
            level, delay[channel] = fixed.standard_normal(), fixed.uniform(-1, 1) * options["delay_spread"]
            tuned = np.random.default_rng([*path, round(self.freqs[channel]), self.tunings * int(options["retune_phase"])])
            gain[channel] = 10 ** (options["gain_spread_db"] * level / 20) * np.exp(2j * np.pi * tuned.uniform())
        gain[list(options["dead"])] = 0
        for first, second in zip(options["swapped"][::2], options["swapped"][1::2], strict=True):
            gain[[first, second]], delay[[first, second]] = gain[[second, first]], delay[[second, first]]
        noise = np.ones(self.antennas)
        noise[list(options["loud"])] = 10
        return gain, delay, noise

    def _signal(self, when, delay):
        """Of unit power, as the antennas get it: [1 n], or [antennas n] where delays differ."""
        kind = self.options["signal"]
        if kind == "silence":
            return np.zeros((1, len(when)))
        if kind == "noise":
            draw = np.random.default_rng([self.options["seed"], 2, int(when[0])])
            return ((draw.standard_normal(len(when)) + 1j * draw.standard_normal(len(when))) * np.sqrt(0.5))[None]
        if kind == "file":
            return self._played[when % len(self._played)].T / self._rms
        instants = when - delay[:, None] if delay.any() else when[None]
        if kind == "tone":
            return np.exp(2j * np.pi * (instants * (self.options["tone_hz"] / self.rate) % 1))
        return _preamble(self.options, instants)


class usrp_sink(_Device, gr.basic_block):
    """A transmitting device; ``bursts`` is the list of (time or None, samples of the first channel) that it has sent so far.

    ``late=1`` answers every burst with a time error, ``overflow_every`` every so many bursts with an underflow, on port ``async_msgs``.
    """

    def __init__(self, device_addr, args, tsb_tag_name=""):
        log.append(("usrp_sink", (device_addr, repr(args), tsb_tag_name)))
        self._open(device_addr, args)
        gr.basic_block.__init__(self, "usrp_sink", in_sig=[np.complex64] * self.antennas, out_sig=None)
        self.bursts, self._length, self._left = [], tsb_tag_name, 0
        self.message_port_register_out(pmt.intern("async_msgs"))

    def general_work(self, input_items, output_items):
        count = min(map(len, input_items))
        read = self.nitems_read(0)
        tags = sorted(self.get_tags_in_window(0, 0, count), key=lambda tag: tag.offset)
        begins = self._length or "tx_sob"
        starts = sorted({tag.offset - read for tag in tags if str(tag.key) == begins})
        edges = [0, *[start for start in starts if start], count]
        for first, stop in itertools.pairwise(edges):
            here = {str(tag.key): tag.value for tag in tags if tag.offset - read == first}
            if begins in here:
                self.bursts.append((pmt.to_python(here["tx_time"]) if "tx_time" in here else None, []))
                self._answer()
            if self.bursts:
                self.bursts[-1][1].append(input_items[0][first:stop].copy())
        for port in range(len(input_items)):
            self.consume(port, count)
        return 0

    def _answer(self):
        """What UHD would say of the burst that begins."""
        every = int(self.options["overflow_every"])
        events = ["time_error"] * int(self.options["late"]) + ["underflow"] * int(bool(every) and len(self.bursts) % max(every, 1) == 0)
        for event in [*events, "burst_ack"]:
            values = pmt.dict_add(pmt.make_dict(), pmt.intern("channel"), pmt.from_long(0))
            values = pmt.dict_add(values, pmt.intern("event_code"), pmt.list1(pmt.intern(event)))
            self.message_port_pub(pmt.intern("async_msgs"), pmt.cons(pmt.intern("uhd_async_msg"), values))


BLOCK = 8192  # samples that a device gives at once


def _preamble(options, instants):
    """Once a slot, the preamble that all users send, at its nominal place in the slot."""
    from massaccess.burst import Burst
    from massaccess.forward.waveform import modulate, preamble

    rate = int(options["samples_per_symbol"])
    length = int(options["preamble_len"])
    slot = int(options["slot_samples"]) // rate
    burst = Burst(pilot_len=0, data_len=0, preamble_len=length, guard_len=slot - length, samples_per_symbol=rate)
    wave = modulate(preamble(burst)[None, :, None], burst)[0, :, 0].numpy()
    bins = np.fft.fft(wave)
    power = (np.abs(wave[np.abs(wave) > 0.05]) ** 2).mean()
    rows = []
    for row in instants:
        shift = np.fft.fftfreq(len(wave)) * (row[0] - np.floor(row[0]))
        copy = np.fft.ifft(bins * np.exp(2j * np.pi * shift)) / np.sqrt(power)
        rows.append(copy[np.floor(row).astype(np.int64) % len(wave)])
    return np.stack(rows)


def _samples_of(path, antennas):
    from massaccess.errors import ConfigError

    try:
        samples = np.memmap(path, np.complex64, "r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the simulated array cannot play '{path}' ({error}): pass file=PATH, complex64 of all antennas") from None
    if len(samples) % antennas:
        raise ConfigError(f"'{path}' has {len(samples)} samples, and the device {antennas} channels: pass a file of as many antennas")
    return samples.reshape(-1, antennas)


def _unknown(*words):
    from massaccess.errors import unknown

    return unknown(*words)


def _number(name):
    digits = re.search(r"\d+$", name)
    return (re.sub(r"\d+$", "", name), int(digits.group()) if digits else -1)


def _number_of(serial):
    """A number that stands for a serial number, the same in every run."""
    return int.from_bytes(str(serial).encode()[-8:], "little")


def _parsed(text, default):
    from massaccess.errors import ConfigError

    try:
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.split(";") if part)
        return type(default)(float(text)) if isinstance(default, (int, float)) else text
    except ValueError:
        raise ConfigError(f"'{text}' in the arguments of the simulated array: pass a number, or channels separated by ;") from None
