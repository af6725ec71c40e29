"""Distributions over actions, without a Python object a call: named tuples of tensors, batched anyhow."""

import math
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .products import Linear

LOG_STD_MIN = math.log(1e-6)


class Gaussian(NamedTuple):
    """A diagonal Gaussian over actions at every step, and the reward that is expected of it."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # broadcasts to mean
    reward: Tensor = torch.empty(0)  # [..., 1], or [..., 0] of a policy that does not predict it

    @property
    def mode(self) -> Tensor:
        """The likeliest action, [..., A]."""
        return self.mean

    def sample(self, rng: Generator) -> Tensor:
        """μ + σ ε, [..., A]."""
        noise = torch.empty_like(self.mean).normal_(generator=rng)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def log_prob(self, action: Tensor) -> Tensor:
        """Σ_j -½ ((a_j - μ_j) / σ_j)² - log σ_j - ½ log 2π, over the action's dimensions."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Σ_j log σ_j + ½ log 2πe."""
        each = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return each.expand_as(self.mean).sum(-1)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self ‖ other) = Σ_j log σ'_j/σ_j + (σ_j² + (μ_j - μ'_j)²) / 2σ'_j² - ½."""
        ratio = (2 * (self.log_std - other.log_std)).exp()
        shift = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1)).sum(-1)


class Squashed(NamedTuple):
    """tanh of a diagonal Gaussian: actions in (-1, 1), as in soft actor-critic (Haarnoja et al. 2018)."""

    mean: Tensor  # [..., A], before the tanh
    log_std: Tensor  # [..., A]

    @property
    def mode(self) -> Tensor:
        """The tanh of the mean, [..., A]."""
        return self.mean.tanh()

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """An action a = tanh(u), u = μ + σ ε, [..., A], and its log-density, [...].

        log π(a) = Σ_j log N(u_j; μ_j, σ_j²) - log(1 - tanh² u_j), and log(1 - tanh² u) is
        2 (log 2 - u - log(1 + e^-2u)), which no saturation harms (appendix C there).
        """
        u = self.mean + self.log_std.exp() * noise
        density = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return u.tanh(), (density - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)


class Categorical(NamedTuple):
    """A distribution over actions 0, 1, ..., k - 1 at every step."""

    log_probs: Tensor  # [..., k], normalised

    @classmethod
    def of(cls, logits: Tensor) -> "Categorical":
        """From unnormalised logarithms, [..., k]."""
        return cls(F.log_softmax(logits, -1))

    @property
    def mode(self) -> Tensor:
        """The likeliest action, [...] int64."""
        return self.log_probs.argmax(-1)

    def sample(self, rng: Generator) -> Tensor:
        """argmax_j log p_j - log E_j with E_j exponential: the Gumbel trick, [...] int64."""
        return (self.log_probs - torch.empty_like(self.log_probs).exponential_(generator=rng).log()).argmax(
            -1
        )

    def log_prob(self, action: Tensor) -> Tensor:
        """log p of the actions [...] int64."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-Σ_j p_j log p_j."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self ‖ other) = Σ_j p_j log p_j/p'_j."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


class Distribution(Protocol):
    """What the distributions that PPO trains can do."""

    @property
    def mode(self) -> Tensor:
        """The likeliest action."""

    def sample(self, rng: Generator) -> Tensor:
        """An action at each step."""

    def log_prob(self, action: Tensor) -> Tensor:
        """The logarithm of the actions' densities, [...]."""

    def entropy(self) -> Tensor:
        """[...]."""

    def kl(self, other: Any) -> Tensor:
        """The divergence from another of its kind, [...]."""


class Head(nn.Module):
    """From features [..., F] to the distribution over an action space, a Box's or a Discrete one's.

    With `each` the features are those of every action of a Discrete space, [..., k, F]: one preference for
    each, by weights that all share.
    """

    def __init__(
        self, features: int, space: Any, rng: Generator, initial_std: float = 1.0, each: bool = False
    ) -> None:
        super().__init__()
        self.discrete, self.each = isinstance(space, gym.spaces.Discrete), each
        outputs = 1 if each else int(space.n) if self.discrete else space.shape[0]
        self.output = linear(features, outputs, rng, gain=0.01)  # near no preference
        if not self.discrete:
            self.log_std = nn.Parameter(torch.full((outputs,), math.log(initial_std), device=rng.device))

    def forward(self, features: Tensor) -> Distribution:
        """The distribution at each step."""
        output = self.output(features)
        if self.discrete:
            return Categorical.of(output.squeeze(-1) if self.each else output)
        return Gaussian(output, self.log_std.clamp(min=LOG_STD_MIN).expand_as(output))


def linear(inputs: int, outputs: int, rng: Generator, gain: float = math.sqrt(2)) -> Linear:
    """A linear layer with orthogonal weights, as torch would make it from the global generator."""
    layer: Linear = nn.utils.skip_init(Linear, inputs, outputs, device=rng.device)
    nn.init.orthogonal_(layer.weight, gain, generator=rng)
    nn.init.zeros_(layer.bias)
    return layer


def perceptron(inputs: int, hidden: tuple[int, ...], rng: Generator) -> nn.Sequential:
    """Layers of those widths with tanh after each; of none, the identity."""
    layers = list[nn.Module]()
    for width in hidden:
        layers += [linear(inputs, width, rng), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers)
