"""Brings USRP motherboards into step: references, time, rates, gains, timed tuning. The order of the calls matters and is tested.

Common to receiving and transmitting arrays. ``devices`` are usrp_source or usrp_sink blocks, each one streamer over some boards.
"""

import contextlib
from dataclasses import dataclass

from ._uhd import sleep_of

REFERENCES = ("external", "internal", "mimo", "gpsdo")
COMMAND_SECONDS = 0.1  # timed commands are sent so far ahead
SETTLE_SECONDS = 0.05  # of oscillators, before lock is asked for
POLL_SECONDS = 0.1
ASKING_SECONDS = 0.01  # between the answers of two boards
TUNE_HZ = 1.0  # a tuner's answer may be off by so much
RATE_SHARE = 1e-9  # and a rate by so much of itself
ABSENT = (RuntimeError, LookupError, NotImplementedError)  # what UHD raises for what a board does not have


@dataclass(frozen=True)
class Settings:
    """What every channel of an array is set to. ``gain`` [dB] is one number or one for each channel; ``bandwidth`` [Hz] 0 and ``antenna``
    and ``subdev`` empty leave what the board has; ``lock_seconds`` limits the wait for each sensor."""

    rate: float
    freq: float
    gain: object = 0.0
    lo_offset: float = 0.0
    antenna: str = ""
    bandwidth: float = 0.0
    subdev: str = ""
    reference: str = "external"
    lock_seconds: float = 5.0

    def __post_init__(self):
        from massaccess.errors import ConfigError, unknown

        if self.reference not in REFERENCES:
            raise unknown("reference", self.reference, REFERENCES)
        for name in ("rate", "lock_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: pass a number above 0")

    def gain_of(self, antenna):
        return float(self.gain[antenna]) if hasattr(self.gain, "__len__") else float(self.gain)


class Array:
    """Motherboards behind one or more devices. ``boards``: how many motherboards each device has; ``per_board``: channels of each."""

    def __init__(self, uhd, devices, boards, per_board, settings, names):
        from massaccess.errors import ConfigError

        self.uhd, self.devices, self.boards, self.per_board, self.settings = uhd, devices, boards, per_board, settings
        self.names = names  # of the boards, for messages
        self._sleep = sleep_of(uhd)
        if hasattr(settings.gain, "__len__") and len(settings.gain) != len(list(self.channels())):
            raise ConfigError(f"{len(settings.gain)} gains are given for {len(list(self.channels()))} channels: pass one, or one for each")
        if settings.reference in ("internal", "mimo") and len(names) > (2 if settings.reference == "mimo" else 1):
            raise ConfigError(
                f"{len(names)} boards with reference '{settings.reference}' do not run in step: connect 10 MHz and PPS of an OctoClock to "
                "every board and pass reference='external'"
            )

    def each_board(self):
        """(device, motherboard of it, name) of every board."""
        number = 0
        for device, count in zip(self.devices, self.boards, strict=True):
            for board in range(count):
                yield device, board, self.names[number]
                number += 1

    def channels(self):
        """(device, channel of it, name of the board) of every antenna, in order."""
        for device, board, name in self.each_board():
            for index in range(self.per_board):
                yield device, board * self.per_board + index, name

    def bring_up(self):
        """Everything up to a tuned, synchronised array that does not stream yet."""
        self._set_references()
        self._set_rates()
        self._wait_for_reference()
        self._set_time()
        self._set_chains()
        self.tune(self.settings.freq)

    def _set_references(self):
        kind = self.settings.reference
        for number, (device, board, _) in enumerate(self.each_board()):
            source = ("internal" if number == 0 else "mimo") if kind == "mimo" else kind
            device.set_clock_source(source, board)
            if source != "internal":
                device.set_time_source(source, board)
            if self.settings.subdev:
                device.set_subdev_spec(self.settings.subdev, board)

    def _set_rates(self):
        from massaccess.errors import ConfigError

        rate = self.settings.rate
        for device in self.devices:
            device.set_samp_rate(rate)
            if abs(device.get_samp_rate() - rate) > RATE_SHARE * rate:
                raise ConfigError(
                    f"the boards make {device.get_samp_rate():.12g} samples/s, not {rate:.12g}: choose one that divides their master clock"
                )
        clocks = {name: device.get_clock_rate(board) for device, board, name in self.each_board()}
        if len(set(clocks.values())) > 1:
            told = ", ".join(f"{name} {clock:.12g}" for name, clock in clocks.items())
            raise ConfigError(
                f"master clocks differ ({told} Hz): pass the same master_clock_rate for all boards, one that all of them have"
            )

    def _wait_for_reference(self):
        """Waits for the boards' sensor, where there is a reference to lock to; MassaccessError names the board that does not lock."""
        if self.settings.reference == "internal":
            return
        for device, board, name in self.each_board():
            has = "ref_locked" in device.get_mboard_sensor_names(board)
            if has and not self._comes(lambda d=device, b=board: d.get_mboard_sensor("ref_locked", b)):
                raise _failure(
                    f"board {name} does not lock to its {self.settings.reference} reference within {self.settings.lock_seconds:g} s "
                    f"(sensor ref_locked): check the 10 MHz cable and its level"
                )

    def _comes(self, ask):
        waited = 0.0
        while not ask().to_bool():
            if waited >= self.settings.lock_seconds:
                return False
            self._sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        return True

    def _set_time(self):
        zero = self.uhd.time_spec(0.0)
        if self.settings.reference == "internal":
            self.devices[0].set_time_now(zero, 0)
            return
        if self.settings.reference == "mimo":
            self.devices[0].set_time_now(zero, 0)
            self._sleep(COMMAND_SECONDS)  # the other board takes the time over the cable
            self._verify_cable()
            return
        elif len(self.devices) == 1:
            self.devices[0].set_time_unknown_pps(zero)
        else:
            self._set_time_of_several()
        self._verify_time()

    def _set_time_of_several(self):
        """One edge for all: waits for the next, and sets the time of the one after it."""
        first, waited = self.devices[0], 0.0
        last = first.get_time_last_pps(0).get_real_secs()
        while first.get_time_last_pps(0).get_real_secs() == last:
            if waited >= 2.0:
                raise _failure(f"board {self.names[0]} sees no PPS within 2 s: connect the OctoClock's PPS to every board")
            self._sleep(0.02)
            waited += 0.02
        for device in self.devices:
            device.set_time_next_pps(self.uhd.time_spec(0.0))
        self._sleep(1.1)

    def _verify_cable(self):
        """MassaccessError unless both boards on a MIMO cable have the same time, as far as asking one after the other can tell."""
        now = [device.get_time_now(board).get_real_secs() for device, board, _ in self.each_board()]
        if max(now) - min(now) > ASKING_SECONDS:
            raise _failure(f"boards {' and '.join(self.names)} do not have the same time: check the MIMO cable, or use an OctoClock")

    def _verify_time(self):
        """MassaccessError unless all boards had the same time at the last PPS. Asked twice: an edge may come between two questions."""
        for _ in range(2):
            times = {name: device.get_time_last_pps(board).get_real_secs() for device, board, name in self.each_board()}
            if max(times.values()) - min(times.values()) < 0.5 / self.settings.rate:
                return
            self._sleep(0.2)
        told = ", ".join(f"{name} {seconds:.9f}" for name, seconds in times.items())
        raise _failure(
            f"boards disagree on the time of the last PPS ({told} s): connect one PPS, with cables of one length, to every board"
        )

    def _set_chains(self):
        for antenna, (device, index, _) in enumerate(self.channels()):
            if hasattr(device, "set_rx_agc"):
                with contextlib.suppress(*ABSENT):  # most boards have no gain control to turn off
                    device.set_rx_agc(False, index)
            if self.settings.antenna:
                device.set_antenna(self.settings.antenna, index)
            if self.settings.bandwidth:
                device.set_bandwidth(self.settings.bandwidth, index)
            device.set_gain(self.settings.gain_of(antenna), index)

    def tune(self, freq):
        """Tunes all channels at one instant, waits until they are locked, and returns the instant as (seconds, fraction)."""
        from massaccess.errors import ConfigError

        when = self.devices[0].get_time_now(0) + self.uhd.time_spec(COMMAND_SECONDS)
        for device, board, _ in self.each_board():
            device.set_command_time(when, board)
        request = self.uhd.tune_request(freq, self.settings.lo_offset) if self.settings.lo_offset else self.uhd.tune_request(freq)
        for device, index, _ in self.channels():
            device.set_center_freq(request, index)
        for device, board, _ in self.each_board():
            device.clear_command_time(board)
        self._sleep(COMMAND_SECONDS + SETTLE_SECONDS)
        for device, index, name in self.channels():
            if "lo_locked" in device.get_sensor_names(index) and not self._comes(lambda d=device, i=index: d.get_sensor("lo_locked", i)):
                raise _failure(
                    f"the oscillator of channel {index} ({name}) does not lock within {self.settings.lock_seconds:g} s: choose a frequency "
                    "in the daughterboard's range, and check it for heat"
                )
            found = device.get_center_freq(index)
            if abs(found - freq) > TUNE_HZ:
                raise ConfigError(f"channel {index} ({name}) tunes to {found:.12g} Hz, not {freq:.12g}: choose a frequency that it reaches")
        return when.get_full_secs(), when.get_frac_secs()

    def set_gain(self, gain):
        """Sets the gain of all channels."""
        for device, index, _ in self.channels():
            device.set_gain(gain, index)

    def start_together(self, seconds):
        """Lets all devices start to stream at one instant, ``seconds`` from now; returns it as (seconds, fraction)."""
        when = self.devices[0].get_time_now(0) + self.uhd.time_spec(seconds)
        for device in self.devices:
            device.set_start_time(when)
        return when.get_full_secs(), when.get_frac_secs()

    def serials(self):
        """(serial number of the motherboard, channel on it) of every antenna."""
        rows = []
        for number, (device, index, name) in enumerate(self.channels()):
            serial = dict(device.get_usrp_info(index)).get("mboard_serial") or name
            rows.append((serial, number % self.per_board))
        return tuple(rows)


def _failure(text):
    from massaccess.errors import MassaccessError

    return MassaccessError(text)
