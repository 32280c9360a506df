"""massaccess: grant-free massive random access receivers for massive MIMO.

>>> from massaccess import SystemConfig
>>> SystemConfig(users=16).antennas
64
"""

from .core import Estimate, Frame, FrontEnd, Observation, SystemConfig
from .errors import MassaccessError

__version__ = "0.1.0"

__all__ = ["Estimate", "Frame", "FrontEnd", "MassaccessError", "Observation", "SystemConfig", "__version__"]
