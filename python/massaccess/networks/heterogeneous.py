"""A Transformer whose tokens are of two kinds: one weight for pilots, another for the received signal (P1 Appendix A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Twofold(nn.Module):
    """Two modules of the same form: the first for all tokens but the last, the second for the last one. [B N+1 d] -> [B N+1 d']."""

    def __init__(self, pilot: nn.Module, received: nn.Module) -> None:
        super().__init__()
        self.pilot, self.received = pilot, received

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.pilot(tokens[:, :-1]), self.received(tokens[:, -1:])], 1)


class Attention(nn.Module):
    """Multi-head attention with heterogeneous queries, keys, values and output (P1 Fig. 17b). [B N+1 d] -> [B N+1 d]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = Twofold(nn.Linear(width, 3 * width), nn.Linear(width, 3 * width))
        self.out = Twofold(nn.Linear(width, width), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.into(tokens).chunk(3, -1))
        return self.out(joined_heads(functional.scaled_dot_product_attention(query, key, value)))


class Layer(nn.Module):
    """Encoder layer: attention, feed-forward network, each added to its input and normalised. [B N+1 d] -> [B N+1 d]."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed = Twofold(_feed(width, hidden), _feed(width, hidden))
        self.norms = nn.ModuleList(Twofold(nn.LayerNorm(width), nn.LayerNorm(width)) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norms[0](tokens + self.attention(tokens))
        return self.norms[1](tokens + self.feed(tokens))


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B T d] -> [B heads T d/heads]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined_heads(tokens: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return tokens.transpose(1, 2).flatten(2)


def _feed(width: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
