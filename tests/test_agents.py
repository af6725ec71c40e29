"""What every agent promises, and that the check of it finds agents that break their word."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import Act, Rollout, Step, Trial, generator
from metarl.agents import AGENTS, FEW_SHOT, MamlTrpo, check_agent
from metarl.envs import make

CHEAP = ("navigation/pearl2019", "navigation/maml2017")
ACTING = sorted({*AGENTS} - {*FEW_SHOT})  # those that answer have tests of their own


def small(kind: str, family: Any, rng: Any = None) -> Any:
    """An agent of that kind, with few gradient steps where it would take thousands."""
    agent = AGENTS[kind]
    few = {"gradient_steps": 2, "batch_size": 4, "hidden": (8,), "replay_capacity": 400}
    config = agent.Config(**few if hasattr(agent.Config, "gradient_steps") else {})
    return agent(family.observation_space, family.action_space, rng or generator(0), config)


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("kind", ACTING)
def test_every_agent_keeps_its_promises(kind: str, name: str) -> None:
    family = make(name)
    check_agent(small(kind, family), family)


@pytest.mark.parametrize("kind", ACTING)
def test_a_check_leaves_the_agent_as_it_was(kind: str) -> None:
    family, rng = make(CHEAP[0]), generator(0)
    agent = small(kind, family, rng)
    before, state = {k: v.clone() for k, v in agent.state_dict().items()}, rng.get_state()
    check_agent(agent, family)
    assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
    assert torch.equal(rng.get_state(), state)


# --- agents that break a promise, each in one way


class Sound(MamlTrpo):
    """A small agent; its subclasses break a promise each."""

    def __init__(self) -> None:
        family = make(CHEAP[0])
        config = MamlTrpo.Config(hidden=(8,))
        super().__init__(family.observation_space, family.action_space, generator(0), config)


class InnerStepIsScaledByTheMetaBatch(Sound):
    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        new = super().adapt(belief, rollout)
        step = (new.params - belief.params) / len(new.params)
        return new._replace(params=belief.params + step)


class TasksShareTheirGradient(Sound):
    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        new = super().adapt(belief, rollout)
        return new._replace(params=new.params.mean(0).expand_as(new.params))


class AdaptationMovesTheMetaParameters(Sound):
    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        new = super().adapt(belief, rollout)
        self.meta_parameters = new.params[0]
        return new


class AdaptationWritesIntoTheBelief(Sound):
    def begin(self, tasks: int, episodes: int) -> Any:
        belief = super().begin(tasks, episodes)
        return belief._replace(params=belief.params.clone())

    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        belief.params.copy_(super().adapt(belief, rollout).params)
        return belief


class ActingKeepsSomethingBesideTheBelief(Sound):
    calls = 0

    def act(self, belief: Any, step: Step, explore: bool = True) -> tuple[Act, Any]:
        self.calls += 1
        act, belief = super().act(belief, step, explore)
        return act._replace(action=act.action + self.calls), belief


class NoiseIsGlobal(Sound):
    def act(self, belief: Any, step: Step, explore: bool = True) -> tuple[Act, Any]:
        act, belief = super().act(belief, step, False)
        return act._replace(action=act.action + explore * torch.randn_like(act.action)), belief


class ADrawIsGlobal(Sound):
    def meta_update(self, trial: Trial) -> dict[str, float]:
        np.random.rand()  # noqa: NPY002
        return super().meta_update(trial)


class AxesAreSwapped(Sound):
    def act(self, belief: Any, step: Step, explore: bool = True) -> tuple[Act, Any]:
        act, belief = super().act(belief, step, explore)
        return act._replace(log_prob=act.log_prob.mT), belief


class NothingIsLearned(Sound):
    def meta_update(self, trial: Trial) -> dict[str, float]:
        return {}


class MetricsAreTensors(Sound):
    def meta_update(self, trial: Trial) -> dict[str, Any]:
        return {**super().meta_update(trial), "loss": torch.zeros(())}


class MetricsAreNotNumbers(Sound):
    def meta_update(self, trial: Trial) -> dict[str, float]:
        return {**super().meta_update(trial), "loss": float("nan")}


class ParametersBecomeNan(Sound):
    def meta_update(self, trial: Trial) -> dict[str, float]:
        metrics = super().meta_update(trial)
        self.meta_parameters = self.meta_parameters * torch.nan
        return metrics


class SomethingLearnedIsNotSaved(Sound):
    offset = 0.0

    def act(self, belief: Any, step: Step, explore: bool = True) -> tuple[Act, Any]:
        act, belief = super().act(belief, step, explore)
        return act._replace(action=act.action + self.offset), belief

    def meta_update(self, trial: Trial) -> dict[str, float]:
        self.offset += 1
        return super().meta_update(trial)


BROKEN: dict[type[Sound], str] = {
    InnerStepIsScaledByTheMetaBatch: "depends on how many there are",
    TasksShareTheirGradient: "depends on the tasks beside it",
    AdaptationMovesTheMetaParameters: "changes the meta-parameters",
    AdaptationWritesIntoTheBelief: "writes into the belief",
    ActingKeepsSomethingBesideTheBelief: "the same action",
    NoiseIsGlobal: "the same action",
    ADrawIsGlobal: "a global generator was used",
    AxesAreSwapped: r"log_prob is \[4, 3\]; wanted: \[3, 4\]",
    NothingIsLearned: "meta_update changes nothing",
    MetricsAreTensors: r"loss = tensor\(0\.\); wanted: a finite float",
    MetricsAreNotNumbers: "loss = nan; wanted: a finite float",
    ParametersBecomeNan: "numbers that are not finite",
    SomethingLearnedIsNotSaved: "once it is saved and loaded",
}


def test_the_agent_that_the_broken_ones_are_made_of_is_sound() -> None:
    check_agent(Sound(), make(CHEAP[0]))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda c: c.__name__)
def test_an_agent_that_breaks_a_promise_is_found(broken: type[Sound]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_agent(broken(), make(CHEAP[0]))


def test_an_agent_with_a_belief_that_moves_in_act_can_keep_the_promises() -> None:
    check_agent(Running(make(CHEAP[0]).observation_space), make(CHEAP[0]))


class Running(torch.nn.Module):
    """A recurrent agent in short: its belief is a running mean of rewards, [N, E, 1]."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__()
        self.rng = generator(0)
        self.weight = torch.nn.Parameter(torch.randn(1, 2, generator=self.rng))

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Any will do."""

    def begin(self, tasks: int, episodes: int) -> Tensor:
        return torch.zeros(tasks, episodes, 1)

    def act(self, belief: Tensor, step: Step, explore: bool) -> tuple[Act, Tensor]:
        belief = 0.9 * belief + 0.1 * step.reward[..., None]
        action = belief @ self.weight
        zero = torch.zeros_like(step.reward)
        return Act(action + explore * torch.randn(action.shape, generator=self.rng), zero, zero), belief

    def adapt(self, belief: Tensor, rollout: Rollout) -> Tensor:
        return belief

    def meta_update(self, trial: Trial) -> dict[str, float]:
        with torch.no_grad():
            self.weight.add_(0.1)
        return {"weight": self.weight.mean().item()}
