"""PEARL: its posterior against closed forms, what its context is, and how its embedding is held."""

import json
import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import metarl
from metarl import ConfigError, Step, Tasks, Trial, generator, run_trial
from metarl.agents import MultiTaskSac, Pearl, RecurrentSac, check_agent
from metarl.envs import Told, make
from metarl.experiments import main
from metarl.runs import Run

SMALL: dict[str, Any] = {"hidden": (8,), "gradient_steps": 2, "update_tasks": 4}


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pearl(family: Any, **settings: Any) -> Pearl:
    small = SMALL | {
        "encoder_layers": (7,),
        "latent_dim": 3,
        "batch_size": 8,
        "context_size": 6,
        "replay_capacity": 480,
    }
    return Pearl(
        family.observation_space, family.action_space, generator(3), Pearl.Config(**small | settings)
    )


def played(
    name: str = "navigation/pearl2019", rounds: tuple[int, ...] = (2, 2, 1), **settings: Any
) -> tuple[Pearl, Trial]:
    family, rng = make(name), generator(5)
    family.horizon = 6
    agent = pearl(family, **settings)
    return agent, run_trial(family, agent, family.sample_tasks(4, "train", rng), rounds, rng)


def z_of(belief: Any) -> Tensor:
    """The embeddings that the present step was acted on, [N, E, Z]."""
    return belief.mean.unsqueeze(1) + belief.std.unsqueeze(1) * belief.noise


def weight_of(layer: Any) -> Any:
    return layer.weight


# --- the posterior


@pytest.mark.usefixtures("_float64")
def test_the_posterior_is_the_normalised_product_of_what_the_steps_say() -> None:
    agent, _ = played()
    context = torch.empty(5, 5).normal_(generator=generator(0))
    with torch.no_grad():
        q = agent.inferred(context[None])
        said = agent.encoder(context)
    factors = Normal(said.weighted / said.precision, said.precision.rsqrt())
    z = torch.linspace(-30, 30, 60_001)
    for j in range(3):
        density = factors.log_prob(z[:, None, None]).sum(1)[:, j].exp()  # of five steps
        density = density / torch.trapezoid(density, z)
        mean = torch.trapezoid(z * density, z)
        variance = torch.trapezoid((z - mean) ** 2 * density, z)
        assert q.mean[0, j].item() == pytest.approx(mean.item(), abs=1e-6)
        assert q.log_std[0, j].exp().item() == pytest.approx(variance.sqrt().item(), abs=1e-6)


@settings(deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_the_context_does_not_matter(order: list[int]) -> None:
    agent, _ = played(pooling="product")
    context = torch.empty(1, 12, 5).normal_(generator=generator(0))
    with torch.no_grad():
        one, other = agent.inferred(context), agent.inferred(context[:, order])
    assert torch.allclose(one.mean, other.mean, atol=1e-5)
    assert torch.allclose(one.log_std, other.log_std, atol=1e-5)


@pytest.mark.parametrize("pooling", ["product", "mean"])
def test_an_empty_context_leaves_the_prior(pooling: str) -> None:
    agent, _ = played(pooling=pooling)
    q = agent.encoder.posterior(agent.begin(4, 1).evidence)
    assert torch.equal(q.mean, torch.zeros(4, 3))
    assert torch.equal(q.log_std.exp(), torch.full((4, 3), float(pooling == "product")))


@pytest.mark.usefixtures("_float64")
def test_the_divergence_from_the_prior_is_that_of_torch() -> None:
    agent, _ = played()
    q = agent.inferred(torch.empty(4, 6, 5).normal_(generator=generator(0)))
    theirs = kl_divergence(Normal(q.mean, q.log_std.exp()), Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(agent.encoder.divergence(q), theirs)


def test_adapting_round_by_round_is_inferring_from_all_of_them() -> None:
    agent, trial = played(rounds=(2, 2))
    belief = agent.begin(4, 2)
    for rollout in trial.rounds:
        belief = agent.adapt(belief, rollout)
    q = agent.encoder.posterior(belief.evidence)
    rows = [torch.cat([r.obs, r.action, r.reward.unsqueeze(-1)], -1) for r in trial.rounds]
    context = torch.cat([x.permute(1, 2, 0, 3).flatten(1, 2) for x in rows], 1)  # [N, 24, I]
    with torch.no_grad():
        whole = agent.inferred(context)
    assert torch.allclose(q.mean, whole.mean, atol=1e-5)
    assert torch.allclose(q.log_std, whole.log_std, atol=1e-5)


def test_the_posterior_of_a_report_knows_what_came_before_each_step() -> None:
    agent, trial = played(rounds=(1, 1))
    mean, std = agent.posterior(trial)
    assert torch.equal(mean[0], torch.zeros(4, 3))
    assert torch.equal(std[0], torch.ones(4, 3))
    q = agent.encoder.posterior(agent.adapt(agent.begin(4, 1), trial.rounds[0]).evidence)
    assert torch.allclose(mean[6], q.mean, atol=1e-5)
    assert torch.allclose(std[6], q.log_std.exp(), atol=1e-5)


# --- acting


def test_an_embedding_is_held_for_an_episode_and_drawn_anew_for_the_next() -> None:
    agent, trial = played()
    r = trial.rounds[0]
    steps = [Step(obs, *(torch.zeros_like(x[0]) for x in (r.action, r.reward, r.reward))) for obs in r.obs]
    belief = agent.begin(4, 2)
    held, noise = [], []
    for step in steps:
        _, belief = agent.act(belief, step, explore=True)
        held.append(z_of(belief))
        noise.append(belief.noise)
    assert all(each is noise[0] for each in noise)
    assert all(torch.equal(z, held[0]) for z in held)
    assert held[0] is not None
    assert len(held[0].flatten(0, 1).unique(dim=0)) == 8  # each episode has its own
    assert agent.adapt(belief, r).noise is None


def test_without_exploration_it_acts_on_the_posteriors_mean() -> None:
    agent, trial = played()
    belief = agent.adapt(agent.begin(4, 2), trial.rounds[0])
    r = trial.rounds[1]
    step = Step(r.obs[0], r.action[0], r.reward[0], r.reward[0])
    act, after = agent.act(belief, step, explore=False)
    mean = agent.encoder.posterior(belief.evidence).mean.unsqueeze(1).expand(-1, 2, -1)
    assert after.noise is None
    assert torch.equal(after.mean, belief.mean)
    wanted = agent.sac.policy(torch.cat([step.obs, mean], -1)).mode
    assert torch.allclose(act.action, wanted)


# --- a tour of known tasks


def blank(tasks: int, episodes: int) -> Step:
    """A step on the plane at which nothing has happened."""
    zero = torch.zeros(tasks, episodes)
    return Step(torch.zeros(tasks, episodes, 2), torch.zeros(tasks, episodes, 2), zero, zero)


@given(st.permutations(range(9)), st.sampled_from([math.pi, 1.5, 0.01]))
@settings(max_examples=30, deadline=None)
def test_a_tour_follows_points_on_a_line_or_an_arc_from_one_end_to_the_other(
    order: list[int], extent: float
) -> None:
    angle = extent * torch.arange(9.0) / 8
    points = torch.stack([angle.cos(), angle.sin()], -1)
    points[0] *= 1.001  # the outermost
    found = import_module("metarl.agents.tour").tour(points[list(order)])
    assert torch.equal(found, points)


def test_exploration_from_tasks_goes_on_from_one_to_the_next_and_begins_again_with_an_episode() -> None:
    agent, trial = played(explore_from="tasks", sweep=0.5, sweep_after=2)
    agent.meta_update(trial)
    known = agent.known_tasks()
    assert known.shape == (4, 3), "there are no others"
    belief, path = agent.begin(4, 50), []
    for t in range(20):
        if t == 10:  # a new episode, of as many side by side
            told = agent.adapt(belief, trial.rounds[0])
            assert told.noise is belief.noise
            assert told.place is belief.place
            belief = belief._replace(steps=0)
        _, belief = agent.act(belief, blank(4, 50))
        path.append(torch.cdist(z_of(belief), known).argmin(-1))
        assert torch.equal(z_of(belief), known[path[-1]])
    assert (path[0].flatten().bincount() > 25).all(), "about as many start at each"
    for first in range(4):
        seen = [place[path[0] == first].unique().tolist() for place in path]
        ahead = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]  # at rest first, then half a task a step
        assert seen[:10] == [[min(first + k, 3)] for k in ahead]  # until the tour's end
        assert seen[10:] == [[k] for k in (0, 0, 0, 0, 1, 1, 2, 2, 3, 3)]  # which a new episode begins again


def test_without_a_sweep_every_round_starts_at_tasks_anew() -> None:
    agent, trial = played(explore_from="tasks")
    agent.meta_update(trial)
    _, belief = agent.act(agent.begin(4, 50), blank(4, 50))
    _, again = agent.act(belief, blank(4, 50))
    assert torch.equal(z_of(belief), z_of(again))
    after = agent.adapt(belief, trial.rounds[0])
    assert after.noise is None


def test_a_sweep_needs_tasks_to_go_by() -> None:
    with pytest.raises(ConfigError, match=r"agent.sweep is 0.1; allowed without agent.explore_from tasks: 0"):
        pearl(make("navigation/pearl2019"), sweep=0.1)


def test_an_agent_on_a_tour_keeps_its_promises() -> None:
    family = make("navigation/pearl2019")
    check_agent(pearl(family, sweep=0.3, sweep_after=1, explore_from="tasks"), family)


def test_with_the_prior_as_a_factor_the_posterior_is_that_of_a_linear_model() -> None:
    encoder = pearl(make("navigation/pearl2019"), pooling="posterior").encoder
    context = torch.randn(2, 5, 5, generator=generator(0))
    mean, precision = encoder.layers(context).chunk(2, -1)
    precision = (precision - 5).exp()
    q = encoder.posterior(encoder(context).sum(1))
    assert torch.allclose((-2 * q.log_std).exp(), 1 + precision.sum(1), rtol=1e-4)
    assert torch.allclose(q.mean, (mean * precision).sum(1) / (1 + precision.sum(1)), rtol=1e-4, atol=1e-6)


# --- what is learned from


def test_the_context_is_the_latest_trial_but_for_its_last_round() -> None:
    agent, trial = played(rounds=(2, 1, 3))
    for _ in range(2):
        agent.store(trial)
    ids = trial.tasks.ids
    assert agent.context.size[ids].tolist() == [18] * 4  # not those of the first time
    assert agent.replay.size[ids].tolist() == [72] * 4
    for n, slot in enumerate(ids):
        seen = agent.context.data[slot, :18, :2]
        wanted = torch.cat([r.obs[:, n].transpose(0, 1).flatten(0, 1) for r in trial.rounds[:2]])
        assert torch.equal(seen, wanted)


def test_a_dense_reward_trains_and_the_context_stays_sparse() -> None:
    agent, trial = played("navigation-sparse/pearl2019", learn_from_target=True)
    agent.store(trial)
    draw = agent.draw(trial.tasks.ids)
    experience = agent.experience(draw.batch, draw.batch.steps.obs, draw.batch.steps.next_obs)
    assert torch.equal(experience.reward, draw.batch.steps.target)
    assert (experience.reward < 0).all()  # minus distances
    assert (draw.context[..., 4] >= 0).all()  # sparse rewards
    sparse = pearl(make("navigation-sparse/pearl2019"))
    experience = sparse.experience(draw.batch, draw.batch.steps.obs, draw.batch.steps.next_obs)
    assert torch.equal(experience.reward, draw.batch.steps.reward)


def test_told_contexts_tell_the_target_and_others_without_reward_train_the_bottleneck_alone() -> None:
    agent, trial = played("navigation-sparse/pearl2019", learn_from_target=True, told_contexts=0.5)
    first, *rest = trial.rounds
    reward = torch.zeros_like(first.reward)
    reward[:, 3] = 0.9  # the last task is the only one that ever paid
    agent.store(Trial(trial.tasks, (first._replace(reward=reward), *rest)))
    draw = agent.draw(trial.tasks.ids)
    seen = draw.context[..., 4]
    assert (seen[:2] < 0).all()  # minus distances
    assert (seen[2] == 0).all()
    assert set(seen[3].tolist()) <= {0.0, reward[0, 3, 0].item()}
    assert draw.informed[:, 0].tolist() == [1, 1, 0, 1]
    critic = agent.sac.critics
    told = {}
    for part in ([2], [3]):
        agent.zero_grad()
        agent.loss(draw, torch.tensor(part))[0].backward()
        told[part[0]] = [gradient_norm(module) for module in (critic, agent.encoder)]
    assert told[2][0] == 0 < told[2][1]
    assert min(told[3]) > 0


def gradient_norm(module: torch.nn.Module) -> float:
    """Of all its parameters."""
    return sum(p.grad.norm().item() for p in module.parameters() if p.grad is not None)


def test_contexts_tell_no_target_where_a_family_shows_none() -> None:
    agent, trial = played(told_contexts=0.5)
    with pytest.raises(ConfigError, match=r"^agent.told_contexts is 0.5; allowed: 0, as .* shows no target$"):
        agent.meta_update(trial)


def test_nothing_is_learned_before_learning_starts() -> None:
    agent, trial = played(learning_starts=150)  # a trial has 4 x 5 x 6 steps
    before = weight_of(agent.sac.actor[0]).clone()
    assert agent.meta_update(trial) == {"gradient_steps": 0.0}
    assert torch.equal(weight_of(agent.sac.actor[0]), before)
    assert "critic_loss" in agent.meta_update(trial)
    assert not torch.equal(weight_of(agent.sac.actor[0]), before)


def test_the_encoder_learns_from_the_critics_and_not_from_the_policy() -> None:
    agent, trial = played(kl_weight=0.0)
    agent.store(trial)
    draw = agent.draw(trial.tasks.ids)
    total, _ = agent.loss(draw, torch.arange(4))
    [whole] = torch.autograd.grad(total, [weight_of(agent.encoder.layers[0])])
    q = agent.inferred(draw.context)
    z = q.mean + q.log_std.exp() * draw.noise
    steps = draw.batch.steps
    z = z.unsqueeze(1).expand(-1, 8, -1)
    e = agent.experience(draw.batch, torch.cat([steps.obs, z], -1), torch.cat([steps.next_obs, z], -1))
    with torch.no_grad():
        following, log_prob = agent.sac.policy(e.next_x).draw(e.next_noise)
        y = agent.config.reward_scale * e.reward
        y = y + 0.99 * (agent.sac.targets(e.next_x, following).amin(0) - log_prob)
    critic = (e.weight * (agent.sac.critics(e.x, e.action) - y).square().sum(0)).sum()
    [alone] = torch.autograd.grad(critic, [weight_of(agent.encoder.layers[0])])
    assert torch.allclose(whole, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rounds", [(1,), (20,)])
def test_it_needs_a_round_that_acts_on_what_another_showed(rounds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"rounds is .*; allowed: 2 or more"):
        played()[0].check_rounds(rounds)


def test_a_discrete_action_space_is_refused() -> None:
    family = make("bandit/bernoulli-k5")
    with pytest.raises(ConfigError, match="allowed off policy: a Box with bounds"):
        Pearl(family.observation_space, family.action_space, generator(0))


# --- the others


def test_replayed_trials_give_a_memory_what_it_had_in_play() -> None:
    family, rng = make("navigation/pearl2019"), generator(5)
    family.horizon = 6
    config = RecurrentSac.Config(**SMALL, replay_capacity=36, memory_width=8)
    agent = RecurrentSac(family.observation_space, family.action_space, generator(3), config)
    tasks = family.sample_tasks(4, "train", rng)
    trial = run_trial(family, agent, tasks, (1, 1), rng)
    agent.store(trial)
    belief, seen = agent.begin(4, 1), []
    played: list[Any] = []
    for rollout in trial.rounds:
        step = metarl.opening(family, rollout.obs[0], played)
        if played:
            belief = agent.adapt(belief, rollout)
        for t in range(6):
            _, belief = agent.act(belief, step, explore=False)
            seen.append(belief.memory[0][:, 0])
            nothing = torch.zeros_like(rollout.reward[t])
            step = Step(rollout.next_obs[t], rollout.action[t], rollout.reward[t], nothing)
        played.append(rollout)
    draw = agent.draw(tasks.ids)  # one trial each, twice
    steps = in_time(draw.batch.steps, 12)
    with torch.no_grad():
        features = agent.read(steps)[:-1, ::2, :8]  # [L, N, H]
    assert torch.allclose(features, torch.stack(seen), atol=1e-5)


def test_a_capacity_is_of_whole_trials() -> None:
    family, rng = make("navigation/pearl2019"), generator(5)
    tasks = family.sample_tasks(4, "train", rng)
    for capacity, trials in ((90, 2), (39, 0)):
        config = RecurrentSac.Config(**SMALL, replay_capacity=capacity)
        agent = RecurrentSac(family.observation_space, family.action_space, generator(3), config)
        trial = run_trial(family, agent, tasks, (1, 1), rng)
        if trials:
            for _ in range(3):
                agent.store(trial)
            assert agent.replay.size[tasks.ids].tolist() == [40 * trials] * 4
        else:
            with pytest.raises(ConfigError, match="replay_capacity is 39; allowed: 40 or more"):
                agent.store(trial)


# --- what ended early, and what is scaled


def ended(trial: Trial) -> Trial:
    """The same trial, had the first learner of the second task ended its first round after 4 steps."""
    first, *rest = trial.rounds
    terminated, reward = first.terminated.clone(), first.reward.clone()
    terminated[3:, 1, 0] = True
    reward[4:, 1, 0] = 0.0
    return Trial(trial.tasks, (first._replace(terminated=terminated, reward=reward), *rest))


def test_steps_that_were_not_played_are_neither_remembered_nor_inferred_from() -> None:
    agent, trial = played(rounds=(2, 2))
    trial = ended(trial)
    agent.store(trial)
    sizes = agent.replay.size[trial.tasks.ids]
    assert sizes.tolist() == [24, 22, 24, 24]
    assert agent.context.size[trial.tasks.ids].tolist() == [12, 10, 12, 12]
    belief = agent.adapt(agent.begin(4, 2), trial.rounds[0])
    q = agent.encoder.posterior(belief.evidence)
    r = trial.rounds[0]
    rows = torch.cat([r.obs, r.action, r.reward.unsqueeze(-1)], -1)
    seen = torch.cat([rows[:4, 1, 0], rows[:, 1, 1]])
    with torch.no_grad():
        assert torch.allclose(agent.inferred(seen[None]).mean, q.mean[1:2], atol=1e-5)
    garbage = r._replace(obs=r.obs.clone())
    garbage.obs[4:, 1, 0] = 100.0
    again = agent.adapt(agent.begin(4, 2), garbage)
    assert all(torch.equal(x, y) for x, y in zip(again.evidence, belief.evidence, strict=True))
    one, other = (agent.posterior(Trial(trial.tasks, (x, trial.rounds[1]))) for x in (r, garbage))
    alive = metarl.unroll(trial).valid
    assert all(torch.equal(x[alive], y[alive]) for x, y in zip(one, other, strict=True))


def in_time(steps: metarl.Transitions, length: int) -> metarl.Transitions:
    """[m, K L, ...] to [L, m K, ...]."""
    parts = (x.unflatten(1, (-1, length)).flatten(0, 1).transpose(0, 1) for x in steps)
    return metarl.Transitions(*parts)


def test_a_trials_last_step_leads_where_it_led_and_nowhere_where_it_ended() -> None:
    family, rng = make("navigation/pearl2019"), generator(5)
    family.horizon = 6
    config = RecurrentSac.Config(**SMALL | {"batch_size": 1}, memory_width=8)
    agent = RecurrentSac(family.observation_space, family.action_space, generator(3), config)
    trial = ended(run_trial(family, agent, family.sample_tasks(4, "train", rng), (1, 1), rng))
    agent.store(trial)
    draw = agent.draw(trial.tasks.ids)
    steps = in_time(draw.batch.steps, 12)
    with torch.no_grad():
        read = agent.read(steps)[..., 8:]  # (s, a, r, d)
    assert torch.equal(read[10, 1, :2], trial.rounds[1].next_obs[5, 1, 0])  # the tenth step was the last
    assert torch.equal(read[12, 0, :2], trial.rounds[1].next_obs[5, 0, 0])
    assert torch.equal(read[4, 1, :2], trial.rounds[1].obs[0, 1, 0])  # after an end comes another episode
    assert read[4, 1, -1] == 1
    ending = import_module("metarl.agents.recurrent_sac").ending(steps)
    assert not ending.any()
    last, r = trial.rounds[1], trial.rounds[1].terminated.clone()
    r[5, 2] = True
    agent.store(Trial(trial.tasks, (trial.rounds[0], last._replace(terminated=r))))
    agent.replay.size[trial.tasks.ids] = 12
    agent.replay.data[:, :12] = agent.replay.data[:, 12:24]
    ending = import_module("metarl.agents.recurrent_sac").ending(
        in_time(agent.draw(trial.tasks.ids).batch.steps, 12)
    )
    assert ending.nonzero().tolist() == [[11, 2]]
    # the halves of a meta-batch add up to the whole
    with torch.no_grad():
        parts = [agent.loss(draw, part)[0] for part in (torch.arange(2), torch.arange(2, 4))]
        whole = agent.loss(draw, torch.arange(4))[0]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-5)  # type: ignore[union-attr]
    assert draw.weight.count_nonzero() == 12 * 4 - 2


def test_actions_are_scaled_to_the_environment_and_back() -> None:
    family = make("half-cheetah-vel/promp2019")  # actions in [-10, 10]
    agent = pearl(family)
    policy = metarl.Squashed(torch.full((1, 1, 6), 0.3), torch.full((1, 1, 6), -0.5))
    mode = agent.acting(policy, explore=False)
    assert torch.allclose(mode.action, 10 * torch.full((1, 1, 6), 0.3).tanh())
    assert torch.allclose(agent.unit_action(mode.action), policy.mode)
    unit = policy.draw(torch.zeros(1, 1, 6))[1]
    assert mode.log_prob.item() == pytest.approx(unit.item() - 6 * math.log(10), rel=1e-5)


def test_the_bottleneck_adds_its_own_gradient_to_the_encoders() -> None:
    gradients = []
    for weight in (0.0, 0.5):
        agent, trial = played(kl_weight=weight)
        agent.store(trial)
        draw = agent.draw(trial.tasks.ids)
        total, _ = agent.loss(draw, torch.arange(4))
        gradients.append(torch.autograd.grad(total, [weight_of(agent.encoder.layers[0])])[0])
    kl = agent.encoder.divergence(agent.inferred(draw.context)).sum()  # over tasks, as published
    [alone] = torch.autograd.grad(kl, [weight_of(agent.encoder.layers[0])])
    assert torch.allclose(gradients[1] - gradients[0], 0.5 * alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--agent.replay_tasks=79"], "agent.replay_tasks is 79; allowed: 80 or more"),
        (["--agent.temperature=0"], "agent.temperature is 0; allowed: a positive number, or auto"),
        (["--agent.temperature=off"], "agent.temperature is False; allowed: a positive number, or auto"),
        (["--rounds=[2]"], "rounds is [2]; allowed: 2 or more"),
        (["--agent.learn_from_target=true"], "agent.learn_from_target is True; allowed: false"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("family: navigation/pearl2019\nagent:\n  name: pearl\n")
    assert main(["train", str(file), "--out", str(tmp_path / "run"), *TINY, *settings]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_memories_are_asked_for_equal_rounds_in_evaluation_too_before_they_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("family: navigation/pearl2019\nagent:\n  name: recurrent_sac\n")
    assert main(["train", str(file), "--out", str(tmp_path / "run"), "--evaluation.rounds=[1,2]"]) == 2
    assert "rounds is [1, 2]; allowed: the same number in each" in capsys.readouterr().err


def test_a_run_that_learns_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("family: navigation/pearl2019\nagent:\n  name: pearl\n")
    settings = [*TINY, "--agent.encoder_layers=[8]", "--agent.learning_starts=1000", "--iterations=1"]
    assert main(["train", str(file), "--out", str(tmp_path / "run"), *settings]) == 0
    assert "nothing was learned" in capsys.readouterr().err


def test_told_families_show_the_task_and_are_otherwise_the_same() -> None:
    plain, told = make("navigation/pearl2019"), Told(make("navigation/pearl2019"))
    tasks = plain.sample_tasks(3, "test", generator(0))
    one, other = (f.reset(tasks, 2, generator(1)) for f in (plain, told))
    assert told.observation_space.shape == (4,)
    assert torch.equal(other[..., :2], one)
    assert torch.equal(other[..., 2:], tasks.params.unsqueeze(1).expand(-1, 2, -1))  # goals in [-1, 1]²
    action: Tensor = torch.full((3, 2, 2), 0.5)
    ours, theirs = plain.step(action), told.step(action)
    assert torch.equal(theirs.obs[..., 2:], tasks.params.unsqueeze(1).expand(-1, 2, -1))
    assert torch.equal(ours.reward, theirs.reward)
    assert torch.equal(plain.bounds(tasks).oracle, told.bounds(tasks).oracle)
    assert told.published == ()
    fast = Told(make("half-cheetah-vel/pearl2019"))
    tasks = fast.sample_tasks(None, "test", generator(0))
    shown = fast.reset(tasks, 1, generator(0))[:, 0, -1]
    assert torch.allclose(shown, tasks.params[:, 0] / 1.5 - 1)  # velocities in [0, 3]
    others = Tasks(*(x.flip(0) for x in tasks))
    again = fast.restart(torch.ones(30, 1, dtype=torch.bool), others, generator(0))
    assert torch.allclose(again[:, 0, -1], shown.flip(0))


def test_who_is_told_the_goal_soon_goes_there() -> None:
    family, rng = Told(make("navigation/pearl2019")), generator(0)
    settings: dict[str, Any] = {"hidden": (64, 64), "gradient_steps": 100, "batch_size": 32, "gamma": 0.9}
    config = MultiTaskSac.Config(**settings, learning_rate=3e-3, tau=0.02, reward_scale=20.0)
    agent = MultiTaskSac(family.observation_space, family.action_space, rng, config)
    metarl.train(family, agent, rng, iterations=6, rounds=(4,), meta_batch_size=20)
    found = metarl.evaluate(family, agent, rng, rounds=(5,), greedy_last=True)
    floor, ceiling = (b.mean().item() for b in found.bounds)
    assert found.scores.mean() > floor + 0.8 * (ceiling - floor)


# --- from the command line

TINY = [
    *("--family=navigation/pearl2019", "--meta_batch_size=3", "--rounds=[1,1]", "--checkpoint_every=1"),
    *("--agent.hidden=[8]", "--agent.gradient_steps=3", "--agent.batch_size=8"),
    *("--agent.learning_starts=0", "--evaluation.rounds=[1,1]"),
]
KINDS = {
    "pearl": ["--agent.encoder_layers=[8]"],
    "multi_task_sac": ["--tell_task=true"],
    "recurrent_sac": ["--agent.memory_width=8"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_one_that_was_not_interrupted_buffers_included(
    kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(f"family: navigation/pearl2019\nagent:\n  name: {kind}\n")
    settings = [*TINY, *KINDS[kind]]
    assert main(["train", str(file), "--out", str(tmp_path / "whole"), *settings, "--iterations=4"]) == 0
    assert main(["train", str(file), "--out", str(tmp_path / "parts"), *settings, "--iterations=2"]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--iterations=4"]) == 0
    ours, theirs = (Run(tmp_path / name).load(torch.device("cpu")) for name in ("whole", "parts"))
    assert ours is not None
    assert theirs is not None
    assert ours["agent"]["replay.data"].any()
    assert all(torch.equal(x, theirs["agent"][name]) for name, x in ours["agent"].items())
    assert torch.equal(ours["rng"], theirs["rng"])
    page = (tmp_path / "whole" / "report.html").read_text()
    assert ('aria-label="embedding"' in page) == (kind == "pearl")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("navigation-sparse/pearl2019", 80),
        ("navigation/pearl2019", 80),
        ("half-cheetah-vel/pearl2019", 100),
        ("half-cheetah-dir/pearl2019", 2),
        ("walker2d-params/pearl2019", 40),
    ],
)
def test_pearls_families_have_fixed_training_tasks(name: str, size: int) -> None:
    pool = make(name).sample_tasks(None, "train", generator(0))
    assert pool.ids.tolist() == [*range(size)]
    drawn = make(name).sample_tasks(2, "train", generator(1))
    assert torch.equal(pool.params[drawn.ids], drawn.params)


def test_a_report_draws_what_an_agent_says_from_where_it_learns_on(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("family: navigation/pearl2019\nagent:\n  name: pearl\n")
    settings = [*TINY, "--agent.encoder_layers=[8]", "--agent.learning_starts=200", "--iterations=3"]
    assert main(["train", str(file), "--out", str(tmp_path / "run"), *settings]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["critic_loss" in line for line in lines] == [False, True, True]  # 120 steps an iteration
    assert "critic_loss" in (tmp_path / "run" / "report.html").read_text()


def test_beliefs_of_an_agent_that_diverged_are_left_out_of_the_embedding(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("family: navigation/pearl2019\nagent:\n  name: pearl\n")
    settings = [*TINY, "--agent.encoder_layers=[8]", "--agent.learning_rate=1e20", "--iterations=1"]
    steps = ["--agent.gradient_steps=1"]  # whose losses are still finite
    assert main(["train", str(file), "--out", str(tmp_path / "run"), *settings, *steps]) == 0
    assert 'aria-label="embedding"' in (tmp_path / "run" / "report.html").read_text()
