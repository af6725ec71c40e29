"""PEARL's gradient steps a second at the published sizes and at small ones, and transitions collected.

    python benchmarks/bench_pearl.py [blocks]

16 tasks x 256 transitions of Half-Cheetah goal velocity, contexts of 100, networks of 3 x 300 and an encoder
of 3 x 200. The reference is the update as published: a state value with its target beside two critics, tasks
sampled and inferred one after the other, a backward pass a loss. It runs on the same data in the same
process, in blocks between ours, with torch's own threads. The last line is JSON.
"""

import json
import statistics
import sys
import time
from copy import deepcopy
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

import metarl
from metarl import Transitions, run_trial
from metarl.agents import Pearl
from metarl.envs import make

NAME, ROUNDS, TASKS = "half-cheetah-vel/pearl2019", (2, 3), 20
SIZES: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"hidden": (128, 128), "encoder_layers": (128, 128), "batch_size": 64},
}
STEPS = {"published": 5, "small": 20}  # gradient steps in a block


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A perceptron with relu."""
    layers = chain.from_iterable((nn.Linear(i, o), nn.ReLU()) for i, o in pairwise([inputs, *hidden]))
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


class Reference:
    """The update in the manner of the public code."""

    def __init__(self, agent: Pearl) -> None:
        c, o, a = agent.config, agent.observed, agent.acted
        self.config, self.latent = c, c.latent_dim
        self.encoder = network(o + a + 1, c.encoder_layers, 2 * self.latent)
        self.policy = network(o + self.latent, c.hidden, 2 * a)
        self.q = [network(o + a + self.latent, c.hidden, 1) for _ in range(2)]
        self.v = network(o + self.latent, c.hidden, 1)
        self.target = deepcopy(self.v)
        learned = (self.encoder, self.policy, *self.q, self.v)
        self.adams = [torch.optim.Adam(n.parameters(), c.learning_rate) for n in learned]
        self.data = {}
        for slot in agent.replay.filled.tolist():
            rows = (r.data[slot, : r.size[slot]] for r in (agent.replay, agent.context))
            self.data[slot] = [[x.numpy() for x in Transitions.unpack(r, o, a)] for r in rows]
        self.random = np.random.RandomState(0)

    def sample(self, slot: int, which: int, n: int) -> list[Tensor]:
        """Observations, actions, next observations, rewards and ends of one task."""
        arrays = self.data[slot][which]
        rows = self.random.randint(0, len(arrays[0]), n)
        obs, action, next_obs, reward, _, terminated, *_ = (torch.from_numpy(x[rows]) for x in arrays)
        return [obs, action, next_obs, reward[:, None], terminated[:, None]]

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log-densities, [B, 1]."""
        mean, log_std = self.policy(x).chunk(2, -1)
        gaussian = Normal(mean, log_std.clamp(-20, 2).exp())
        u = gaussian.rsample()
        action = u.tanh()
        density = gaussian.log_prob(u) - torch.log(1 - action.square() + 1e-6)
        return action, density.sum(-1, keepdim=True)

    def update(self) -> None:
        """One gradient step."""
        c = self.config
        slots = self.random.choice([*self.data], c.update_tasks)
        contexts = [self.sample(slot, 1, c.context_size) for slot in slots]
        context = torch.stack([torch.cat([x[0], x[1], x[3]], -1) for x in contexts])
        batches = zip(*(self.sample(slot, 0, c.batch_size) for slot in slots), strict=True)
        obs, action, next_obs, reward, terminated = (torch.stack(x).flatten(0, 1) for x in batches)

        said = self.encoder(context.flatten(0, 1)).view(len(slots), -1, 2 * self.latent)
        beliefs = []
        for each in said:  # a product of Gaussians a task
            mean, variance = each[:, : self.latent], F.softplus(each[:, self.latent :]).clamp(min=1e-7)
            joint = 1 / (1 / variance).sum(0)
            beliefs.append(Normal(joint * (mean / variance).sum(0), joint.sqrt()))
        z = torch.stack([q.rsample() for q in beliefs])
        z = torch.cat([each.repeat(c.batch_size, 1) for each in z])
        fixed = z.detach()

        new_action, log_prob = self.act(torch.cat([obs, fixed], -1))
        q = [net(torch.cat([obs, action, z], -1)) for net in self.q]
        v = self.v(torch.cat([obs, fixed], -1))
        with torch.no_grad():
            following = self.target(torch.cat([next_obs, fixed], -1))
        for adam in self.adams:
            adam.zero_grad()
        prior = Normal(torch.zeros(self.latent), torch.ones(self.latent))
        kl = sum(kl_divergence(belief, prior).sum() for belief in beliefs)
        torch.as_tensor(c.kl_weight * kl).backward(retain_graph=True)
        y = c.reward_scale * reward + (1 - terminated) * c.gamma * following
        torch.stack([(each - y).square().mean() for each in q]).sum().backward()
        for adam in (self.adams[0], *self.adams[2:4]):
            adam.step()

        least = torch.min(*(net(torch.cat([obs, new_action, fixed], -1)) for net in self.q))
        (v - (least - log_prob).detach()).square().mean().backward()
        self.adams[4].step()
        for p, target in zip(self.v.parameters(), self.target.parameters(), strict=True):
            target.data.copy_(target.data * (1 - c.tau) + p.data * c.tau)
        (log_prob - least).mean().backward()
        self.adams[1].step()


def measure(name: str, blocks: int) -> dict[str, float]:
    """Median seconds of a gradient step, ours and the reference's, and of a collected transition."""
    steps, family, rng = STEPS[name], make(NAME), metarl.generator(0)
    config = Pearl.Config(**SIZES[name], gradient_steps=steps)
    agent = Pearl(family.observation_space, family.action_space, rng, config)
    ours, plain, collected = [], [], []
    reference = None
    for block in range(blocks + 1):
        with metarl.device.one_thread(), torch.no_grad():
            begin = time.perf_counter()
            trial = run_trial(family, agent, family.sample_tasks(TASKS, "train", rng), ROUNDS, rng)
            middle = time.perf_counter()
            agent.store(trial)
            before = time.perf_counter()
            agent.learn()
            end = time.perf_counter()
        reference = reference or Reference(agent)
        start = time.perf_counter()
        for _ in range(steps):
            reference.update()
        if block:  # the first warms up
            plain.append((time.perf_counter() - start) / steps)
            ours.append((end - before) / steps)
            collected.append(TASKS * sum(ROUNDS) * family.horizon / (middle - begin))
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    return {
        "seconds": round(statistics.median(ours), 4),
        "reference_seconds": round(statistics.median(plain), 4),
        "gradient_steps_per_second": round(1 / statistics.median(ours), 1),
        "transitions_per_second": round(statistics.median(collected)),
        "ratio": round(statistics.median(ratios), 3),
    }


def main(blocks: int) -> None:
    """Both sizes."""
    print(json.dumps({"benchmark": "pearl"} | {name: measure(name, blocks) for name in SIZES}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
