"""What every agent promises, as one function: `check_agent`, for ours and for yours."""

import io
import math
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor

from metarl import Agent, Family, Rollout, Step, Trial, delayed, generator, run_trial
from metarl.promises import global_generators, require, same

TASKS, EPISODES = 3, 4  # of every round played here; different, so that swapped axes show
TOLERANCE = 1e-5  # between actions that only rounding may part


def check_agent(agent: Agent[Any], family: Family) -> None:
    """Raise an AssertionError that says which promise the agent breaks; the agent itself stays as it is.

    Needs a family whose rewards are not all zero, or there is nothing to learn from.
    """
    before, rng = global_generators(), generator(0, family.device)
    tasks = family.sample_tasks(TASKS, "train", rng)
    trial = run_trial(family, deepcopy(agent), tasks, (EPISODES, EPISODES), rng)
    with torch.no_grad():
        _check_act(agent, family, trial.rounds[0])
        _check_adapt(agent, trial.rounds[0])
        _check_isolation(agent, trial.rounds[0])
    _check_update(agent, trial)
    _check_saving(agent, trial)
    require(before == global_generators(), "a global generator was used: draw from the one that is passed")


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)


# --- an agent that looks on while others play


def _generators(agent: Agent[Any]) -> list[Generator]:
    return [x for x in vars(agent).values() if isinstance(x, Generator)]


def _states(agent: Agent[Any]) -> list[Tensor]:
    return [g.get_state() for g in _generators(agent)]


def _rewind(agent: Agent[Any], states: list[Tensor]) -> None:
    for rng, state in zip(_generators(agent), states, strict=True):
        rng.set_state(state)


def _learned(agent: Agent[Any]) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in agent.state_dict().items()}


def _tasks(rollout: Rollout, *places: int) -> Rollout:
    """What was played in some of the tasks."""
    return Rollout(*(x[:, [*places]] for x in rollout))


def _watch(agent: Agent[Any], rollout: Rollout) -> Any:
    """The belief of an agent that saw every step of a round: a recurrent one's has moved."""
    belief = agent.begin(*rollout.reward.shape[1:])
    for step in _seen(rollout):
        _, belief = agent.act(belief, step, explore=False)
    return belief


def _seen(rollout: Rollout) -> list[Step]:
    """What an agent saw before each of a round's actions."""
    done = rollout.terminated.to(rollout.reward.dtype)
    before = map(delayed, (rollout.action, rollout.reward, done))
    return [Step(*x) for x in zip(rollout.obs, *before, strict=True)]


def _answers(agent: Agent[Any], belief: Any, rollout: Rollout) -> Tensor:
    """The actions without exploration at each of a round's steps, all by one belief, [T, N, E, ...]."""
    return torch.stack([agent.act(belief, step, explore=False)[0].action for step in _seen(rollout)])


def _adapted(agent: Agent[Any], rollout: Rollout) -> Tensor:
    """The answers of an agent that has watched a round and adapted to it."""
    return _answers(agent, agent.adapt(_watch(agent, rollout), rollout), rollout)


# --- the promises


def _check_act(agent: Agent[Any], family: Family, rollout: Rollout) -> None:
    """Shapes, types and devices; and an action follows from belief, step and generator alone."""
    player, step = deepcopy(agent), _seen(rollout)[-1]
    batch = tuple(step.reward.shape)
    belief = player.begin(*batch)
    for explore in (False, True):
        states = _states(player)
        act, _ = player.act(belief, step, explore)
        _rewind(player, states)
        again, _ = player.act(belief, step, explore)
        require(same(act, again), "the same belief, step and generator state have to give the same action")
        for name, x in zip(act._fields, act, strict=True):
            shape = batch + family.action_space.shape if name == "action" else batch
            require(x.shape == shape, f"{name} is {[*x.shape]}; wanted: {[*shape]} for N, E = {[*batch]}")
            require(x.isfinite().all(), f"{name} is not finite")
            like = step.action if name == "action" else step.reward
            wanted = (like.dtype, like.device)
            require((x.dtype, x.device) == wanted, f"{name} is {x.dtype} on {x.device}; wanted: {wanted}")


def _check_adapt(agent: Agent[Any], rollout: Rollout) -> None:
    """Adaptation makes a new belief: the agent and the old belief stay as they are."""
    learner, before = deepcopy(agent), _learned(agent)
    belief, states = _watch(learner, rollout), _states(learner)
    old = _answers(learner, belief, rollout)
    learner.adapt(belief, rollout)
    _rewind(learner, states)
    require(same([old], [_answers(learner, belief, rollout)]), "adapt writes into the belief it is given")
    require(same(before.values(), _learned(learner).values()), "act or adapt changes the meta-parameters")


def _check_isolation(agent: Agent[Any], rollout: Rollout) -> None:
    """What is learned of a task depends neither on the tasks beside it nor on their number."""
    learner = deepcopy(agent)
    whole = _adapted(learner, rollout)
    crowd = _adapted(deepcopy(agent), _tasks(rollout, 0, *[TASKS - 1] * (TASKS - 1)))
    require(_close(whole[:, 0], crowd[:, 0]), "what is learned of a task depends on the tasks beside it")
    if same(_states(agent), _states(learner)):  # else a draw for one task is not the draw for many
        alone = _adapted(deepcopy(agent), _tasks(rollout, 0))
        require(_close(whole[:, :1], alone), "what is learned of a task depends on how many there are")


def _check_update(agent: Agent[Any], trial: Trial) -> None:
    """A meta-update says in numbers what it did, and does something, unless there is nothing to learn."""
    learner, before = deepcopy(agent), _learned(agent)
    metrics = learner.meta_update(trial)
    for name, x in metrics.items():
        good = isinstance(x, float) and math.isfinite(x)
        require(good, f"meta_update reports {name} = {x!r}; wanted: a finite float")
    after = _learned(learner)
    require(all(x.isfinite().all() for x in after.values()), "meta_update leaves numbers that are not finite")
    idle = before and same(before.values(), after.values())
    require(not idle, "meta_update changes nothing in state_dict")


def _check_saving(agent: Agent[Any], trial: Trial) -> None:
    """All that was learned is in state_dict, and passes through a file."""
    learner, other, file = deepcopy(agent), deepcopy(agent), io.BytesIO()
    learner.meta_update(trial)
    torch.save(learner.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    _rewind(other, _states(learner))
    with torch.no_grad():
        ours, theirs = (_adapted(x, trial.rounds[0]) for x in (learner, other))
    require(torch.equal(ours, theirs), "an agent acts differently once it is saved and loaded")
