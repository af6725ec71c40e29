"""Gradients that the cores share, and Adam whose state is part of its module's state_dict, as tensors."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from . import device


def remaining(updates: Tensor, anneal: int | None) -> float:
    """What falls linearly from 1 to 0 over `anneal` updates; none: it stays 1."""
    return max(0.0, 1 - updates.item() / anneal) if anneal else 1.0


class Adam(nn.Module):
    """torch.optim.Adam (Kingma and Ba 2015) with clipped gradients; its moments are buffers."""

    def __init__(self, parameters: Iterable[nn.Parameter], max_grad_norm: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.max_grad_norm = max_grad_norm
        self.adam = torch.optim.Adam(parameters, eps=eps, foreach=True)
        for i, p in enumerate(self.parameters_):
            state = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            self.adam.state[p] = state
            for name, value in state.items():
                self.register_buffer(f"{name}_{i}", value)

    @property
    def parameters_(self) -> list[nn.Parameter]:
        """What is optimised."""
        found: list[nn.Parameter] = self.adam.param_groups[0]["params"]
        return found

    def step(self, gradients: Sequence[Tensor], lr: float) -> Tensor:
        """One step down the gradients; their norm before it was clipped, 0 where none is, on its device."""
        for p, gradient in zip(self.parameters_, gradients, strict=True):
            p.grad = gradient
        norm = gradients[0].new_zeros(())
        if self.max_grad_norm < math.inf:
            norm = nn.utils.clip_grad_norm_(self.parameters_, self.max_grad_norm)
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return norm


def shared_gradients(
    loss: Callable[[Tensor], tuple[Tensor, Tensor]], parameters: Sequence[nn.Parameter], learners: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The gradients of a loss that is a sum over learners [B], and the sum of what it says besides.

    `loss` maps some of the learners' indices to their share of the loss and any tensor of losses to report;
    the shares are computed by the cores side by side.
    """

    def one(some: Tensor) -> tuple[list[Tensor], Tensor]:
        with torch.enable_grad():
            total, said = loss(some)
            found = torch.autograd.grad(total, parameters)
        return [*found], said.detach()

    parts = learners.tensor_split(device.shares(len(learners), learners.device))
    shares = device.map_tasks(one, list(parts))
    gradients = [torch.stack(each).sum(0) for each in zip(*(g for g, _ in shares), strict=True)]
    return gradients, torch.stack([said for _, said in shares]).sum(0)
