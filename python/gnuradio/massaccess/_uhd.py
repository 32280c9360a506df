"""Where USRP devices come from: UHD, or a simulated device with the same constructor, methods and tags."""

import time
from dataclasses import dataclass

DRIVERS = ("uhd", "sim")


def uhd_of(driver):
    """The module with ``usrp_source``, ``usrp_sink``, ``stream_args``, ``time_spec`` and ``tune_request``: gnuradio.uhd, or its simulation.

    Raises UnknownNameError for another driver, and MassaccessError where GNU Radio came without UHD.
    """
    from massaccess.errors import MassaccessError, unknown

    if driver == "sim":
        from . import _simulated_usrp

        return _simulated_usrp
    if driver != "uhd":
        raise unknown("driver", driver, DRIVERS)
    try:
        from gnuradio import uhd
    except ImportError as error:
        raise MassaccessError(
            f"gnuradio.uhd cannot be imported ({error}): install GNU Radio with UHD (apt-get install gnuradio libuhd-dev), or use "
            "driver='sim' (--source sim; flowgraphs have a twin, NAME_sim), a simulated array"
        ) from error
    return uhd


def make(kind, uhd, *arguments):
    """A ``usrp_source`` or ``usrp_sink``; where no device answers, MassaccessError says what to check."""
    from massaccess.errors import MassaccessError

    try:
        return getattr(uhd, kind)(*arguments)
    except MassaccessError:
        raise
    except (RuntimeError, LookupError) as error:
        raise MassaccessError(
            f"no USRP answers to '{arguments[0]}' ({_first_line(error)}): check power, cables and addresses with `uhd_find_devices`; "
            "without hardware, use driver='sim' (--source sim; flowgraphs have a twin, NAME_sim), a simulated array"
        ) from error


def sleep_of(uhd):
    """How to wait: a simulated device has a clock of its own."""
    return getattr(uhd, "sleep", time.sleep)


def device_args(addresses, master_clock_rate=0.0, more=""):
    """Device arguments of several motherboards: ``addr0=..,addr1=..`` for addresses, ``serial0=..`` for serial numbers, the master clock
    rate of all unless it is 0, and ``more``; ConfigError for no board, or for one that is there twice.

    >>> device_args(["192.168.10.2", "192.168.10.3"], 200e6)
    'addr0=192.168.10.2,addr1=192.168.10.3,master_clock_rate=200000000'
    """
    from massaccess.errors import ConfigError

    if not addresses or len(set(addresses)) < len(addresses):
        raise ConfigError(f"addresses are '{', '.join(addresses)}': pass the address or serial number of every board, once each")
    known = [f"{'addr' if '.' in address else 'serial'}{index}={address}" for index, address in enumerate(addresses)]
    clock = [f"master_clock_rate={master_clock_rate:.12g}"] if master_clock_rate else []
    return ",".join([*known, *clock, *([more] if more else [])])


def stream(uhd, channels):
    """What streamers are asked for: complex floats here, 16 bits a part on the wire."""
    return uhd.stream_args(cpu_format="fc32", otw_format="sc16", args="", channels=list(range(channels)))


def addresses_of(text):
    """Addresses out of text that separates them by commas or spaces; a list stays one."""
    parts = text.replace(",", " ").split() if isinstance(text, str) else text
    return [str(part) for part in parts]


@dataclass(frozen=True)
class Channel:
    """One antenna: the device (a streamer) that has it, its channel there, and its motherboard there."""

    device: int
    index: int
    board: int


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
