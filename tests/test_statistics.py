"""Statistics against scipy, against hand-made cases, and against what an interval promises."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import trim_mean

from metarl.statistics import T_975, cvar, interval, iqm, mean, seed_interval, summary

STATISTICS = (mean, iqm, cvar)
tables = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 30)), elements=st.floats(-1e3, 1e3))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- point estimates


@given(tables)
def test_the_iqm_is_scipys_trimmed_mean(scores: np.ndarray) -> None:
    assert iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), abs=1e-9)


def test_the_iqm_by_hand() -> None:
    # of 8 scores the 2 lowest and the 2 highest go: (3 + 4 + 5 + 6) / 4
    assert iqm(np.array([[1.0, 8.0, 3.0, 4.0], [5.0, 6.0, 7.0, 2.0]])) == 4.5
    assert iqm(np.array([[-1e9, 1e9, 3.0, 4.0], [5.0, 6.0, 1e9, -1e9]])) == 4.5  # whatever those were


def test_the_worst_tasks_by_hand() -> None:
    scores = np.array([[0.0, 10.0, 4.0, 5.0], [2.0, -12.0, 4.0, 5.0]])  # task means 1, -1, 4, 5
    assert cvar(scores, 0.5) == 0.0  # (1 - 1) / 2: a run's luck in one task is averaged out
    assert cvar(scores, 0.25) == -1.0
    assert cvar(scores) == -1.0  # at least one task
    assert cvar(scores, 1.0) == mean(scores)
    assert cvar(np.arange(40.0)[None]) == 0.5  # 5 % of 40 are 2
    assert cvar(np.arange(41.0)[None]) == 1.0  # of 41 they are 3


@pytest.mark.parametrize("statistic", STATISTICS)
def test_leading_axes_are_batches(statistic: Callable[..., np.ndarray]) -> None:
    batch = rng().normal(size=(3, 2, 4, 10))
    each = [[statistic(scores) for scores in row] for row in batch]
    assert np.array_equal(statistic(batch), np.array(each))


@given(tables, st.floats(-1e3, 1e3), st.floats(0.1, 10))
def test_statistics_move_and_stretch_with_the_scores(scores: np.ndarray, shift: float, scale: float) -> None:
    for statistic in STATISTICS:
        assert statistic(scale * scores + shift) == pytest.approx(scale * statistic(scores) + shift, abs=1e-6)


@given(tables, st.integers(0, 1000))
def test_the_order_of_runs_and_tasks_means_nothing(scores: np.ndarray, seed: int) -> None:
    mixed = rng(seed).permutation(scores.shape[1])
    for statistic in STATISTICS:
        assert statistic(scores[::-1, mixed]) == pytest.approx(statistic(scores), abs=1e-9)


@given(tables)
def test_statistics_lie_where_they_must(scores: np.ndarray) -> None:
    assert scores.min() - 1e-9 <= iqm(scores) <= scores.max() + 1e-9
    assert cvar(scores, 0.05) <= cvar(scores, 0.5) + 1e-9 <= mean(scores) + 2e-9


# --- intervals


def test_an_interval_by_hand() -> None:
    # two values, drawn twice: the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4
    assert interval(np.array([[0.0, 1.0]]), rng()) == (0.0, 1.0)
    assert interval(np.array([[0.0], [1.0]]), rng()) == (0.0, 1.0)
    assert interval(np.full((1, 5), 3.0), rng()) == (3.0, 3.0)


def test_tasks_are_strata_where_there_are_several_runs() -> None:
    differing_tasks = np.array([[0.0, 100.0], [0.0, 100.0]])
    assert interval(differing_tasks, rng()) == (50.0, 50.0)  # the runs agree in each task
    assert interval(differing_tasks[:1], rng()) == (0.0, 100.0)  # of one run there is nothing but tasks


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    scores = rng(1).normal(size=400)
    scores = (scores - scores.mean()) / scores.std()
    low, high = interval(scores[None], rng())  # the mean of 400 has the standard error 1 / 20
    assert (-low, high) == pytest.approx((1.96 / 20, 1.96 / 20), rel=0.1)


@pytest.mark.parametrize("shape", [(1, 40), (10, 20)], ids=["one run", "ten runs"])
def test_an_interval_holds_the_truth_as_often_as_it_says(shape: tuple[int, int]) -> None:
    draw, inside, trials = rng(2), 0, 400
    for _ in range(trials):
        low, high = interval(draw.normal(7.0, 3.0, shape), draw, resamples=400)
        inside += low <= 7.0 <= high
    assert 0.91 <= inside / trials <= 0.97  # a little below 0.95, as of every bootstrap of few values


@settings(max_examples=30)
@given(tables, st.floats(-1e3, 1e3))
def test_intervals_hold_their_statistic_and_move_with_the_scores(scores: np.ndarray, shift: float) -> None:
    low, high = interval(scores, rng(), resamples=200)
    assert low <= high
    moved = interval(scores + shift, rng(), resamples=200)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)
    assert scores.min() - 1e-9 <= low
    assert high <= scores.max() + 1e-9


def test_an_interval_repeats_itself_from_the_same_seed() -> None:
    scores = rng(3).normal(size=(3, 20))
    assert interval(scores, rng(4)) == interval(scores, rng(4))
    assert interval(scores, rng(4)) != interval(scores, rng(5))


def test_a_summary_is_its_parts_as_plain_numbers() -> None:
    scores = rng(6).normal(size=(3, 40))
    found = summary(scores)
    assert found == json.loads(json.dumps(found))
    assert (found["mean"], found["iqm"], found["cvar5"]) == (mean(scores), iqm(scores), cvar(scores))
    assert found["bootstrap95"] == list(interval(scores, rng(0)))
    assert found["ci95"] == list(seed_interval(scores))
    assert summary(scores[:1])["ci95"] == list(interval(scores[:1], rng(0)))
    assert found["iqm_ci95"] == list(interval(scores, rng(0), iqm))
    assert found == summary(scores)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")  # of arch, which it calls
def test_rliable_agrees() -> None:
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    scores = rng(7).normal(size=(5, 40)) + rng(8).normal(0, 5, 40)
    assert iqm(scores) == pytest.approx(metrics.aggregate_iqm(scores))
    assert mean(scores) == pytest.approx(metrics.aggregate_mean(scores))

    def both(x: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_mean(x), metrics.aggregate_iqm(x)])

    _, bounds = library.get_interval_estimates(
        {"a": scores}, both, reps=2000, random_state=np.random.RandomState(0)
    )
    ours = np.array([interval(scores, rng()), interval(scores, rng(), iqm)]).T
    assert np.abs(ours - bounds["a"]).max() < 0.15 * np.diff(ours, axis=0).min()


# --- intervals over runs


def test_an_interval_over_seeds_by_hand() -> None:
    # means 1 and 3: mean 2, standard deviation sqrt 2, standard error 1, t = 12.706 for one degree of freedom
    low, high = seed_interval(np.array([[0.0, 2.0], [3.0, 3.0]]))
    assert (low, high) == pytest.approx((2 - 12.706, 2 + 12.706))


@pytest.mark.parametrize("runs", [2, 3, 5, 11, 12, 20, 100])
def test_an_interval_over_seeds_is_students(runs: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    means = rng(runs).normal(0.0, 2.0, runs)
    wanted = stats.t.interval(0.95, runs - 1, means.mean(), stats.sem(means))
    assert seed_interval(means[:, None]) == pytest.approx(wanted, rel=2e-3)
    assert len(T_975) == 10


def test_an_interval_over_seeds_holds_the_truth_when_luck_is_shared_by_all_tasks() -> None:
    draw, held = rng(1), 0
    for _ in range(400):
        scores = 7 + draw.normal(0, 2.0, (5, 1)) + draw.normal(0, 1.0, (5, 40))
        low, high = seed_interval(scores)
        held += low <= 7 <= high
    assert 0.92 <= held / 400 <= 0.98
