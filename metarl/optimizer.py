"""Adam whose state is part of its module's state_dict, as tensors, from the first moment on."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


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

    def step(self, gradients: Sequence[Tensor], lr: float) -> float:
        """One step down the gradients; their norm before it was clipped."""
        for p, gradient in zip(self.parameters_, gradients, strict=True):
            p.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.parameters_, self.max_grad_norm).item()
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return norm
