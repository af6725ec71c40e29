"""Memories: a sequence at once equals step by step, nothing looks ahead, and a still row stays as it is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl import ConfigError, Each, Memory, MemoryKind, generator, make_memory

KINDS: tuple[MemoryKind, ...] = ("gru", "lstm", "transformer")
LENGTH, BATCH, INPUTS, HIDDEN = 7, 3, 2, 8
ALWAYS = torch.ones(1, dtype=torch.bool)
LONG = 70  # steps, after which a transformer has joined its recent ones to the others twice


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def inputs(length: int = LENGTH) -> Tensor:
    return torch.randn(length, BATCH, INPUTS, generator=generator(1))


def stepped(memory: Memory, x: Tensor, moves: Tensor | None = None) -> Tensor:
    """The features of each step, one after the other."""
    state, features = memory.begin(x.shape[1]), []
    for t, now in enumerate(x):
        always = torch.ones(x.shape[1], dtype=torch.bool)
        h, state = memory.step(now, state, always if moves is None else moves[t])
        features.append(h)
    return torch.stack(features)


def assert_a_still_row_forgets(memory: Memory, x: Tensor) -> None:
    """Steps [L, B, ...] during which a row does not move change nothing: the others alone give the same."""
    moves = torch.ones(x.shape[:2], dtype=torch.bool)
    moves[2:5, 1] = False
    found = stepped(memory, x, moves)
    alone = stepped(memory, torch.cat([x[:2, 1:2], x[5:, 1:2]]))
    assert torch.allclose(found[5:, 1], alone[2:, 0], rtol=1e-10, atol=1e-12)
    assert torch.allclose(found[:, 0], stepped(memory, x)[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("length", [LENGTH, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_one_go_equals_step_by_step(kind: MemoryKind, length: int) -> None:
    memory, x = make_memory(kind, INPUTS, HIDDEN, generator(0)), inputs(length)
    assert torch.allclose(memory.sequence(x), stepped(memory, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_looks_ahead(kind: MemoryKind) -> None:
    memory, x = make_memory(kind, INPUTS, HIDDEN, generator(0)), inputs()
    other = x.clone()
    other[4:] += 1
    before, after = memory.sequence(x), memory.sequence(other)
    assert torch.allclose(before[:4], after[:4], rtol=0, atol=1e-14)
    assert not torch.isclose(before[4:], after[4:]).all(-1).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_remembered(kind: MemoryKind) -> None:
    memory, x = make_memory(kind, INPUTS, HIDDEN, generator(0)), inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(memory.sequence(x)[-1, :, 0].sum(), x)
    assert (gradient.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("again", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_does_not_move_forgets_the_step(kind: MemoryKind, again: int) -> None:
    assert_a_still_row_forgets(make_memory(kind, INPUTS, HIDDEN, generator(0), again), inputs(LONG))


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_before_is_read_again(kind: MemoryKind) -> None:
    """As if it stood beside the present one, zeros at first, in a sequence and step by step."""
    memory, x = make_memory(kind, INPUTS, HIDDEN, generator(0), again=1), inputs()
    wide = make_memory(kind, INPUTS + 1, HIDDEN, generator(0))
    before = torch.cat([torch.zeros(1, BATCH, 1), x[:-1, :, :1]])
    told = wide.sequence(torch.cat([x, before], -1))
    assert torch.equal(memory.sequence(x), told)
    assert torch.allclose(stepped(memory, x), told, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_meet_and_a_step_leaves_the_old_state_alone(kind: MemoryKind) -> None:
    memory, x = make_memory(kind, INPUTS, HIDDEN, generator(0)), inputs()
    assert torch.allclose(memory.sequence(x)[:, 1:2], memory.sequence(x[:, 1:2]), atol=1e-12)
    moves = torch.ones(BATCH, dtype=torch.bool)
    _, state = memory.step(x[0], memory.begin(BATCH), moves)
    kept = [part.clone() for part in state]
    first, _ = memory.step(x[1], state, moves)
    second, _ = memory.step(x[1], state, moves)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_memory_and_no_other_is_used(kind: MemoryKind) -> None:
    before = torch.get_rng_state()
    a, b, c = (make_memory(kind, INPUTS, HIDDEN, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    first, same, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in (a, b, c))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.isfinite().all()


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gates_begin_with_memories_of_one_to_so_many_steps(kind: MemoryKind) -> None:
    span = 50
    memory: Any = make_memory(kind, INPUTS, 400, generator(0), span=span)
    for p in memory.parameters():
        p.data[:] = 0 if p.dim() == 2 else p
    _, state = memory.step(torch.zeros(1, INPUTS), tuple(torch.ones_like(s) for s in memory.begin(1)), ALWAYS)
    kept = state[-1]  # σ(log u) = u / (1 + u) of what was there; what is new is 0
    steps = 1 / (1 - kept)
    assert steps.min() >= 2
    assert steps.max() <= span
    assert abs(steps.mean() - (1 + span / 2)) < 2  # 1 + u, of which the mean is 1 + span / 2


def test_a_transformer_has_no_gates() -> None:
    with pytest.raises(ConfigError, match=r"^memory_span is 9; allowed for a transformer"):
        make_memory("transformer", INPUTS, HIDDEN, generator(0), span=9)


def test_a_transformer_has_as_many_blocks_as_it_is_given() -> None:
    one, two, five = (make_memory("transformer", INPUTS, HIDDEN, generator(0), blocks=k) for k in (1, 2, 5))
    sizes = [sum(p.numel() for p in memory.parameters()) for memory in (one, two, five)]
    assert sizes[2] - sizes[1] == 3 * (sizes[1] - sizes[0]) > 0
    assert torch.allclose(five.sequence(inputs()), stepped(five, inputs()), rtol=1e-10, atol=1e-12)


def test_a_transformer_says_which_widths_its_heads_can_share() -> None:
    with pytest.raises(ConfigError, match="hidden is 12; allowed for a transformer: a multiple of 8"):
        make_memory("transformer", INPUTS, 12, generator(0))


# --- a memory for each of several things

THINGS = 4


def each_of(kind: MemoryKind) -> tuple[Each, Tensor]:
    """Memories of some things, and what they read."""
    x = torch.randn(LENGTH, BATCH, THINGS, INPUTS, generator=generator(1))
    return Each(make_memory(kind, INPUTS, HIDDEN, generator(0)), THINGS), x


@pytest.mark.parametrize("kind", KINDS)
def test_each_thing_is_remembered_apart_by_the_same_weights(kind: MemoryKind) -> None:
    each, x = each_of(kind)
    features = each.sequence(x)
    assert features.shape == (LENGTH, BATCH, THINGS, HIDDEN)
    for k in range(THINGS):
        assert torch.allclose(features[:, :, k], each.memory.sequence(x[:, :, k]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memories_of_things_go_step_by_step_and_stand_still_together(kind: MemoryKind) -> None:
    each, x = each_of(kind)
    assert torch.allclose(each.sequence(x), stepped(each, x), rtol=1e-10, atol=1e-12)
    assert_a_still_row_forgets(each, x)
