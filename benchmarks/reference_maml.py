"""The plain way, to compare with: one task after the other, one environment at a time, double backward.

It is what the equations say and no more, in the manner of the public PyTorch implementations: a
Gymnasium environment a task, a sequential network, torch.autograd through the inner step for the
gradient and twice through the divergence for the curvature products.
"""

import time

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

import metarl.envs  # noqa: F401  (registers the environments)
from metarl import conjugate_gradient, largest_step, line_search, linear_baseline, normalised
from metarl.returns import gae
from metarl.types import Rollout

Params = dict[str, Tensor]


class Reference:
    """MAML-TRPO on navigation/maml2017 with one inner step."""

    def __init__(self, hidden: int = 64, inner_lr: float = 0.5, episodes: int = 20, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(
            nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2)
        )
        self.log_std = nn.Parameter(torch.zeros(2))
        self.env = gym.make("metarl/Navigation-maml2017-v0").unwrapped
        self.inner_lr, self.episodes = inner_lr, episodes

    @property
    def params(self) -> Params:
        """The initial parameters, by name."""
        return {**dict(self.network.named_parameters()), "log_std": self.log_std}

    def policy(self, params: Params, obs: Tensor) -> torch.distributions.Normal:
        """The policy at some parameters."""
        network = {k: v for k, v in params.items() if k != "log_std"}
        return torch.distributions.Normal(
            functional_call(self.network, network, (obs,)), params["log_std"].exp()
        )

    def play(self, params: Params, task: list[float]) -> Rollout:
        """Episodes one after the other, as a rollout with N = 1."""
        steps, size = 100, self.episodes
        obs, action = torch.zeros(steps, 1, size, 2), torch.zeros(steps, 1, size, 2)
        reward, ended = torch.zeros(steps, 1, size), torch.ones(steps, 1, size, dtype=torch.bool)
        with torch.no_grad():
            for episode in range(size):
                now, _ = self.env.reset(options={"task": task})
                for t in range(steps):
                    obs[t, 0, episode] = torch.from_numpy(now)
                    choice = self.policy(params, obs[t, 0, episode]).sample()
                    now, gain, terminated, *_ = self.env.step(choice.numpy())
                    action[t, 0, episode], reward[t, 0, episode] = choice, float(gain)
                    ended[t, 0, episode] = terminated
                    if terminated:
                        break
        zero = torch.zeros_like(reward)
        return Rollout(obs, action, reward, ended, obs, zero, zero, zero)

    def advantage(self, rollout: Rollout) -> Tensor:
        """Normalised advantages over the linear baseline."""
        value = linear_baseline(rollout, 0.99)
        found = gae(rollout.reward, value, value[0] * 0, rollout.terminated, 0.99, 0.95)
        return normalised(found, rollout.valid)

    def loss(self, params: Params, rollout: Rollout, advantage: Tensor) -> Tensor:
        """The policy-gradient loss over the steps played."""
        log_prob = self.policy(params, rollout.obs).log_prob(rollout.action).sum(-1)
        return -(log_prob * advantage)[rollout.valid].mean()

    def adapt(self, params: Params, rollout: Rollout, create_graph: bool) -> Params:
        """One gradient step."""
        loss = self.loss(params, rollout, self.advantage(rollout))
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
        return {k: p - self.inner_lr * g for (k, p), g in zip(params.items(), grads, strict=True)}

    def iteration(self, tasks: np.ndarray, max_kl: float = 0.01) -> dict[str, float]:
        """One meta-iteration; returns its seconds, and those of the update."""
        begin = time.perf_counter()
        before = [self.play(self.params, list(map(float, task))) for task in tasks]
        adapted = [self.adapt(self.params, r, create_graph=False) for r in before]
        after = [self.play(p, list(map(float, t))) for p, t in zip(adapted, tasks, strict=True)]
        played = time.perf_counter()
        self.update(before, after, max_kl)
        done = time.perf_counter()
        return {"total": done - begin, "update": done - played}

    def update(self, before: list[Rollout], after: list[Rollout], max_kl: float) -> None:
        """The trust-region step, by double backward."""
        params = self.params
        leaves = list(params.values())
        advantages = [self.advantage(r) for r in after]
        old = [self.policy(self.adapt(params, r, False), s.obs) for r, s in zip(before, after, strict=True)]
        old = [torch.distributions.Normal(d.mean.detach(), d.stddev.detach()) for d in old]

        def objective(params: Params) -> tuple[Tensor, Tensor]:
            losses, kls = [], []
            for r, s, advantage, was in zip(before, after, advantages, old, strict=True):
                now = self.policy(self.adapt(params, r, create_graph=True), s.obs)
                ratio = (now.log_prob(s.action) - was.log_prob(s.action)).sum(-1).exp()
                losses.append(-(ratio * advantage)[s.valid].mean())
                kls.append(torch.distributions.kl_divergence(was, now).sum(-1)[s.valid].mean())
            return torch.stack(losses).mean(), torch.stack(kls).mean()

        loss, _ = objective(params)
        gradient = flat(torch.autograd.grad(loss, leaves))

        def curvature(v: Tensor) -> Tensor:
            _, kl = objective(params)
            slope = flat(torch.autograd.grad(kl, leaves, create_graph=True))
            return flat(torch.autograd.grad(slope.dot(v), leaves)) + 1e-5 * v

        direction, image = conjugate_gradient(curvature, -gradient)
        step = largest_step(direction, image, max_kl)
        start = flat(leaves).detach()

        def evaluate(scale: float) -> tuple[float, float]:
            nn.utils.vector_to_parameters(start + scale * step, leaves)
            new, kl = objective(params)
            return (loss - new).item(), kl.item()

        found = line_search(evaluate, max_kl)
        nn.utils.vector_to_parameters(start + found.scale * step, leaves)


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """All of them in one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])
