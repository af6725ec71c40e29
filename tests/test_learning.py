"""Agents have to learn: the quickstart clears a bar far above chance in seconds, its goal in a minute."""

import pytest

import metarl
from metarl.experiments import Session, build, judge, override, read


def curve(iterations: int, seed: int) -> list[float]:
    """The quickstart's returns on the paper's test goals after 0, 1, 2, 3 steps, under its protocol."""
    experiment = build(override(read("quickstart"), {"seed": str(seed)}))
    session = Session(experiment)
    rounds, tasks = experiment.rounds, experiment.meta_batch_size
    family, agent, rng = session.family, session.agent, session.rng
    metarl.train(family, agent, rng, iterations=iterations, rounds=rounds, meta_batch_size=tasks)
    found: list[float] = judge(session).scores.mean(1).tolist()
    return found


def test_a_few_iterations_teach_maml_to_adapt() -> None:
    before, _, _, after = curve(iterations=10, seed=0)
    # an untrained policy stays near -60 with or without steps; standing still earns -40
    assert before < -40
    assert after > -20


@pytest.mark.slow
def test_the_quickstart_reaches_the_published_curve() -> None:
    experiment = build(read("quickstart"))
    after = curve(experiment.iterations, experiment.seed)
    assert after[1] >= -11.7
    assert after[3] >= -4
