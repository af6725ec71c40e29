"""Soft actor-critic: densities, losses and gradients against what can be computed by hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl import Experience, Sac, SacConfig, Squashed, generator

INPUTS, ACTIONS = 3, 2


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learner(**settings: Any) -> Sac:
    sac = Sac(INPUTS, ACTIONS, SacConfig(hidden=(6, 5), **settings), generator(1))
    rng = generator(2)
    for p in sac.parameters():  # away from the small start, where every loss is flat, and from each other
        p.data += 0.3 * torch.empty_like(p).normal_(generator=rng)
    return sac


def experience(n: int = 4) -> Experience:
    rng = generator(3)

    def normal(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(generator=rng)

    x, next_x = normal(n, INPUTS), normal(n, INPUTS)
    terminated = torch.tensor([0.0, 1.0] * (n // 2))
    weight = torch.full((n,), 1 / n)
    action = normal(n, ACTIONS).tanh()
    return Experience(
        x, action, normal(n), next_x, terminated, weight, normal(n, ACTIONS), normal(n, ACTIONS)
    )


# --- the policy's density


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.4), (-1.2, 0.8)])
def test_the_density_of_a_squashed_action_integrates_to_one_and_has_its_mean(mean: float, std: float) -> None:
    policy = Squashed(torch.tensor([mean]), torch.tensor([std]).log())
    edge = 1 - 1e-9
    u = torch.linspace(-12, 12, 200_001)  # a = tanh(u): a grid that is dense where the density is steep
    a, log_prob = policy.draw(((u - mean) / std).unsqueeze(-1))
    inside = a[:, 0].abs() < edge
    a, density = a[inside, 0], log_prob[inside].exp()
    assert torch.trapezoid(density, a).item() == pytest.approx(1, abs=1e-4)
    drawn, _ = policy.draw(torch.empty(400_000, 1).normal_(generator=generator(0)))
    assert torch.trapezoid(a * density, a).item() == pytest.approx(drawn.mean().item(), abs=3e-3)


def test_the_density_is_finite_where_tanh_has_saturated() -> None:
    policy = Squashed(torch.tensor([40.0, -40.0]), torch.zeros(2))
    action, log_prob = policy.draw(torch.zeros(2))
    assert action.tolist() == [1.0, -1.0]
    # log N(0) - log(4 e^-2u): what tanh² u = 1 - 4 e^-2u leaves
    wanted = 2 * (-0.5 * torch.log(torch.tensor(2 * torch.pi)) - torch.log(torch.tensor(4.0)) + 80)
    assert log_prob.item() == pytest.approx(wanted.item())


# --- the losses


def by_hand(sac: Sac, e: Experience) -> dict[str, Tensor]:
    """The three losses, network by network and step by step."""
    c, alpha = sac.config, sac.log_temperature.exp().detach()

    def q(critics: Any, i: int, x: Tensor, a: Tensor) -> Tensor:
        h = torch.cat([x, a])
        for weight, bias in zip(critics.weights[:-1], critics.biases[:-1], strict=True):
            h = (h @ weight[i] + bias[i, 0]).relu()
        return (h @ critics.weights[-1][i] + critics.biases[-1][i, 0])[0]

    found = dict.fromkeys(("critic", "actor", "temperature"), torch.zeros(()))
    for k in range(len(e.x)):
        x, a, r, next_x, d, w, noise, next_noise = (field[k] for field in e)
        with torch.no_grad():
            next_a, next_log_prob = sac.policy(next_x).draw(next_noise)
            least = min(q(sac.targets, i, next_x, next_a) for i in range(2))
            y = c.reward_scale * r + c.gamma * (1 - d) * (least - alpha * next_log_prob)
        found["critic"] = found["critic"] + w * sum((q(sac.critics, i, x, a) - y) ** 2 for i in range(2))
        policy = sac.policy(x.detach())
        action, log_prob = policy.draw(noise)
        least = min(q(sac.critics, i, x.detach(), action) for i in range(2))
        size = (policy.mean.square() + policy.log_std.square()).mean()
        found["actor"] = found["actor"] + w * (alpha * log_prob - least + c.regularisation * size)
        found["temperature"] = found["temperature"] - w * sac.log_temperature * (log_prob.detach() - ACTIONS)
    return found


@pytest.mark.parametrize("temperature", [0.3, "auto"])
def test_one_backward_pass_gives_each_network_the_gradient_of_its_own_loss(temperature: Any) -> None:
    sac, e = learner(temperature=temperature), experience()
    x = e.x.requires_grad_()
    parts: dict[str, list[Any]] = {
        "critic": [x, *sac.critics.parameters()],
        "actor": [*sac.actor.parameters()],
        "temperature": [sac.log_temperature] if temperature == "auto" else [],
    }
    total, said = sac.loss(e)
    together = torch.autograd.grad(total, [p for ps in parts.values() for p in ps])
    alone = by_hand(sac, e)
    wanted = [g for name, ps in parts.items() if ps for g in torch.autograd.grad(alone[name], ps)]
    for ours, theirs in zip(together, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert said[0].item() == pytest.approx(alone["critic"].item())
    assert said[1].item() == pytest.approx(alone["actor"].item())


def test_the_gradient_of_the_critics_is_that_of_finite_differences() -> None:
    sac, e = learner(), experience()
    weight = sac.critics.weights[0]
    gradient = torch.autograd.grad(sac.loss(e)[0], weight)[0]
    for place in ((0, 0, 0), (1, 2, 3)):
        values, h = [], 1e-5
        for step in (h, -h):
            weight.data[place] += step
            values.append(sac.loss(e)[1][0].item())
            weight.data[place] -= step
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_the_targets_take_no_gradient_and_move_by_tau_exactly() -> None:
    sac = learner(tau=0.25)
    assert not any(p.requires_grad for p in sac.targets.parameters())
    before = [p.clone() for p in sac.targets.parameters()]
    sac.follow()
    for old, new, critic in zip(before, sac.targets.parameters(), sac.critics.parameters(), strict=True):
        assert torch.equal(new, torch.lerp(old, critic.data, 0.25))


def test_a_learned_temperature_falls_where_there_is_more_entropy_than_wanted() -> None:
    sac, e = learner(temperature="auto"), experience()
    total, said = sac.loss(e)
    slope = torch.autograd.grad(total, sac.log_temperature)[0].item()
    entropy = said[2].item()
    assert slope == pytest.approx(entropy - sac.entropy_wanted)
    assert entropy > sac.entropy_wanted  # so that the temperature falls
