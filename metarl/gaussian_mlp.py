"""A Gaussian perceptron and its hand-written derivatives: forward, backward and Pearlmutter's R-operator.

Pearlmutter, "Fast exact multiplication by the Hessian" (1994): R{f} is f's derivative along v, and
it is carried through the forward and the backward pass by the rules of differentiation.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from .distributions import LOG_STD_MIN, Gaussian
from .policy import Batch, Derivatives, Policy

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh_, "relu": torch.relu_}
# f'(z) g from h = f(z) and g, in one pass
BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": torch.ops.aten.tanh_backward,
    "relu": lambda g, h: torch.ops.aten.threshold_backward(g, h, 0),
}
Layers = tuple[list[Tensor], list[Tensor], Tensor]  # weights, biases, log_std


class GaussianMlp(Policy):
    """A multilayer perceptron for the mean and a free logarithm of the standard deviation, as in MAML.

    With `predicts_reward` it has one more output, ρ(s), of the same hidden layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rng: Generator,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initial_std: float = 1.0,
        output_gain: float = 1.0,
        predicts_reward: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.actions = activation, outputs
        self._views: tuple[Tensor, Layers] | None = None
        sizes = [inputs, *hidden, outputs + predicts_reward]
        # weights are [in, out], so that a layer of all tasks is one baddbmm
        self.weights = nn.ParameterList(_xavier(i, o, rng) for i, o in pairwise(sizes))
        self.weights[-1].data[:, :outputs] *= output_gain
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(o, device=rng.device)) for o in sizes[1:])
        self.log_std = nn.Parameter(torch.full((outputs,), math.log(initial_std), device=rng.device))
        self.seal()

    def forward(self, obs: Tensor) -> Gaussian:
        """Observations [..., O] to the Gaussian of the action at each of them."""
        layers = list(zip(self.weights, self.biases, strict=True))
        for weight, bias in layers[:-1]:
            obs = ACTIVATIONS[self.activation](obs @ weight + bias)
        mean, reward = self.halves(obs @ layers[-1][0] + layers[-1][1])
        return Gaussian(mean, self.log_std.clamp(min=LOG_STD_MIN).expand_as(mean), reward)

    def halves(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The mean [..., A] and the predicted reward [..., 1 or 0] in the last layer's output."""
        return output[..., : self.actions], output[..., self.actions :]

    def widening(self, factor: float) -> Tensor:
        """What to add to flat parameters, [P], to make the noise so many times wider."""
        change = torch.zeros_like(self.flat)
        change[: len(self.log_std)] = math.log(factor)  # a module's own parameters come first
        return change

    def layers(self, params: Tensor) -> Layers:
        """Weights [n, in, out], biases [n, 1, out] and log_std [n, 1, A] of flat parameters [n, P]."""
        log_std, *parts = self.split(params)
        depth = len(parts) // 2
        return parts[:depth], [b.unsqueeze(-2) for b in parts[depth:]], log_std.unsqueeze(-2)

    def views(self, params: Tensor) -> Layers:
        """The layers, kept for the next call with the very same tensor: a rollout makes hundreds."""
        if params.requires_grad:
            return self.layers(params)  # whose views belong to one graph
        kept = self._views
        if kept is None or kept[0] is not params:
            weights, biases, log_std = self.layers(params)
            weights[-1] = weights[-1].mT.contiguous().mT  # a few columns are twice as fast in this order
            kept = self._views = params, (weights, biases, log_std)
        return kept[1]

    def batched(self, params: Tensor, obs: Tensor) -> Gaussian:
        """The policies of n tasks, [n, P] and [n, B, O], a batched matrix product a layer."""
        weights, biases, log_std = self.views(params)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            obs = IN_PLACE[self.activation](torch.baddbmm(bias, obs, weight))
        mean, reward = self.halves(torch.baddbmm(biases[-1], obs, weights[-1]))
        return Gaussian(mean, log_std.clamp(min=LOG_STD_MIN), reward)

    def derivatives(self, params: Tensor, batch: Batch) -> Derivatives:
        """The hand-written derivatives: equal to torch.func's and several times faster."""
        return GaussianMlpDerivatives(self, params, batch)


class GaussianMlpDerivatives:
    """Derivatives at φ [n, P] on a batch of B steps a task; forward and backward activations are kept.

    With h_0 = s, z_l = h_{l-1} W_l + b_l, h_l = f(z_l), (μ, ρ) = z_L, and δ_l = ∂L/∂z_l. A predicted
    reward ρ is one more Gaussian of σ = 1 around r: ½ c (ρ - r)² has the derivatives of -c log N(r; ρ, 1).
    """

    def __init__(self, policy: GaussianMlp, params: Tensor, batch: Batch) -> None:
        self.policy, self.batch = policy, batch
        self.weights, biases, log_std = policy.layers(params)
        self.free_std = (log_std > LOG_STD_MIN).to(params.dtype)  # the clamp has no slope below
        self.precision = (-2 * log_std.clamp(min=LOG_STD_MIN)).exp()  # 1 / σ², [n, 1, A]
        self.backward = BACKWARD[policy.activation]
        self.h = [batch.obs]
        for weight, bias in zip(self.weights[:-1], biases[:-1], strict=True):
            self.h.append(ACTIVATIONS[policy.activation](torch.baddbmm(bias, self.h[-1], weight)))
        mean, rho = policy.halves(torch.baddbmm(biases[-1], self.h[-1], self.weights[-1]))
        # ∂L/∂μ = -w A (a - μ) / σ²
        self.strength = (batch.weight * batch.advantage).unsqueeze(-1)  # w A, [n, B, 1]
        self.pull = (batch.action - mean) * self.precision  # (a - μ) / σ²
        self.trust = batch.surprise.unsqueeze(-1)  # c, [n, B, 1]
        self.error = rho - batch.reward.unsqueeze(-1)  # ρ - r, [n, B, 1 or 0]

    @cached_property
    def delta(self) -> list[Tensor]:
        """δ_1, ..., δ_L: δ_l = f'(z_l) ∘ δ_{l+1} W_{l+1}'."""
        delta = [_joined(-self.strength * self.pull, self.trust * self.error)]
        for weight, h in zip(self.weights[:0:-1], self.h[:0:-1], strict=True):
            delta.insert(0, self.backward(torch.bmm(delta[0], weight.mT), h))
        return delta

    @cached_property
    def bend(self) -> list[Tensor]:
        """δ_l f''(z_l) / f'(z_l): -2 h_l δ_l for tanh, nothing for relu."""
        if self.policy.activation == "relu":
            return []
        return [(h * delta).mul_(-2) for h, delta in zip(self.h[1:], self.delta, strict=False)]

    def _collect(self, pairs: list[list[tuple[Tensor, Tensor]]], log_std: Tensor) -> Tensor:
        """Σ h' δ and Σ δ of each layer, and the log_std's derivative, as flat vectors [n, P]."""
        weights = [_outer(h, delta).flatten(1) for (h, delta), *_ in pairs]
        for weight, (_, *more) in zip(weights, pairs, strict=True):
            for h, delta in more:
                weight += _outer(h, delta).flatten(1)
        biases = [layer[-1][1].sum(1) for layer in pairs]
        return torch.cat([(log_std * self.free_std).flatten(1), *weights, *biases], 1)

    def gradient(self) -> Tensor:
        """∇L(φ), [n, P]; ∂L/∂log σ = -Σ_b w A (z² - 1) with z = (a - μ) / σ."""
        z2 = self.pull.square() / self.precision
        log_std = -(self.strength * (z2 - 1)).sum(1, keepdim=True)
        return self._collect([[pair] for pair in zip(self.h, self.delta, strict=True)], log_std)

    def _forward_r(self, v: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """R{z_1}, ..., R{μ}; R{h_1}, ...; v's weights and log_std: how the forward pass changes along v."""
        weights, biases, log_std = self.policy.layers(v)
        r_z, r_h = list[Tensor](), list[Tensor]()
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            r_z.append(torch.baddbmm(bias, self.h[layer], weight))
            if layer:
                r_z[-1].baddbmm_(r_h[-1], self.weights[layer])
            if layer + 1 < len(self.h):
                r_h.append(self.backward(r_z[-1], self.h[layer + 1]))
        return r_z, r_h, weights, log_std * self.free_std

    def hvp(self, v: Tensor) -> Tensor:
        """∇²L(φ) v, [n, P]."""
        (*r_z, r_output), r_h, v_weights, v_log_std = self._forward_r(v)
        r_mean, r_rho = self.policy.halves(r_output)
        # R{∂L/∂μ} = w A (R{μ} / σ² + 2 (a - μ) / σ² R{log σ}) and R{∂L/∂ρ} = c R{ρ}
        r_delta = (r_mean * self.precision).add_(2 * self.pull * v_log_std).mul_(self.strength)
        r_delta = _joined(r_delta, self.trust * r_rho)
        # R{∂L/∂log σ} = Σ_b 2 w A ((a - μ) / σ² R{μ} + z² R{log σ})
        z2 = self.pull.square() / self.precision
        log_std = 2 * (self.strength * (self.pull * r_mean + z2 * v_log_std)).sum(1, keepdim=True)
        pairs = [[(self.h[-1], r_delta)]]
        for layer in range(len(r_h) - 1, -1, -1):
            pairs[0].insert(0, (r_h[layer], self.delta[layer + 1]))
            r_e = torch.bmm(r_delta, self.weights[layer + 1].mT)
            r_e = r_e.baddbmm_(self.delta[layer + 1], v_weights[layer + 1].mT)
            r_delta = self.backward(r_e, self.h[layer + 1])
            if self.bend:
                r_delta.addcmul_(self.bend[layer], r_z[layer])
            pairs.insert(0, [(self.h[layer], r_delta)])
        return self._collect(pairs, log_std)

    def fisher(self, v: Tensor) -> Tensor:
        """F(φ) v = Σ_b w_b J_b' diag(1/σ², 2) J_b v with J_b = ∂(μ, log σ)(s_b)/∂φ, [n, P]."""
        (*_, r_output), _, _, v_log_std = self._forward_r(v)
        r_mean, r_rho = self.policy.halves(r_output)
        weight = self.batch.weight.unsqueeze(-1)
        delta = _joined(r_mean * (weight * self.precision), 0 * r_rho)
        pairs = [[(self.h[-1], delta)]]
        for layer in range(len(self.h) - 2, -1, -1):
            delta = self.backward(torch.bmm(delta, self.weights[layer + 1].mT), self.h[layer + 1])
            pairs.insert(0, [(self.h[layer], delta)])
        return self._collect(pairs, 2 * weight.sum(1, keepdim=True) * v_log_std)


def _joined(of_mean: Tensor, of_reward: Tensor) -> Tensor:
    """The derivatives of the two halves of the last layer's output, [n, B, A + 1]."""
    return torch.cat([of_mean, of_reward], -1) if of_reward.shape[-1] else of_mean


def _outer(h: Tensor, delta: Tensor) -> Tensor:
    """Σ_b h_b' δ_b, [n, I, O]; the narrow factor goes first: several times faster."""
    return torch.bmm(h.mT, delta) if delta.shape[-1] >= h.shape[-1] else torch.bmm(delta.mT, h).mT


def _xavier(inputs: int, outputs: int, rng: Generator) -> nn.Parameter:
    bound = math.sqrt(6 / (inputs + outputs))
    u = torch.rand(inputs, outputs, generator=rng, device=rng.device)
    return nn.Parameter((2 * u - 1) * bound)
