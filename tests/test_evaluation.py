"""Evaluation, on a world so simple that controls and totals can be worked out by hand."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import metarl
from metarl import Act, Bounds, Evaluation, Outcome, Rollout, Split, Step, Tasks, evaluate, statistics
from metarl.agents import MamlTrpo
from metarl.envs import make
from metarl.evaluation import SHORT, rolled, shown, totals, unit

PLACES = (1.0, 2.0, 5.0, 9.0)


class Guess:
    """Two steps; each costs the distance from the action to the task's number, which observations show."""

    name, summary, horizon = "guess", "a number to be remembered", 2
    shared_splits, published, task_space = True, (), ()
    device = torch.device("cpu")
    observation_space = gym.spaces.Box(0, 9, (1,))
    action_space = gym.spaces.Box(-9, 9, (1,))

    def __init__(self, *numbers: float, luck: float = 0.0) -> None:
        self.numbers, self.luck = torch.tensor(numbers)[:, None], luck

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        return Tasks(self.numbers, torch.arange(len(self.numbers)))

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        self.place = tasks.params.expand(-1, episodes)
        self.bonus = self.luck * torch.rand(self.place.shape, generator=rng)
        return self.place[..., None]

    def step(self, action: Tensor) -> Outcome:
        reward = self.bonus - (action[..., 0] - self.place).abs()
        return Outcome(self.place[..., None], reward, torch.zeros_like(reward).bool(), reward)

    def bounds(self, tasks: Tasks) -> Bounds:
        floor = -2 * tasks.params[:, 0]
        return Bounds(floor, torch.zeros_like(floor))


class Belief(NamedTuple):
    numbers: Tensor  # [N, 1]
    rounds: int


class Recaller(torch.nn.Module):
    """Says the number that it was shown in the rounds before; writes down what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.explored: list[bool] = []

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Any will do."""

    def begin(self, tasks: int, episodes: int) -> Any:
        return Belief(torch.zeros(tasks, 1), 0)

    def act(self, belief: Any, step: Step, explore: bool) -> tuple[Act, Any]:
        self.steps.append(step)
        self.explored.append(explore)
        action = belief.numbers.expand(-1, step.reward.shape[1])[..., None]
        return Act(action, torch.zeros_like(step.reward), torch.zeros_like(step.reward)), belief

    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        return Belief(rollout.obs[0, :, 0], belief.rounds + 1)

    def meta_update(self, trial: Any) -> dict[str, float]:
        return {}


class Dice(Recaller):
    """Remembers nothing: its belief is None, its actions are noise."""

    def __init__(self, rng: Generator) -> None:
        super().__init__()
        self.rng = rng

    def begin(self, tasks: int, episodes: int) -> Any:
        return None

    def act(self, belief: Any, step: Step, explore: bool) -> tuple[Act, Any]:
        action = torch.randn(*step.reward.shape, 1, generator=self.rng)
        return Act(action, torch.zeros_like(step.reward), torch.zeros_like(step.reward)), belief

    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        return belief


def judged(*numbers: float, rounds: tuple[int, ...] = (2, 3), **how: Any) -> tuple[Recaller, Evaluation]:
    agent = Recaller()
    return agent, evaluate(Guess(*numbers), agent, metarl.generator(0), rounds=rounds, **how)


def maml(rng: Generator) -> MamlTrpo:
    family = make("navigation/pearl2019")
    return MamlTrpo(family.observation_space, family.action_space, rng, MamlTrpo.Config(hidden=(8,)))


# --- controls


def test_another_tasks_memory_and_none_by_hand() -> None:
    _, found = judged(*PLACES)
    assert [r[:, 0].tolist() for r in found.returns] == [[-2, -4, -10, -18], [0, 0, 0, 0]]
    assert found.shuffled is not None
    assert found.wiped is not None
    # half the pool away: 1 and 5 change places, and so do 2 and 9; two steps each
    assert found.shuffled.tolist() == [[-8] * 3, [-14] * 3, [-8] * 3, [-14] * 3]
    assert found.wiped.tolist() == [[-2] * 3, [-4] * 3, [-10] * 3, [-18] * 3]
    assert {name: s.tolist() for name, s in found.controls.items()} == {
        "shuffled": [-8, -14, -8, -14],
        "wiped": [-2, -4, -10, -18],
    }


def test_the_opening_of_a_round_is_another_tasks_too_and_blank_where_memory_is_wiped() -> None:
    agent, _ = judged(*PLACES, rounds=(2, 2))
    real, wiped, shuffled = agent.steps[2], agent.steps[4], agent.steps[6]
    assert [s.obs[:, 0, 0].tolist() for s in (real, wiped, shuffled)] == [[*PLACES]] * 3
    assert real.reward[:, 0].tolist() == [-1, -2, -5, -9]
    assert shuffled.reward[:, 0].tolist() == [-5, -9, -1, -2]
    assert shuffled.done.all()
    assert not any(x.any() for x in wiped[1:])


@pytest.mark.parametrize("shared", [True, False], ids=["one generator", "two"])
def test_controls_change_neither_the_trial_nor_what_is_drawn_after_it(shared: bool) -> None:
    family, found, after = make("navigation/pearl2019"), [], []
    for controls in False, True:
        rng = metarl.generator(3)
        own = rng if shared else metarl.generator(4)
        found.append(evaluate(family, maml(own), rng, rounds=(3, 3, 3), controls=controls))
        after.append(torch.cat([rng.get_state(), own.get_state()]))
    without, played = found
    assert all(torch.equal(a, b) for a, b in zip(without.returns, played.returns, strict=True))
    assert torch.equal(*after)
    assert (without.shuffled, without.wiped) == (None, None)
    assert played.shuffled is not None


def test_an_agent_that_remembers_nothing_loses_nothing() -> None:
    dice = Dice(metarl.generator(1))
    found = evaluate(Guess(*PLACES, luck=3.0), dice, metarl.generator(2), rounds=(5, 5))
    assert found.shuffled is not None
    assert found.wiped is not None
    assert torch.equal(found.wiped, found.returns[1])
    assert torch.equal(found.shuffled, found.returns[1])


def test_controls_explore_as_the_last_round_does() -> None:
    assert judged(*PLACES, greedy_last=True)[0].explored == [True] * 2 + [False] * 6
    assert judged(*PLACES)[0].explored == [True] * 8


def test_there_is_no_control_where_there_is_nothing_to_compare() -> None:
    _, once = judged(*PLACES, rounds=(2,))
    assert (once.shuffled, once.wiped) == (None, None)
    assert once.summary()["controls"] == {}
    _, alone = judged(4.0)
    assert alone.shuffled is None
    assert alone.wiped is not None
    assert alone.wiped.tolist() == [[-8] * 3]


def test_only_what_belongs_to_tasks_is_moved() -> None:
    of_tasks, shared = torch.arange(8.0).view(4, 2), torch.arange(3.0)
    belief = (Belief(of_tasks, 7), {"a": [of_tasks[:, 0], shared]}, None)
    (named, kept), moved, nothing = rolled(belief, 4)
    assert named.tolist() == [[4, 5], [6, 7], [0, 1], [2, 3]]
    assert (kept, nothing) == (7, None)
    assert moved["a"][0].tolist() == [4, 6, 0, 2]
    assert moved["a"][1] is shared
    assert isinstance(rolled(belief[0], 4), Belief)
    assert of_tasks[0].tolist() == [0, 1], "the belief itself is not touched"


def test_a_control_in_which_the_agent_diverges_scores_the_floor() -> None:
    _, found = judged(*PLACES)
    assert found.wiped is not None
    wiped = found.wiped.clone()
    wiped[2, 1] = torch.nan
    assert found._replace(wiped=wiped).controls["wiped"].tolist() == [-2, -4, -10, -18]
    assert found._replace(wiped=wiped).diverged == 0, "which counts the agent's own rounds"


# --- what it sums up to


def test_a_summary_of_a_short_trial_is_complete() -> None:
    _, found = judged(*PLACES, rounds=(2, 3, 2))
    summary = found.summary()
    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    assert summary["rounds"] == [statistics.summary(scores[None]) for scores in found.scores]
    assert summary["controls"] == {name: statistics.summary(s[None]) for name, s in found.controls.items()}
    assert summary["total"] == statistics.summary(np.array([[-2.0, -4, -10, -18]]))
    assert [(t["rounds"], t["mean"]) for t in summary["totals"]] == [(3, -8.5)]
    assert summary["unit"] == "adaptations"


def test_totals_are_sums_of_the_first_rounds() -> None:
    scores = np.arange(1.0, 31.0)[:, None, None] * np.ones((1, 2, 5))  # round k + 1 earns k + 1
    found = totals(scores)
    assert [t["rounds"] for t in found] == [10, 25, 30]
    assert [t["mean"] for t in found] == pytest.approx([55, 325, 465])
    assert [t["rounds"] for t in totals(scores[:10])] == [10]


def test_all_rounds_of_a_long_trial_have_the_interval_of_a_short_one() -> None:
    scores = np.random.default_rng(5).normal(3.0, 2.0, (9, 1, 40))
    found = statistics.summaries(scores, shown(9))
    for k, r in enumerate(found):
        whole = statistics.summary(scores[k])
        if k in shown(9):
            assert r == whole
        else:
            assert r["ci95"] == pytest.approx(whole["ci95"])
            assert r == {key: pytest.approx(whole[key]) for key in ("mean", "iqm", "ci95", "cvar5")}
    assert len(found) > len(shown(9))


def test_rounds_of_several_runs_have_students_interval() -> None:
    scores = np.random.default_rng(6).normal(size=(8, 3, 20))
    found = statistics.summaries(scores, ())
    assert [r["ci95"] for r in found] == [statistics.summary(x)["ci95"] for x in scores]


@pytest.mark.parametrize("rounds", [1, 4, 6, 7, 10, 11, 25, 100, 500, 10_000])
def test_a_table_has_room_for_what_is_shown(rounds: int) -> None:
    told = shown(rounds)
    assert told[0] == 0
    assert told[-1] == rounds - 1
    assert told == sorted(set(told))
    assert len(told) <= SHORT
    assert told == [*range(rounds)] if rounds <= SHORT else told[1] == 1


def test_what_is_counted_between_rounds_is_true_of_the_agent() -> None:
    class Recurrent(Recaller):
        unit = "episodes"

    assert unit(Recaller(), [1, 1, 1]) == "episodes"
    assert unit(Recaller(), [2, 1]) == "adaptations"
    assert unit(Recurrent(), [2, 2]) == "episodes"  # one memory an episode: each has seen k of them
    found = evaluate(Guess(*PLACES), Recurrent(), metarl.generator(0), rounds=(2, 2))
    assert found.summary()["unit"] == "episodes"
    assert "after 1 episodes" in str(found)


def test_it_reads_as_a_curve_with_its_controls() -> None:
    lines = str(judged(*PLACES)[1]).splitlines()
    assert lines[0] == "guess, test split, 4 tasks"
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        "after 0 adaptations",
        "after 1 adaptations",
        "last round, another task's memory",
        "last round, memory wiped",
    ]
    long = str(judged(*PLACES, rounds=(1,) * 30)[1])
    assert "after 29 episodes:" in long
    assert "all 30 rounds together:     -8.50" in long
    assert len(long.splitlines()) == 1 + SHORT + 2 + 1 + 1
