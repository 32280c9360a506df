"""Networks: bare modules, tensors in and out; everything they are made of comes from plain constructor arguments.

A network of channels takes antenna rows x [R M] complex and the noise variance [R] of each, and returns the posterior mean [R M] and the
variance of every entry of its error in beams [R M], or ``None``. One of channel matrices takes x [R users antennas], any size.
One of activity takes received pilots, pilots, noise variance and prior activity of frames (and rows and columns of the array), and returns
log odds [B users] of being active. One of sequences takes received pilots, pilots and noise variance, and returns log odds [B users Q].
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import ConfigError, unknown

NETWORKS = {
    "angles": "angles:Angles",
    "dl-mampnet": "dl_mampnet:DlMampNet",
    "gate": "gate:GatedDenoiser",
    "mixture": "mixture:Mixture",
    "ncsnpp": "ncsnpp:Ncsnpp",
    "refinenet": "refinenet:RefineNet",
    "unrolled-covariance": "unrolled_covariance:UnrolledCovariance",
    "vpl-audnet": "vpl_audnet:VplAudNet",
}

DETECTORS = ("unrolled-covariance", "vpl-audnet")
"""Those of activity."""
NONCOHERENT = ("dl-mampnet",)
"""Those that say who sent which of its sequences."""


def build(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The network called ``name`` with constructor arguments ``config``; UnknownNameError or ConfigError when there is none such."""
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    module, _, attribute = NETWORKS[name].partition(":")
    try:
        network: nn.Module = getattr(importlib.import_module(f".{module}", __name__), attribute)(**config)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be made from {dict(config)} ({error}): check the names of its options") from error
    return network
