"""What is known of an MDP from a Dirichlet and a normal prior, and finite-horizon planning in what it may be.

All is batched over learners: tensors are [N, E, ...] with S states, A actions and H steps of an episode.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from metarl import Step, generator


class Posterior(NamedTuple):
    """P(· | s, a) ~ Dirichlet(α(s, a, ·)) and r̄(s, a) ~ N(μ, 1 / τ), paid with noise from N(0, 1)."""

    alpha: Tensor  # [N, E, S, A, S]
    mu: Tensor  # [N, E, S, A]
    tau: Tensor  # [N, E, S, A]

    def after(self, place: Tensor, step: Step, begun: Tensor) -> "Posterior":
        """With the step that was taken at a place [N, E], for the learners [N, E] that have begun.

        Its reward counts always. Where the episode ended with it the world was reset, so that what followed
        is not seen; Osband's TabulaRL leaves out that transition, too.
        """
        n, e = (torch.arange(size, device=place.device) for size in place.shape)
        pair = n[:, None], e, place, step.action
        one = begun.to(self.mu.dtype)
        move = one * (1 - step.done)
        surprise = one * (step.reward - self.mu[pair]) / (self.tau[pair] + 1)
        return Posterior(
            self.alpha.index_put((*pair, step.obs.argmax(-1)), move, accumulate=True),
            self.mu.index_put(pair, surprise, accumulate=True),
            self.tau.index_put(pair, one, accumulate=True),
        )

    @property
    def transition(self) -> Tensor:
        """The mean of P(s' | s, a), [N, E, S, A, S]."""
        return self.alpha / self.alpha.sum(-1, keepdim=True)

    def sample(self, rng: Generator) -> tuple[Tensor, Tensor]:
        """An MDP for each learner: P(s' | s, a), [N, E, S, A, S], and r̄(s, a), [N, E, S, A]."""
        noise = torch.empty_like(self.mu).normal_(generator=rng)
        return dirichlet(self.alpha, rng), self.mu + noise / self.tau.sqrt()


def dirichlet(alpha: Tensor, rng: Generator) -> Tensor:
    """Probabilities from Dirichlet(α), along the last axis: Gamma(α) variates over their sum.

    They are Gamma(α + 1) times U^(1 / α), in logarithms, which holds for the smallest α as well.
    """
    u = torch.empty_like(alpha).uniform_(generator=rng)
    return (gamma(alpha + 1, rng).log() + u.log() / alpha).softmax(-1)


def gamma(shape: Tensor, rng: Generator) -> Tensor:
    """Gamma variates of scale 1 for shapes of 1 or more: Marsaglia & Tsang 2000, by rejection.

    Every try draws for all, until all are accepted, from a generator for this one call: so that a learner's
    draws, here and later, do not depend on how many tries the others needed.
    """
    own = generator(int(torch.randint(2**62, (), generator=rng, device=rng.device)), rng.device)
    d = shape.flatten() - 1 / 3
    drawn, left = torch.empty_like(d), torch.arange(len(d), device=d.device)
    while len(left):
        x, u = torch.empty_like(d).normal_(generator=own), torch.empty_like(d).uniform_(generator=own)
        x, u, mode = x[left], u[left], d[left]
        v = (1 + x / (9 * mode).sqrt()) ** 3
        # where v is not positive its logarithm is not read
        good = (v > 0) & (u.log() < x**2 / 2 + mode * (1 - v + v.log()))
        drawn[left[good]] = (mode * v)[good]
        left = left[~good]
    return drawn.view_as(shape)


def value_iteration(transition: Tensor, reward: Tensor, horizon: int) -> Tensor:
    """Q_h(s, a) = r(s, a) + Σ_s' P(s' | s, a) max_a' Q_h+1(s', a'), and Q_H = 0; [N, E, H, S, A]."""
    values = [torch.zeros_like(reward)]
    for _ in range(horizon):
        value = values[-1].amax(-1)
        values.append(reward + torch.einsum("nesat,net->nesa", transition, value))
    return torch.stack(values[:0:-1], 2)


def extended_value_iteration(transition: Tensor, reward: Tensor, radius: Tensor, horizon: int) -> Tensor:
    """The same, with the best of all P̃(· | s, a) within an L1 distance radius(s, a) of P; [N, E, H, S, A].

    Jaksch et al. 2010, figure 2: radius / 2 of probability moves to the best state, from the worst ones.
    """
    values = [torch.zeros_like(reward)]
    for _ in range(horizon):
        value, worst_first = values[-1].amax(-1).sort(-1)  # [N, E, S]
        p = transition.gather(-1, worst_first[:, :, None, None].expand_as(transition))
        moved = torch.minimum(radius / 2, 1 - p[..., -1])[..., None]
        left = (p.cumsum(-1) - moved).clamp(min=0)  # of the worst, the two worst, ... states together
        expected = (left.diff(dim=-1, prepend=torch.zeros_like(moved)) * value[:, :, None, None]).sum(-1)
        values.append(reward + expected + moved[..., 0] * value[:, :, -1:, None])
    return torch.stack(values[:0:-1], 2)
