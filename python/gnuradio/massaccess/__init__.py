"""GNU Radio blocks of massaccess: `from gnuradio import massaccess`.

Importing this package is cheap; torch is imported when the first block is made. There is no ``__init__.py`` in the folder above:
GNU Radio's own package finds this one.
"""

from ._base import failures as failures
from ._base import run as run
from ._fec import fec_decoder as fec_decoder
from ._transmission import transmission as transmission
from .access_point import access_point as access_point
from .activity_detector import activity_detector as activity_detector
from .air_monitor import air_monitor as air_monitor
from .air_simulator import air_simulator as air_simulator
from .air_source import air_source as air_source
from .array_calibrator import array_calibrator as array_calibrator
from .array_corrector import array_corrector as array_corrector
from .array_health import array_health as array_health
from .array_phases import array_phases as array_phases
from .array_recorder import array_recorder as array_recorder
from .array_replay import array_replay as array_replay
from .array_splitter import array_splitter as array_splitter
from .burst_transmitter import burst_transmitter as burst_transmitter
from .channel_simulator import channel_simulator as channel_simulator
from .fusion_center import fusion_center as fusion_center
from .meter import meter as meter
from .noncoherent_receiver import noncoherent_receiver as noncoherent_receiver
from .payload_decoder import payload_decoder as payload_decoder
from .payload_encoder import payload_encoder as payload_encoder
from .pilot_framer import pilot_framer as pilot_framer
from .population import population as population
from .quantizer import quantizer as quantizer
from .receiver import receiver as receiver
from .sample_packer import sample_packer as sample_packer
from .sample_unpacker import sample_unpacker as sample_unpacker
from .sigmf_recorder import sigmf_recorder as sigmf_recorder
from .sigmf_replay import sigmf_replay as sigmf_replay
from .station import source_options as source_options
from .station import station as station
from .supervisor import supervisor as supervisor
from .synchronizer import synchronizer as synchronizer
from .uplink import capture as capture
from .uplink import uplink as uplink
from .usrp_array_sink import usrp_array_sink as usrp_array_sink
from .usrp_array_source import usrp_array_source as usrp_array_source
from .zmq_publisher import zmq_publisher as zmq_publisher
from .zmq_sample_listener import zmq_sample_listener as zmq_sample_listener
from .zmq_sample_publisher import zmq_sample_publisher as zmq_sample_publisher

BLOCKS = (
    "access_point",
    "activity_detector",
    "air_monitor",
    "air_simulator",
    "air_source",
    "array_calibrator",
    "array_corrector",
    "array_health",
    "array_recorder",
    "array_replay",
    "array_phases",
    "array_splitter",
    "burst_transmitter",
    "channel_simulator",
    "fusion_center",
    "meter",
    "noncoherent_receiver",
    "payload_decoder",
    "payload_encoder",
    "pilot_framer",
    "population",
    "quantizer",
    "receiver",
    "sample_packer",
    "sample_unpacker",
    "sigmf_recorder",
    "sigmf_replay",
    "supervisor",
    "synchronizer",
    "usrp_array_sink",
    "usrp_array_source",
    "zmq_publisher",
    "zmq_sample_listener",
    "zmq_sample_publisher",
)

__all__ = [*BLOCKS, "capture", "failures", "fec_decoder", "run", "source_options", "station", "transmission", "uplink"]
