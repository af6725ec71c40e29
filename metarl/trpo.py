"""Trust-region policy optimisation of a learner with a memory (Schulman et al. 2015), over whole trials."""

from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Any, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import device
from .distributions import Distribution
from .ppo import Judge, Ppo, PpoConfig, Targets
from .sequence import Sequence
from .settings import STRICT
from .trust_region import conjugate_gradient, largest_step, line_search


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrpoConfig(PpoConfig):
    """Settings of the update; PPO's own serve the critic, which is fitted apart."""

    max_kl: PositiveFloat = 0.01
    """Size of TRPO's trust region."""
    cg_iterations: PositiveInt = 10
    """TRPO's conjugate gradient iterations."""
    damping: NonNegativeFloat = 1e-4
    """Multiple of the identity that is added to TRPO's curvature."""


class Share(NamedTuple):
    """Some of the learners: what they did, how they did it, and the gradient of their divergence."""

    steps: Sequence
    advantage: Tensor
    old: Distribution
    slope: Tensor  # ∇_θ Σ_b KL(π_old ‖ π_θ)(b), zero at θ_old; differentiable, [P]


class Trpo(Ppo):
    """A natural-gradient step on the policy, its memory included, then Adam's on the critic alone.

    The curvature is the Hessian of the KL divergence, by differentiating twice through the memory.
    """

    config: TrpoConfig

    def __init__(
        self,
        policy: Several[nn.Parameter],
        critic: Several[nn.Parameter],
        config: TrpoConfig,
        rng: Generator,
    ) -> None:
        super().__init__(critic, config, rng)
        self.policy_ = list(policy)

    @sdpa_kernel(SDPBackend.MATH)  # torch's faster kernels for attention cannot be differentiated twice
    def update(self, trial: Sequence, targets: Targets, judge: Judge, rng: Generator) -> dict[str, float]:
        """One step within the trust region."""
        c, theta = self.config, nn.utils.parameters_to_vector(self.policy_).detach()
        columns = torch.arange(trial.reward.shape[1], device=rng.device)
        parts = [*columns.tensor_split(device.shares(len(columns), rng.device))]
        steps = trial.valid.sum()
        shares = device.map_tasks(lambda part: self.share(trial, targets, judge, part), parts)
        gradient = self.summed(lambda share: self.descent(share, judge), shares) / steps

        def curvature(v: Tensor) -> Tensor:
            return self.summed(lambda share: self.product(share, v), shares) / steps + c.damping * v

        def evaluate(scale: float) -> tuple[float, float]:
            nn.utils.vector_to_parameters(theta + scale * step, self.policy_)
            gain, kl = self.summed(lambda share: self.change(share, judge), shares).div(steps).tolist()
            return gain, kl

        direction, image = conjugate_gradient(curvature, -gradient, c.cg_iterations)
        step = largest_step(direction, image, c.max_kl)
        found = line_search(evaluate, c.max_kl)
        nn.utils.vector_to_parameters(theta + found.scale * step if found.scale else theta, self.policy_)
        said = {"kl": found.kl, "improvement": found.improvement, "step_scale": found.scale}
        fitted = super().update(trial, targets, judge, rng)
        return said | {name: fitted[name] for name in ("value_loss", "entropy", "learning_rate")}

    def summed(self, function: Callable[[Share], Tensor], shares: Several[Share]) -> Tensor:
        """A function's sum over the shares, which the cores work on side by side."""
        return torch.stack(device.map_tasks(function, list(shares))).sum(0)

    def share(self, trial: Sequence, targets: Targets, judge: Judge, part: Tensor) -> Share:
        """The divergence's gradient with its graph, once for all products."""
        steps = trial.learners(part)
        with torch.enable_grad():
            now: Any = judge(steps).policy
            old = type(now)(*(x.detach() for x in now))
            divergence = (old.kl(now) * steps.valid).sum()
            found = torch.autograd.grad(divergence, self.policy_, create_graph=True)
            slope = nn.utils.parameters_to_vector(found)
        return Share(steps, targets.advantage[:, part], old, slope)

    def product(self, share: Share, v: Tensor) -> Tensor:
        """∇_θ (slope · v), the Hessian's product."""
        with torch.enable_grad():
            found = torch.autograd.grad(share.slope @ v, self.policy_, retain_graph=True)
        return nn.utils.parameters_to_vector(found)

    def gain(self, share: Share, policy: Distribution) -> Tensor:
        """Σ_b (π / π_old - 1) A over played steps."""
        action = share.steps.action
        ratio = (policy.log_prob(action) - share.old.log_prob(action)).exp()
        return ((ratio - 1) * share.advantage * share.steps.valid).sum()

    def descent(self, share: Share, judge: Judge) -> Tensor:
        """-∇_θ of the gain, [P]."""
        with torch.enable_grad():
            found = torch.autograd.grad(-self.gain(share, judge(share.steps).policy), self.policy_)
        return nn.utils.parameters_to_vector(found)

    def change(self, share: Share, judge: Judge) -> Tensor:
        """The gain and the divergence of the policy as it is now, [2]."""
        policy = judge(share.steps).policy
        return torch.stack([self.gain(share, policy), (share.old.kl(policy) * share.steps.valid).sum()])
