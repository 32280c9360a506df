"""DL-mAMPnet as a receiver of index-modulated pilots."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core import Estimate, Observation, sequence_estimate
from ..errors import ConfigError
from ..forward.pilots import book_id, pilot_book
from ..weights import Trained, choose_sequences

CHUNK = 64  # frames at once: what a core's cache holds
NEAR = 1e-3  # of entries of two pilots that are the same


@dataclass(frozen=True)
class DlMampNetReceiver:
    """Unfolded AMP with learned matrices, thresholds and mean gains, for the one pilot book and the one cell that it was trained for (P3
    sections IV, V; `networks.dl_mampnet` lists what is put right and what departs).

    ``weights``: "auto" (those that ship for the sizes and the pilot book of the observation), a name of `massaccess weights`, or a file;
    ``denoiser``: which of them "auto" takes, "element" (the paper's, every entry for itself) or "row" (antennas judged together).

    The network has learned the users' mean gains; ``user_gain`` of the observation is not looked at. Users may be numbered in any way. The
    log odds are the network's: of a sequence against all else, so that a decision is the paper's (55), at even odds.
    """

    weights: str = "auto"
    denoiser: str = "element"
    network: ClassVar[str] = "dl-mampnet"
    weights_kind: ClassVar[str] = "noncoherent"

    def __call__(self, obs: Observation, *, generator: torch.Generator | None = None) -> Estimate:
        """Estimate with ``sequence_odds`` [B N Q]. ConfigError for sizes or a pilot book that the weights were not made for."""
        trained = choose_sequences(self.weights, self.network, obs, denoiser=self.denoiser)
        user, network = _numbers(obs, trained), _on(trained, obs.pilot_rx.device)
        back, book = user.argsort(), obs.pilots.unflatten(1, (obs.users, obs.sequences))
        rx = obs.pilot_rx.to(torch.complex64)
        level = rx.real.new_full((obs.frames,), obs.linear_noise_var)
        pilots = book[:, back].flatten(1).to(rx)
        with torch.no_grad():  # an empty batch has one empty part
            odds = [network(some, pilots, var) for some, var in zip(rx.split(CHUNK), level.split(CHUNK), strict=True)]
        return sequence_estimate(torch.cat(odds)[:, user].to(obs.pilot_rx.real.dtype), {"nfe": 1})


def _numbers(obs: Observation, trained: Trained) -> Tensor:
    """Under which number [N] the network knows each user; ConfigError unless their sequences are those that it was trained with."""
    known = trained.header.pilots
    if book_id(obs.pilots) == known["id"]:
        return torch.arange(obs.users, device=obs.pilots.device)
    book = _known_book(trained).to(obs.pilots).unflatten(1, (obs.users, obs.sequences))
    mine = obs.pilots.unflatten(1, (obs.users, obs.sequences))
    apart = (mine[:, :, None] - book[:, None]).abs().amax((0, 3))
    least, user = apart.min(1)
    if bool((least > NEAR).any()) or len(user.unique()) < len(user):
        raise ConfigError(
            f"these weights of {trained.header.network} know the {known['kind']} pilot book {known['id']} (seed {known['seed']}) and "
            f"no other, and this one is {book_id(obs.pilots)}: pass that book, or weights that were trained with this one"
        )
    return user


@functools.lru_cache(maxsize=8)
def _known_book(trained: Trained) -> Tensor:
    known = trained.header.pilots
    book = pilot_book(users=known["users"], pilot_len=trained.header.config["pilot_len"], kind=known["kind"], seed=known["seed"])
    return book / torch.linalg.vector_norm(book, dim=0) if known["energy"] == "sequence" else book


@functools.lru_cache(maxsize=8)
def _on(trained: Trained, device: torch.device) -> nn.Module:
    """The network on ``device``; the same object each time."""
    return copy.deepcopy(trained.network).to(device)
