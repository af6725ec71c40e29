"""Memories: what turns a sequence of inputs into features, at once or step by step, with equal results.

A memory's state is a tuple of tensors, batch first; a step makes a new one and leaves the old as it is.
Torch's recurrent layers have no double backward on CUDA (cuDNN's kernels); nothing here asks for one there.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .distributions import linear
from .errors import ConfigError

Kind = Literal["gru", "lstm", "transformer"]
HEADS = 4
State = tuple[Tensor, ...]  # [B, ...] each


class Memory(Protocol):
    """What all memories can do; each is a torch Module, too."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learned."""

    def begin(self, batch: int) -> State:
        """The state before the first step."""

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """One input [B, I] to features [B, H]; a row whose `moves` [B] is false keeps its state."""

    def sequence(self, x: Tensor) -> Tensor:
        """Inputs [L, B, I] from the beginning to features [L, B, H], all at once."""


def make_memory(kind: Kind, inputs: int, hidden: int, rng: Generator) -> Memory:
    """The memory of that kind, of `hidden` features; ConfigError where they cannot be shared among heads."""
    if kind == "transformer" and hidden % (2 * HEADS):
        raise ConfigError(f"hidden is {hidden}; allowed for a transformer: a multiple of {2 * HEADS}")
    return Transformer(inputs, hidden, rng) if kind == "transformer" else Recurrent(kind, inputs, hidden, rng)


class Recurrent(nn.Module):
    """torch's GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997), one layer."""

    def __init__(self, kind: Literal["gru", "lstm"], inputs: int, hidden: int, rng: Generator) -> None:
        super().__init__()
        self.hidden = hidden
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.cell: Any = {"gru": torch.gru_cell, "lstm": torch.lstm_cell}[kind]
        self.states = {"gru": 1, "lstm": 2}[kind]
        # made without values, as torch would draw them from the global generator
        self.layer = layer(inputs, hidden, device="meta").to_empty(device=rng.device)
        for name, p in self.layer.named_parameters():
            if name.startswith("weight"):
                for gate in p.data.split(hidden):
                    nn.init.orthogonal_(gate, generator=rng)
            else:
                nn.init.zeros_(p)

    def begin(self, batch: int) -> State:
        """Zeros."""
        zero = next(self.layer.parameters()).new_zeros(batch, self.hidden)
        return (zero,) * self.states

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """One step of the cell."""
        before = state if self.states > 1 else state[0]
        after = self.cell(x, before, *self.layer.all_weights[0])
        after = after if self.states > 1 else (after,)
        kept = tuple(
            torch.where(moves.unsqueeze(-1), new, old) for new, old in zip(after, state, strict=True)
        )
        return after[0], kept

    def sequence(self, x: Tensor) -> Tensor:
        """One call of torch's layer."""
        features: Tensor = self.layer(x)[0]
        return features


class Transformer(nn.Module):
    """A causal transformer with pre-normalisation (Vaswani et al. 2017; Xiong et al. 2020).

    Its state holds every layer's keys and values of all steps so far, which of them count, and their
    number; positions are sinusoidal, so that a trial may be of any length.
    """

    def __init__(self, inputs: int, hidden: int, rng: Generator, layers: int = 2, heads: int = HEADS) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads
        self.embed = linear(inputs, hidden, rng, gain=1.0)
        self.blocks = nn.ModuleList(Block(hidden, heads, rng) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, device=rng.device)

    def begin(self, batch: int) -> State:
        """No keys and values, [B, layers, 2, heads, 0, H / heads]; none counts, [B, 0]; position 0, [B]."""
        like = self.embed.weight
        cache = like.new_zeros(batch, len(self.blocks), 2, self.heads, 0, self.hidden // self.heads)
        position = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return cache, position.bool().unsqueeze(1)[:, :0], position

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """Attend from one new step to all that came before."""
        cache, counts, position = state
        h = (self.embed(x) + self.positions(position)).unsqueeze(1)  # [B, 1, H]
        itself = torch.cat([counts, torch.ones_like(moves).unsqueeze(1)], 1)
        grown = list[Tensor]()
        for layer, block in enumerate(self.blocks):
            h, keys_values = block(h, cache[:, layer], itself[:, None, None])
            grown.append(keys_values)
        counts = torch.cat([counts, moves.unsqueeze(1)], 1)
        return self.norm(h).squeeze(1), (torch.stack(grown, 1), counts, position + moves)

    def sequence(self, x: Tensor) -> Tensor:
        """All steps at once, each attending to those up to itself."""
        length, batch = x.shape[:2]
        position = torch.arange(length, device=x.device)
        h = self.embed(x.transpose(0, 1)) + self.positions(position)
        nothing = h.new_zeros(batch, 2, self.heads, 0, self.hidden // self.heads)
        for block in self.blocks:
            h, _ = block(h, nothing, None)
        return self.norm(h).transpose(0, 1)

    def positions(self, position: Tensor) -> Tensor:
        """sin and cos of the position at wavelengths from 2π to 10000 · 2π, [..., H]."""
        half = self.hidden // 2
        rate = torch.arange(half, device=position.device, dtype=self.embed.weight.dtype) / half
        angle = position.unsqueeze(-1) * torch.exp(-math.log(10000.0) * rate)
        return torch.cat([angle.sin(), angle.cos()], -1)


class Block(nn.Module):
    """Attention, then a perceptron, each on the normalised input and added to it."""

    def __init__(self, hidden: int, heads: int, rng: Generator) -> None:
        super().__init__()
        self.heads = heads
        self.project = linear(hidden, 3 * hidden, rng, gain=1.0)
        self.merge = linear(hidden, hidden, rng, gain=0.1)
        self.mlp = nn.Sequential(
            linear(hidden, 2 * hidden, rng), nn.GELU(), linear(2 * hidden, hidden, rng, gain=0.1)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, device=rng.device) for _ in range(2))

    def forward(self, h: Tensor, past: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps [B, L, H] after a past [B, 2, heads, P, H / heads]; without a mask they are causal."""
        q, k, v = self.project(self.norms[0](h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        keys_values = torch.cat([past, torch.stack([k, v], 1)], -2)
        k, v = keys_values.unbind(1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        h = h + self.merge(found.transpose(1, 2).flatten(-2))
        return h + self.mlp(self.norms[1](h)), keys_values
