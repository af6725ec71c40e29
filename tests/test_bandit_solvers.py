"""Solvers of bandits against closed forms, enumeration, and the exact Bayes-optimal value."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, chisquare, norm
from torch import Tensor

from metarl import ConfigError, Step, Trial, checked, generator, run_trial
from metarl.envs import make

solvers: Any = import_module("metarl.agents.solvers")
KINDS = ("bernoulli", "gaussian")
FAMILIES = [f"bandit/{kind}-k5" for kind in KINDS]
Arm = tuple[int, int]  # wins and losses


def solver(name: str, family: Any, rng: torch.Generator | None = None, **settings: Any) -> Any:
    kind = solvers.SOLVERS[name]
    config = kind.Config(**kind.settings_for(family.name), **settings)
    return kind(family.observation_space, family.action_space, rng or generator(0), config)


PAIRS = [
    (name, f)
    for name in sorted(solvers.SOLVERS)
    for f in FAMILIES
    if f.startswith(solvers.SOLVERS[name].plays)
]
NAMES = sorted({name for name, _ in PAIRS})


def played(name: str, family_name: str, n: int, tasks: int = 1000, seed: int = 0, **settings: Any) -> Trial:
    """A trial of n pulls in training tasks, one learner each."""
    family, rng = make(family_name), generator(seed)
    given = family.sample_tasks(tasks, "train", rng)
    agent = solver(name, family, rng, **{"episodes": n, **settings})
    return run_trial(family, agent, given, [1] * n, rng)


def total(trial: Trial) -> Tensor:
    """All rewards of each task, [N]."""
    return torch.stack([r.returns[:, 0] for r in trial.rounds]).sum(0)


def pulls(trial: Trial) -> Tensor:
    """What was pulled, [n, N]."""
    return torch.stack([r.action[0, :, 0] for r in trial.rounds])


def after(agent: Any, history: Sequence[tuple[int, float]], learners: int = 1) -> tuple[Any, Tensor]:
    """The belief after a history of arms and rewards, and what is then pulled by each learner."""
    belief, none = agent.begin(1, learners), torch.zeros(1, learners)
    step = Step(none[..., None], none.long(), none, none)
    for arm, reward in history:
        _, belief = agent.act(belief, step, True)
        step = Step(none[..., None], none.long() + arm, none + reward, none + 1)
    act, belief = agent.act(belief, step, True)
    return belief, act.action[0]


def same_frequencies(counts: Tensor, probabilities: list[float]) -> None:
    """A test of goodness of fit that a fixed seed passes, and another distribution does not."""
    wanted = np.array(probabilities) * int(counts.sum())
    assert chisquare(counts.numpy(), wanted).pvalue > 1e-3


# --- the agent's side


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_with_one_pull_there_is_nothing_to_know(name: str, family: str) -> None:
    trial = played(name, family, 1, tasks=5000)
    variance = 0.25 if "bernoulli" in family else 1 + 1 / 12
    assert abs(total(trial).mean() - 0.5) < 4 * math.sqrt(variance / 5000)
    same_frequencies(pulls(trial).flatten().bincount(minlength=5), [0.2] * 5)


def test_the_random_policy_earns_the_floor() -> None:
    trial = played("random", "bandit/bernoulli-k10", 50, tasks=2000)
    floor = 50 * make("bandit/bernoulli-k10").bounds(trial.tasks).floor
    spread = math.sqrt(50 * 0.25 / 2000)
    assert abs((total(trial) - floor).mean()) < 4 * spread
    same_frequencies(pulls(trial).flatten().bincount(minlength=10), [0.1] * 10)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_the_same_seed_gives_the_same_trial(name: str, family: str) -> None:
    one, again, other = (played(name, family, 5, 20, seed) for seed in (3, 3, 4))
    assert torch.equal(pulls(one), pulls(again))
    assert torch.equal(total(one), total(again))
    assert not torch.equal(pulls(one), pulls(other))


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_actions_are_numbers_of_arms_and_beliefs_are_never_written_into(name: str, family: str) -> None:
    agent = solver(name, make(family), episodes=9)
    belief = agent.begin(2, 3)
    held = [x.clone() for x in belief]
    step = Step(torch.zeros(2, 3, 1), torch.ones(2, 3).long(), torch.ones(2, 3), torch.ones(2, 3))
    for explore in (False, True):
        act, moved = agent.act(belief, step, explore)
        agent.act(moved, step, explore)
        assert act.action.shape == (2, 3)
        assert act.action.dtype == torch.int64
        assert ((act.action >= 0) & (act.action < 5)).all()
        assert all(map(torch.equal, belief, held))


def test_every_episode_side_by_side_learns_for_itself() -> None:
    agent = solver("bandit_greedy", make("bandit/bernoulli-k5"))
    belief, none = agent.begin(1, 2), torch.zeros(1, 2)
    _, belief = agent.act(belief, Step(none[..., None], none.long(), none, none), True)
    step = Step(none[..., None], torch.tensor([[2, 4]]), none + 1, none + 1)
    act, belief = agent.act(belief, step, True)
    assert act.action.tolist() == [[2, 4]]  # each pulls again what paid
    assert belief.pulls.tolist() == [[[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]]


@pytest.mark.parametrize("name", NAMES)
def test_rounds_of_different_numbers_of_episodes_are_refused(name: str) -> None:
    agent = solver(name, make("bandit/bernoulli-k5"))
    agent.check_rounds([2, 2, 2])
    with pytest.raises(ConfigError, match=r"rounds is \[1, 2\]; allowed: the same number of episodes"):
        agent.check_rounds([1, 2])


# --- what is believed


def test_before_the_first_pull_no_reward_is_counted_and_the_last_one_always_is() -> None:
    belief, _ = after(solver("bandit_greedy", make("bandit/bernoulli-k5")), [])
    assert not belief.pulls.any()
    belief, _ = after(solver("bandit_greedy", make("bandit/bernoulli-k5")), [(3, 1), (3, 0), (1, 1)])
    assert belief.pulls[0, 0].tolist() == [0, 1, 0, 2, 0]
    assert belief.total[0, 0].tolist() == [0, 1, 0, 1, 0]


def test_the_posterior_mean_is_laplaces_rule_or_the_normal_one() -> None:
    agent = solver("bandit_greedy", make("bandit/bernoulli-k5"))
    belief, _ = after(agent, [(3, 1), (3, 1), (3, 0), (1, 0)])
    # Beta(1 + wins, 1 + losses)
    torch.testing.assert_close(agent.mean(belief)[0, 0], torch.tensor([1 / 2, 1 / 3, 1 / 2, 3 / 5, 1 / 2]))
    agent = solver("bandit_greedy", make("bandit/gaussian-k5"))
    belief, _ = after(agent, [(3, 2.0), (3, 3.0), (1, -1.0)])
    # precisions 12 and 1 a pull: (12 · 0.5 + 5) / 14 and (12 · 0.5 - 1) / 13
    wanted = torch.tensor([1 / 2, 5 / 13, 1 / 2, 11 / 14, 1 / 2])
    torch.testing.assert_close(agent.mean(belief)[0, 0], wanted)


def test_greedy_pulls_the_best_mean_and_any_of_equals() -> None:
    agent = solver("bandit_greedy", make("bandit/bernoulli-k5"))
    assert after(agent, [(1, 1), (1, 0), (3, 1)])[1].tolist() == [3]
    _, chosen = after(agent, [(0, 0), (2, 1), (4, 1)], learners=4000)  # 1/3, 1/2, 2/3, 1/2, 2/3
    counts = chosen.bincount(minlength=5)
    assert counts[[0, 1, 3]].tolist() == [0, 0, 0]
    same_frequencies(counts[[2, 4]], [0.5, 0.5])


def test_epsilon_greedy_pulls_any_arm_with_probability_epsilon() -> None:
    agent = solver("bandit_epsilon_greedy", make("bandit/bernoulli-k5"), epsilon=0.3)
    _, chosen = after(agent, [(2, 1)], learners=10_000)
    same_frequencies(chosen.bincount(minlength=5), [0.06, 0.06, 0.76, 0.06, 0.06])  # 0.3 / 5, and 0.7 more
    greedy = solver("bandit_epsilon_greedy", make("bandit/bernoulli-k5"), epsilon=0)
    assert (after(greedy, [(2, 1)], learners=1000)[1] == 2).all()


@pytest.mark.parametrize(("kind", "prior", "scale"), [("bernoulli", 2, 1), ("gaussian", 12, 2)])
def test_ucb1_adds_the_width_of_auers_bound(kind: str, prior: int, scale: int) -> None:
    agent = solver("bandit_ucb1", make(f"bandit/{kind}-k5"), c=0.7)
    belief, chosen = after(agent, [(0, 1), (0, 0), (0, 1), (0, 0), (1, 1), (1, 0)])
    score = agent.score(belief)[0, 0].tolist()
    for arm, count in enumerate((4, 2, 0, 0, 0)):  # all of the same mean, before the seventh pull
        width = scale * 0.7 * math.sqrt(2 * math.log(7) / (prior + count))
        assert score[arm] == pytest.approx(0.5 + width)
    assert chosen.item() in (2, 3, 4)


def test_without_exploration_the_best_mean_is_pulled() -> None:
    step = Step(torch.zeros(1, 500, 1), torch.ones(1, 500).long(), torch.ones(1, 500), torch.ones(1, 500))
    for name, family in (pair for pair in PAIRS if pair[0] != "random"):
        agent = solver(name, make(family))
        belief = agent.begin(1, 500)
        _, belief = agent.act(belief, step._replace(reward=step.reward * 0), True)
        act, _ = agent.act(belief, step, False)
        assert (act.action == 1).all()


# --- posterior sampling


def best_of(densities: list[Callable[[Any], Any]], below: list[Callable[[Any], Any]], x: Any) -> list[float]:
    """∫ f_a Π_{b ≠ a} F_b over the grid x, for each arm a: the probability that it is the best."""
    found = []
    for a, f in enumerate(densities):
        others = math.prod(below[b](x) for b in range(len(below)) if b != a)
        found.append(float(np.trapezoid(f(x) * others, x)))
    return found


def test_thompson_pulls_a_bernoulli_arm_with_the_probability_that_it_is_the_best() -> None:
    history = [(0, 1), (0, 1), (0, 0), (1, 1), (2, 0), (3, 1), (3, 0), (3, 0), (3, 0)]
    shapes = [beta(3, 2), beta(2, 1), beta(1, 2), beta(2, 4), beta(1, 1)]
    grid = np.linspace(0, 1, 20_001)
    wanted = best_of([b.pdf for b in shapes], [b.cdf for b in shapes], grid)
    assert sum(wanted) == pytest.approx(1, abs=1e-4)
    agent = solver("bandit_thompson", make("bandit/bernoulli-k5"))
    _, chosen = after(agent, history, learners=20_000)
    same_frequencies(chosen.bincount(minlength=5), [w / sum(wanted) for w in wanted])


def test_thompson_pulls_a_gaussian_arm_with_the_probability_that_it_is_the_best() -> None:
    history = [(0, 1.5), (0, 0.5), (1, 2.0), (2, -1.0)]
    arms = [norm((6 + s) / (12 + n), (12 + n) ** -0.5) for s, n in ((2, 2), (2, 1), (-1, 1), (0, 0), (0, 0))]
    wanted = best_of([a.pdf for a in arms], [a.cdf for a in arms], np.linspace(-2, 3, 20_001))
    agent = solver("bandit_thompson", make("bandit/gaussian-k5"))
    _, chosen = after(agent, history, learners=20_000)
    same_frequencies(chosen.bincount(minlength=5), [w / sum(wanted) for w in wanted])


def test_optimistic_thompson_thinks_of_no_arm_less_than_its_mean() -> None:
    # One arm won once, Beta(2, 1), four were never pulled: their samples have to beat 2/3 and the first's.
    agent = solver("bandit_optimistic_thompson", make("bandit/bernoulli-k5"))
    belief, chosen = after(agent, [(0, 1)], learners=20_000)
    score = agent.score(belief)[0]
    assert (score >= agent.mean(belief)[0]).all()
    same_frequencies((score[:, 0] == score[:, 0].min()).long().bincount(), [5 / 9, 4 / 9])  # P(μ > 2/3) = 5/9
    x = np.linspace(2 / 3, 1, 20_001)
    other = float(np.trapezoid(x**2 * x**3, x))  # one unpulled arm above all the rest, whose cdfs are x², x
    same_frequencies(chosen.bincount(minlength=5), [1 - 4 * other] + [other] * 4)


# --- the Gittins index


def stopping_rules(arm: Arm, left: int) -> list[tuple[Fraction, Fraction]]:
    """The expected rewards and pulls of every rule that pulls an arm once, and at most `left` times."""
    wins, losses = arm
    p = Fraction(wins + 1, wins + losses + 2)
    nothing = [(Fraction(0), Fraction(0))]
    won = nothing + (stopping_rules((wins + 1, losses), left - 1) if left > 1 else [])
    lost = nothing + (stopping_rules((wins, losses + 1), left - 1) if left > 1 else [])
    return [(p + p * a + (1 - p) * c, 1 + p * b + (1 - p) * d) for a, b in won for c, d in lost]


def brute_force_index(arm: Arm, left: int) -> float:
    """max over stopping rules of E[rewards] / E[pulls], which is the λ of indifference."""
    return float(max(reward / pulls for reward, pulls in stopping_rules(arm, left)))


def gittins(n: int, arms: list[Arm], left: int, cells: int = 100) -> list[float]:
    """The solver's index of each arm, as the first of two, of which the other had the rest of the pulls."""
    agent = solver("bandit_gittins", make("bandit/bernoulli-k5"), episodes=n, cells=cells)
    pulls = torch.tensor([[[w + b, n - left - w - b, 0, 0, 0]] for w, b in arms]).float()
    total = torch.tensor([[[w, 0, 0, 0, 0]] for w, b in arms]).float()
    belief = agent.begin(len(arms), 1)._replace(pulls=pulls, total=total)
    return agent.score(belief)[:, 0, 0].tolist()


@pytest.mark.parametrize(("cells", "above"), [(100, 2e-3), (5000, 5e-6)])
def test_the_index_is_that_of_enumeration_over_all_stopping_rules(cells: int, above: float) -> None:
    n = 7
    for left in (1, 2, 3, 4):
        arms = [(w, b) for w in range(n - left + 1) for b in range(n - left + 1 - w)]
        wanted = [brute_force_index(arm, left) for arm in arms]
        errors = np.array(gittins(n, arms, left, cells)) - wanted
        assert errors.min() > -4e-6  # of single precision
        assert errors.max() < above


def test_an_index_by_hand() -> None:
    # two pulls: after a success go on. (1/2 + 1/2 · 2/3) / (1 + 1/2) = 5/9
    assert gittins(2, [(0, 0)], 2, 5000)[0] == pytest.approx(5 / 9, abs=1e-6)


def test_the_index_grows_with_the_horizon_and_tends_to_the_mean() -> None:
    n, arms = 40, [(0, 0), (3, 1), (1, 6), (10, 4)]
    table = np.array([gittins(n, arms, left) for left in range(1, 26)])
    mean = [(w + 1) / (w + b + 2) for w, b in arms]
    np.testing.assert_allclose(table[0], mean, atol=1e-6)
    assert (np.diff(table, axis=0) > -1e-6).all()
    bonus = table[-1] - mean
    assert (bonus > 0.02).all()
    assert bonus.argmax() == 0  # of which nothing is known


Policy = Callable[[tuple[Arm, ...], int], int]


def exact_value(k: int, n: int, choose: Policy | None = None) -> float:
    """The expected total of n pulls of k arms under the prior, of a policy or, without one, of the best."""

    def pull(state: tuple[Arm, ...], a: int, left: int) -> float:
        wins, losses = state[a]
        p = (wins + 1) / (wins + losses + 2)
        won, lost = ((*state[:a], arm, *state[a + 1 :]) for arm in ((wins + 1, losses), (wins, losses + 1)))
        rest = (value(tuple(sorted(x)), left - 1) for x in (won, lost))
        return p * (1 + next(rest)) + (1 - p) * next(rest)

    @cache
    def value(state: tuple[Arm, ...], left: int) -> float:
        if not left:
            return 0.0
        if choose:
            return pull(state, choose(state, left), left)
        return max(pull(state, a, left) for a in range(k))

    return value(((0, 0),) * k, n)


def index_policy(n: int) -> Policy:
    """The arm of the largest index, found by the solver for all arms at once."""

    @cache
    def table(left: int) -> dict[Arm, float]:
        arms = [(w, b) for w in range(n - left + 1) for b in range(n - left + 1 - w)]
        return dict(zip(arms, gittins(n, arms, left), strict=True))

    return lambda state, left: max(range(len(state)), key=lambda a: table(left)[state[a]])


def greedy_policy(state: tuple[Arm, ...], left: int) -> int:
    return max(range(len(state)), key=lambda a: (state[a][0] + 1) / (sum(state[a]) + 2))


def test_the_bayes_optimal_value_of_two_pulls_is_thirteen_twelfths() -> None:
    # 1/2, then 2/3 after a success and 1/2, by the other arm, after a failure
    assert exact_value(2, 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2)


@pytest.mark.parametrize(("k", "n"), [(2, 24), (3, 12)])
def test_the_index_policy_earns_nearly_the_bayes_optimal_value_and_more_than_greed(k: int, n: int) -> None:
    best, ours = exact_value(k, n), exact_value(k, n, index_policy(n))
    assert ours <= best + 1e-9
    assert ours > 0.999 * best
    assert exact_value(k, n, greedy_policy) < ours


def test_played_trials_earn_the_exact_value() -> None:
    for name, policy in ("bandit_gittins", index_policy(8)), ("bandit_greedy", greedy_policy):
        earned = total(played(name, "bandit/bernoulli-k5", 8, tasks=20_000))
        error = earned.mean() - exact_value(5, 8, policy)
        assert abs(error) < 4 * earned.std() / math.sqrt(20_000)


def test_more_pulls_than_were_announced_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent.episodes is 4; allowed: all pulls of a trial"):
        played("bandit_gittins", "bandit/bernoulli-k5", 5, tasks=2, episodes=4)


def test_there_is_no_gittins_index_of_gaussian_rewards() -> None:
    kind = solvers.SOLVERS["bandit_gittins"]
    assert not "bandit/gaussian-k5".startswith(kind.plays)
    with pytest.raises(ConfigError, match=r"agent.reward is 'gaussian'; input should be 'bernoulli'"):
        checked(kind.Config, {"reward": "gaussian"}, "agent.")


# --- who earns what


@pytest.mark.parametrize("kind", KINDS)
def test_those_who_know_more_earn_more(kind: str) -> None:
    order = ["bandit_gittins", "bandit_ucb1", "bandit_greedy", "random"]
    order = order[kind == "gaussian" :]
    earned = [total(played(name, f"bandit/{kind}-k10", 100, tasks=2000, seed=1)) for name in order]
    for more, less in pairwise(earned):
        gain = more - less  # in the same tasks
        assert gain.mean() > 1.5 * gain.std() / math.sqrt(2000)
    oracle = make(f"bandit/{kind}-k10").bounds(played("random", f"bandit/{kind}-k10", 1, 2000, 1).tasks)
    assert earned[0].mean() < 100 * oracle.oracle.mean()


def test_optimism_helps_thompson_sampling_where_arms_are_many() -> None:
    plain, optimistic = (
        total(played(name, "bandit/bernoulli-k10", 100, seed=1))
        for name in ("bandit_thompson", "bandit_optimistic_thompson")
    )
    gain = optimistic - plain
    assert gain.mean() > 4 * gain.std() / math.sqrt(len(gain))
