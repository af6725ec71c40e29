"""The loop on a world of integers, so that every number can be worked out by hand."""

import random
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from metarl import (
    Act,
    Bounds,
    ConfigError,
    Outcome,
    Rollout,
    Split,
    Step,
    TaskParameter,
    Tasks,
    Trial,
    collect,
    generator,
    opening,
    run_trial,
    train,
)
from metarl.agents import MamlTrpo
from metarl.envs import make


class Clock:
    """Four steps; the observation is the time, the reward 10 · action + time, and task n ends at time n."""

    name, summary, horizon = "clock", "a clock that stops", 4
    shared_splits, published = True, ()
    device = torch.device("cpu")
    observation_space = gym.spaces.Box(0, 5, (1,))
    action_space = gym.spaces.Box(-9, 9, (1,))
    task_space = (TaskParameter("end", "steps", 1, 9, 1, 9),)

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        return tasks(*[9] * (n or 1))

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        self.time, self.end = 0, tasks.params.expand(-1, episodes)
        return self.observe()

    def step(self, action: Tensor) -> Outcome:
        self.time += 1
        reward = 10 * action[..., 0] + self.time
        return Outcome(self.observe(), reward, self.end == self.time, reward + 0.5)

    def observe(self) -> Tensor:
        return torch.full((*self.end.shape, 1), float(self.time))

    def bounds(self, tasks: Tasks) -> Bounds:
        raise NotImplementedError


class Diary(torch.nn.Module):
    """Acts by how often it has acted since its last adaptation, and writes down all that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.explored: list[bool] = []
        self.adapted: list[Rollout] = []
        self.updated: list[Trial] = []

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Any will do."""

    def begin(self, tasks: int, episodes: int) -> int:
        self.begun = tasks, episodes
        return 1

    def act(self, belief: int, step: Step, explore: bool) -> tuple[Act, int]:
        self.steps.append(step)
        self.explored.append(explore)
        value = torch.full_like(step.reward, float(belief))
        return Act(value[..., None], -value, 2 * value), belief + 1

    def adapt(self, belief: int, rollout: Rollout) -> int:
        self.adapted.append(rollout)
        return 1

    def meta_update(self, trial: Trial) -> dict[str, float]:
        self.updated.append(trial)
        return {"updates": float(len(self.updated))}


def tasks(*ends: int) -> Tasks:
    return Tasks(torch.tensor(ends, dtype=torch.float32)[:, None], torch.arange(len(ends)))


def played(rounds: tuple[int, ...], *ends: int, greedy_last: bool = False) -> tuple[Diary, Trial]:
    diary = Diary()
    return diary, run_trial(Clock(), diary, tasks(*ends), rounds, generator(0), greedy_last)


def column(x: Tensor, task: int = 0) -> list[Any]:
    """A quantity over time, [T], in the first episode of a task."""
    return x[:, task, 0].tolist()


def test_a_round_holds_what_was_seen_done_and_earned() -> None:
    rollout = played((2,), 9, 9, 9)[1].rounds[0]
    assert rollout.obs.shape == rollout.next_obs.shape == rollout.action.shape == (4, 3, 2, 1)
    assert rollout.reward.shape == rollout.terminated.shape == rollout.log_prob.shape == (4, 3, 2)
    assert column(rollout.obs[..., 0]) == [0, 1, 2, 3]
    assert column(rollout.next_obs[..., 0]) == [1, 2, 3, 4]
    assert column(rollout.action[..., 0]) == [1, 2, 3, 4]  # the belief moves at each step
    assert column(rollout.reward) == [11, 22, 33, 44]
    assert column(rollout.target) == [11.5, 22.5, 33.5, 44.5]
    assert column(rollout.log_prob) == [-1, -2, -3, -4]
    assert column(rollout.value) == [2, 4, 6, 8]
    assert not rollout.terminated.any()


def test_nothing_is_earned_after_an_end_and_an_end_lasts() -> None:
    rollout = played((1,), 1, 3, 9)[1].rounds[0]
    assert column(rollout.terminated, 0) == [True] * 4
    assert column(rollout.reward, 0) == [11, 0, 0, 0]
    assert column(rollout.terminated, 1) == [False, False, True, True]
    assert column(rollout.reward, 1) == [11, 22, 33, 0]
    assert column(rollout.valid, 0) == [True, False, False, False]
    assert column(rollout.valid, 1) == [True, True, True, False]  # with the step that ended it
    assert column(rollout.valid, 2) == [True] * 4
    assert rollout.returns[:, 0].tolist() == [11, 66, 110]


def test_an_agent_sees_its_last_action_and_reward_and_whether_the_episode_ended() -> None:
    diary, _ = played((1,), 2)
    assert [s.obs.item() for s in diary.steps] == [0, 1, 2, 3]
    assert [s.action.item() for s in diary.steps] == [0, 1, 2, 3]
    assert [s.reward.item() for s in diary.steps] == [0, 11, 22, 0]
    assert [s.done.item() for s in diary.steps] == [0, 0, 1, 1]


def test_a_round_opens_on_the_last_step_of_the_one_before() -> None:
    diary, _ = played((2, 2), 9, 4)
    first, second = diary.steps[0], diary.steps[4]
    assert not first.action.any()
    assert not first.reward.any()
    assert not first.done.any()
    assert second.obs.unique().tolist() == [0]
    assert second.action.unique().tolist() == [4]
    assert second.reward.unique().tolist() == [44]  # the last reward of an episode is not lost
    assert second.done.unique().tolist() == [1]


def test_it_opens_on_zeros_where_the_number_of_episodes_changes() -> None:
    diary, _ = played((2, 3, 3), 9)
    between, equal = diary.steps[4], diary.steps[8]
    assert between.action.shape == (1, 3, 1)
    assert not between.action.any()
    assert not between.reward.any()
    assert not between.done.any()
    assert equal.done.all()


def test_an_opening_without_a_past_is_zeros() -> None:
    obs = torch.ones(2, 3, 1)
    step = opening(Clock(), obs, [])
    assert step.obs is obs
    assert [tuple(x.shape) for x in step[1:]] == [(2, 3, 1), (2, 3), (2, 3)]
    assert not any(x.any() for x in step[1:])


def test_adaptation_lies_between_the_rounds_and_reads_the_one_before() -> None:
    diary, trial = played((2, 2, 1), 9, 9)
    assert diary.begun == (2, 2)
    assert len(trial.rounds) == 3
    assert [r.reward.shape[2] for r in trial.rounds] == [2, 2, 1]
    assert len(diary.adapted) == 2
    assert all(a is r for a, r in zip(diary.adapted, trial.rounds, strict=False))
    # the belief of Diary counts from 1 again after an adaptation
    assert [column(r.action[..., 0]) for r in trial.rounds] == [[1, 2, 3, 4]] * 3


def test_only_the_last_round_is_greedy_and_only_if_asked() -> None:
    assert played((1, 1), 9)[0].explored == [True] * 8
    assert played((1, 1), 9, greedy_last=True)[0].explored == [True] * 4 + [False] * 4


def test_collecting_records_no_gradient() -> None:
    class Weight(Diary):
        def act(self, belief: int, step: Step, explore: bool) -> tuple[Act, int]:
            act, belief = super().act(belief, step, explore)
            return act._replace(action=act.action * torch.ones(1, requires_grad=True)), belief

    clock = Clock()
    rollout, _ = collect(clock, Weight(), 1, opening(clock, clock.reset(tasks(9), 1, generator(0)), []))
    assert not any(x.requires_grad for x in rollout)


def test_valid_and_returns_on_numbers() -> None:
    ended = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]]).bool()[:, :, None]  # [T, N, 1]
    reward = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0], [6.0, 0.0, 0.0]])[:, :, None]
    rollout = Rollout(reward, reward, reward, ended, reward, reward, reward, reward)
    assert rollout.valid[:, :, 0].tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert rollout.returns[:, 0].tolist() == [11, 7, 3]


def test_training_reports_each_iteration_and_tells_when_it_is_complete() -> None:
    diary, told = Diary(), list[tuple[int, int, float]]()
    history = train(
        Clock(),
        diary,
        generator(0),
        iterations=3,
        rounds=(2, 1),
        meta_batch_size=5,
        after=lambda i, trial, metrics: told.append((i, len(diary.updated), metrics["updates"])),
    )
    assert history == [{"return_0": 110, "return_1": 110, "updates": k} for k in (1, 2, 3)]
    assert told == [(0, 1, 1), (1, 2, 2), (2, 3, 3)]
    assert all(len(trial.tasks.ids) == 5 for trial in diary.updated)


def small_agent(rng: Generator) -> MamlTrpo:
    family = make("navigation/pearl2019")
    return MamlTrpo(family.observation_space, family.action_space, rng, MamlTrpo.Config(hidden=(8,)))


def curve(agent: MamlTrpo, rng: Generator, iterations: int, start: int = 0) -> list[dict[str, float]]:
    family = make("navigation/pearl2019")
    return train(family, agent, rng, iterations=iterations, rounds=(3, 3), meta_batch_size=3, start=start)


def test_training_goes_on_where_it_stopped() -> None:
    rng = generator(0)
    agent = small_agent(rng)
    parts = curve(agent, rng, 2) + curve(agent, rng, 4, start=2)
    rng = generator(0)
    assert parts == curve(small_agent(rng), rng, 4)
    assert len({m["return_0"] for m in parts}) == 4


def test_a_seed_decides_training_and_another_seed_another() -> None:
    curves = []
    for seed in 0, 0, 1:
        rng = generator(seed)
        curves.append(curve(small_agent(rng), rng, 2))
    assert curves[0] == curves[1] != curves[2]


def test_training_draws_from_no_global_generator() -> None:
    def states() -> list[Any]:
        np_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
        return [random.getstate(), np_state["key"].tolist(), np_state["pos"], torch.get_rng_state().tolist()]

    before, rng = states(), generator(0)
    curve(small_agent(rng), rng, 2)
    assert states() == before


@pytest.mark.parametrize("iterations", [0, -1])
def test_training_for_no_iteration_is_refused(iterations: int) -> None:
    with pytest.raises(ConfigError, match=f"^iterations is {iterations}; allowed: 1 or more$"):
        train(Clock(), Diary(), generator(0), iterations=iterations)
