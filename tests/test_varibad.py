"""VariBAD: what its belief knows and when, the autoencoder that trains it, and the policy that reads it."""

from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import metarl
from metarl import ConfigError, Gaussian, Judgement, Sequence, Trial, generator, run_trial, unroll
from metarl.agents import Varibad, check_agent
from metarl.envs import make

task_vae: Any = import_module("metarl.agents.task_vae")


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agent_of(family: Any, **settings: Any) -> Varibad:
    small: dict[str, Any] = {"hidden": 8, "layers": (6,), "decoder_layers": (7, 5), "latent_dim": 3}
    config = Varibad.Config(**small | settings)
    return Varibad(family.observation_space, family.action_space, generator(3), config)


def played(name: str = "navigation/maml2017", **settings: Any) -> tuple[Varibad, Trial]:
    """Three rounds of 6 steps by 3 x 2 learners."""
    family, rng = make(name), generator(5)
    family.horizon = 6
    agent = agent_of(family, **settings)
    return agent, run_trial(family, agent, family.sample_tasks(3, "train", rng), (2, 2, 2), rng)


def ended(trial: Trial) -> Trial:
    """The same trial, had one of the learners ended each round after 4 steps."""
    rounds = []
    for r in trial.rounds:
        terminated, reward = r.terminated.clone(), r.reward.clone()
        terminated[3:, 1, 0] = True
        reward[4:, 1, 0] = 0.0
        rounds.append(r._replace(terminated=terminated, reward=reward))
    return Trial(trial.tasks, tuple(rounds))


ENDED = 2  # that learner's place


def vector(parameters: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


def draws(agent: Varibad, steps: Sequence) -> tuple[Tensor, Tensor]:
    looks = 4, steps.reward.shape[1]
    noise = torch.randn(*looks, agent.config.latent_dim, generator=generator(1))
    return torch.rand(looks, generator=generator(2)), noise


def hyper_of(agent: Varibad, steps: Sequence) -> Sequence:
    """The steps with the state and belief that the policy acted on, as observations."""
    x = agent.sequence_inputs(steps)
    with torch.no_grad():
        return steps._replace(obs=agent.hyper_state(agent.vae.belief(agent.memory.sequence(x)), x))


def loss(agent: Varibad, steps: Sequence) -> tuple[Tensor, Tensor]:
    """The autoencoder's loss of all learners, with the same draws every time."""
    posterior = agent.vae.posterior(agent.memory.sequence(agent.sequence_inputs(steps)))
    return agent.vae.loss(posterior, agent.standardised(steps), *draws(agent, steps))


# --- the belief


@pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
@pytest.mark.parametrize("name", ["navigation/maml2017", "gridnavi/varibad2020"])
def test_what_was_said_in_play_is_what_the_whole_sequence_gives(name: str, memory: Any) -> None:
    """Log-densities and values, also in discrete actions: PPO's ratio is 1 before the first update."""
    agent, trial = played(name, memory=memory)
    steps = unroll(trial)
    hyper = hyper_of(agent, steps)
    policy, value = agent.judge(hyper)
    assert torch.allclose(policy.log_prob(steps.action), steps.log_prob, atol=1e-12)
    assert torch.allclose(agent.learner.scale.inverse(value), steps.value, atol=1e-12)


class Tracing(Varibad):
    """VariBAD that keeps what its policy was told."""

    def actor_critic(self, features: Tensor) -> Judgement:
        self.told = [*getattr(self, "told", []), features]
        return super().actor_critic(features)


def test_the_posterior_is_what_the_policy_was_told_in_play() -> None:
    family, rng = make("navigation/maml2017"), generator(5)
    family.horizon = 6
    config = Tracing.Config(hidden=8, latent_dim=3)
    agent = Tracing(family.observation_space, family.action_space, generator(3), config)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), (2, 2), rng)
    mean, std = agent.posterior(trial)
    assert mean.shape == std.shape == (12, 6, 3)
    belief = torch.stack(agent.told).flatten(1, 2)[..., family.observation_space.shape[0] :]
    assert torch.allclose(belief, torch.cat([mean, 2 * std.log()], -1), atol=1e-12)


def test_a_belief_knows_what_came_before_and_nothing_after_through_all_episodes() -> None:
    agent, trial = played()
    one, _ = agent.posterior(trial)
    for k, t in ((0, 3), (1, 0), (2, 5)):
        rounds = [*trial.rounds]
        reward = rounds[k].reward.clone()
        reward[t] += 1.0
        rounds[k] = rounds[k]._replace(reward=reward)
        two, _ = agent.posterior(Trial(trial.tasks, tuple(rounds)))
        changed = (one != two).any(-1)[:, 0].tolist()
        place = 6 * k + t
        assert changed == [False] * (place + 1) + [True] * (17 - place)


def test_nothing_passes_from_learner_to_learner_or_from_trial_to_trial() -> None:
    agent, trial = played()
    rounds = [r._replace(reward=r.reward.clone()) for r in trial.rounds]
    for r in rounds:
        r.reward[:, 0, 1] -= 3.0
    one, two = (agent.posterior(t)[0] for t in (trial, Trial(trial.tasks, tuple(rounds))))
    assert (one != two).flatten(1).any(1)[1:].all()
    assert torch.equal(one[:, [0, 2, 3, 4, 5]], two[:, [0, 2, 3, 4, 5]])
    assert not agent.begin(3, 2).memory[0].any()


# --- the autoencoder


def test_successive_beliefs_diverge_as_torch_says_and_the_first_from_the_prior() -> None:
    rng = generator(0)
    mean, log_std = (torch.randn(5, 4, 3, generator=rng) for _ in range(2))
    found = task_vae.divergence(Gaussian(mean, log_std))
    prior = Normal(torch.zeros(4, 3), torch.ones(4, 3))
    beliefs = [prior, *(Normal(m, s.exp()) for m, s in zip(mean, log_std, strict=True))]
    wanted = [kl_divergence(b, a).sum(-1) for a, b in pairwise(beliefs)]
    assert torch.allclose(found, torch.stack(wanted))


def test_samples_come_from_beliefs_spread_over_what_was_played() -> None:
    valid = torch.arange(8)[:, None] < torch.tensor([8, 3])
    posterior = Gaussian(torch.arange(8.0)[:, None, None].expand(8, 2, 1), torch.full((8, 2, 1), -50.0))
    rng = generator(0)
    drawn = task_vae.samples
    all_of = drawn(posterior, valid, torch.rand(8, 2, generator=rng), torch.zeros(8, 2, 1))
    assert all_of[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert {*all_of[:, 1, 0].tolist()} == {0, 1, 2}
    chance = torch.rand(4, 2, generator=rng).expand(4, 2)
    some = drawn(posterior, valid, chance, torch.zeros(4, 2, 1))[:, 0, 0]
    assert torch.equal(some, ((torch.arange(4) + chance[:, 0]) * 2).floor())
    edge = drawn(posterior, valid, torch.ones(1, 2), torch.zeros(1, 2, 1))  # which rounding could make of it
    assert edge.flatten().tolist() == [7, 2]
    wide = posterior._replace(log_std=torch.full((8, 2, 1), 0.7))
    noise = torch.randn(8, 2, 1, generator=rng)
    moved = drawn(wide, valid, torch.zeros(8, 2), noise) - drawn(
        posterior, valid, torch.zeros(8, 2), 0 * noise
    )
    assert torch.allclose(moved, torch.tensor(0.7).exp() * noise)


def loss_by_hand(agent: Varibad, steps: Sequence) -> Tensor:
    """The negative ELBO from its definition: learner by learner, look by look, step by step."""
    c, vae = agent.config, agent.vae
    mean, log_std, _ = vae.posterior(agent.memory.sequence(agent.sequence_inputs(steps)))
    shown, (chance, noise) = agent.standardised(steps), draws(agent, steps)
    total, looks = torch.zeros(()), len(chance)
    for b in range(steps.reward.shape[1]):
        n = int(steps.valid[:, b].sum())
        before = Normal(torch.zeros(c.latent_dim), torch.ones(c.latent_dim))
        for t in range(n):
            belief = Normal(mean[t, b], log_std[t, b].exp())
            total = total + c.kl_weight * kl_divergence(belief, before).sum() / n
            before = belief
        for k in range(looks):
            t = int((k + chance[k, b].item()) / looks * n)
            m = mean[t, b] + log_std[t, b].exp() * noise[k, b]
            for i in range(n):
                parts = [shown.obs[i, b]] * c.input_prev_state + [shown.action[i, b]] * c.input_action
                reward = network(vae.decoders["reward"], torch.cat([*parts, shown.next_obs[i, b]]), m)
                state = network(
                    vae.decoders["transition"], torch.cat([shown.obs[i, b], shown.action[i, b]]), m
                )
                errors = (reward - shown.reward[i, b]) ** 2, ((state - shown.next_obs[i, b]) ** 2).mean()
                total = total + (c.reward_weight * errors[0] + c.transition_weight * errors[1]).sum() / looks
    return total


def network(decoder: Any, step: Tensor, m: Tensor) -> Tensor:
    """What a decoder says of one step, as a network on step and sample one after the other."""
    weight = torch.cat([decoder.step.weight, decoder.task.weight], 1)
    h = torch.cat([step, m]) @ weight.T + decoder.step.bias + decoder.task.bias
    found: Tensor = decoder.rest(h)
    return found


WEIGHTS: dict[str, Any] = {"transition_weight": 0.7, "reward_weight": 1.3, "kl_weight": 0.3}


@pytest.mark.parametrize("read", [(True, True), (True, False), (False, True), (False, False)])
def test_the_loss_is_the_negative_elbo(read: tuple[bool, bool]) -> None:
    agent, trial = played(input_prev_state=read[0], input_action=read[1], **WEIGHTS)
    steps = unroll(ended(trial))
    agent.count(steps)
    assert loss(agent, steps)[0].item() == pytest.approx(loss_by_hand(agent, steps).item(), rel=1e-12)


@pytest.mark.parametrize("name", ["navigation/maml2017", "gridnavi/varibad2020"])
def test_its_gradient_is_that_of_central_differences(name: str) -> None:
    agent, trial = played(name, **WEIGHTS)
    steps, parameters = unroll(ended(trial)), agent.vae_adam.parameters_
    flat = vector(parameters)
    flat += 0.2 * torch.randn(len(flat), generator=generator(1))
    torch.nn.utils.vector_to_parameters(flat, parameters)
    found = vector(torch.autograd.grad(loss(agent, steps)[0], parameters))
    for seed in range(4):
        v = torch.randn(len(flat), generator=generator(seed))
        value = []
        for h in (1e-6, -1e-6):
            torch.nn.utils.vector_to_parameters(flat + h * v, parameters)
            value.append(loss(agent, steps)[0].item())
        assert (value[0] - value[1]) / 2e-6 == pytest.approx((found @ v).item(), rel=1e-5)


def test_what_was_not_played_changes_nothing() -> None:
    agent, trial = played(**WEIGHTS)
    steps, parameters = unroll(ended(trial)), agent.vae_adam.parameters_
    assert int(steps.valid[:, ENDED].sum()) == 12
    strange = Sequence(*(x.clone() for x in steps))
    for x in (strange.obs, strange.action, strange.last_action, strange.next_obs):
        x[12:, ENDED] += 1.0
    for x in (strange.reward, strange.last_reward):
        x[13:, ENDED] -= 2.0
    results = []
    for s in (steps, strange):
        total, parts = loss(agent, s)
        results.append(torch.cat([parts, vector(torch.autograd.grad(total, parameters))]))
    assert torch.equal(*results)


# --- the update


def test_neither_loss_touches_what_the_other_trains() -> None:
    agent, trial = played()
    policy, vae = agent.learner.parameters_, agent.vae_adam.parameters_
    assert {*map(id, policy)}.isdisjoint(map(id, vae))
    assert {*map(id, policy), *map(id, vae)} == {*map(id, agent.parameters())}
    steps = unroll(trial)
    x = agent.sequence_inputs(steps)
    hyper = hyper_of(agent, steps)
    before = vector(policy), vector(vae)
    agent.learner.update(hyper, agent.learner.targets(steps), agent.judge, agent.rng)
    assert not torch.equal(vector(policy), before[0])
    assert torch.equal(vector(vae), before[1])
    before = vector(policy), vector(vae)
    with torch.no_grad():
        agent.update_vae(steps, x)
    assert torch.equal(vector(policy), before[0])
    assert not torch.equal(vector(vae), before[1])


def test_the_policy_is_updated_by_the_beliefs_that_it_acted_on() -> None:
    """However the memory is trained afterwards: a single step of PPO's finds a ratio of 1."""
    agent, trial = played(epochs=1, minibatches=1)
    metrics = agent.meta_update(trial)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-12)
    assert metrics["clipped"] == 0
    assert metrics["reward_error"] > 0
    assert "transition_error" not in metrics


def test_the_update_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for workers in (1, 2):
        monkeypatch.setattr(metarl.device, "workers", lambda w=workers: w)
        agent, trial = played(transition_weight=1.0)
        agent.meta_update(ended(trial))
        results.append(vector(agent.parameters()))
    assert torch.equal(*results)


def test_an_agent_that_was_saved_learns_on_bit_for_bit() -> None:
    one, trial = played()
    one.meta_update(trial)
    two, _ = played()
    two.load_state_dict({name: x.clone() for name, x in one.state_dict().items()})
    two.rng.set_state(one.rng.get_state())
    for agent in (one, two):
        agent.meta_update(trial)
    ours, theirs = one.state_dict(), two.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


def test_beliefs_that_have_nothing_to_predict_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"agent\.reward_weight and agent\.transition_weight are both 0; all"
    ):
        agent_of(make("navigation/maml2017"), reward_weight=0)


@pytest.mark.parametrize("name", ["gridnavi/varibad2020", "bandit/gaussian-k5"])
def test_it_keeps_an_agents_promises_in_discrete_actions(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    family = make(name)
    check_agent(agent_of(family, transition_weight=1.0), family)


def test_beliefs_become_sure_and_tell_rewards() -> None:
    """Distances to a hidden goal: a few of them say where it is, and so what is earned elsewhere."""
    torch.set_default_dtype(torch.float32)
    family, rng = make("navigation/maml2017"), generator(0)
    family.horizon = 8
    settings = {"lr_vae": 0.01, "vae_subsample_elbos": 4, "epochs": 1, "minibatches": 1}
    agent = agent_of(family, hidden=32, decoder_layers=(32,), **settings)
    history = metarl.train(family, agent, rng, iterations=20, rounds=(1, 1), meta_batch_size=64)
    error = torch.tensor([m["reward_error"] for m in history])
    assert error[-3:].mean() < 0.7 < 0.8 < error[1:4].mean()
    trial = run_trial(family, agent, family.sample_tasks(None, "test", rng), (1, 1), rng)
    mean, std = agent.posterior(trial)
    assert std[-1].mean() < 0.6 * std[0].mean()
    shown = agent.standardised(unroll(trial))
    with torch.no_grad():
        before, after = (agent.vae.errors(shown, mean[[t]])[0].mean() for t in (0, -1))
    assert after < 0.6 * before
