"""From rewards to advantages: discounted returns, GAE, and the linear feature baseline, one fit a task."""

import torch
from torch import Tensor

from .types import Rollout


def gae(
    reward: Tensor, value: Tensor, last_value: Tensor, terminated: Tensor, gamma: float, lam: float
) -> Tensor:
    """A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} - V_t, and no future beyond a termination.

    All [T, ...] but last_value [...], the value after the last step; Schulman et al. 2016, eq. 16.
    """
    alive = (~terminated).to(reward.dtype)
    advantage, following = torch.zeros_like(last_value), last_value
    out = torch.empty_like(reward)
    for t in range(len(reward) - 1, -1, -1):
        delta = reward[t] + gamma * following * alive[t] - value[t]
        advantage = delta + gamma * lam * alive[t] * advantage
        out[t], following = advantage, value[t]
    return out


def discounted_return(reward: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + γ G_{t+1} over the first axis, [T, ...]; rewards after an end are zero."""
    out = torch.empty_like(reward)
    following = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        following = reward[t] + gamma * following
        out[t] = following
    return out


def linear_baseline(rollout: Rollout, gamma: float, ridge: float = 1e-5) -> Tensor:
    """Each task's return-to-go, fitted by least squares to features of the step, [T, N, E].

    The features are (s, s², τ, τ², τ³, 1) with s clipped to ±10 and τ = t / 100 counted from each
    episode's start (Duan et al. 2016, as in rllab). The fit is in float64 over the steps played.
    """
    steps, tasks, episodes = rollout.reward.shape
    obs = rollout.obs.double().clamp(-10, 10)
    tau = (torch.arange(steps, device=obs.device, dtype=obs.dtype) / 100).view(-1, 1, 1, 1)
    tau = tau.expand(steps, tasks, episodes, 1)
    features = torch.cat([obs, obs**2, tau, tau**2, tau**3, torch.ones_like(tau)], -1)
    x = features.transpose(0, 1).flatten(1, 2)  # [N, T E, F]
    y = discounted_return(rollout.reward.double(), gamma).transpose(0, 1).flatten(1, 2)
    seen = x * rollout.valid.transpose(0, 1).flatten(1, 2).unsqueeze(-1)
    gram = seen.mT @ x + ridge * torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
    weights = torch.linalg.solve(gram, seen.mT @ y.unsqueeze(-1))  # [N, F, 1]
    value = (x @ weights).unflatten(1, (steps, episodes)).transpose(0, 1).squeeze(-1)
    return value.to(rollout.reward.dtype)


def normalised(advantage: Tensor, valid: Tensor) -> Tensor:
    """Zero mean and unit standard deviation within each task over the steps played, all [T, N, E]."""
    weight = valid.to(advantage.dtype)
    count = weight.sum((0, 2), keepdim=True)
    centred = (advantage - (advantage * weight).sum((0, 2), keepdim=True) / count) * weight
    std = (centred.square().sum((0, 2), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)
