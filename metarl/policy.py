"""Gaussian policies whose parameters are one flat vector a task, and their derivatives by torch.func.

`Derivatives` here works for any policy and is the oracle of the hand-written one in `gaussian_mlp`.
"""

import threading
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from .distributions import Gaussian
from .types import Rollout

# functional_call swaps a module's tensors in place and jvp's level is the process's: threads take turns
SERIAL = threading.RLock()


class Batch(NamedTuple):
    """The steps of one round, of n tasks with B steps each, and what each step weighs in their losses."""

    obs: Tensor  # [n, B, O]
    action: Tensor  # [n, B, A]
    advantage: Tensor  # [n, B]
    weight: Tensor  # [n, B], 1 / (number of played steps) where the step was played, else 0
    reward: Tensor  # [n, B]
    surprise: Tensor  # [n, B], what a wrong prediction of the reward weighs; 0 where none is asked

    @classmethod
    def of(cls, rollout: Rollout, advantage: Tensor, every: int = 1, surprise: float = 0.0) -> "Batch":
        """The steps of a round in which advantage is [T, N, E]; `every` takes each so many-th time step."""
        valid = rollout.valid[::every].to(advantage.dtype)
        weight = valid / valid.sum((0, 2), keepdim=True)
        played = rollout.obs[::every], rollout.action[::every], advantage[::every]
        parts = *played, weight, rollout.reward[::every], surprise * weight
        return cls(*(x.transpose(0, 1).flatten(1, 2) for x in parts))

    def tasks(self, s: slice) -> "Batch":
        """The steps of some of the tasks."""
        return Batch(*(x[s] for x in self))

    def split(self, sizes: list[int]) -> list["Batch"]:
        """The steps of chunks of tasks."""
        return [Batch(*parts) for parts in zip(*(x.split(sizes) for x in self), strict=True)]


class Derivatives(Protocol):
    """First and second derivatives of one batch's losses at parameters φ [n, P], task by task."""

    def gradient(self) -> Tensor:
        """∇L(φ) with L = -Σ_b w_b A_b log π_φ(a_b | s_b) + ½ Σ_b c_b (ρ_φ(s_b) - r_b)², [n, P]."""

    def hvp(self, v: Tensor) -> Tensor:
        """∇²L(φ) v for v [n, P], [n, P]."""

    def fisher(self, v: Tensor) -> Tensor:
        """F(φ) v, the Hessian of Σ_b w_b KL(π_φ ‖ π_φ')(s_b) in φ' at φ' = φ, for v [n, P], [n, P]."""


class Policy(nn.Module):
    """A Gaussian policy; a subclass's forward maps observations [..., O] to Gaussian(mean, log_std)."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.shapes: list[torch.Size] = []

    def seal(self) -> None:
        """Remember the parameters' order and shapes; a subclass calls it when it has made them all."""
        self.names = [name for name, _ in self.named_parameters()]
        self.shapes = [p.shape for p in self.parameters()]

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(s.numel() for s in self.shapes)

    @property
    def flat(self) -> Tensor:
        """All parameters in one vector, [P]."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters()])

    def assign(self, flat: Tensor) -> None:
        """Take all parameters from one vector, [P]."""
        nn.utils.vector_to_parameters(flat, self.parameters())

    def split(self, params: Tensor) -> list[Tensor]:
        """Views of flat parameters [n, P], one a parameter, [n, *shape]."""
        parts = params.split([s.numel() for s in self.shapes], -1)
        return [p.unflatten(-1, s) for p, s in zip(parts, self.shapes, strict=True)]

    def single(self, params: Tensor, obs: Tensor) -> Gaussian:
        """The policy of one task: flat parameters [P], observations [B, O]."""
        named = dict(zip(self.names, self.split(params), strict=True))
        out: Gaussian = functional_call(self, named, (obs,))
        return out

    def batched(self, params: Tensor, obs: Tensor) -> Gaussian:
        """The policies of n tasks: flat parameters [n, P], observations [n, B, O]."""
        with SERIAL:
            return vmap(self.single)(params, obs)

    def derivatives(self, params: Tensor, batch: Batch) -> Derivatives:
        """The derivatives of a batch's losses at parameters [n, P]."""
        return FunctionalDerivatives(self, params, batch)


class FunctionalDerivatives:
    """Derivatives of any policy, by torch.func; several threads take turns."""

    def __init__(self, policy: Policy, params: Tensor, batch: Batch) -> None:
        self.policy, self.params, self.batch = policy, params, batch

    def inner_loss(self, params: Tensor, batch: Batch) -> Tensor:
        """L(φ) of one task, what adaptation descends: the policy's loss and its wrong predictions."""
        now = self.policy.single(params, batch.obs)
        error = (now.reward - batch.reward.unsqueeze(-1)).square().sum(-1)
        gain = batch.weight * batch.advantage * now.log_prob(batch.action)
        return (0.5 * batch.surprise * error - gain).sum()

    def divergence(self, params: Tensor, old: Tensor, batch: Batch) -> Tensor:
        """Σ_b w_b KL(π_old ‖ π_φ)(s_b) of one task, what the trust region bounds."""
        kl = self.policy.single(old, batch.obs).kl(self.policy.single(params, batch.obs))
        return (batch.weight * kl).sum()

    def gradient(self) -> Tensor:
        """∇L(φ), [n, P]."""
        with SERIAL:
            return vmap(grad(self.inner_loss))(self.params, self.batch)

    def hvp(self, v: Tensor) -> Tensor:
        """∇²L(φ) v, forward over reverse, [n, P]."""

        def one(params: Tensor, batch: Batch, v: Tensor) -> Tensor:
            return jvp(lambda p: grad(self.inner_loss)(p, batch), (params,), (v,))[1]

        with SERIAL:
            return vmap(one)(self.params, self.batch, v)

    def fisher(self, v: Tensor) -> Tensor:
        """F(φ) v, as the Hessian of the divergence, [n, P]."""

        def one(params: Tensor, batch: Batch, v: Tensor) -> Tensor:
            return jvp(lambda p: grad(self.divergence)(p, params, batch), (params,), (v,))[1]

        with SERIAL:
            return vmap(one)(self.params, self.batch, v)
