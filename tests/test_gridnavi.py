"""GridNavi against its published definition, and its Bayes-optimal policy against exhaustive planning."""

import itertools
import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl import (
    SPLITS,
    Act,
    ConfigError,
    Rollout,
    Step,
    TaskError,
    Tasks,
    collect,
    generator,
    opening,
    run_trial,
)
from metarl.envs import check_family, make, named_tasks, painter, tasks_of

solvers: Any = import_module("metarl.agents.solvers.gridnavi")
check: Any = import_module("metarl.agents.check")

NAME = "gridnavi/varibad2020"
STAY, UP, RIGHT, DOWN, LEFT = range(5)
GOALS = [(x, y) for x in range(5) for y in range(5) if (x, y) not in ((0, 0), (0, 1), (1, 0), (1, 1))]


class Script(torch.nn.Module):
    """Acts by a list [T], or a table [T, N, E]."""

    def __init__(self, actions: list[int] | Tensor) -> None:
        super().__init__()
        self.actions = torch.as_tensor(actions)

    def act(self, belief: int, step: Step, explore: bool) -> tuple[Act, int]:
        zero = torch.zeros_like(step.reward)
        return Act(self.actions[belief].expand(zero.shape), zero, zero), belief + 1


def play(actions: list[int] | Tensor, tasks: Tasks, episodes: int = 1) -> Rollout:
    family = make(NAME)
    family.horizon = len(actions)
    agent: Any = Script(actions)
    return collect(family, agent, 0, opening(family, family.reset(tasks, episodes, generator(0)), ()))[0]


def goals(*cells: tuple[int, int]) -> Tasks:
    return tasks_of(make(NAME), cells or GOALS)


def reference(goal: tuple[int, int], actions: list[int]) -> list[tuple[float, ...]]:
    """Positions and rewards as lmzintgraf/varibad's gridworld.py computes them."""
    state, found = np.array((0.0, 0.0)), []
    for action in actions:
        if action == 1:  # up
            state[1] = min([state[1] + 1, 4])
        elif action == 2:  # right
            state[0] = min([state[0] + 1, 4])
        elif action == 3:  # down
            state[1] = max([state[1] - 1, 0])
        elif action == 4:  # left
            state[0] = max([state[0] - 1, 0])
        found.append((*state, 1.0 if tuple(state) == goal else -0.1))
    return found


# --- the family


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_the_promises_of_a_family(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        check_family(make(NAME))
    finally:
        torch.set_default_dtype(torch.float32)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    goal=st.sampled_from(GOALS),
    actions=st.lists(st.integers(0, 4) | st.sampled_from((1, 2)), min_size=15, max_size=15),
)
def test_any_episode_is_the_published_one(goal: tuple[int, int], actions: list[int]) -> None:
    rollout = play(actions, goals(goal), 2)
    for e in range(2):
        got = torch.cat([rollout.next_obs[:, 0, e], rollout.reward[:, 0, e, None]], -1)
        torch.testing.assert_close(got, torch.tensor(reference(goal, actions), dtype=got.dtype))
    assert not rollout.terminated.any()
    assert (rollout.returns <= make(NAME).bounds(goals(goal)).oracle + 1e-5).all()


def test_walls_stop_and_the_goal_pays_at_every_step_on_it() -> None:
    # down and left against the walls; up, along x = 0, twice past the top; right; down and up again
    actions = [DOWN, LEFT, UP, UP, UP, UP, UP, STAY, RIGHT, DOWN, UP]
    rollout = play(actions, goals((0, 4)))
    path = [(0, 0), (0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 4), (0, 4), (1, 4), (1, 3), (1, 4)]
    assert rollout.next_obs[:, 0, 0].tolist() == [[*cell] for cell in path]
    assert rollout.reward[:, 0, 0].tolist() == pytest.approx([-0.1] * 5 + [1.0] * 3 + [-0.1] * 3)
    # right, twice past the corner's wall, and the corner opposite the start
    far = play([RIGHT] * 6 + [UP] * 6 + [LEFT, RIGHT], goals((4, 4)))
    assert far.next_obs[[5, 11, 12, 13], 0, 0].tolist() == [[4, 0], [4, 4], [3, 4], [4, 4]]
    assert far.reward[9:, 0, 0].tolist() == pytest.approx([1.0, 1.0, 1.0, -0.1, 1.0])


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_is_the_same_twenty_one_goals(split: Any) -> None:
    tasks = make(NAME).sample_tasks(None, split, generator(0))
    assert [(int(x), int(y)) for x, y in tasks.params] == GOALS
    assert len(GOALS) == 21
    assert make(NAME).shared_splits


@pytest.mark.parametrize("goal", [{"goal_x": 2.5, "goal_y": 1}, {"goal_x": 5, "goal_y": 1}, {"goal_x": 3}])
def test_a_goal_is_a_cell(goal: dict[str, float]) -> None:
    with pytest.raises(TaskError, match="goal_"):
        named_tasks(make(NAME), [goal])


def test_the_floor_is_the_mean_over_all_sequences_of_actions() -> None:
    family = make(NAME)
    family.horizon = 4
    sequences = torch.tensor([*itertools.product(range(5), repeat=4)]).T[:, None]  # [T, 1, E]
    tasks = goals((0, 2), (2, 1), (0, 4), (4, 4))
    rollout = play(sequences.expand(-1, 4, -1), tasks, 5**4)
    torch.testing.assert_close(rollout.returns.mean(1), family.bounds(tasks).floor)
    # (0, 4) is reached by the last of four steps up and no other way: once in 5^4
    assert family.bounds(tasks).floor[2:].tolist() == pytest.approx([-0.4 + 1.1 / 625, -0.4])


def test_the_floor_is_what_chance_earns_in_a_whole_episode() -> None:
    actions = torch.randint(5, (15, 21, 4000), generator=generator(1))
    returns = play(actions, goals(), 4000).returns
    error = 5 * returns.std(1) / math.sqrt(4000)
    assert ((returns.mean(1) - make(NAME).bounds(goals()).floor).abs() < error).all()


def test_the_oracle_is_the_shortest_way() -> None:
    family = make(NAME)
    oracle = family.bounds(goals()).oracle
    ways = [([RIGHT] * x + [UP] * y + [STAY] * 15)[:15] for x, y in GOALS]
    torch.testing.assert_close(play(torch.tensor(ways).T[..., None], goals()).returns[:, 0], oracle)
    # at a distance d: d - 1 steps at -0.1, and 16 - d on the goal
    assert family.bounds(goals((0, 2), (4, 4))).oracle.tolist() == pytest.approx([13.9, 7.3])
    # who starts on the goal may stay there, and who starts beside it loses nothing
    assert family.bounds(goals((0, 0), (0, 1))).oracle.tolist() == pytest.approx([15.0, 15.0])


def test_a_restart_moves_the_marked_episodes_and_no_other() -> None:
    family: Any = make(NAME)
    tasks = goals((0, 2), (2, 0))
    family.reset(tasks, 2, generator(0))
    for _ in range(2):
        family.step(torch.full((2, 2), UP))
    marked = torch.tensor([[True, False], [False, False]])
    obs = family.restart(marked, tasks, generator(0))
    assert obs.tolist() == [[[0, 0], [0, 2]], [[0, 2], [0, 2]]]
    assert family.step(torch.full((2, 2), STAY)).reward[0].tolist() == pytest.approx([-0.1, 1.0])


def test_a_picture_shows_the_way_and_the_goal() -> None:
    paint = painter(make(NAME), 200, 200)
    way = torch.tensor([(0, 0), (1, 0), (2, 0), (2, 1)], dtype=torch.float32)
    with_goal, without = paint(way, torch.tensor([4.0, 4.0])), paint(way)
    rows, columns = np.nonzero((with_goal != without).any(-1))
    assert abs(rows.mean() - (100 - 4 * 200 / 9.6)) < 2  # up is up: a unit is 200 / (2.4 · 4) pixels
    assert abs(columns.mean() - (100 + 4 * 200 / 9.6)) < 2


# --- its Bayes-optimal policy


def agent(episodes: int = 4, seed: int = 0) -> Any:
    family, kind = make(NAME), solvers.GridNaviBayesOptimal
    config = kind.Config(episodes=episodes, horizon=15)
    return kind(family.observation_space, family.action_space, generator(seed), config)


def value_of(plan: Any, size: int, horizon: int, episodes: int) -> float:
    """The expected return of a trial: -0.1 a step, and 1.1 more on the goal."""
    return -0.1 * horizon * episodes + 1.1 * plan.visits / (size**2 - 4)


def exhaustive(size: int, horizon: int, episodes: int) -> float:
    """The optimum of the Bayes-adaptive MDP: any action in any belief, no idea of plans or of staying."""
    cells = [*itertools.product(range(size), repeat=2)]

    @cache
    def value(step: int, cell: tuple[int, int], possible: frozenset[tuple[int, int]]) -> float:
        if step == horizon * episodes:
            return 0.0
        x, y = cell if step % horizon else (0, 0)
        outcomes = []
        for dx, dy in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            new = min(max(x + dx, 0), size - 1), min(max(y + dy, 0), size - 1)
            p = 1 / len(possible) if new in possible else 0.0
            outcome = p * (1.0 + value(step + 1, new, frozenset([new]))) if p else 0.0
            if p < 1:
                outcome += (1 - p) * (-0.1 + value(step + 1, new, possible - {new}))
            outcomes.append(outcome)
        return max(outcomes)

    return value(0, (0, 0), frozenset(cell for cell in cells if max(cell) > 1))


@pytest.mark.parametrize(
    ("size", "horizon", "episodes"),
    [
        (3, 2, 1),
        (3, 2, 4),
        (3, 3, 3),
        (3, 4, 2),
        (3, 5, 1),
        (3, 6, 2),
        (3, 9, 3),
        (4, 4, 3),
        (4, 6, 2),
        (5, 5, 2),
    ],
)
def test_the_plan_is_worth_what_exhaustive_planning_finds(size: int, horizon: int, episodes: int) -> None:
    plan = solvers.best_plan(size, horizon, episodes)
    assert value_of(plan, size, horizon, episodes) == pytest.approx(
        exhaustive(size, horizon, episodes), abs=1e-9
    )


@pytest.mark.parametrize("horizon", [7, 10])
def test_no_bound_prunes_the_best_way(horizon: int) -> None:
    """The search that drops nothing, as all bounds are at least 0, finds as much."""
    grid = solvers.Grid(4)
    assert solvers.search(grid, horizon, 2, least=0).visits == solvers.best_plan(4, horizon, 2).visits


@pytest.mark.parametrize("episodes", [1, 2, 3, 4])
def test_what_is_earned_in_all_tasks_is_what_the_plan_promises(episodes: int) -> None:
    player, family = agent(episodes), make(NAME)
    trial = run_trial(family, player, goals(), [1] * episodes, generator(0))
    earned = sum(rollout.returns.double().mean().item() for rollout in trial.rounds)
    assert earned == pytest.approx(value_of(player.best, 5, 15, episodes), abs=1e-5)


def test_four_episodes_are_worth_the_known_optimum() -> None:
    # An episode finds at most 14 goals, by its steps 2 to 15, as its first step reaches none. They pay
    # 14 + 13 + ... + 1 = 105 times, which is -1.5 + 1.1 · 105 / 21 = 4. No later episode earns more than the
    # oracle, on average 232.5 / 21. So 4 + 3 · 232.5 / 21 cannot be beaten, and it is attained.
    family, player = make(NAME), agent(4)
    returns = [
        r.returns.mean().item() for r in run_trial(family, player, goals(), [1] * 4, generator(0)).rounds
    ]
    oracle = family.bounds(goals()).oracle.mean().item()
    assert oracle == pytest.approx(232.5 / 21)
    assert returns == pytest.approx([4.0, oracle, oracle, oracle], abs=1e-5)


def test_the_posterior_is_the_cells_that_were_not_seen_or_the_goal() -> None:
    family, player = make(NAME), agent(2)
    tasks = goals()
    belief, played, visited = player.begin(21, 1), list[Rollout](), [set[tuple[int, int]]() for _ in GOALS]
    for _ in range(2):
        step = opening(family, family.reset(tasks, 1, generator(0)), played)
        rollout, _ = collect(family, player, belief, step)
        for t in range(15):
            _, belief = player.act(belief, step, explore=True)
            for goal, seen, possible in zip(GOALS, visited, belief.possible[:, 0], strict=True):
                wanted = {goal} if goal in seen or len(seen) == 20 else {*GOALS} - seen
                assert {divmod(int(c), 5) for c in possible.nonzero()} == wanted
            for seen, cell in zip(visited, rollout.next_obs[t, :, 0].int().tolist(), strict=True):
                seen.update({(cell[0], cell[1])} & {*GOALS})
            zero = torch.zeros_like(rollout.reward[t])
            step = Step(rollout.next_obs[t], rollout.action[t], rollout.reward[t], zero)
        played.append(rollout)


def test_the_reward_of_an_episodes_last_step_is_learned_from_in_the_next() -> None:
    player = agent(2)
    belief = player.begin(1, 2)._replace(time=torch.full((1, 2), 15))
    step = Step(torch.zeros(1, 2, 2), torch.tensor([[UP, UP]]), torch.tensor([[1.0, -0.1]]), torch.ones(1, 2))
    act, after = player.act(belief, step, explore=False)
    assert after.possible[0, 0].nonzero().tolist() == [[1]], "the cell (0, 1), from where it was before"
    assert act.action[0, 0] == UP, "it goes where it was paid"
    assert after.possible[0, 1].sum() == 21
    assert act.action[0, 1] == player.plan[15], "it goes on by the plan"


def test_a_known_goal_is_reached_by_a_shortest_way_from_anywhere() -> None:
    player = agent()
    cells = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    start, goal = (x.reshape(-1, 2) for x in torch.broadcast_tensors(cells[:, None], cells))
    known = torch.nn.functional.one_hot((goal[:, 0] * 5 + goal[:, 1]).long(), 25).bool()[:, None]
    distance, position = (start - goal).abs().sum(-1), start
    zero = torch.zeros(625, 1)
    for t in range(9):
        assert torch.equal((position - goal).abs().sum(-1), (distance - t).clamp(min=0))
        belief = player.begin(625, 1)._replace(possible=known)
        act, _ = player.act(belief, Step(position[:, None], zero.long(), zero, zero), explore=False)
        move = torch.tensor([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
        position = position + move[act.action[:, 0]]


def test_a_goal_where_none_should_be_is_recognised_all_the_same() -> None:
    family, player = make(NAME), agent(3)
    tasks = goals((0, 1), (1, 0))  # next to the start: one of the two is on the plan's way
    last = run_trial(family, player, tasks, [1] * 3, generator(0)).rounds[-1].returns[:, 0]
    assert torch.isclose(last, family.bounds(tasks).oracle).any()


def test_it_keeps_the_promises_of_an_agent_and_draws_nothing() -> None:
    player, family = agent(), make(NAME)
    before = player.rng.get_state()
    rollout = run_trial(family, player, goals((0, 2), (3, 1), (4, 4)), [4], generator(0)).rounds[0]
    check._check_act(player, family, rollout)
    check._check_adapt(player, rollout)
    check._check_isolation(player, rollout)
    assert not player.state_dict(), "there is nothing to be trained, and to be saved"
    trials = [run_trial(make(NAME), p, goals(), [2] * 4, generator(0)) for p in (player, agent(seed=1))]
    for one, other in zip(*(trial.rounds for trial in trials), strict=True):
        assert torch.equal(one.action, other.action)
        assert torch.equal(one.action[:, :, 0], one.action[:, :, 1]), "episodes side by side know the same"
    assert torch.equal(player.rng.get_state(), before)


@pytest.mark.parametrize("rounds", [(1, 1), (1, 1, 1, 2), (1,) * 5])
def test_it_plays_the_trial_that_was_planned_for(rounds: tuple[int, ...]) -> None:
    agent().check_rounds((3, 3, 3, 3))
    with pytest.raises(ConfigError, match="rounds is"):
        agent().check_rounds(rounds)


def test_it_refuses_what_is_no_grid() -> None:
    other, family = make("navigation/maml2017"), make(NAME)
    with pytest.raises(ConfigError, match=r"^the spaces are Box\(-10\.1.*; allowed: the cells"):
        solvers.GridNaviBayesOptimal(other.observation_space, family.action_space, generator(0))
