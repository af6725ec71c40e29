"""Adaptation by gradient steps, its Jacobian, and the meta-objective behind it, exactly second order."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from . import device
from .distributions import Gaussian
from .policy import Batch, Derivatives, Policy


class InnerStep(NamedTuple):
    """How one adaptation step differs from the plain one: φ ← φ - scale α ∘ ∇L(φ) + shift."""

    scale: float = 1.0
    shift: Tensor | float = 0.0  # [P]


class InnerLoop:
    """φ_{k+1} = φ_k - c_k α ∘ ∇L_k(φ_k) + d_k for n tasks, each with its own losses L_k.

    start is φ_0, [n, P]; alpha [P] or [1] is the step size; c_k and d_k are step k's scale and shift.
    `first_order` drops the Hessians from the Jacobian, as in first-order MAML.
    """

    def __init__(
        self,
        policy: Policy,
        start: Tensor,
        alpha: Tensor,
        steps: Sequence[InnerStep],
        batches: Sequence[Batch],
        first_order: bool = False,
    ) -> None:
        self.alpha, self.steps, self.first_order = alpha, steps, first_order
        self.phi = [start]
        self.losses: list[Derivatives] = []
        self.gradients: list[Tensor] = []
        for step, batch in zip(steps, batches, strict=True):
            self.losses.append(policy.derivatives(self.phi[-1], batch))
            self.gradients.append(self.losses[-1].gradient())
            self.phi.append(self.phi[-1] - step.scale * alpha * self.gradients[-1] + step.shift)

    def pushforward(self, d_start: Tensor, d_alpha: Tensor) -> list[Tensor]:
        """The changes of φ_1, φ_2, ..., [n, P] each, along a change of φ_0 [P] and α [P] or [1].

        u_{k+1} = u_k - c_k α ∘ ∇²L_k u_k - c_k dα ∘ ∇L_k.
        """
        u = [d_start.expand_as(self.phi[0])]
        for step, loss, gradient in zip(self.steps, self.losses, self.gradients, strict=True):
            bent = u[-1] if self.first_order else u[-1] - step.scale * self.alpha * loss.hvp(u[-1])
            u.append(bent - step.scale * d_alpha * gradient)
        return u[1:]

    def pullback(self, w: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The gradients in φ_0 and α, [n, P] each, of a function whose gradients in φ_1, φ_2, ... are w.

        The transpose of pushforward, last step first; the Hessians are symmetric.
        """
        back, d_alpha = torch.zeros_like(w[-1]), torch.zeros_like(w[-1])
        for k in range(len(w) - 1, -1, -1):
            back, scale = back + w[k], self.steps[k].scale
            d_alpha = d_alpha - scale * self.gradients[k] * back
            back = back if self.first_order else back - self.losses[k].hvp(scale * self.alpha * back)
        return back, d_alpha


def inner_loops(
    policy: Policy,
    start: Tensor,
    alpha: Tensor,
    steps: Sequence[InnerStep],
    batches: Sequence[Batch],
    first_order: bool = False,
) -> list[InnerLoop]:
    """The inner loop of all tasks, in chunks that fit the cache; start is [P] or [N, P]."""
    tasks, size = batches[0].weight.shape
    start = start.expand(tasks, -1)

    def loop(s: slice) -> InnerLoop:
        return InnerLoop(policy, start[s], alpha, steps, [b.tasks(s) for b in batches], first_order)

    return device.map_tasks(loop, device.chunks(tasks, size, alpha.device))


class Outer(NamedTuple):
    """What a chunk of tasks is judged on: its inner loop, and the batch played after each of its steps."""

    loop: InnerLoop
    batches: list[Batch]


class MetaObjective:
    """Σ_k credit_k mean_i L_k(φ_ik): the loss after each adaptation step k = 1, 2, ..., over tasks i.

    `meta` is θ [P] or, where α is learned, (θ, α) [2 P]; φ_0 = θ + widening. `batches` are one a round,
    `credit` one number a round after the first. Tasks are computed in chunks that fit the cache, by a
    small pool of threads; the result does not depend on their number.
    """

    def __init__(
        self,
        policy: Policy,
        meta: Tensor,
        alpha: Tensor,
        steps: Sequence[InnerStep],
        batches: Sequence[Batch],
        credit: Sequence[float],
        widening: Tensor | float = 0.0,
        first_order: bool = False,
    ) -> None:
        self.policy, self.credit = policy, credit
        self.learned = len(meta) > policy.size
        theta, alpha = meta[: policy.size], meta[policy.size :] if self.learned else alpha
        loops = inner_loops(policy, theta + widening, alpha, steps, batches[:-1], first_order)
        sizes = [len(loop.phi[0]) for loop in loops]
        chunked = zip(*(batch.split(sizes) for batch in batches[1:]), strict=True)
        self.chunks = [Outer(loop, list(parts)) for loop, parts in zip(loops, chunked, strict=True)]

    @cached_property
    def _losses(self) -> list[list[Derivatives]]:
        """L_1, L_2, ... of each chunk; all but the last are what the inner loop itself descends."""

        def last(chunk: Outer) -> Derivatives:
            return self.policy.derivatives(chunk.loop.phi[-1], chunk.batches[-1])

        return [
            [*chunk.loop.losses[1:], loss]
            for chunk, loss in zip(self.chunks, device.map_tasks(last, self.chunks), strict=True)
        ]

    def _mean(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        theta, alpha = (torch.cat(p).mean(0) for p in zip(*parts, strict=True))
        return torch.cat([theta, alpha]) if self.learned else theta

    def gradient(self) -> Tensor:
        """The exact meta-gradient, Σ_k credit_k mean_i J_ik' ∇L_k(φ_ik) with J_ik = ∂φ_ik/∂(θ, α)."""

        def one(pair: tuple[Outer, list[Derivatives]]) -> tuple[Tensor, Tensor]:
            chunk, losses = pair
            w = [c * loss.gradient() for c, loss in zip(self.credit, losses, strict=True)]
            return chunk.loop.pullback(w)

        return self._mean(device.map_tasks(one, list(zip(self.chunks, self._losses, strict=True))))

    def fisher(self, v: Tensor) -> Tensor:
        """Σ_k credit_k mean_i J_ik' F_ik J_ik v: the Hessian-vector product of the KL of adapted policies.

        It is exact: at the old parameters the KL's gradient in φ is zero, so J's own derivative drops out.
        """
        d_theta, d_alpha = v[: self.policy.size], v[self.policy.size :]
        d_alpha = d_alpha if self.learned else torch.zeros_like(v[:1])

        def one(pair: tuple[Outer, list[Derivatives]]) -> tuple[Tensor, Tensor]:
            chunk, losses = pair
            u = chunk.loop.pushforward(d_theta, d_alpha)
            triples = zip(self.credit, losses, u, strict=True)
            return chunk.loop.pullback([c * loss.fisher(x) if c else x * 0 for c, loss, x in triples])

        return self._mean(device.map_tasks(one, list(zip(self.chunks, self._losses, strict=True))))

    def policies(self) -> list[list[Gaussian]]:
        """The policies after each step at the observations of the round that follows, chunk by chunk."""

        def one(chunk: Outer) -> list[Gaussian]:
            pairs = zip(chunk.loop.phi[1:], chunk.batches, strict=True)
            return [self.policy.batched(phi, batch.obs) for phi, batch in pairs]

        return device.map_tasks(one, self.chunks)

    def compare(self, old: Sequence[Sequence[Gaussian]]) -> tuple[float, float]:
        """How much better than the old adapted policies these are (importance-weighted), and their KL.

        Σ_k credit_k mean_i of Σ_b w_b A_b (π_new / π_old - 1), and of Σ_b w_b KL(old ‖ new).
        """

        def one(pair: tuple[Outer, Sequence[Gaussian]]) -> Tensor:
            chunk, before = pair
            rounds = zip(self.credit, chunk.loop.phi[1:], chunk.batches, before, strict=True)
            return sum(
                (c * self._change(phi, batch, was) for c, phi, batch, was in rounds if c),
                start=torch.zeros_like(chunk.batches[0].weight[:, :2]),
            )

        parts = device.map_tasks(one, list(zip(self.chunks, old, strict=True)))
        gain, kl = torch.cat(parts).mean(0).tolist()
        return gain, kl

    def _change(self, phi: Tensor, batch: Batch, was: Gaussian) -> Tensor:
        """Each task's improvement and divergence in one round, [n, 2]."""
        now = self.policy.batched(phi, batch.obs)
        ratio = (now.log_prob(batch.action) - was.log_prob(batch.action)).exp()
        gain = (batch.weight * batch.advantage * (ratio - 1)).sum(-1)
        return torch.stack([gain, (batch.weight * was.kl(now)).sum(-1)], -1)
