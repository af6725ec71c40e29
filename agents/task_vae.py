"""VariBAD's variational autoencoder: a belief about the task, and what a task of that kind would show.

Zintgraf et al. 2020. From the belief at any time of a trial the rewards (and, if wanted, the transitions) of
the whole trial are decoded, past and future, so that it has to hold what is known and how well it is known.
"""

from itertools import pairwise

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from metarl import STRICT, ConfigError, Gaussian, Sequence, delayed, linear


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TaskVaeConfig:
    """Settings of the autoencoder and its training."""

    latent_dim: PositiveInt = 5
    """Dimensions of the task embedding m."""
    decoder_layers: tuple[PositiveInt, ...] = (64, 32)
    """Widths of the decoders' layers."""
    input_prev_state: bool = True
    """Decode a reward from the state before the step, too."""
    input_action: bool = True
    """Decode a reward from the action, too."""
    reward_weight: NonNegativeFloat = 1.0
    """Weight of the decoded rewards' squared error; 0: they are not decoded."""
    transition_weight: NonNegativeFloat = 0.0
    """Weight of the decoded states' squared error; 0: they are not decoded, as tasks share their dynamics."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the divergence between the beliefs of successive steps."""
    vae_subsample_elbos: PositiveInt = 8
    """Beliefs of each trial, at different times, from which all of the trial is decoded."""
    lr_vae: PositiveFloat = 3e-3
    """Adam's step size for encoder and decoders; the published 1e-3 goes with smaller meta-batches."""
    vae_epochs: PositiveInt = 2
    """Passes over a meta-batch."""
    vae_minibatches: PositiveInt = 4
    """Parts of a meta-batch, each of whole trials, and each an optimiser's step."""


class Decoder(nn.Module):
    """A perceptron on each step of a trial and each sample of the task; its first layer reads them apart."""

    def __init__(
        self, inputs: int, outputs: int, latent: int, layers: tuple[int, ...], rng: Generator
    ) -> None:
        super().__init__()
        widths = [*layers, outputs]
        self.step = linear(inputs, widths[0], rng)
        self.task = linear(latent, widths[0], rng)
        rest = [[nn.ReLU(), linear(a, b, rng)] for a, b in pairwise(widths)]
        self.rest = nn.Sequential(*(layer for pair in rest for layer in pair))

    def forward(self, step: Tensor, m: Tensor) -> Tensor:
        """Steps [L, B, I] and samples [K, B, Z] to predictions [L, K, B, X]."""
        found: Tensor = self.rest(self.step(step).unsqueeze(1) + self.task(m))
        return found


class TaskVae(nn.Module):
    """The belief q(m | τ_:t) from a memory's features, and the decoders; the memory itself is the agent's."""

    def __init__(
        self, features: int, observed: int, actions: int, config: TaskVaeConfig, rng: Generator
    ) -> None:
        super().__init__()
        self.config = c = config
        weights = {"reward": c.reward_weight, "transition": c.transition_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise ConfigError(
                "agent.reward_weight and agent.transition_weight are both 0; allowed: one above 0, or "
                "beliefs have nothing to predict"
            )
        self.belief = linear(features, 2 * c.latent_dim, rng, gain=0.1)  # μ, log σ²; near the prior
        read = observed * (1 + c.input_prev_state) + actions * c.input_action
        sizes = {"reward": (read, 1), "transition": (observed + actions, observed)}
        self.decoders = nn.ModuleDict(
            {name: Decoder(*sizes[name], c.latent_dim, c.decoder_layers, rng) for name in self.weights}
        )

    def posterior(self, features: Tensor) -> Gaussian:
        """q(m | τ_:t) = N(μ_t, σ_t²) over [..., Z] from the memory's features [..., H]."""
        mean, log_variance = self.belief(features).chunk(2, -1)
        return Gaussian(mean, 0.5 * log_variance)

    def loss(
        self, posterior: Gaussian, steps: Sequence, chance: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The negative ELBO of B learners, averaged over the times t from which they look at their trial:

        Σ_b mean_t [E_{m ~ q_t} Σ_i λ_r (r_i - r̂_i(m))² + λ_s (s_i+1 - ŝ_i+1(m))² + β KL(q_t ‖ q_{t-1})].

        The expectation is taken at the K times of `samples`. `steps` are standardised. Besides, the squared
        errors of what is decoded, and the divergence, as means over a learner's steps: [D + 1], their sums
        over learners.
        """
        played, m = steps.valid.sum(0), samples(posterior, steps.valid, chance, noise)
        parts = torch.stack([*self.errors(steps, m), divergence(posterior)]) * steps.valid
        *errors, kl = parts.sum(1)  # [B] each, over a trial
        total = self.config.kl_weight * kl / played
        for weight, error in zip(self.weights.values(), errors, strict=True):
            total = total + weight * error
        return total.sum(), (parts.sum(1) / played).sum(-1)

    def errors(self, steps: Sequence, m: Tensor) -> list[Tensor]:
        """Squared errors of what is decoded at each step, means over samples and features, [L, B] each."""
        c, obs, action, after = self.config, steps.obs, steps.action, steps.next_obs
        read = {
            "reward": [obs] * c.input_prev_state + [action] * c.input_action + [after],
            "transition": [obs, action],
        }
        shown = {"reward": steps.reward.unsqueeze(-1), "transition": after}
        return [
            (decoder(torch.cat(read[name], -1), m) - shown[name].unsqueeze(1)).square().mean((1, 3))
            for name, decoder in self.decoders.items()
        ]


def divergence(posterior: Gaussian) -> Tensor:
    """KL(q(m | τ_:t) ‖ q(m | τ_:t-1)) at each step, [L, B]; before the first there is the prior N(0, 1)."""
    return posterior.kl(Gaussian(*map(delayed, posterior[:2])))


def samples(posterior: Gaussian, valid: Tensor, chance: Tensor, noise: Tensor) -> Tensor:
    """m ~ q_t at K times t spread over what was played, [K, B, Z].

    The k-th is drawn from the k-th part of K by chance [K, B], uniform in [0, 1); m by noise [K, B, Z],
    standard normal.
    """
    part, played = torch.arange(len(chance), device=valid.device), valid.sum(0)
    t = ((part.unsqueeze(-1) + chance) / len(chance) * played).long().clamp(max=played - 1)
    place = t.unsqueeze(-1).expand_as(noise)
    mean, log_std = (x.gather(0, place) for x in posterior[:2])
    return mean + log_std.exp() * noise
