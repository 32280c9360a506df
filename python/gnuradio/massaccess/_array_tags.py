"""What the tags of an array stream say of the array: whose channels, at which frequency, rate and gain."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pmt

NAMES = ("rx_channels", "rx_freq", "rx_rate", "rx_gain")


@dataclass(frozen=True)
class ArrayState:
    """The setting of an array, as far as tags have told it; ``channels`` are (serial number, channel), ``gain`` [dB] one number or one for
    each antenna."""

    antennas: int
    rx_channels: tuple = ()
    rx_freq: float = 0.0
    rx_rate: float = 0.0
    rx_gain: object = 0.0

    @property
    def channels(self):
        return self.rx_channels or tuple(("array", antenna) for antenna in range(self.antennas))

    def gain_of(self, antenna):
        return float(self.rx_gain[antenna]) if isinstance(self.rx_gain, tuple) else float(self.rx_gain)

    def keys(self):
        """`massaccess.calibration.Key` of every antenna."""
        from massaccess.calibration import Key

        setting = self.rx_freq, self.rx_rate
        return [Key(serial, channel, *setting, self.gain_of(antenna)) for antenna, (serial, channel) in enumerate(self.channels)]

    def told(self, tags):
        """The state after ``tags``; itself when nothing has changed. ConfigError when they are of another number of antennas."""
        from massaccess.errors import ConfigError

        changes = {}
        for tag in tags:
            name = pmt.symbol_to_string(tag.key)
            if name in NAMES:
                changes[name] = parse_channels(str(tag.value)) if name == "rx_channels" else _plain(pmt.to_python(tag.value))
        for name in ("rx_channels", "rx_gain"):
            if isinstance(changes.get(name), tuple) and len(changes[name]) not in (0, self.antennas):
                raise ConfigError(
                    f"tag {name} is of {len(changes[name])} channels, this block has {self.antennas} antennas: make them equal"
                )
        state = dataclasses.replace(self, **changes)
        return self if state == self else state


def name_channels(channels):
    """Text for tag ``rx_channels``: serial numbers, each with its channels.

    >>> name_channels((("30C51B9", 0), ("30C51B9", 1), ("30C52A0", 0)))
    '30C51B9:0,1 30C52A0:0'
    """
    parts = []
    for serial, channel in channels:
        if parts and parts[-1][0] == serial:
            parts[-1][1].append(str(channel))
        else:
            parts.append((serial, [str(channel)]))
    return " ".join(f"{serial}:{','.join(numbers)}" for serial, numbers in parts)


def parse_channels(text):
    """The inverse of `name_channels`; ConfigError for what is none.

    >>> parse_channels("30C51B9:0,1 30C52A0:0")
    (('30C51B9', 0), ('30C51B9', 1), ('30C52A0', 0))
    """
    from massaccess.errors import ConfigError

    try:
        pairs = [part.rpartition(":") for part in text.split()]
        return tuple((serial, int(number)) for serial, _, numbers in pairs for number in numbers.split(","))
    except ValueError:
        raise ConfigError(f"channels are '{text:.60}': pass 'SERIAL:0,1 SERIAL:0,1', in the order of the antennas") from None


def gain_pmt(gain):
    """Tag ``rx_gain``: one number for all antennas, or one for each."""
    return pmt.init_f64vector(len(gain), [float(value) for value in gain]) if hasattr(gain, "__len__") else pmt.from_double(float(gain))


def _plain(value):
    return tuple(float(entry) for entry in value) if isinstance(value, (np.ndarray, list, tuple)) else float(value)
