"""Agents have to learn: a bar that is far above chance, in seconds, and a higher one in minutes."""

import pytest

import metarl
from metarl.agents import MamlTrpo
from metarl.envs import make


def trained(iterations: int, seed: int) -> list[float]:
    """The returns on the paper's test goals after 0, 1, 2, 3 steps, under its protocol."""
    family = make("navigation/maml2017")
    rng = metarl.generator(seed)
    config = MamlTrpo.Config(inner_lr=0.5, later_lr=0.25, curvature_fraction=0.2)
    agent = MamlTrpo(family.observation_space, family.action_space, rng, config)
    metarl.train(family, agent, rng, iterations=iterations)
    found: list[float] = metarl.evaluate(family, agent, rng, rounds=(40,) * 4).scores.mean(1).tolist()
    return found


def test_a_few_iterations_teach_maml_to_adapt() -> None:
    before, after, *_ = trained(iterations=10, seed=0)
    # an untrained policy stays near -60 with or without a step; standing still earns -40
    assert before < -40
    assert after > -25


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_maml_reaches_the_published_curve(seed: int) -> None:
    curve = trained(iterations=60, seed=seed)
    assert curve[1] > -11.7
    assert curve[3] > -4
