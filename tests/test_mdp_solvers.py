"""Solvers of tabular MDPs: posteriors by hand, samples by moments, plans by enumeration, and returns."""

import itertools
import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import optimize, stats
from torch import Tensor

from metarl import ConfigError, Rollout, Step, Tasks, generator, run_trial
from metarl.envs import make

planning: Any = import_module("metarl.agents.solvers.mdp_planning")
solvers: Any = import_module("metarl.agents.solvers.mdps")
SOLVERS: dict[str, Any] = import_module("metarl.agents.solvers").SOLVERS
FAMILY = "tabular-mdp/rl2-2016"
NAMES = sorted(name for name in SOLVERS if name.startswith("mdp_"))
CHANCE = 1e-3  # of a test of a distribution that fails though nothing is wrong; the seeds are fixed
BARE = {"mu": 0.0, "alpha": 1e-6, "tau": 1e-6}  # next to no prior: estimates are those of the data
Array = NDArray[np.float64]


def solver(name: str, states: int = 10, actions: int = 5, seed: int = 0, **settings: Any) -> Any:
    kind = SOLVERS[name]
    spaces = gym.spaces.Box(0.0, 1.0, (states,)), gym.spaces.Discrete(actions)
    return kind(*spaces, generator(seed), kind.Config(**settings))


def step(place: int, action: int = 0, reward: float = 0.0, done: float = 0.0, states: int = 3) -> Step:
    """What one learner sees."""
    obs = torch.eye(states)[place].view(1, 1, states)
    return Step(obs, torch.tensor([[action]]), torch.tensor([[reward]]), torch.tensor([[done]]))


def posterior(states: int, actions: int, seed: int, concentration: float = 1.0) -> Any:
    """Of one learner, from visits made up."""
    rng = np.random.RandomState(seed)
    alpha = concentration + rng.poisson(2.0, (1, 1, states, actions, states))
    mu, tau = rng.normal(1, 1, (1, 1, states, actions)), 1 + rng.poisson(3.0, (1, 1, states, actions))
    return planning.Posterior(*(torch.tensor(x, dtype=torch.float32) for x in (alpha, mu, tau)))


def play(name: str, tasks: Tasks, rounds: int, episodes: int = 1, **settings: Any) -> tuple[Rollout, ...]:
    family = make(FAMILY)
    return run_trial(family, solver(name, **settings), tasks, [episodes] * rounds, generator(1)).rounds


# --- what is learned


def test_a_history_is_counted_as_it_happened() -> None:
    agent = solver("mdp_greedy", 3, 2, horizon=2, mu=0.5)
    belief = agent.begin(1, 1)
    # the first act of a trial: no step came before, whatever stands in its place
    _, belief = agent.act(belief, step(0, 1, 7.0))
    assert (belief.alpha == 1).all()
    assert (belief.mu == 0.5).all()
    assert (belief.tau == 1).all()
    # from state 0 by action 1 to state 2, paid 3
    _, belief = agent.act(belief, step(2, 1, 3.0))
    # from state 2 by action 0: paid -1, and the episode is over; the next one starts in state 0
    belief = agent.adapt(belief, None)
    _, belief = agent.act(belief, step(0, 0, -1.0, done=1.0))
    # from state 0 by action 1 again, now to state 0, paid 1
    _, belief = agent.act(belief, step(0, 1, 1.0))
    alpha, mu, tau = torch.ones(3, 2, 3), torch.full((3, 2), 0.5), torch.ones(3, 2)
    alpha[0, 1] += torch.tensor([1.0, 0.0, 1.0])  # and nothing from state 2: what followed was not seen
    mu[0, 1], tau[0, 1] = (0.5 + 3 + 1) / 3, 3  # N(0.5, 1) and two rewards of variance 1
    mu[2, 0], tau[2, 0] = (0.5 - 1) / 2, 2
    torch.testing.assert_close(belief.alpha[0, 0], alpha)
    torch.testing.assert_close(belief.mu[0, 0], mu)
    torch.testing.assert_close(belief.tau[0, 0], tau)


def test_what_was_believed_before_stays_as_it_was() -> None:
    agent = solver("mdp_beb", 3, 2, horizon=2)
    _, before = agent.act(agent.begin(1, 1), step(0))
    copies = [x.clone() for x in before]
    agent.act(before, step(2, 1, 3.0))
    assert all(torch.equal(x, y) for x, y in zip(before, copies, strict=True))


def test_each_learner_counts_for_itself() -> None:
    agent = solver("mdp_greedy", 3, 2, horizon=2)
    belief = agent.begin(2, 2)
    start = Step(torch.eye(3)[torch.zeros(2, 2).long()], torch.zeros(2, 2).long(), *torch.zeros(2, 2, 2))
    _, belief = agent.act(belief, start)
    places, actions = torch.tensor([[0, 1], [2, 1]]), torch.tensor([[0, 1], [1, 0]])
    rewards, done = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    _, belief = agent.act(belief, Step(torch.eye(3)[places], actions, rewards, done))
    for n, e in itertools.product(range(2), range(2)):
        a, s2, moved = int(actions[n, e]), int(places[n, e]), 1 - done[n, e]
        assert belief.mu[n, e, 0, a] == (1 + rewards[n, e]) / 2
        assert belief.tau[n, e].sum() == 6 + 1
        assert belief.alpha[n, e, 0, a, s2] == 1 + moved
        assert belief.alpha[n, e].sum() == 18 + moved


@pytest.mark.parametrize("name", NAMES)
def test_rounds_of_the_loop_teach_all_that_was_shown(name: str) -> None:
    family = make(FAMILY)
    tasks = family.sample_tasks(3, "test", generator(0))
    agent, seen = solver(name), []
    act = agent.act

    def watched(belief: Any, now: Step, explore: bool) -> Any:
        answer, belief = act(belief, now, explore)
        seen.append(belief)
        return answer, belief

    agent.act = watched
    rounds = run_trial(family, agent, tasks, (2, 2, 2), generator(1)).rounds
    known = seen[-1]
    # of 30 steps the last is not told yet, and of 3 episodes the end's next state never is
    assert (known.tau - 1).sum((2, 3)).tolist() == [[29.0] * 2] * 3
    assert (known.alpha - 1).sum((2, 3, 4)).tolist() == [[27.0] * 2] * 3
    obs = torch.cat([r.obs for r in rounds]).argmax(-1)[:-1]
    reward, action = (torch.cat([getattr(r, x) for r in rounds])[:-1] for x in ("reward", "action"))
    here = (obs[:, 1, 0] == 0) & (action[:, 1, 0] == action[0, 1, 0])
    assert known.tau[1, 0, 0, action[0, 1, 0]] == 1 + here.sum()
    mean = (1 + reward[here, 1, 0].sum()) / (1 + here.sum())
    torch.testing.assert_close(known.mu[1, 0, 0, action[0, 1, 0]], mean)


# --- sampling


@pytest.mark.parametrize("shape", [1.0, 2.5, 60.0])
def test_gamma_variates_have_their_distribution(shape: float) -> None:
    drawn = planning.gamma(torch.full((20_000,), shape), generator(0))
    assert stats.kstest(drawn, stats.gamma(shape).cdf).pvalue > CHANCE


@pytest.mark.parametrize("alpha", [(1.0, 1.0, 1.0), (1.0, 3.0, 6.0), (0.1, 0.5, 40.0)])
def test_dirichlet_variates_have_their_moments_and_margins(alpha: Sequence[float]) -> None:
    n, total = 40_000, sum(alpha)
    drawn = planning.dirichlet(torch.tensor(alpha).expand(n, 3), generator(0)).double().numpy()
    np.testing.assert_allclose(drawn.sum(-1), 1, atol=1e-6)
    mean = np.array(alpha) / total
    covariance = (np.diag(mean) - np.outer(mean, mean)) / (total + 1)
    error = 4 * np.sqrt(np.diag(covariance) / n)
    assert (np.abs(drawn.mean(0) - mean) < error).all()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.05, atol=1e-5)
    for column, a in zip(drawn.T, alpha, strict=True):
        assert stats.kstest(column, stats.beta(a, total - a).cdf).pvalue > CHANCE


def test_of_next_to_no_prior_what_was_seen_is_left() -> None:
    alpha = torch.tensor([1e-6, 3 + 1e-6, 5 + 1e-6, 1e-6]).expand(5000, 4)
    drawn = planning.dirichlet(alpha, generator(0))
    assert (drawn[:, [0, 3]] < 1e-6).all()
    assert stats.kstest(drawn[:, 1], stats.beta(3, 5).cdf).pvalue > CHANCE
    unseen = planning.dirichlet(torch.full((5000, 4), 1e-6), generator(0))  # all in one state, each as often
    assert unseen.isfinite().all()
    assert stats.chisquare(np.bincount(unseen.argmax(-1), minlength=4)).pvalue > CHANCE


def test_draws_do_not_depend_on_the_learners_beside() -> None:
    one, other = torch.ones(3, 50), torch.ones(3, 50)
    other[1:] = 0.01
    a, b = generator(0), generator(0)
    first, second = planning.dirichlet(one, a), planning.dirichlet(other, b)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(a.get_state(), b.get_state())


def test_a_sampled_mdp_is_from_the_posterior() -> None:
    known = posterior(2, 2, seed=0)
    many = planning.Posterior(*(x.expand(20_000, *x.shape[1:]) for x in known))
    p, r = many.sample(generator(0))
    for s, a in itertools.product(range(2), range(2)):
        normal = stats.norm(known.mu[0, 0, s, a], known.tau[0, 0, s, a] ** -0.5)
        assert stats.kstest(r[:, 0, s, a], normal.cdf).pvalue > CHANCE
        assert stats.kstest(p[:, 0, s, a, 0], stats.beta(*known.alpha[0, 0, s, a]).cdf).pvalue > CHANCE
    torch.testing.assert_close(known.transition.sum(-1), torch.ones(1, 1, 2, 2))


# --- planning


def best_return(p: Array, r: Array, horizon: int, s: int) -> float:
    """Of all deterministic policies, by going along every path of each; small MDPs only."""
    states, actions = r.shape

    def value(policy: Sequence[int], t: int, s: int) -> float:
        if t == horizon:
            return 0.0
        a = policy[t * states + s]
        return float(r[s, a]) + sum(p[s, a, s2] * value(policy, t + 1, s2) for s2 in range(states))

    every = itertools.product(range(actions), repeat=horizon * states)
    return max(value(policy, 0, s) for policy in every)


@pytest.mark.parametrize("seed", range(3))
def test_value_iteration_finds_the_best_of_all_policies(seed: int) -> None:
    known = posterior(2, 2, seed)
    q = planning.value_iteration(known.transition, known.mu, 3)
    assert q.shape == (1, 1, 3, 2, 2)
    p, r = (x[0, 0].double().numpy() for x in (known.transition, known.mu))
    for t, s in itertools.product(range(3), range(2)):
        assert q[0, 0, t, s].max().item() == pytest.approx(best_return(p, r, 3 - t, s), abs=1e-4)
    torch.testing.assert_close(q[0, 0, 2], known.mu[0, 0])


def most(p: Array, value: Array, radius: float) -> float:
    """max P̃ · V over distributions P̃ with ‖P̃ - p‖₁ <= radius, as a linear programme in (P̃, |P̃ - p|)."""
    n, eye = len(p), np.eye(len(p))
    near = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, n)), np.ones((1, n))]])
    found = optimize.linprog(
        np.concatenate([-value, np.zeros(n)]),
        A_ub=near,
        b_ub=np.concatenate([p, -p, [radius]]),
        A_eq=np.concatenate([np.ones((1, n)), np.zeros((1, n))], 1),
        b_eq=[1.0],
    )
    assert found.success
    return float(-found.fun)


@pytest.mark.parametrize("seed", range(3))
def test_extended_value_iteration_solves_its_linear_programme(seed: int) -> None:
    known = posterior(4, 2, seed, concentration=0.01)  # some transitions are next to impossible
    radius = torch.tensor(np.random.RandomState(seed).uniform(0, 1.5, (1, 1, 4, 2)), dtype=torch.float32)
    q = planning.extended_value_iteration(known.transition, known.mu, radius, 3).double().numpy()[0, 0]
    p, r = (x[0, 0].double().numpy() for x in (known.transition, known.mu))
    later = np.zeros(4)
    for t in (2, 1, 0):
        for s, a in itertools.product(range(4), range(2)):
            wanted = r[s, a] + most(p[s, a], later, radius[0, 0, s, a].item())
            assert q[t, s, a] == pytest.approx(wanted, abs=1e-4)
        later = q[t].max(-1)


def test_optimism_is_above_every_mdp_within_reach() -> None:
    known, radius = posterior(5, 3, seed=0), 0.4
    r, p = known.mu, known.transition
    optimistic = planning.extended_value_iteration(p, r, torch.full_like(r, radius), 6)
    others = p + 0.3 * (torch.eye(5)[torch.randint(5, (200, 1, 5, 3), generator=generator(0))] - p)
    distance = (others - p).abs().sum(-1, keepdim=True)
    others = p + (others - p) * (radius / distance).clamp(max=1)  # towards some state, as far as it may be
    values = planning.value_iteration(others, r.expand(200, -1, -1, -1), 6)
    assert (values <= optimistic + 1e-5).all()
    assert values.amax() > planning.value_iteration(p, r, 6).amax()
    torch.testing.assert_close(
        planning.extended_value_iteration(p, r, torch.zeros_like(r), 6), planning.value_iteration(p, r, 6)
    )


def test_with_every_mdp_within_reach_the_best_state_always_follows() -> None:
    known = posterior(4, 2, seed=1)
    q = planning.extended_value_iteration(known.transition, known.mu, torch.full_like(known.mu, 2.0), 3)
    best = known.mu.max()
    torch.testing.assert_close(q[0, 0, 0], known.mu[0, 0] + 2 * best)


# --- the algorithms


def test_what_is_plausible_for_ucrl2_is_as_published() -> None:
    agent = solver("mdp_ucrl2", 3, 2, scale=1.0, delta=0.1)
    known = planning.Posterior(*agent.begin(1, 1)[:3])
    known.tau[0, 0, 0, 1] += 4  # paid 4 times, and moved 3: once it was an episode's last
    known.alpha[0, 0, 0, 1] += torch.tensor([2.0, 0.0, 1.0])
    reward, transition = agent.radii(known)
    t = 5
    for pair, paid, moved in ((0, 1), 4, 3), ((1, 0), 1, 1):  # what was not seen counts as seen once
        wanted = math.sqrt(7 * math.log(2 * 3 * 2 * t / 0.1) / (2 * paid))
        assert reward[0, 0][pair].item() == pytest.approx(wanted, rel=1e-5)
        wanted = math.sqrt(14 * 3 * math.log(2 * 2 * t / 0.1) / moved)
        assert transition[0, 0][pair].item() == pytest.approx(wanted, rel=1e-5)


def test_the_bonus_of_beb_is_as_published() -> None:
    agent, known = solver("mdp_beb", 4, 2, horizon=3, beta=6.0), posterior(4, 2, seed=0)
    q = agent.values(known)
    wanted = known.mu + 6 / (1 + known.alpha.sum(-1))
    torch.testing.assert_close(q[:, :, 2], wanted)
    torch.testing.assert_close(q, planning.value_iteration(known.transition, wanted, 3))


@pytest.mark.parametrize("samples", [1, 5])
def test_opsrl_is_the_envelope_of_psrl(samples: int) -> None:
    known, psrl = posterior(4, 2, seed=0), solver("mdp_psrl", 4, 2, horizon=3)
    wanted = torch.stack([psrl.values(known) for _ in range(samples)]).amax(0)
    opsrl = solver("mdp_optimistic_psrl", 4, 2, horizon=3, samples=samples)
    assert torch.equal(opsrl.values(known), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_holds_for_an_episode_and_that_of_beb_for_a_step(name: str) -> None:
    agent = solver(name, 3, 2, horizon=3)
    belief, plans = agent.begin(1, 1), []
    for now in step(0), step(1, 0, 2.0), step(2, 1, -1.0), step(0, 0, 4.0, done=1.0), step(1, 1, 3.0):
        _, belief = agent.act(belief, now)
        plans.append(belief.plan)
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(plans)]
    assert changed == ([True] * 4 if name == "mdp_beb" else [False, False, True, False])


def test_what_is_best_depends_on_the_steps_that_are_left() -> None:
    # action 0 pays 1 now; action 1 nothing, but leads to state 2, where either pays 5
    agent = solver("mdp_greedy", 3, 2, horizon=2, tau=1e6, alpha=1e-6)
    belief = agent.begin(1, 1)
    belief.mu[0, 0] = torch.tensor([[1.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    belief.alpha[0, 0, 0] = 1e6 * torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    chosen = []
    for now in step(0), step(0, 1, 0.0), step(0, 0, 1.0, done=1.0), step(0, 1, 0.0):
        act, belief = agent.act(belief, now)
        chosen.append(act.action.item())
    assert chosen == [1, 0, 1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_the_mdp_plays_the_optimum(name: str) -> None:
    family: Any = make(FAMILY)
    tasks = family.sample_tasks(20, "test", generator(0))
    p, r = family.model(tasks)
    many = 1e6
    known = planning.Posterior(many * p[:, None] + 1e-3, r[:, None], torch.full_like(r[:, None], many))
    value = solver(name).values(known)[:, 0, 0, 0].amax(-1)
    # what is left of a sample's or a radius's width after a million visits
    torch.testing.assert_close(value, family.bounds(tasks).oracle, rtol=0, atol=0.15)


def test_without_exploration_all_plan_for_the_mean() -> None:
    known = posterior(3, 2, seed=0)
    wanted = planning.value_iteration(known.transition, known.mu, 4)
    for name in NAMES:
        agent = solver(name, 3, 2, horizon=4)
        nowhere = torch.ones(1, 1, dtype=torch.int64)
        belief = solvers.MdpBelief(*known, torch.zeros(1, 1, 4, 3, 2), nowhere, nowhere)
        _, belief = agent.act(belief, step(0, 0, float(known.mu[0, 0, 1, 0]), done=1.0), explore=False)
        torch.testing.assert_close(belief.plan, wanted)


def test_equal_actions_are_chosen_as_often_as_each_other() -> None:
    agent = solver("mdp_greedy")  # of nothing it knows anything
    obs = torch.eye(10)[torch.zeros(50, 40).long()]
    zero = torch.zeros(50, 40)
    act, _ = agent.act(agent.begin(50, 40), Step(obs, zero.long(), zero, zero))
    assert stats.chisquare(np.bincount(act.action.flatten(), minlength=5)).pvalue > CHANCE


def test_a_share_of_actions_is_random_unless_exploration_is_switched_off() -> None:
    agent = solver("mdp_epsilon_greedy", epsilon=0.3)
    value = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]).expand(200, 100, 5)
    counts = np.bincount(agent.choose(value, True).flatten(), minlength=5)
    assert stats.chisquare(counts, 20_000 * np.array([0.06, 0.76, 0.06, 0.06, 0.06])).pvalue > CHANCE
    assert (agent.choose(value, False) == 1).all()
    assert (solver("mdp_epsilon_greedy", epsilon=0.0).choose(value, True) == 1).all()


# --- in the loop


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_follows_from_its_seeds_and_tasks_do_not_meet(name: str) -> None:
    tasks = make(FAMILY).sample_tasks(3, "test", generator(0))
    swapped = Tasks(*(x[[0, 2, 2]] for x in tasks))
    first, again, other = (play(name, x, 4, episodes=2) for x in (tasks, tasks, swapped))
    for a, b, c in zip(first, again, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert torch.equal(a.action[:, 0], c.action[:, 0])
        assert torch.equal(a.reward[:, 0], c.reward[:, 0])
    assert not torch.equal(first[0].reward[:, :, 0], first[0].reward[:, :, 1])
    differently = play(name, tasks, 4, episodes=2, seed=1)
    assert any(not torch.equal(a.action, b.action) for a, b in zip(first, differently, strict=True))


def totals(name: str, n: int, **settings: Any) -> Tensor:
    """Rewards of n episodes in every test task, added up, [N]."""
    tasks = make(FAMILY).sample_tasks(None, "test", generator(0))
    return torch.stack([r.returns[:, 0] for r in play(name, tasks, n, **settings)]).sum(0)


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("mdp_psrl", {"mu": 0.0}, 138.1),
        ("mdp_optimistic_psrl", {"mu": 0.0, "samples": 10}, 144.1),
        ("mdp_ucrl2", {**BARE, "scale": 0.3}, 146.6),
        ("mdp_beb", {"mu": 0.0, "beta": 25.0}, 150.2),
        ("mdp_epsilon_greedy", {**BARE, "epsilon": 0.1}, 132.8),
        ("mdp_greedy", BARE, 134.8),
        ("random", {}, 100.1),
    ],
)
def test_ten_episodes_earn_what_duan_et_al_report(name: str, settings: Any, published: float) -> None:
    total = totals(name, 10, **settings)
    # both are means over 1,000 MDPs, so that the standard error of their difference is √2 times ours
    assert abs(total.mean().item() - published) < 3.5 * math.sqrt(2) * total.std().item() / math.sqrt(1000)


@pytest.mark.parametrize("name", NAMES)
def test_by_the_true_prior_all_solvers_learn(name: str) -> None:
    tasks = make(FAMILY).sample_tasks(100, "test", generator(0))
    rounds = play(name, tasks, 30)
    oracle = make(FAMILY).bounds(tasks).oracle.mean().item()
    first, last = (sum(r.returns.mean().item() for r in part) / 5 for part in (rounds[:5], rounds[-5:]))
    assert first < 0.75 * oracle  # of 21.9; a random policy earns 10
    assert last > 0.85 * oracle


def test_rounds_have_to_be_alike_and_settings_possible() -> None:
    with pytest.raises(ConfigError, match=r"^rounds is \[1, 2\]; allowed: the same number of episodes"):
        solver("mdp_psrl").check_rounds((1, 2))
    for wrong in {"alpha": 0.0}, {"tau": -1.0}, {"mu": math.inf}, {"horizon": 0}:
        with pytest.raises(ValidationError):
            solver("mdp_psrl", **wrong)


def test_the_solvers_are_for_tabular_mdps_only() -> None:
    assert [SOLVERS[name].plays for name in NAMES] == [("tabular-mdp/",)] * 6
