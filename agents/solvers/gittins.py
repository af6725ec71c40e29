"""The Gittins index of a Bernoulli arm under the prior Beta(1, 1), where a number of pulls is left.

Gittins, Glazebrook and Weber 2011, "Multi-armed Bandit Allocation Indices"; with a finite horizon, Kaufmann
2018, "On Bayesian index policies for sequential resource allocation". An arm's index is the sure reward λ a
pull at which it is worth as much to play the arm, as long as one likes, as to retire and take λ to the end.
"""

from functools import lru_cache

import torch
from torch import Tensor


def place(t: Tensor, c: Tensor, s: Tensor) -> Tensor:
    """Where the table has the arm that won s of its c pulls, when t pulls were made in all; s <= c <= t."""
    return t * (t + 1) * (t + 2) // 6 + c * (c + 1) // 2 + s


@lru_cache(maxsize=4)
def gittins_indices(n: int, cells: int, device: torch.device, block: int = 32) -> Tensor:
    """The indices of all states that n pulls can meet, [n (n + 1) (n + 2) / 6], found by `place`.

    One backward recursion over the pulls that are left, for many λ at a time. What an arm is worth beyond
    retiring, Q, is convex and falls with λ; on a grid of λ the index is where its chord crosses zero, which
    is never below the true index: table = Σ_i h clamp(Q_i / (Q_i - Q_{i+1}), 0, 1), h the grid's width.
    """
    c = torch.arange(n, device=device).repeat_interleave(torch.arange(1, n + 1, device=device))
    state = torch.arange(len(c), device=device)
    won, failure = state - c * (c + 1) // 2, state + c + 1  # a success leads to failure + 1
    mean = ((won + 1).float() / (c + 2))[:, None]
    table = torch.zeros(n * (n + 1) * (n + 2) // 6, device=device, dtype=torch.float32)
    for first in range(0, cells, block):
        edges = torch.arange(first, min(first + block, cells) + 1, device=device)
        gain = mean - edges / cells  # of one pull over retiring, [states, λ]
        worth = torch.zeros(len(state) + n + 1, len(edges), device=device, dtype=torch.float32)
        for t in reversed(range(n)):
            states = (t + 1) * (t + 2) // 2
            after = failure[:states]
            q = worth.index_select(0, after).lerp_(worth.index_select(0, after + 1), mean[:states])
            q += gain[:states]
            share = (q[:, :-1] - q[:, 1:]).reciprocal_().mul_(q[:, :-1]).clamp_(0, 1)
            start = t * (t + 1) * (t + 2) // 6
            table[start : start + states] += share.sum(1) / cells
            worth = q.clamp_(min=0)  # else retire
    return table
