"""DL-mAMPnet: approximate message passing, unfolded, and a module that makes decisions of what it finds (P3 section IV)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import ConfigError

DENOISERS = ("element", "row")
PACE = 10.0
"""Parameters of the denoiser are stored in units of it: Adam moves every parameter by about its rate a step, and these have farther to go
than the entries of the matrices."""
LEAST = 1e-9  # of effective noise, in units of the thermal one: a frame of zeros has none


class DlMampNet(nn.Module):
    """Log odds of every sequence of every user, from ``layers`` unfolded iterations of AMP (44)-(48), (56)-(57) and the refinement module
    (49)-(55). It knows one pilot book, and learns the mean gains of its users.

    Samples are divided by the deviation of the noise, as gains span 50 dB. What is odd in print is put right, ``printed`` takes three of
    these back: the Onsager term counts 2 L M real samples, tau_t^2 is the mean square of the residual, not its root, and of a user's
    sequences the pooling keeps the one with the greatest |Re|^2 + |Im|^2, not two, one for each part. B_t is shared by the antennas: 2NQ x
    2L numbers, where the paper has M x M times as many; so are theta_1 and theta_2. FC2 is given logarithms, those of the gains scaled
    down, as they are the same in every frame; the refinement sees rows divided by their learned deviation sqrt(2 theta_2), otherwise the
    weights between all rows would have to bridge 50 dB.

    ``denoiser`` "element" is the paper's (47): every real part of every antenna is judged alone. "row" judges the 2M real parts of a
    sequence together, as they are zero together.

    >>> network = DlMampNet(users=3, sequences=2, pilot_len=5, antennas=4)
    >>> book = torch.ones(5, 6, dtype=torch.complex64)
    >>> network.begin(book, power=torch.ones(6), activity=0.1)
    >>> network(torch.ones(7, 5, 4, dtype=torch.complex64), book, torch.ones(7)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        *,
        users: int,
        sequences: int,
        pilot_len: int,
        antennas: int,
        layers: int = 4,
        hidden: int = 64,
        denoiser: str = "element",
        printed: bool = False,
    ) -> None:
        super().__init__()
        if min(users, sequences, pilot_len, antennas, layers, hidden) < 1 or denoiser not in DENOISERS:
            raise ConfigError(f"dl-mampnet: pass sizes of 1 or more, and a denoiser of {' or '.join(DENOISERS)}")
        self.users, self.sequences, self.pilot_len, self.antennas = users, sequences, pilot_len, antennas
        columns = users * sequences
        self.layers = nn.ModuleList(AmpLayer(columns, pilot_len, whole=denoiser == "row", printed=printed) for _ in range(layers))
        self.refinement = Refinement(users, sequences, antennas, hidden, apart=printed)

    @torch.no_grad()
    def begin(self, pilots: Tensor, *, power: Tensor, activity: float) -> None:
        """Puts plain AMP into the layers (section V-A): B_t = S^T, v_t = 1, theta_1 = log((Q - activity) / activity), and theta_2 = half of
        ``power`` [NQ], the mean power of a channel entry of each sequence's user."""
        for layer in self.layers:
            layer.begin(pilots, power, math.log((self.sequences - activity) / activity))  # type: ignore[operator]

    def phase(self, index: int) -> None:
        """Lets gradients flow into what phase ``index`` of Algorithm 1 trains: a layer, then the refinement, then everything."""
        count = len(self.layers)
        for number, part in enumerate([*self.layers, self.refinement]):
            part.requires_grad_(index in (number, count + 1))

    def forward(self, rx: Tensor, pilots: Tensor, noise_var: Tensor) -> Tensor:
        """rx [B L M] and pilots [L NQ] complex, noise_var [B]: log odds [B N Q], which the paper hardens with (55), that is at 0."""
        return self.inside(rx, pilots, noise_var)["log_odds"]

    def inside(self, rx: Tensor, pilots: Tensor, noise_var: Tensor) -> dict[str, Tensor]:
        """What Fig. 10 shows: ``estimate`` X_T [2NQ B M] in units of the noise's deviation, ``pooled`` MaxUnpool(MaxPool(o)) [B 2NQ], and
        ``log_odds`` [B N Q]."""
        found, level = self.estimate(rx, pilots, noise_var)
        gain = self.layers[-1].gain(noise_var)  # type: ignore[operator]
        pooled = self.refinement.pooled(found, gain)
        return {"estimate": found, "pooled": pooled, "log_odds": self.refinement(pooled, gain, level)}

    def estimate(self, rx: Tensor, pilots: Tensor, noise_var: Tensor, layers: int | None = None) -> tuple[Tensor, Tensor]:
        """X_t [2NQ B M] after ``layers`` layers (all of them), in units of the noise's deviation, and tau^2 [B] of the last."""
        received = torch.cat([rx.real, rx.imag], 1).transpose(0, 1) / noise_var.sqrt()[:, None]
        book = real_form(pilots.to(rx))
        found, residual = received.new_zeros(book.shape[1], *received.shape[1:]), received
        level = received.new_zeros(rx.shape[0])
        for layer in self.layers[:layers]:
            found, residual, level = layer(found, residual, received, book, noise_var)
        return found, level


class AmpLayer(nn.Module):
    """One iteration: estimate and residual to better ones."""

    def __init__(self, columns: int, pilot_len: int, *, whole: bool, printed: bool) -> None:
        super().__init__()
        self.whole, self.printed = whole, printed
        self.matrix = nn.Parameter(torch.zeros(2 * columns, 2 * pilot_len))
        self.scale = nn.Parameter(torch.ones(()))
        self.log_odds = nn.Parameter(torch.zeros(columns if whole else 2 * columns))
        self.log_gain = nn.Parameter(torch.zeros(columns if whole else 2 * columns))

    def begin(self, pilots: Tensor, power: Tensor, log_odds: float) -> None:
        self.matrix.copy_(real_form(pilots).mT)
        self.log_odds.fill_(log_odds / PACE)
        self.log_gain.copy_((0.5 * power).log().repeat(1 if self.whole else 2) / PACE)

    def forward(self, found: Tensor, residual: Tensor, rx: Tensor, book: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """found [2NQ B M], residual and rx [2L B M], book [2L 2NQ]: the new estimate and residual, and tau^2 [B]."""
        level = residual.square().mean((0, 2)).clamp_min(LEAST)
        level = level.sqrt() if self.printed else level
        denoiser, prior = denoised_rows if self.whole else denoised, PACE * self.log_odds[:, None, None]
        mean, slope = denoiser(found + times(self.matrix, residual), self._gain(noise_var)[..., None], level[:, None], prior)
        found = self.scale * mean
        onsager = self.scale * slope.mean((0, 2)) * len(found) / len(residual) * (2 if self.printed else 1)
        return found, rx - times(book, found) + onsager[:, None] * residual, level

    def gain(self, noise_var: Tensor) -> Tensor:
        """theta_2 [2NQ B]: power of a real entry of an active row, in units of the noise variance."""
        return self._gain(noise_var).repeat(2 if self.whole else 1, 1)

    def _gain(self, noise_var: Tensor) -> Tensor:
        return torch.exp(PACE * self.log_gain)[:, None] / noise_var


def denoised(pseudo: Tensor, gain: Tensor, level: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """(47) and its derivative (48): E[x | x + n = pseudo], entry by entry, for real x that is zero with odds exp(prior) and otherwise
    N(0, gain), and n of variance ``level``; all broadcast."""
    spread = level + level.square() / gain
    awake = torch.sigmoid(0.5 * pseudo.square() / spread - 0.5 * torch.log1p(gain / level) - prior)
    share = awake * (gain / (gain + level))
    return share * pseudo, share * (1 + (1 - awake) * pseudo.square() / spread)


def denoised_rows(pseudo: Tensor, gain: Tensor, level: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The same for rows pseudo [2R B M], real parts before imaginary ones, whose 2M entries are zero together; gain and prior [R B 1], and
    the derivative as its mean over a row [R B 1]."""
    parts = pseudo.unflatten(0, (2, -1))
    spread, entries = level + level.square() / gain, 2 * pseudo.shape[-1]
    energy = parts.square().sum((0, 3))[..., None]
    awake = torch.sigmoid(0.5 * energy / spread - 0.5 * entries * torch.log1p(gain / level) - prior)
    share = awake * (gain / (gain + level))
    return (share * parts).flatten(0, 1), share * (1 + (1 - awake) * energy / (entries * spread))


class Refinement(nn.Module):
    """Decisions out of the last estimate: soft thresholds (49)-(52), at most one sequence a user, learned thresholds (53)-(55).

    ``apart``: real and imaginary parts are pooled apart, as printed.
    """

    def __init__(self, users: int, sequences: int, antennas: int, hidden: int, *, apart: bool) -> None:
        super().__init__()
        rows = 2 * users * sequences
        self.sequences, self.apart = sequences, apart
        self.combine = nn.Linear(antennas, 1)  # a convolution with a 1 x M kernel, the same for all rows
        self.inner, self.outer = nn.Linear(rows, hidden), nn.Linear(hidden, rows)
        self.hard = nn.Linear(rows + 1, rows)
        self.decide = nn.Linear(rows, rows // 2)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Begins with the mean over antennas against thresholds, each sequence for itself; He's start (section V-A3) has to find out first
        which row belongs to which sequence."""
        half = self.decide.out_features
        nn.init.constant_(self.combine.weight, 1 / self.combine.in_features)
        nn.init.zeros_(self.combine.bias)
        nn.init.zeros_(self.outer.weight)
        nn.init.constant_(self.outer.bias, -2.0)
        nn.init.zeros_(self.hard.weight)
        nn.init.constant_(self.hard.bias, 0.1)
        self.decide.weight.copy_(8 * torch.eye(half).repeat(1, 2))
        nn.init.zeros_(self.decide.bias)

    def pooled(self, found: Tensor, gain: Tensor) -> Tensor:
        """found [2NQ B M], gain [2NQ B]: what is left of each row [B 2NQ], of one sequence a user at most."""
        seen = (found / (2 * gain).sqrt()[..., None]).abs().transpose(0, 1)
        average = seen.mean(-1)
        soft = torch.sigmoid(self.outer(self.inner(average).relu())) * average
        return one_each((self.combine(seen)[..., 0] - soft).clamp_min(0), self.sequences, apart=self.apart)

    def forward(self, pooled: Tensor, gain: Tensor, level: Tensor) -> Tensor:
        """pooled [B 2NQ], gain [2NQ B], level [B]: log odds [B N Q]."""
        hard = self.hard(torch.cat([gain.log().T / len(gain), level.log()[:, None]], 1)).clamp_min(0)
        log_odds: Tensor = self.decide(pooled - hard)
        return log_odds.unflatten(1, (-1, self.sequences))


def one_each(rows: Tensor, sequences: int, *, apart: bool = False) -> Tensor:
    """rows [B 2NQ] >= 0 with all sequences of a user but its strongest set to zero: MaxUnpool(MaxPool(rows)), pooled by the energy of both
    halves; ``apart``: each half by itself, which can leave two."""
    parts = rows.unflatten(1, (2, -1, sequences))
    energy = parts.square() if apart else parts.square().sum(1, keepdim=True).expand_as(parts)
    best = energy.argmax(-1, keepdim=True)
    return torch.zeros_like(parts).scatter(-1, best, parts.gather(-1, best)).flatten(1)


def real_form(matrix: Tensor) -> Tensor:
    """[[Re, -Im], [Im, Re]] of a complex matrix (38)."""
    return torch.cat([torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)])


def times(matrix: Tensor, batch: Tensor) -> Tensor:
    """matrix [I J] times batch [J B M], as one product."""
    return (matrix @ batch.flatten(1)).unflatten(1, batch.shape[1:])
