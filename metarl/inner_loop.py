"""Adaptation by gradient steps, its Jacobian, and the meta-objective behind it, exactly second order."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from . import device
from .policy import Batch, Derivatives, Gaussian, Policy


class InnerLoop:
    """φ_0 = θ, φ_{k+1} = φ_k - c_k α ∘ ∇L_k(φ_k), for n tasks, each with its own losses L_k.

    theta [P] or [n, P]; alpha [P] or [1] is the step size and c_k its scale at step k. `first_order`
    drops the Hessians from the Jacobian, as in first-order MAML.
    """

    def __init__(
        self,
        policy: Policy,
        theta: Tensor,
        alpha: Tensor,
        scales: Sequence[float],
        batches: Sequence[Batch],
        first_order: bool = False,
    ) -> None:
        self.first_order = first_order
        self.points: list[tuple[Derivatives, Tensor, Tensor]] = []  # at φ_k: L_k, ∇L_k and c_k α
        phi = theta.expand(len(batches[0].obs), -1)
        for scale, batch in zip(scales, batches, strict=True):
            loss = policy.derivatives(phi, batch)
            gradient = loss.gradient()
            self.points.append((loss, gradient, scale * alpha))
            phi = phi - scale * alpha * gradient
        self.alpha, self.adapted = alpha, phi  # [n, P]

    def pushforward(self, d_theta: Tensor, d_alpha: Tensor) -> Tensor:
        """The change of the adapted parameters, [n, P], along a change of θ [P] and α [P] or [1].

        u_{k+1} = u_k - c_k α ∘ ∇²L_k u_k - c_k dα ∘ ∇L_k.
        """
        u = d_theta.expand_as(self.adapted)
        for loss, gradient, rate in self.points:
            bent = u if self.first_order else u - rate * loss.hvp(u)
            u = bent - rate / self.alpha * d_alpha * gradient
        return u

    def pullback(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients in θ and α, [n, P] each, of a function with gradient w [n, P] at the adapted ones.

        The transpose of pushforward, last step first; the Hessians are symmetric.
        """
        d_alpha = torch.zeros_like(w)
        for loss, gradient, rate in reversed(self.points):
            d_alpha = d_alpha - rate / self.alpha * gradient * w
            w = w if self.first_order else w - loss.hvp(rate * w)
        return w, d_alpha


def inner_loops(
    policy: Policy,
    theta: Tensor,
    alpha: Tensor,
    scales: Sequence[float],
    batches: Sequence[Batch],
    first_order: bool = False,
) -> list[InnerLoop]:
    """The inner loop of all tasks, in chunks that fit the cache; theta is [P] or [N, P]."""
    tasks, steps = batches[0].weight.shape
    theta = theta.expand(tasks, -1)

    def loop(s: slice) -> InnerLoop:
        return InnerLoop(policy, theta[s], alpha, scales, [b.tasks(s) for b in batches], first_order)

    return device.map_tasks(loop, device.chunks(tasks, steps, alpha.device))


class MetaObjective:
    """The mean over tasks of L_i(φ_i(θ, α)) on the outer batch, with its gradient and curvature.

    Meta-parameters are one vector, θ [P] or, where α is learned, (θ, α) [2 P]. Tasks are computed in
    chunks that fit the cache, by a small pool of threads; the result does not depend on their number.
    """

    def __init__(
        self,
        policy: Policy,
        meta: Tensor,
        alpha: Tensor,
        scales: Sequence[float],
        inner: Sequence[Batch],
        outer: Batch,
        first_order: bool = False,
    ) -> None:
        self.policy = policy
        size = policy.size
        self.learned = len(meta) > size
        theta, alpha = meta[:size], meta[size:] if self.learned else alpha
        self.loops = inner_loops(policy, theta, alpha, scales, inner, first_order)
        self.outers = outer.split([len(loop.adapted) for loop in self.loops])

    @cached_property
    def _outer_losses(self) -> list[Derivatives]:
        pairs = list(zip(self.loops, self.outers, strict=True))
        return device.map_tasks(lambda p: self.policy.derivatives(p[0].adapted, p[1]), pairs)

    def _mean(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        theta, alpha = (torch.cat(p).mean(0) for p in zip(*parts, strict=True))
        return torch.cat([theta, alpha]) if self.learned else theta

    def gradient(self) -> Tensor:
        """The exact meta-gradient: mean_i J_i' ∇L_i(φ_i) with J_i = ∂φ_i/∂(θ, α)."""
        pairs = list(zip(self.loops, self._outer_losses, strict=True))
        return self._mean(device.map_tasks(lambda p: p[0].pullback(p[1].gradient()), pairs))

    def fisher(self, v: Tensor) -> Tensor:
        """mean_i J_i' F_i J_i v: exactly the Hessian-vector product of the KL between adapted policies.

        At the old parameters the KL's gradient in φ is zero, so J's own derivative drops out.
        """
        d_theta, d_alpha = v[: self.policy.size], v[self.policy.size :]
        d_alpha = d_alpha if self.learned else torch.zeros_like(v[:1])

        def product(pair: tuple[InnerLoop, Derivatives]) -> tuple[Tensor, Tensor]:
            loop, loss = pair
            return loop.pullback(loss.fisher(loop.pushforward(d_theta, d_alpha)))

        pairs = list(zip(self.loops, self._outer_losses, strict=True))
        return self._mean(device.map_tasks(product, pairs))

    def policies(self) -> list[Gaussian]:
        """The adapted policies at the outer batch's observations, chunk by chunk."""
        pairs = list(zip(self.loops, self.outers, strict=True))
        return device.map_tasks(lambda p: self.policy.batched(p[0].adapted, p[1].obs), pairs)

    def compare(self, old: Sequence[Gaussian]) -> tuple[float, float]:
        """How much better than the old adapted policies these are (importance-weighted), and their KL.

        Improvement is mean_i Σ_b w_b A_b (π_new / π_old - 1), the divergence mean_i Σ_b w_b KL(old ‖ new).
        """

        def one(chunk: tuple[InnerLoop, Batch, Gaussian]) -> tuple[Tensor, Tensor]:
            loop, batch, before = chunk
            after = self.policy.batched(loop.adapted, batch.obs)
            ratio = (after.log_prob(batch.action) - before.log_prob(batch.action)).exp()
            gain = (batch.weight * batch.advantage * (ratio - 1)).sum(-1)
            return gain, (batch.weight * before.kl(after)).sum(-1)

        parts = device.map_tasks(one, list(zip(self.loops, self.outers, old, strict=True)))
        gain, kl = (torch.cat(p).mean().item() for p in zip(*parts, strict=True))
        return gain, kl
