"""RL²: what its memory sees and keeps, and the update that trains it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import metarl
from metarl import Categorical, ConfigError, Sequence, Trial, generator, run_trial, unroll
from metarl.agents import Rl2, check_agent
from metarl.envs import make
from metarl.ppo import returns_of


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agent_of(family: Any, **settings: Any) -> Rl2:
    small: dict[str, Any] = {"hidden": 8, "entropy_coefficient": 0.0}
    config = Rl2.Config(**small | settings)
    return Rl2(family.observation_space, family.action_space, generator(3), config)


def ended(trial: Trial, *, at: int = 4) -> Trial:
    """The same trial, had the first episode of the second task ended in each round after `at` steps."""
    rounds = []
    for r in trial.rounds:
        terminated, reward = r.terminated.clone(), r.reward.clone()
        terminated[at - 1 :, 1, 0] = True
        reward[at:, 1, 0] = 0.0
        rounds.append(r._replace(terminated=terminated, reward=reward))
    return Trial(trial.tasks, tuple(rounds))


def played(rounds: tuple[int, ...] = (2, 2), horizon: int = 6, **settings: Any) -> tuple[Rl2, Trial]:
    family, rng = make("navigation/maml2017"), generator(5)
    family.horizon = horizon
    agent = agent_of(family, **settings)
    tasks = family.sample_tasks(3, "train", rng)
    return agent, run_trial(family, agent, tasks, rounds, rng)


# --- a trial as one sequence


def test_a_sequence_is_the_rounds_one_after_the_other() -> None:
    _, trial = played((2, 2, 2))
    s = unroll(trial)
    assert s.obs.shape == (18, 6, 2)
    for k, r in enumerate(trial.rounds):
        part = slice(6 * k, 6 * k + 6)
        assert torch.equal(s.obs[part], r.obs.flatten(1, 2))
        assert torch.equal(s.reward[part], r.reward.flatten(1, 2))
    assert torch.equal(s.last_action[1:], s.action[:-1])
    assert torch.equal(s.last_reward[1:], s.reward[:-1])
    assert not s.last_action[0].any()
    assert not s.last_reward[0].any()
    assert s.done[:, 0].nonzero().flatten().tolist() == [6, 12]
    assert s.valid.all()


def test_what_was_not_played_is_at_the_end_and_the_reward_that_ended_an_episode_opens_the_next() -> None:
    _, trial = played()
    s, trial = unroll(ended(trial)), ended(trial)
    column = 2  # the first episode of the second task
    assert s.valid[:, column].tolist() == [True] * 8 + [False] * 4
    assert torch.equal(s.reward[:8, column], torch.cat([r.reward[:4, 1, 0] for r in trial.rounds]))
    assert s.done[:, column].nonzero().flatten().tolist()[0] == 4
    assert s.last_reward[4, column] == trial.rounds[0].reward[3, 1, 0]
    assert torch.equal(s.last_action[4, column], trial.rounds[0].action[3, 1, 0])
    assert torch.equal(s.obs[:, 0], unroll(trial).obs[:, 0])


# --- the memory


class Ending:
    """Navigation in which the first episode of the second task ends after four steps."""

    def __init__(self) -> None:
        self.family: Any = make("navigation/maml2017")
        self.family.horizon = 6
        self.horizon = 6

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def reset(self, *args: Any) -> Tensor:
        self.time = 0
        obs: Tensor = self.family.reset(*args)
        return obs

    def step(self, action: Tensor) -> Any:
        self.time += 1
        outcome = self.family.step(action)
        outcome.terminated[1, 0] |= self.time == 4
        return outcome


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
def test_what_was_said_in_play_is_what_the_whole_sequence_gives(memory: Any, again: bool) -> None:
    """Log-densities and values, also after an early end: PPO's ratio is 1 before the first update."""
    family, rng = Ending(), generator(5)
    agent = agent_of(family, memory=memory, previous_observation=again)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), (2, 2, 2), rng)
    steps = unroll(trial)
    assert not steps.valid.all()
    policy, value = agent.judge(steps)
    change = (policy.log_prob(steps.action) - steps.log_prob)[steps.valid]
    assert change.abs().max() < 1e-12
    assert torch.allclose(
        agent.learner.scale.inverse(value)[steps.valid], steps.value[steps.valid], atol=1e-12
    )


def test_it_reads_the_previous_action_times_its_standardised_reward() -> None:
    family, rng = make("bandit/bernoulli-k5"), generator(5)
    agent = agent_of(family, action_by_reward=True)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), [2] * 4, rng)
    agent.meta_update(trial)  # so that rewards have a mean and a standard deviation
    steps = unroll(trial)
    x = agent.sequence_inputs(steps)
    plain, product = x[..., :-5], x[..., -5:]
    assert torch.equal(
        plain, agent_of(family).inputs(steps.obs, steps.last_action, plain[..., 1], steps.done)
    )
    pulled = torch.nn.functional.one_hot(steps.last_action, 5).to(x.dtype)
    assert torch.equal(product, plain[..., 1:2] * pulled)
    assert {*product[1:].sum(-1).sign().flatten().tolist()} == {-1.0, 1.0}  # an arm that failed is told, too


# --- a memory for each action


def pulled(arms: int = 5, rounds: int = 6, **settings: Any) -> tuple[Rl2, Sequence]:
    """An agent with a memory for each arm, and some trials that it played."""
    family, rng = make(f"bandit/bernoulli-k{arms}"), generator(5)
    agent = agent_of(family, per_action=True, action_by_reward=True, **settings)
    for p in agent.head.parameters():  # else untrained preferences are all but equal
        p.data.normal_(generator=rng)
    trial = run_trial(family, agent, family.sample_tasks(7, "train", rng), [2] * rounds, rng)
    return agent, unroll(trial)


@pytest.mark.parametrize(("layers", "again"), [((), False), ((6,), False), ((), True)])
@pytest.mark.parametrize("memory", ["gru", "lstm", "transformer"])
def test_a_memory_for_each_action_says_in_play_what_the_whole_sequence_gives(
    memory: Any, layers: tuple[int, ...], again: bool
) -> None:
    agent, steps = pulled(memory=memory, layers=layers, previous_observation=again)
    policy, value = agent.judge(steps)
    assert (policy.log_prob(steps.action) - steps.log_prob).abs().max() < 1e-12
    assert torch.allclose(agent.learner.scale.inverse(value), steps.value, atol=1e-12)


def test_with_a_memory_for_each_action_their_names_do_not_matter() -> None:
    """Had the arms other names, so would the preferences; the value would be the same."""
    agent, steps = pulled()
    names = torch.tensor([3, 0, 4, 2, 1])
    renamed = steps._replace(last_action=names[steps.last_action])
    one, two = agent.judge(steps), agent.judge(renamed)
    assert isinstance(one.policy, Categorical)
    assert isinstance(two.policy, Categorical)
    assert torch.allclose(two.policy.log_probs[..., names], one.policy.log_probs, atol=1e-12)
    assert torch.allclose(two.value, one.value, atol=1e-12)
    assert one.policy.log_probs[-1].std(-1).min() > 1e-3  # it does tell arms apart


def test_what_was_learned_with_a_memory_for_each_action_holds_for_any_number_of_them() -> None:
    """Arms that were never tried are as good as each other, and leave those that were as they are."""
    few, steps = pulled(5)
    many, _ = pulled(50)
    many.load_state_dict(few.state_dict())
    one, two = few.judge(steps).policy, many.judge(steps).policy
    assert isinstance(one, Categorical)
    assert isinstance(two, Categorical)
    tried = two.log_probs[..., :5] - two.log_probs[..., :1]
    assert torch.allclose(tried, one.log_probs - one.log_probs[..., :1], atol=1e-12)
    assert torch.equal(two.log_probs[..., 5:].amax(-1), two.log_probs[..., 5:].amin(-1))


@pytest.mark.parametrize("update", ["ppo", "trpo"])
def test_an_agent_with_a_memory_for_each_action_keeps_its_promises(update: Any) -> None:
    torch.set_default_dtype(torch.float32)
    family = make("bandit/gaussian-k5")
    check_agent(agent_of(family, per_action=True, update=update), family)


def test_a_memory_for_each_action_needs_actions_to_choose_from() -> None:
    with pytest.raises(ConfigError, match=r"^agent.per_action is True; allowed where actions are"):
        agent_of(make("navigation/maml2017"), per_action=True)


# --- what does not pass


def test_nothing_passes_from_task_to_task_or_from_trial_to_trial() -> None:
    agent, trial = played()
    steps = unroll(trial)
    strange = steps._replace(obs=steps.obs.clone(), last_reward=steps.last_reward.clone())
    strange.obs[:, :2] += 1
    strange.last_reward[:, :2] -= 3
    one, two = (agent.judge(s).value for s in (steps, strange))
    assert torch.equal(one[:, 2:], two[:, 2:])
    assert not torch.isclose(one[:, :2], two[:, :2]).any()
    again = agent.begin(3, 2)
    assert all(not part.any() for part in again.memory)


def test_an_episode_that_is_over_moves_no_memory() -> None:
    agent, _ = played()
    step = metarl.Step(*(torch.randn(3, 2, *s, generator=generator(1)) for s in ((2,), (2,), (), ())))
    _, belief = agent.act(agent.begin(3, 2), step._replace(done=torch.zeros(3, 2)))
    over = torch.zeros(3, 2)
    over[1, 0] = 1
    _, after = agent.act(belief, step._replace(done=over))
    moved = (after.memory[0] != belief.memory[0]).any(-1)
    assert moved.tolist() == [[True, True], [False, True], [True, True]]
    _, opened = agent.act(agent.adapt(belief, None), step._replace(done=torch.ones(3, 2)))  # type: ignore[arg-type]
    assert (opened.memory[0] != belief.memory[0]).any(-1).all()


def test_another_number_of_episodes_in_some_round_is_refused() -> None:
    agent, _ = played()
    with pytest.raises(metarl.ConfigError, match=r"rounds is \[2, 1\]; allowed: the same number in each"):
        agent.check_rounds((2, 1))


# --- the update


def test_returns_and_advantages_run_across_the_episodes_of_a_trial() -> None:
    _, trial = played()
    steps = unroll(ended(trial))
    gamma, lam = 0.9, 0.7
    advantage, value = returns_of(steps, gamma, lam)
    for column in (0, 2):
        n = int(steps.valid[:, column].sum())
        r, v = steps.reward[:n, column].tolist(), [*steps.value[:n, column].tolist(), 0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(n)]
        wanted = [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, n)) for t in range(n)]
        assert advantage[:n, column].tolist() == pytest.approx(wanted)
        assert value[:n, column].tolist() == pytest.approx([a + b for a, b in zip(wanted, v, strict=False)])


def loss_by_hand(agent: Rl2, steps: Sequence, flat: Tensor) -> Tensor:
    """PPO's objective of a whole meta-batch, from its definition."""
    torch.nn.utils.vector_to_parameters(flat, agent.learner.parameters_)
    c, targets = agent.config, agent.learner.targets(steps)
    policy, value = agent.judge(steps)
    ratio = (policy.log_prob(steps.action) - steps.log_prob).exp()
    gain = torch.minimum(ratio * targets.advantage, ratio.clamp(0.8, 1.2) * targets.advantage)
    each = -gain + c.value_coefficient * 0.5 * (value - targets.value) ** 2 - 0.1 * policy.entropy()
    return each[steps.valid].mean()


def test_the_gradient_is_that_of_central_differences() -> None:
    agent, trial = played(entropy_coefficient=0.1, layers=(5,))
    steps = unroll(ended(trial))
    columns = torch.arange(steps.reward.shape[1])
    flat = torch.cat([p.detach().flatten() for p in agent.learner.parameters_])
    moved = flat + 0.05 * torch.randn(len(flat), generator=generator(1))  # away from a ratio of 1
    torch.nn.utils.vector_to_parameters(moved, agent.learner.parameters_)
    targets = agent.learner.targets(steps)
    found = torch.cat([g.flatten() for g in agent.learner.gradients(steps, targets, agent.judge, columns)[0]])
    for seed in range(4):
        v = torch.randn(len(flat), generator=generator(seed))
        with torch.no_grad():
            up, down = (loss_by_hand(agent, steps, moved + h * v) for h in (1e-6, -1e-6))
        assert ((up - down) / 2e-6).item() == pytest.approx((found @ v).item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("update", ["ppo", "trpo"])
def test_the_update_is_the_same_for_any_number_of_threads(
    update: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for workers in (1, 2):
        monkeypatch.setattr(metarl.device, "workers", lambda w=workers: w)
        agent, trial = played(update=update)
        agent.meta_update(trial)
        results.append(torch.cat([p.detach().flatten() for p in agent.parameters()]))
    assert torch.equal(*results)


@pytest.mark.parametrize("memory", ["gru", "transformer"])
@sdpa_kernel(SDPBackend.MATH)
def test_trpo_steps_along_the_natural_gradient_within_its_region(memory: Any) -> None:
    agent, trial = played(update="trpo", memory=memory, max_kl=1e-3, damping=0.0, normalise=False)
    steps, learner = unroll(ended(trial)), agent.learner
    assert isinstance(learner, metarl.Trpo)
    old = agent.judge(steps).policy
    targets = learner.targets(steps)
    share = learner.share(steps, targets, agent.judge, torch.arange(6))
    v = torch.randn(len(share.slope), generator=generator(1))
    theta = torch.nn.utils.parameters_to_vector(learner.policy_).detach()

    def divergence(h: float) -> float:
        torch.nn.utils.vector_to_parameters(theta + h * v, learner.policy_)
        return learner.change(share, agent.judge)[1].item()

    with torch.no_grad():
        second = (divergence(1e-4) - 2 * divergence(0.0) + divergence(-1e-4)) / 1e-8
    torch.nn.utils.vector_to_parameters(theta, learner.policy_)
    assert (v @ learner.product(share, v)).item() == pytest.approx(second, rel=1e-4)
    metrics = agent.meta_update(ended(trial))
    with torch.no_grad():
        kl = old.kl(agent.judge(steps).policy)[steps.valid].mean().item()
    assert metrics["improvement"] > 0
    assert metrics["kl"] == pytest.approx(kl, abs=1e-9)
    assert 0 < metrics["kl"] <= 1e-3


def test_the_step_size_falls_to_nothing() -> None:
    agent, trial = played(anneal=4, learning_rate=0.1)
    rates = [agent.meta_update(trial)["learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([0.075, 0.05, 0.025, 0.0, 0.0])


def test_a_reward_that_tells_the_task_is_used(tmp_path: Any) -> None:
    """A bandit of two arms, one of which always pays: after a few updates, pulls follow rewards."""
    torch.set_default_dtype(torch.float32)
    family = make("bandit/bernoulli-k5")
    rng = generator(0)
    config = Rl2.Config(hidden=32, learning_rate=0.01, gamma=1.0, gae_lambda=0.3)
    agent = Rl2(family.observation_space, family.action_space, rng, config)
    rounds = (1,) * 10
    history = metarl.train(family, agent, rng, iterations=40, rounds=rounds, meta_batch_size=256)
    totals = [sum(v for k, v in m.items() if k.startswith("return_")) for m in history]
    assert sum(totals[-5:]) / 5 > 5.5 > sum(totals[:3]) / 3 + 0.25  # chance is 5, the best known 6.7


def test_it_can_learn_from_rewards_without_noise_and_still_reads_those_with_it() -> None:
    family, rng = make("bandit/gaussian-k5"), generator(0)
    agent = Rl2(
        family.observation_space, family.action_space, rng, Rl2.Config(hidden=8, learn_from_target=True)
    )
    steps = unroll(run_trial(family, agent, family.sample_tasks(3, "train", rng), (1, 1, 1), rng))
    learned = agent.rewarded(steps)
    assert torch.equal(learned.reward, steps.target)
    assert not torch.equal(steps.reward, steps.target)
    assert torch.equal(learned.last_reward, steps.last_reward)
    assert torch.equal(learned.last_reward[1:], steps.reward[:-1])


def test_a_family_without_a_target_cannot_be_learned_from_it() -> None:
    family, rng = make("gridnavi/varibad2020"), generator(0)
    config = Rl2.Config(hidden=8, learn_from_target=True)
    agent = Rl2(family.observation_space, family.action_space, rng, config)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), (1,), rng)
    with pytest.raises(ConfigError, match="learn_from_target is True; allowed: false"):
        agent.meta_update(trial)


def test_the_weight_of_the_entropy_may_fall_with_the_learning_rate() -> None:
    family, rng = make("bandit/bernoulli-k5"), generator(0)
    weights = []
    for falls in (False, True):
        config = Rl2.Config(hidden=8, anneal=4, anneal_entropy=falls, entropy_coefficient=0.4)
        agent = Rl2(family.observation_space, family.action_space, rng, config)
        agent.learner.updates += 3
        weights.append(agent.learner.entropy_coefficient)
    assert weights == [0.4, pytest.approx(0.1)]
