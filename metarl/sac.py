"""Soft actor-critic of many tasks at once.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications".
What the networks read, x, is the agent's business: a state, a state and what is believed of the task, the
features of a memory. Two critics and their slow targets, no separate state value.
"""

import math
from copy import deepcopy
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PlainValidator, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from torch import Generator, Tensor, nn

from .distributions import Squashed
from .products import Linear, perceptrons
from .settings import STRICT

LOG_STD = -20.0, 2.0  # of the policy's noise, before the tanh
SAC_METRICS = ("critic_loss", "actor_loss", "entropy", "value")  # what an update reports


def positive_or_auto(value: Any) -> float | Literal["auto"]:
    """A temperature as it is given; an error in one line for another."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise PydanticCustomError("temperature", "allowed: a positive number, or auto")
    return float(value)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SacConfig:
    """Settings of the update, named as in Stable-Baselines3 where it has them."""

    learning_rate: PositiveFloat = 3e-4
    """Adam's step size, of all networks."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Discount."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """How far the target critics move towards the critics after each step."""
    hidden: tuple[PositiveInt, ...] = (300, 300, 300)
    """Widths of the layers of policy and critics."""
    reward_scale: PositiveFloat = 5.0
    """What rewards are multiplied by: the larger, the less entropy counts."""
    temperature: Annotated[float | Literal["auto"], PlainValidator(positive_or_auto)] = 1.0
    """Weight of the entropy; auto: learned, so that the entropy is minus the number of action dimensions."""
    regularisation: NonNegativeFloat = 1e-3
    """Weight of the squares of the policy's mean and log standard deviation, before the tanh."""


class Experience(NamedTuple):
    """Steps to learn from, any shape [...] of them, and the noise of the actions that are tried there."""

    x: Tensor  # [..., X], what the networks read; the critics' loss reaches what it comes from
    action: Tensor  # [..., A], in [-1, 1]
    reward: Tensor
    next_x: Tensor  # [..., X]
    terminated: Tensor  # 1 where nothing follows
    weight: Tensor  # of each step in the losses
    noise: Tensor  # [..., A], standard normal, as the next
    next_noise: Tensor  # [..., A]


class Twins(nn.Module):
    """Two critics of the same shape."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], rng: Generator) -> None:
        super().__init__()
        layers = [fan_in(2, *sizes, rng) for sizes in pairwise([inputs, *hidden])]
        layers.append(fan_in(2, (inputs, *hidden)[-1], 1, rng, bound=3e-3))
        self.weights = nn.ParameterList(w for w, _ in layers)  # [2, in, out]
        self.biases = nn.ParameterList(b for _, b in layers)  # [2, 1, out]

    def forward(self, x: Tensor, action: Tensor, learn: bool = True) -> Tensor:
        """Q_1 and Q_2 of inputs [..., X] and actions [..., A], [2, ...]; without `learn` as constants."""
        h = torch.cat([x, action], -1)
        weights, biases = ([p if learn else p.detach() for p in ps] for ps in (self.weights, self.biases))
        return perceptrons(h.flatten(0, -2), weights, biases).view(2, *h.shape[:-1])


class Sac(nn.Module):
    """Policy, critics, their targets and the temperature, with their losses."""

    def __init__(self, inputs: int, actions: int, config: SacConfig, rng: Generator) -> None:
        super().__init__()
        self.config, self.entropy_wanted = config, -float(actions)
        self.actor = relu_perceptron(inputs, config.hidden, 2 * actions, rng)
        self.critics = Twins(inputs + actions, config.hidden, rng)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        self.automatic = config.temperature == "auto"
        start = 1.0 if config.temperature == "auto" else config.temperature
        log_temperature = torch.full((), math.log(start), device=rng.device)
        self.log_temperature = nn.Parameter(log_temperature, requires_grad=self.automatic)

    def policy(self, x: Tensor) -> Squashed:
        """What to do, given what is read [..., X]."""
        mean, log_std = self.actor(x).chunk(2, -1)
        return Squashed(mean, log_std.clamp(*LOG_STD))

    def loss(self, e: Experience) -> tuple[Tensor, Tensor]:
        """The losses of policy, critics and temperature in one sum, whose gradients do not mix; SAC_METRICS.

        J_Q = Σ_b w_b Σ_i (Q_i(x, a) - y)² with y = c r + γ (1 - d) (min_i Q'_i(x', a') - α log π(a' | x'))
        J_π = Σ_b w_b (α log π(ã | x) - min_i Q_i(x, ã) + η mean(μ², log² σ)), x and Q_i as constants
        J_α = -Σ_b w_b log α (log π(ã | x) + H̄), the policy as a constant
        """
        c, alpha, w = self.config, self.log_temperature.detach().exp(), e.weight
        with torch.no_grad():
            next_action, next_log_prob = self.policy(e.next_x).draw(e.next_noise)
            following = self.targets(e.next_x, next_action).amin(0) - alpha * next_log_prob
            y = c.reward_scale * e.reward + c.gamma * (1 - e.terminated) * following
        critic = (w * (self.critics(e.x, e.action) - y).square().sum(0)).sum()

        x = e.x.detach()
        policy = self.policy(x)
        action, log_prob = policy.draw(e.noise)
        value = self.critics(x, action, learn=False).amin(0)
        size = (policy.mean.square() + policy.log_std.square()).mean(-1)
        actor = (w * (alpha * log_prob - value + c.regularisation * size)).sum()

        total = critic + actor
        if self.automatic:
            total = total - (w * self.log_temperature * (log_prob.detach() + self.entropy_wanted)).sum()
        return total, torch.stack([critic, actor, -(w * log_prob).sum(), (w * value).sum()])

    @torch.no_grad()
    def follow(self) -> None:
        """θ' ← θ' + τ (θ - θ'), of all target weights at once."""
        ours: list[Tensor] = [*self.targets.parameters()]
        theirs: list[Tensor] = [*self.critics.parameters()]
        torch._foreach_lerp_(ours, theirs, self.config.tau)


def fan_in(
    copies: int, inputs: int, outputs: int, rng: Generator, bound: float | None = None
) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights [copies, in, out] and biases [copies, 1, out], uniform within 1 / sqrt(in) or a bound."""
    bound = inputs**-0.5 if bound is None else bound
    weight = torch.empty(copies, inputs, outputs, device=rng.device).uniform_(-bound, bound, generator=rng)
    bias = torch.empty(copies, 1, outputs, device=rng.device).uniform_(-bound, bound, generator=rng)
    return nn.Parameter(weight), nn.Parameter(bias)


def relu_perceptron(inputs: int, hidden: tuple[int, ...], outputs: int, rng: Generator) -> nn.Sequential:
    """Layers with relu between them; the last one starts small."""
    layers = list[nn.Module]()
    sizes = [inputs, *hidden, outputs]
    for place, (i, o) in enumerate(pairwise(sizes)):
        layer: Linear = nn.utils.skip_init(Linear, i, o, device=rng.device)
        weight, bias = fan_in(1, i, o, rng, bound=3e-3 if place == len(hidden) else None)
        layer.weight.data.copy_(weight[0].T)
        layer.bias.data.copy_(bias[0, 0])
        layers += [layer, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
