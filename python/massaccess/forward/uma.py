"""Makes the channel bank `uma`: 3GPP TR 38.901 urban macro cell without line of sight, seen by a planar array.

The only module that uses Sionna, and only while it runs; what it makes is a file that everything else reads without Sionna. Rays are
drawn once per user for a single antenna element; the array response of a planar array is a product of a row and a column factor, so
each user's channel is one small matrix product over rays. This is the same as Sionna's own array, and much faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..rng import derive
from ..rng import generator as make_generator

BATCH = 1024  # users drawn at once; part of the recipe, since seeds are per batch
BASE_HEIGHT_M = 25.0  # TR 38.901 table 7.2-1, UMa
USER_HEIGHT_M = 1.5
SECTOR_DEG = 60.0  # to either side of boresight
CURE = (
    "make an environment of its own (python3 -m venv channels; channels/bin/pip install 'massaccess[channels]') and run the command there"
)


@dataclass(frozen=True)
class UmaCell:
    """The cell that users are dropped in: one three-sector macro site, of which the array covers one sector.

    The array stands 25 m high, without tilt; users are outdoors at 1.5 m, all without line of sight, evenly spread over the part of a ring
    from ``min_m`` to ``max_m`` (2D distance, 35 m being the standard's minimum) within 60 degrees of boresight.
    """

    carrier_hz: float = 3.5e9
    min_m: float = 35.0
    max_m: float = 250.0

    def __post_init__(self) -> None:
        if not 10 <= self.min_m < self.max_m <= 5000:
            raise ConfigError(f"users between {self.min_m} and {self.max_m} m: TR 38.901 UMa holds for 10 m to 5 km")
        if not 0.5e9 <= self.carrier_hz <= 100e9:
            raise ConfigError(f"carrier_hz is {self.carrier_hz:g}: TR 38.901 holds for 0.5e9 to 100e9")

    def drop(self, users: int, *, generator: torch.Generator) -> Tensor:
        """Positions [users 3] in metres; the array is at (0, 0, 25) and looks along x.

        >>> UmaCell().drop(5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3])
        """
        share, turn = torch.rand(2, users, generator=generator)
        radius = torch.sqrt(self.min_m**2 + share * (self.max_m**2 - self.min_m**2))
        azimuth = (2 * turn - 1) * math.radians(SECTOR_DEG)
        return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), torch.full_like(radius, USER_HEIGHT_M)], dim=-1)


def generate_uma_bank(
    count: int,
    *,
    rows: int = 8,
    columns: int = 8,
    carrier_hz: float = 3.5e9,
    seed: int = 1,
    train: int | None = None,
    min_m: float = 35.0,
    max_m: float = 250.0,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draws ``count`` independent users and gives what `banks.save_bank` takes: h [count rows*columns] complex64, gain_db, train, recipe.

    Narrowband: the sum of all ray coefficients at the carrier. Each channel is divided by the root of its user's local mean gain (the
    mean of |h|^2 over the random phases of that user's rays, not the instantaneous ||h||^2), then one factor for all makes the mean
    ||h||^2 equal the number of antennas. ``gain_db`` is that local mean gain with path loss and shadowing. ``train`` is the length of
    the training half (default count // 2); users are independent, so the halves share nothing. ``on_batch(done, count)`` reports progress.

    Sionna's random state is global: this reseeds it, and with it torch's default generator. Raises ConfigError without Sionna.
    Source: TR 38.901 v16.1 sections 7.4 and 7.5, by way of Sionna; papers P1 and P2 name the same scenario and used QuaDRiGa.

        bank = generate_uma_bank(1000, seed=1)
        save_bank("uma.npz", **bank)
    """
    train = count // 2 if train is None else train
    if count < 1 or not 0 <= train <= count:
        raise ConfigError(f"count is {count} and train {train}: pass 1 or more users, and a training half of at most count")
    sionna = _sionna()
    cell = UmaCell(carrier_hz, min_m, max_m)
    link = _Link(sionna, cell)
    channels, gains = [], []
    for batch in range(math.ceil(count / BATCH)):
        rays = link.rays(seed, batch)
        channels.append(planar_channel(rays.coefficients, rays.zenith, rays.azimuth, rows, columns))
        gains.append(rays.gain_db)
        if on_batch is not None:
            on_batch(min(count, (batch + 1) * BATCH), count)
    h = torch.cat(channels)[:count]
    h = h * math.sqrt(rows * columns / float(h.abs().square().sum(-1).mean()))
    recipe = _recipe(count, rows, columns, cell, seed, train, sionna.version)
    return {"h": h.numpy(), "gain_db": torch.cat(gains)[:count].numpy(), "train": train, "recipe": recipe}


def planar_channel(coefficients: Tensor, zenith: Tensor, azimuth: Tensor, rows: int, columns: int) -> Tensor:
    """Sum of plane waves over a half-wavelength array in the y-z plane: [user ray] coefficients and angles [rad] to [user rows*columns].

    Row 0 is on top, column 0 at the smallest y; the antenna index is row * columns + column and phases are relative to the middle.

    >>> broadside = torch.tensor([[math.pi / 2]]), torch.tensor([[0.0]])
    >>> planar_channel(torch.ones(1, 1, dtype=torch.complex64), *broadside, rows=1, columns=2)
    tensor([[1.+0.j, 1.+0.j]])
    """
    down = torch.arange(rows) - (rows - 1) / 2
    right = torch.arange(columns) - (columns - 1) / 2
    row_phase = -math.pi * zenith.cos()[:, None, :] * down[:, None]
    column_phase = math.pi * (zenith.sin() * azimuth.sin())[..., None] * right
    by_row = torch.polar(torch.ones_like(row_phase), row_phase) * coefficients[:, None, :]
    return (by_row @ torch.polar(torch.ones_like(column_phase), column_phase)).flatten(1)


class _Link:
    """Sionna's scenario, large-scale parameters and rays between one array element and `BATCH` independent users."""

    def __init__(self, sionna: SimpleNamespace, cell: UmaCell) -> None:
        model, options = sionna.tr38901, {"polarization": "single", "polarization_type": "V", "carrier_frequency": cell.carrier_hz}
        self._sionna, self._cell = sionna, cell
        self.user_array = model.PanelArray(num_rows_per_panel=1, num_cols_per_panel=1, antenna_pattern="omni", **options)
        self.element = model.PanelArray(num_rows_per_panel=1, num_cols_per_panel=1, antenna_pattern="38.901", **options)
        self.scenario = model.UMaScenario(cell.carrier_hz, "low", self.user_array, self.element, "downlink", spec_version="16.1")

    def rays(self, seed: int, batch: int) -> SimpleNamespace:
        """One batch: coefficients [BATCH ray] with local mean power 1, zenith, azimuth [BATCH ray] at the array, gain_db [BATCH]."""
        # One user per topology: users of one topology have correlated large-scale parameters, and the halves would not be independent.
        generator = make_generator(seed, "uma", batch)
        self._sionna.config.seed = derive(seed, "uma", batch, "sionna")
        still, base = torch.zeros(BATCH, 1, 3), torch.tensor([0.0, 0.0, BASE_HEIGHT_M]).repeat(BATCH, 1, 1)
        users = self._cell.drop(BATCH, generator=generator).unsqueeze(1)
        self.scenario.set_topology(users, base, still, still, still, torch.zeros(BATCH, 1, dtype=torch.bool), los=False)
        large = self._sampler(self._sionna.tr38901.LSPGenerator)()
        raw = self._sampler(self._sionna.tr38901.RaysGenerator)(large)
        # Vertical elements without tilt or slant: of equation 7.5-28 only the zenith field and the first of the four phases remain.
        raw.phases = 2 * math.pi * torch.rand(*raw.aod.shape, 4, generator=generator)
        field, _ = self.element.ant_pol1.field(raw.zod, raw.aod)
        power = (raw.powers.unsqueeze(-1) / raw.aod.shape[-1] * field.square()).flatten(1)
        local = power.sum(-1, keepdim=True)
        return SimpleNamespace(
            coefficients=torch.polar((power / local).sqrt(), raw.phases[..., 0].flatten(1)),
            zenith=raw.zod.flatten(1),
            azimuth=raw.aod.flatten(1),
            gain_db=(10 * torch.log10(local * large.sf.flatten(1)) - large.pathloss.flatten(1)).squeeze(-1),
            local=local,
            raw=raw,
        )

    def _sampler(self, kind: type) -> Any:
        sampler = kind(self.scenario)
        sampler.topology_updated_callback()
        return sampler


def _sionna() -> SimpleNamespace:
    try:
        import sionna.phy
        from sionna.phy.channel import tr38901
    except ImportError as error:
        raise ConfigError(f"generating channels needs Sionna, which does not go with GNU Radio's NumPy ({error}): {CURE}") from error
    return SimpleNamespace(tr38901=tr38901, config=sionna.phy.config, version=sionna.__version__)


def _recipe(count: int, rows: int, columns: int, cell: UmaCell, seed: int, train: int, version: str) -> dict[str, Any]:
    changed = {"rows": (rows, 8), "columns": (columns, 8), "train": (train, count // 2), "carrier-hz": (cell.carrier_hz, 3.5e9)}
    changed |= {"min-m": (cell.min_m, 35.0), "max-m": (cell.max_m, 250.0)}
    options = "".join(f" --{name} {value}" for name, (value, default) in changed.items() if value != default)
    return {
        "command": f"massaccess channels generate --count {count} --seed {seed}{options} --out uma.npz",
        "model": "3GPP TR 38.901 UMa, no line of sight, outdoor users, spec_version 16.1, one ray set per user, flat in frequency",
        "carrier_hz": cell.carrier_hz,
        "array": f"{rows}x{columns} half-wavelength planar, vertical 38.901 elements, no tilt, "
        f"index = row * {columns} + column, row 0 on top",
        "rows": rows,
        "columns": columns,
        "heights_m": [BASE_HEIGHT_M, USER_HEIGHT_M],
        "drop": f"even over a ring sector of {cell.min_m:g} to {cell.max_m:g} m, +-{SECTOR_DEG:g} degrees, one user per drop",
        "normalisation": "each user by its local mean gain, then one factor so that mean ||h||^2 = antennas",
        "seed": seed,
        "train": train,
        "batch": BATCH,
        "versions": {"sionna": version, "torch": torch.__version__},
    }
