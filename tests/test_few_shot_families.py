"""Curves against closed forms, and episodes of pictures: who is in them, in which order, and never twice."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl import ConfigError, Rollout, generator, run_trial
from metarl.agents import AGENTS
from metarl.envs import check_family, make, tasks_of

episodes: Any = import_module("metarl.envs.few_shot.episodes")
Images: Any = import_module("metarl.envs.few_shot.images").Images
turned: Any = import_module("metarl.envs.few_shot.images").turned


# --- curves


@pytest.mark.parametrize("name", ["sinusoid/maml2017", "linear/noisy"])
def test_the_floor_is_what_saying_nothing_earns(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample_tasks(20, "test", generator(0))
    family.reset(tasks, 200_000, generator(1))
    earned = family.step(torch.zeros(20, 200_000, 1)).reward.mean(1)
    torch.testing.assert_close(earned, family.bounds(tasks).floor, rtol=0.02, atol=0.02)


def test_a_sine_wave_is_a_sine_wave() -> None:
    """Its phase is a phase, and no frequency."""
    family: Any = make("sinusoid/maml2017")
    x = family.reset(tasks_of(family, [[2.0, 0.5]]), 7, generator(0))
    outcome = family.step(torch.zeros(1, 7, 1))
    np.testing.assert_allclose(outcome.target[0].numpy(), 2 * np.sin(x[0].numpy() - 0.5), rtol=1e-5)
    torch.testing.assert_close(outcome.reward, -outcome.target[..., 0].square())
    assert family.bounds(tasks_of(family, [[2.0, 0.5]])).oracle.item() == 0


def test_lines_have_noise_that_none_can_know() -> None:
    family: Any = make("linear/noisy")
    task = tasks_of(family, [[1.0, -0.5]])
    x = family.reset(task, 50_000, generator(0))
    reward = family.step(x - 0.5).reward
    assert reward.mean().item() == pytest.approx(family.bounds(task).oracle.item(), rel=0.02) == -0.25


# --- episodes


def stock(classes: int = 12, pictures: int = 6, groups: int = 3) -> Any:
    """Pictures whose every pixel tells class and place."""
    number = torch.arange(classes)[:, None] * pictures + torch.arange(pictures)
    pixels = number[..., None, None, None].expand(-1, -1, 1, 16, 16).to(torch.uint8)
    names = tuple(f"c{c}" for c in range(classes))
    return Images(
        pixels, torch.full((classes,), pictures), names, tuple(f"g{c % groups}" for c in range(classes))
    )


class Numbers(episodes.Episodes):  # type: ignore[misc]
    """Twelve classes to learn from and twelve to be tested on, of six pictures each."""

    name, summary, way, shape = "numbers", "pictures that are numbers", 3, (1, 16, 16)

    def load(self) -> Any:
        test = stock()
        return {"train": stock(), "test": test._replace(pixels=test.pixels + 72)}


def numbers() -> Any:
    return Numbers(torch.device("cpu"))


def seen(rollout: Rollout) -> torch.Tensor:
    """Which picture each example was, [N, E]."""
    return (rollout.obs[0, :, :, 0, 0, 0] * 255).round().long()


def played(rounds: tuple[int, ...], split: Any = "train", n: int = 5, seed: int = 0) -> Any:
    family, rng = numbers(), generator(seed)
    agent = AGENTS["nearest_neighbour"](family.observation_space, family.action_space, rng)
    return run_trial(family, agent, family.sample_tasks(n, split, rng), rounds, rng)


def test_pictures_in_episodes_keep_the_promises_of_families() -> None:
    check_family(numbers())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**20), st.sampled_from(["train", "test", "ood"]))
def test_no_picture_comes_twice_in_a_trial(shots: int, queries: int, seed: int, split: Any) -> None:
    trial = played((3 * shots, 3 * queries), split, seed=seed)
    both = torch.cat([seen(r) for r in trial.rounds], 1)
    assert all(len({*row}) == len(row) for row in both.tolist())
    labels, classes = trial.rounds[0].target[0].unbind(-1)
    assert labels.tolist() == [[e % 3 for e in range(3 * shots)]] * 5
    assert all(len({*row}) == 3 for row in classes.tolist())
    assert torch.equal(seen(trial.rounds[0]) // 6, classes), "the class's own number is told besides"


def test_an_episode_is_a_function_of_its_number_alone() -> None:
    family = numbers()
    some = tasks_of(family, [[0, 7], [0, 8], [1, 7]])
    alone = tasks_of(family, [[0, 8]])
    one = family.deal(some, 6, generator(0), 3)
    family.reset(alone, 2, generator(5))
    other = family.deal(alone, 6, generator(9), 3)
    assert torch.equal(one[1], other[0])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], one[2])


def test_the_same_classes_do_not_bring_the_same_pictures() -> None:
    family = numbers()
    tasks = tasks_of(family, [[0, i] for i in range(400)])
    first = family.deal(tasks, 3, generator(0), 0)
    of_class = seen_first = (first[:, 0, 0, 0, 0] * 255).round().long()
    assert len({*seen_first.tolist()}) == 72, "every picture of every class comes first in some episode"
    assert of_class.max() < 72


def test_splits_have_classes_of_their_own_and_beyond_they_are_of_one_group() -> None:
    family = numbers()
    for split, low, high in ("train", 0, 12), ("test", 12, 24), ("ood", 12, 24):
        classes = family.classes(family.sample_tasks(50, split, generator(0)))
        assert ((classes >= low) & (classes < high)).all()
        groups = [{c % 3 for c in row} for row in classes.tolist()]
        assert (max(map(len, groups)) == 1) == (split == "ood")


def test_every_class_and_label_is_as_likely() -> None:
    family = numbers()
    classes = family.classes(tasks_of(family, [[0, i] for i in range(6000)]))
    for label in range(3):
        counts = torch.bincount(classes[:, label], minlength=24)[:12]
        assert (counts.float() / 6000 - 1 / 12).abs().max() < 0.015


def test_hashing_is_splitmix64() -> None:
    def mixed(*parts: int) -> int:
        z, mask = 0, 2**64 - 1
        for part in parts:
            z = ((z ^ part) + 0x9E3779B97F4A7C15) & mask
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            z ^= z >> 31
        return z >> 1

    numbers = torch.arange(50)
    assert episodes.hashed(3, numbers, 11).tolist() == [mixed(3, n, 11) for n in range(50)]


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ((4, 3), r"^rounds has 4 examples; allowed for 3 classes: multiples of 3$"),
        ((9, 12), r"^rounds takes 7 pictures of each class; allowed: 6, as the smallest one has$"),
    ],
)
def test_rounds_that_cannot_be_dealt_are_refused(rounds: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        played(rounds)


def test_more_classes_than_there_are_cannot_be_asked_for() -> None:
    family = numbers()
    family.way = 13
    with pytest.raises(ConfigError, match=r"^way is 13; allowed: up to the 12 train classes$"):
        family.classes(tasks_of(family, [[0, 1]]))


def test_splits_may_have_classes_of_other_sizes() -> None:
    class Uneven(Numbers):
        def load(self) -> Any:
            return {"train": stock(), "test": stock(pictures=4)}

    family = Uneven(torch.device("cpu"))
    assert family.stock.pixels.shape[:2] == (24, 6)
    order = family.order(tasks_of(family, [[1, 3]]), torch.tensor([[12, 13, 14]]))
    assert {*order[0, 0, :4].tolist()} == {0, 1, 2, 3}


def test_turned_pictures_are_classes_of_their_own() -> None:
    images = stock(2)
    marked = images.pixels.clone()
    marked[..., 0, 0] = 200
    four = turned(images._replace(pixels=marked))
    assert len(four.names) == len(four.groups) == len(four.available) == 8
    corners = [(0, 0), (-1, 0), (-1, -1), (0, -1)]
    for r, (y, x) in enumerate(corners):
        assert (four.pixels[2 * r : 2 * r + 2, :, 0, y, x] == 200).all()


def test_any_way_can_be_had_by_configuration() -> None:
    family = make({"pictures": "glyphs", "way": 7})
    assert (family.name, family.action_space.n) == ("glyphs/7-way", 7)
    for tree, message in (
        ({"pictures": "glyphs", "way": 1}, r"^way is 1; "),
        ({"pictures": "glyphs", "wya": 7}, r"^unknown key 'wya'"),
        ({"pictures": "glyphs", "root": "x"}, r"^root is 'x'; allowed for omniglot alone$"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(tree)
