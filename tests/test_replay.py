"""Replay: tasks never mix, the oldest rows make room, and what is saved is what is filled."""

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl import ConfigError, Replay, Tasks, Transitions, generator, packed_width, run_trial, steps_of
from metarl.agents import MultiTaskSac
from metarl.envs import make

CPU = torch.device("cpu")


def tasks_of(*ids: int) -> Tasks:
    return Tasks(torch.zeros(len(ids), 1), torch.tensor(ids))


def add(replay: Replay, slot: int, *values: float) -> None:
    """Rows of one number into one slot."""
    rows = torch.tensor(values, dtype=torch.float32).view(1, -1, 1)
    replay.add(torch.tensor([slot]), rows, torch.ones(rows.shape[:2], dtype=torch.bool))


def held(replay: Replay, slot: int) -> list[float]:
    """What a slot holds, in any order."""
    return sorted(replay.data[slot, : replay.size[slot], 0].tolist())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.permutations(range(4)), st.lists(st.booleans(), min_size=6, max_size=6)), max_size=8
    )
)
def test_each_slot_holds_the_last_rows_of_its_own_task(adds: list[tuple[list[int], list[bool]]]) -> None:
    replay, model = Replay(4, 5, 1, CPU), [deque[float](maxlen=5) for _ in range(4)]
    count = 0.0
    for order, marks in adds:
        slots, kept = order[:3], torch.tensor(marks).view(3, 2).repeat(1, 4)  # up to 8 rows: more than fit
        rows = torch.arange(24.0).view(3, 8, 1) + count
        replay.add(torch.tensor(slots), rows, kept)
        for slot, values, mask in zip(slots, rows[..., 0], kept, strict=True):
            model[slot].extend(values[mask].tolist())
        count += 24
    assert [held(replay, slot) for slot in range(4)] == [sorted(m) for m in model]
    assert replay.filled.tolist() == [slot for slot in range(4) if model[slot]]


def test_a_draw_is_of_its_own_tasks_rows_alone_and_of_all_of_them() -> None:
    replay = Replay(3, 4, 1, CPU)
    add(replay, 0, 1, 2)
    add(replay, 2, 10, 20, 30, 40, 50)  # 10 has made room
    found = replay.draw(torch.tensor([2, 0, 2]), 400, generator(0))
    assert [set(x.flatten().tolist()) for x in found] == [{20, 30, 40, 50}, {1, 2}, {20, 30, 40, 50}]


def test_a_pools_tasks_have_their_ids_slots_and_others_take_turns() -> None:
    replay = Replay(3, 4, 1, CPU)
    assert replay.slots_of(tasks_of(2, 0)).tolist() == [2, 0]
    assert replay.slots_of(tasks_of(-1, -1)).tolist() == [0, 1]
    add(replay, 2, 5)
    add(replay, 0, 6)
    assert replay.slots_of(tasks_of(-1, -1)).tolist() == [2, 0]
    assert held(replay, 2) == held(replay, 0) == []  # taken over


@pytest.mark.parametrize(("ids", "needed"), [((0, 3), 4), ((-1, -1, -1, -1), 4)])
def test_too_few_slots_are_an_error_that_says_how_many(ids: tuple[int, ...], needed: int) -> None:
    with pytest.raises(ConfigError, match=f"replay_tasks is 3; allowed: {needed} or more"):
        Replay(3, 4, 1, CPU).slots_of(tasks_of(*ids))


def test_a_saved_replay_continues_as_the_one_that_was_not() -> None:
    ours, theirs = Replay(2, 4, 1, CPU), Replay(2, 4, 1, CPU)
    assert ours.slots_of(tasks_of(-1)).tolist() == [0]
    add(ours, 1, 1, 2, 3)
    state = ours.state_dict()
    assert state["data"].shape == (2, 3, 1)  # not what is empty
    theirs.load_state_dict(state)
    for replay in (ours, theirs):
        add(replay, 1, 4, 5)
        add(replay, 0, 6)
        assert replay.slots_of(tasks_of(-1)).tolist() == [1]
        add(replay, 1, 2, 3, 4, 5)
    for slot in range(2):
        filled = slice(int(ours.size[slot]))
        assert torch.equal(ours.data[slot, filled], theirs.data[slot, filled])
    assert held(theirs, 1) == [2, 3, 4, 5]


def test_steps_survive_packing_and_stand_task_by_task() -> None:
    family, rng = make("navigation/maml2017"), generator(0)
    family.horizon = 6
    agent = MultiTaskSac(family.observation_space, family.action_space, rng)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), (2,), rng)
    [played] = trial.rounds
    steps = Transitions.of(steps_of(trial.rounds), 3)
    rows = steps.pack()
    assert rows.shape == (3, 12, packed_width(2, 2))
    again = Transitions.unpack(rows, 2, 2)
    assert all(torch.equal(x.to(y.dtype), y) for x, y in zip(steps, again, strict=True))
    for task in range(3):
        for episode in range(2):
            mine = slice(6 * episode, 6 * episode + 6)
            assert torch.equal(again.obs[task, mine], played.obs[:, task, episode])
            assert torch.equal(again.reward[task, mine], played.reward[:, task, episode])
