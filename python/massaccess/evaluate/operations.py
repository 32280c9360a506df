"""Real multiplications a frame of index-modulated pilots takes, counted as P3 section VI-C counts them: four for a complex product.

>>> from massaccess.core import SystemConfig
>>> cell = SystemConfig(users=100, rows=4, columns=4, pilot_len=50, data_len=0, index_bits=1)
>>> f"{multiplications('noncoherent-amp', cell, 50):.3g}", f"{multiplications('dl-mampnet', cell):.3g}"
('6.4e+07', '8.45e+07')
"""

from __future__ import annotations

from ..core import SystemConfig

LAYERS = 4  # of DL-mAMPnet
AMP = ("noncoherent-amp", "noncoherent-amp-threshold", "noncoherent-amp-sections")
COVARIANCE = ("noncoherent-covariance", "noncoherent-covariance-lr", "noncoherent-covariance-fixed")


def multiplications(receiver: str, config: SystemConfig, iterations: float | None = None) -> float | None:
    """The leading terms; ``None`` for receivers without a count here. ``iterations``: steps of AMP, or sweeps of the covariance descent.

    AMP: 8 T NQ L M. DL-mAMPnet, as printed: 8 T NQ L M^2 + 4 N^2 Q^2 M with T layers; sharing its matrices over the antennas
    takes an M from the first term. Covariance descent, which the paper does not count: 8 L^2 for each column that is looked at and
    4 L^2 for each that moves, every column in each fourth sweep and those of the active devices in all; its decision looks at every
    column once.
    """
    columns, symbols, antennas = config.users * config.sequences, config.pilot_len, config.antennas
    if receiver == "dl-mampnet":
        return float(8 * LAYERS * columns * symbols * antennas**2 + 4 * columns**2 * antennas)
    if iterations is None:
        return None
    if receiver in AMP:
        return float(8 * iterations * columns * symbols * antennas)
    if receiver in COVARIANCE:
        active = config.activity_prior * config.users
        looks = columns * iterations / 4 + active * iterations
        decision = 0 if receiver == "noncoherent-covariance-fixed" else 8 * columns * symbols**2
        return float(8 * looks * symbols**2 + 4 * active * iterations * symbols**2 + 4 * symbols**2 * antennas + decision)
    return None
