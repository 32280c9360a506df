"""GNU Radio blocks of massaccess: `from gnuradio import massaccess`.

Importing this package is cheap; torch is imported when the first block is made. There is no ``__init__.py`` in the folder above:
GNU Radio's own package finds this one.
"""

from ._base import failures, run
from .activity_detector import activity_detector
from .channel_simulator import channel_simulator
from .meter import meter
from .pilot_framer import pilot_framer
from .population import population
from .quantizer import quantizer
from .receiver import receiver
from .sigmf_recorder import sigmf_recorder
from .sigmf_replay import sigmf_replay
from .supervisor import supervisor
from .uplink import capture, uplink
from .zmq_publisher import zmq_publisher

BLOCKS = (
    "activity_detector",
    "channel_simulator",
    "meter",
    "pilot_framer",
    "population",
    "quantizer",
    "receiver",
    "sigmf_recorder",
    "sigmf_replay",
    "supervisor",
    "zmq_publisher",
)

__all__ = [*BLOCKS, "capture", "failures", "run", "uplink"]
