"""Memories: what turns a sequence of inputs into features, at once or step by step, with equal results.

A memory's state is a tuple of tensors, batch first; a step makes a new one and leaves the old as it is.
Torch's recurrent layers have no double backward on CUDA (cuDNN's kernels); nothing here asks for one there.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .distributions import linear
from .errors import ConfigError
from .sequence import delayed

Kind = Literal["gru", "lstm", "transformer"]
HEADS, BLOCKS = 4, 2  # of a transformer
RECENT = 32  # steps until their keys and values are joined to all earlier ones, which is to copy those
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


def make_memory(
    kind: Kind,
    inputs: int,
    hidden: int,
    rng: Generator,
    again: int = 0,
    blocks: int = BLOCKS,
    span: int | None = None,
) -> Memory:
    """The memory of that kind, of `hidden` features; ConfigError where they cannot be shared among heads.

    With each input it reads the first `again` numbers of the input before once more. A transformer has so
    many `blocks`; the gates of the others begin with memories of up to `span` steps.
    """
    if kind == "transformer" and span is not None:
        raise ConfigError(f"memory_span is {span}; allowed for a transformer, which has no gates: null")
    if kind == "transformer" and hidden % (2 * HEADS):
        raise ConfigError(f"hidden is {hidden}; allowed for a transformer: a multiple of {2 * HEADS}")
    width = inputs + again
    memory: Memory = (
        Transformer(width, hidden, rng, blocks)
        if kind == "transformer"
        else Recurrent(kind, width, hidden, rng, span)
    )
    return Again(memory, again) if again else memory


class Recurrent(nn.Module):
    """torch's GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997), one layer.

    With a `span` T its units begin with memories of 1 to T steps ("chrono initialisation", Tallec and
    Ollivier 2018, equation 16): b_forget = log(u), b_input = -b_forget, u uniform over [1, T - 1].
    """

    def __init__(
        self,
        kind: Literal["gru", "lstm"],
        inputs: int,
        hidden: int,
        rng: Generator,
        span: int | None = None,
    ) -> None:
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
        if span is not None:
            kept = torch.empty(hidden, device=rng.device).uniform_(1, span - 1, generator=rng).log()
            gates = self.layer.bias_ih_l0.data.view(-1, hidden)
            gates[1] = kept  # an LSTM's are input, forget, cell, output; a GRU's reset, update, new
            if kind == "lstm":
                gates[0] = -kept

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

    Its state holds every layer's keys and values of all steps so far, the recent ones apart, which of them
    count, and their number; positions are sinusoidal, so that a trial may be of any length.
    """

    def __init__(self, inputs: int, hidden: int, rng: Generator, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, HEADS
        self.embed = linear(inputs, hidden, rng, gain=1.0)
        self.blocks: Any = nn.ModuleList(Block(hidden, HEADS, rng) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden, device=rng.device)

    def begin(self, batch: int) -> State:
        """Each layer's `Cache` of nothing; none counts, [B, 0]; position 0, [B]."""
        like = self.embed.weight
        none = like.new_zeros(batch, self.heads, 0, self.hidden // self.heads)
        position = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return *(none,) * (4 * len(self.blocks)), position.bool().unsqueeze(1)[:, :0], position

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """Attend from one new step to all that came before."""
        *caches, counts, position = state
        h = (self.embed(x) + self.positions(position)).unsqueeze(1)  # [B, 1, H]
        itself = torch.cat([counts, torch.ones_like(moves).unsqueeze(1)], 1)
        grown = list[Tensor]()
        for layer, block in enumerate(self.blocks):
            h, cache = block.step(h, Cache(*caches[4 * layer : 4 * layer + 4]), itself[:, None, None])
            grown += cache
        counts = torch.cat([counts, moves.unsqueeze(1)], 1)
        return self.norm(h).squeeze(1), (*grown, counts, position + moves)

    def sequence(self, x: Tensor) -> Tensor:
        """All steps at once, each attending to those up to itself."""
        position = torch.arange(len(x), device=x.device)
        h = self.embed(x.transpose(0, 1)) + self.positions(position)
        for block in self.blocks:
            h = block(h)
        return self.norm(h).transpose(0, 1)

    def positions(self, position: Tensor) -> Tensor:
        """sin and cos of the position at wavelengths from 2π to 10000 · 2π, [..., H]."""
        half = self.hidden // 2
        rate = torch.arange(half, device=position.device, dtype=self.embed.weight.dtype) / half
        angle = position.unsqueeze(-1) * torch.exp(-math.log(10000.0) * rate)
        return torch.cat([angle.sin(), angle.cos()], -1)


class Cache(NamedTuple):
    """A layer's keys and values, [B, heads, P, H / heads] each.

    New steps join the recent ones, so that no step copies all that came before.
    """

    keys: Tensor
    values: Tensor
    recent_keys: Tensor
    recent_values: Tensor

    def grown(self, key: Tensor, value: Tensor) -> "Cache":
        """With one more step."""
        recent = torch.cat([self.recent_keys, key], 2), torch.cat([self.recent_values, value], 2)
        if recent[0].shape[2] < RECENT:
            return Cache(self.keys, self.values, *recent)
        keys, values = torch.cat([self.keys, recent[0]], 2), torch.cat([self.values, recent[1]], 2)
        return Cache(keys, values, *(x[:, :, :0] for x in recent))

    def attend(self, q: Tensor, counts: Tensor) -> Tensor:
        """softmax(q K' / √D) V over the steps that count, [B, heads, 1, D]."""
        scores = torch.cat([q @ self.keys.mT, q @ self.recent_keys.mT], -1) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~counts, -math.inf).softmax(-1)
        old, recent = weights.split([self.keys.shape[2], self.recent_keys.shape[2]], -1)
        return old @ self.values + recent @ self.recent_values


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

    def forward(self, h: Tensor) -> Tensor:
        """Steps [B, L, H], each of which attends to those up to itself."""
        q, k, v = self.projected(h)
        return self.merged(h, F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, h: Tensor, cache: Cache, counts: Tensor) -> tuple[Tensor, Cache]:
        """One step [B, 1, H] after those of a cache, itself among those that count, [B, 1, 1, P + 1]."""
        q, k, v = self.projected(h)
        cache = cache.grown(k, v)
        return self.merged(h, cache.attend(q, counts)), cache

    def projected(self, h: Tensor) -> Tensor:
        """Queries, keys and values, [3, B, heads, L, H / heads]."""
        parts: Tensor = self.project(self.norms[0](h)).unflatten(-1, (3, self.heads, -1))
        return parts.permute(2, 0, 3, 1, 4)

    def merged(self, h: Tensor, found: Tensor) -> Tensor:
        """What the heads found [B, heads, L, H / heads], and the perceptron's answer to it, added."""
        h = h + self.merge(found.transpose(1, 2).flatten(-2))
        return h + self.mlp(self.norms[1](h))


class Again(nn.Module):
    """A memory that reads with each input the first numbers of the one before, zeros at first.

    Where those are observations, an input is a whole transition (s_{t-1}, a_{t-1}, r_{t-1}, s_t).
    """

    def __init__(self, memory: Memory, width: int) -> None:
        super().__init__()
        self.memory, self.width = memory, width

    def begin(self, batch: int) -> State:
        """The memory's state, and zeros [B, width]."""
        return *self.memory.begin(batch), next(self.memory.parameters()).new_zeros(batch, self.width)

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """One step of the memory."""
        *past, before = state
        features, after = self.memory.step(torch.cat([x, before], -1), tuple(past), moves)
        return features, (*after, torch.where(moves.unsqueeze(-1), x[:, : self.width], before))

    def sequence(self, x: Tensor) -> Tensor:
        """All steps at once."""
        return self.memory.sequence(torch.cat([x, delayed(x[..., : self.width])], -1))


class Each(nn.Module):
    """A memory for each of K things, of weights that all share: inputs [B, K, I] to features [B, K, H].

    The things are exchangeable: in another order they leave the same features in that order, and what is
    learned of one holds for all (as in Kirsch et al. 2022, "Introducing Symmetries to Black Box Meta
    Reinforcement Learning", whose memories also exchange messages).
    """

    def __init__(self, memory: Memory, things: int) -> None:
        super().__init__()
        self.memory, self.things = memory, things

    def begin(self, batch: int) -> State:
        """The memories' states, [B, K, ...] each."""
        return self.apart(self.memory.begin(batch * self.things))

    def step(self, x: Tensor, state: State, moves: Tensor) -> tuple[Tensor, State]:
        """One step of all memories; those of a row whose `moves` [B] is false keep their states."""
        joined, each = tuple(s.flatten(0, 1) for s in state), moves.repeat_interleave(self.things)
        features, after = self.memory.step(x.flatten(0, 1), joined, each)
        return features.unflatten(0, (-1, self.things)), self.apart(after)

    def sequence(self, x: Tensor) -> Tensor:
        """All steps at once."""
        return self.memory.sequence(x.flatten(1, 2)).unflatten(1, (-1, self.things))

    def apart(self, state: State) -> State:
        """[B K, ...] each to [B, K, ...]."""
        return tuple(s.unflatten(0, (len(s) // self.things, self.things)) for s in state)
