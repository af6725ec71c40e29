"""VariBAD: Zintgraf et al. 2020, "VariBAD: A Very Good Method for Bayes-Adaptive Deep RL via Meta-Learning".

A memory is trained to infer the task: from it comes a Gaussian belief about an embedding of the task, from
which the trial's rewards can be told, the future ones included. The policy acts on the state and that belief
(the hyper-state of a Bayes-adaptive MDP), and so can weigh what exploration is worth. Its own loss does not
reach the memory.
"""

import math
from typing import Any

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import (
    STRICT,
    Adam,
    Judgement,
    Normaliser,
    Ppo,
    Sequence,
    Trial,
    shared_gradients,
    unroll,
)

from .recurrent import LIMIT, Recurrent, RecurrentConfig
from .task_vae import TaskVae, TaskVaeConfig


class Varibad(Recurrent):
    """An actor-critic on the state and a belief about the task, whose memory an autoencoder trains."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(TaskVaeConfig, RecurrentConfig):
        """Settings; those of the policy's update are PPO's."""

        layers: tuple[PositiveInt, ...] = (128, 128)
        """Widths of the policy's layers, and as many for the critic."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        c = config or self.Config()
        super().__init__(observation_space, action_space, rng, c)
        self.config = c
        self.make_actor_critic(self.observed + 2 * c.latent_dim, c.layers, action_space, c.initial_std)
        policy = self.actor, self.critic, self.head, self.value
        self.learner = Ppo([p for module in policy for p in module.parameters()], c, rng)
        self.vae = TaskVae(c.hidden, self.observed, self.acted, c, rng)
        self.belief_normaliser = Normaliser(2 * c.latent_dim, rng.device)
        self.vae_adam = Adam([*self.memory.parameters(), *self.vae.parameters()], math.inf)

    # --- the agent's side of a trial

    def judgement(self, features: Tensor, x: Tensor) -> Judgement:
        """Policy and value from the encoder's features [..., H] and the present input [..., I]."""
        return self.actor_critic(self.hyper_state(self.vae.belief(features), x))

    def hyper_state(self, belief: Tensor, x: Tensor) -> Tensor:
        """(s_t, μ_t, log σ_t²), [..., O + 2 Z]: the state and the belief about the task, standardised."""
        belief = self.belief_normaliser(belief).clamp(-LIMIT, LIMIT)
        return torch.cat([x[..., : self.observed], belief], -1)

    @torch.no_grad()
    def posterior(self, trial: Trial) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the belief at every step of a trial, [L, N E, Z] each.

        The steps of all rounds follow each other, as `unroll` has them; step t's belief knows what came
        before its action.
        """
        mean, log_std, _ = self.vae.posterior(self.memory.sequence(self.sequence_inputs(unroll(trial))))
        return mean, log_std.exp()

    # --- learning across tasks

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """PPO on the hyper-states as they were in play, then the autoencoder on the same trials."""
        steps = unroll(trial)
        x = self.sequence_inputs(steps)
        belief = self.vae.belief(self.memory.sequence(x))
        hyper = steps._replace(obs=self.hyper_state(belief, x))
        metrics = self.learner.update(hyper, self.learner.targets(self.rewarded(steps)), self.judge, self.rng)
        metrics |= self.update_vae(steps, x)
        if self.config.normalise:
            self.count(steps)
            self.belief_normaliser.update(belief[steps.valid])
        return metrics

    def judge(self, hyper: Sequence) -> Judgement:
        """Policy and value of whole trials, whose observations are hyper-states."""
        return self.actor_critic(hyper.obs)

    def update_vae(self, steps: Sequence, x: Tensor) -> dict[str, float]:
        """`vae_epochs` passes over the meta-batch in minibatches of whole trials, by Adam on the ELBO."""
        c, learners = self.config, steps.reward.shape[1]
        shown, said = self.standardised(steps), list[Tensor]()
        for _ in range(c.vae_epochs):
            order = torch.randperm(learners, generator=self.rng, device=x.device)
            for part in order.tensor_split(min(c.vae_minibatches, learners)):
                gradients, parts = self.vae_gradients(shown, x, part)
                self.vae_adam.step(gradients, c.lr_vae)
                said.append(parts)
        names = [*(f"{name}_error" for name in self.vae.weights), "belief_kl"]
        return dict(zip(names, torch.stack(said).mean(0).tolist(), strict=True))

    def vae_gradients(self, shown: Sequence, x: Tensor, part: Tensor) -> tuple[list[Tensor], Tensor]:
        """The gradients of a minibatch's negative ELBO, and its parts."""
        c, (length, learners) = self.config, x.shape[:2]
        looks = min(c.vae_subsample_elbos, length), learners
        chance = x.new_empty(looks).uniform_(generator=self.rng)
        noise = x.new_empty(*looks, c.latent_dim).normal_(generator=self.rng)

        def mean(some: Tensor) -> tuple[Tensor, Tensor]:
            posterior = self.vae.posterior(self.memory.sequence(x[:, some]))
            drawn = chance[:, some], noise[:, some]
            total, parts = self.vae.loss(posterior, shown.learners(some), *drawn)
            return total / len(part), parts / len(part)

        return shared_gradients(mean, self.vae_adam.parameters_, part)

    def standardised(self, steps: Sequence) -> Sequence:
        """The steps as the decoders read and predict them."""
        after = self.standard(steps.next_obs, steps.reward)
        obs = self.standard(steps.obs, steps.reward)[..., :-1]
        action = self.encoded(steps.action)
        return steps._replace(obs=obs, action=action, next_obs=after[..., :-1], reward=after[..., -1])
