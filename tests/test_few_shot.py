"""Few-shot learners: meta-gradients against finite differences, comparisons against their definitions."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import gymnasium as gym
import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import metarl
from metarl import ConfigError, Rollout, evaluate, generator, run_trial, train
from metarl.agents import AGENTS, FEW_SHOT, check_agent
from metarl.envs import make

networks: Any = import_module("metarl.networks")
imaml: Any = import_module("metarl.agents.few_shot.imaml")

GRADIENT = ("maml", "fomaml", "anil", "meta_sgd", "learned_momentum", "imaml", "reptile")
METRIC = ("prototypical", "matching", "siamese", "relation")
CURVES = (
    "maml",
    "fomaml",
    "anil",
    "meta_sgd",
    "learned_momentum",
    "imaml",
    "reptile",
    "joint",
    "ridge",
    "bayes",
)
LETTERS = sorted({*FEW_SHOT} - {"ridge", "bayes"})
TWO = {"pictures": "glyphs", "way": 2}
PICTURE = gym.spaces.Box(0.0, 1.0, (1, 16, 16))
SMALL: dict[str, Any] = {"filters": 3, "hidden": (8,)}


def few(kind: str, family: Any, **settings: Any) -> Any:
    """A small learner of that kind."""
    config = AGENTS[kind].Config
    known = {key: value for key, value in SMALL.items() if key in config.__pydantic_fields__}
    if kind == "joint" and len(family.observation_space.shape) == 3:
        known["train_classes"] = 1200
    rng = generator(0)
    return AGENTS[kind](family.observation_space, family.action_space, rng, config(**known | settings))


@pytest.mark.parametrize("kind", LETTERS)
def test_every_learner_of_letters_keeps_its_promises(kind: str) -> None:
    family = make(TWO)
    check_agent(few(kind, family), family)


@pytest.mark.parametrize("kind", CURVES)
def test_every_learner_of_curves_keeps_its_promises(kind: str) -> None:
    family = make("sinusoid/maml2017")
    slow = {"inner_lr": 0.01} if kind == "imaml" else {}
    check_agent(few(kind, family, **slow), family)


@pytest.mark.parametrize("settings", [{"full_context": True}, {"filters": 4}])
def test_matching_networks_keep_their_promises_in_context_too(settings: dict[str, Any]) -> None:
    family = make(TWO)
    check_agent(few("matching", family, **settings), family)


# --- meta-gradients


def pictures(tasks: int, examples: int, seed: int, way: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.rand(tasks, examples, 1, 16, 16, generator=generator(seed), dtype=torch.float64)
    return x, (torch.arange(examples) % way).expand(tasks, -1)


def points(tasks: int, examples: int, seed: int) -> tuple[Tensor, Tensor]:
    x = 10 * torch.rand(tasks, examples, 1, generator=generator(seed), dtype=torch.float64) - 5
    return x, torch.sin(x + torch.arange(tasks)[:, None, None])


def learner(kind: str, seen: str, **settings: Any) -> Any:
    """A small learner in float64 with smooth settings, of pictures or of points."""
    spaces: dict[str, tuple[Any, Any]] = {
        "pictures": (PICTURE, gym.spaces.Discrete(3)),
        "points": (gym.spaces.Box(-5, 5, (1,)), gym.spaces.Box(-9, 9, (1,))),
    }
    config = AGENTS[kind].Config(**SMALL | {"inner_lr": 0.1, "inner_steps": 2} | settings)
    return AGENTS[kind](*spaces[seen], generator(0), config).double()


def data(seen: str) -> tuple[Any, Any]:
    Examples = import_module("metarl.agents.few_shot.learner").Examples
    make_them = pictures if seen == "pictures" else points
    return Examples(*make_them(3, 6, 0)), Examples(*make_them(3, 9, 1))


def central_difference(loss: Callable[[], Tensor], p: Tensor, place: int, h: float = 1e-6) -> float:
    flat = p.data.view(-1)
    value = flat[place].item()
    ends = []
    for shift in (h, -h):
        flat[place] = value + shift
        ends.append(loss().item())
    flat[place] = value
    return (ends[0] - ends[1]) / (2 * h)


@pytest.mark.parametrize("norm", ["transductive", "inductive"])
@pytest.mark.parametrize("kind", ["maml", "meta_sgd", "learned_momentum", "anil"])
@pytest.mark.parametrize("seen", ["pictures", "points"])
def test_the_meta_gradient_equals_finite_differences(kind: str, seen: str, norm: str) -> None:
    agent, (support, query) = learner(kind, seen, batch_norm=norm), data(seen)
    gradients, said = agent.meta_gradient([support], query, slice(None))

    def loss() -> Tensor:
        return sum(
            agent.meta_loss([type(support)(*(x[i] for x in support))], type(query)(*(x[i] for x in query)))[0]
            for i in range(3)
        )

    assert said[0] == pytest.approx(loss().item())
    checked = 0
    for p, g in zip(agent.parameters(), gradients, strict=True):
        for place in {0, p.numel() // 2, p.numel() - 1}:
            wanted = central_difference(loss, p, place)
            assert g.view(-1)[place].item() == pytest.approx(wanted, rel=1e-5, abs=1e-8), (
                tuple(p.shape),
                place,
            )
            checked += abs(wanted) > 1e-6
    assert checked >= 8


@pytest.mark.parametrize("kind", ["maml", "fomaml", "meta_sgd", "imaml"])
def test_chunks_of_tasks_make_no_difference(kind: str) -> None:
    support, query = data("pictures")
    agent = learner(kind, "pictures")
    whole = agent.meta_gradient([support], query, slice(None))[0]
    parts = [agent.meta_gradient([support], query, slice(i, i + 1))[0] for i in range(3)]
    for w, *p in zip(whole, *parts, strict=True):
        torch.testing.assert_close(w, torch.stack(p).sum(0))


def test_first_order_maml_takes_the_gradient_at_the_adapted_parameters() -> None:
    support, query = data("pictures")
    agent, exact = learner("fomaml", "pictures"), learner("maml", "pictures")
    found = agent.meta_gradient([support], query, slice(0, 1))[0]
    phi = agent.adapted(agent.network.params, [type(support)(*(x[0] for x in support))], 2).params
    at = [p.detach().requires_grad_() for p in phi]
    loss, _ = agent.task_loss(at, query.x[0], query.y[0])
    for f, g in zip(found, torch.autograd.grad(loss, at), strict=True):
        torch.testing.assert_close(f, g)
    second_order = exact.meta_gradient([support], query, slice(0, 1))[0]
    assert not torch.allclose(found[0], second_order[0], rtol=1e-2)


def test_anil_adapts_nothing_but_the_head() -> None:
    support, _ = data("pictures")
    agent = learner("anil", "pictures")
    phi = agent.adapted(agent.network.params, [type(support)(*(x[0] for x in support))], 2).params
    moved = [not torch.equal(p, q) for p, q in zip(agent.network.params, phi, strict=True)]
    assert moved == [False] * 12 + [True] * 2


@pytest.mark.parametrize("damping", [0.0, 2.0])
def test_the_implicit_gradient_solves_its_system(damping: float) -> None:
    """Against the dense Hessian of a network small enough to write it down."""
    (support, query), strength = data("points"), 3.0
    settings = {"proximity": strength, "damping": damping, "cg_iterations": 60, "inner_steps": 40}
    agent = learner("imaml", "points", hidden=(3,), **settings)
    one, asked = (type(support)(*(x[0] for x in e)) for e in (support, query))
    found = torch.cat([g.flatten() for g in agent.implicit([one], asked)[0]])
    phi = agent.adapted([p.detach() for p in agent.network.params], [one], 40).params
    sizes = [p.shape for p in phi]

    def flat_loss(flat: Tensor, e: Any) -> Tensor:
        parts = flat.split([s.numel() for s in sizes])
        out: Tensor = agent.task_loss([x.view(s) for x, s in zip(parts, sizes, strict=True)], *e)[0]
        return out

    at = torch.cat([p.flatten() for p in phi]).detach()
    hessian = torch.autograd.functional.hessian(lambda v: flat_loss(v, one), at)
    gradient = torch.func.grad(flat_loss)(at, asked)
    wanted = torch.linalg.solve(torch.eye(len(at)) + hessian / (strength + damping), gradient)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_the_inner_problem_of_imaml_is_solved_near_where_it_began() -> None:
    """At the solution ∇L + λ (φ - θ) = 0."""
    support, _ = data("points")
    agent = learner("imaml", "points", proximity=5.0, inner_lr=0.005)
    one, theta = type(support)(*(x[0] for x in support)), [p.detach() for p in agent.network.params]
    phi = agent.adapted(theta, [one], 2000).params
    gradient, _ = torch.func.grad(agent.task_loss, has_aux=True)(phi, *one)
    for p, t, g in zip(phi, theta, gradient, strict=True):
        torch.testing.assert_close(g, 5.0 * (t - p), rtol=1e-4, atol=1e-6)


def test_conjugate_gradients_stay_where_the_curvature_is_not_positive() -> None:
    found = imaml.conjugate_gradients(lambda v: [-v[0]], [torch.ones(3)], 5)
    assert torch.equal(found[0], torch.zeros(3))


@pytest.mark.parametrize("inner", ["adam", "sgd"])
@pytest.mark.parametrize("outer", ["plain", "adam"])
def test_reptile_moves_towards_what_the_tasks_make_of_it(inner: str, outer: str) -> None:
    family, rate = make(TWO), 0.5 if outer == "plain" else 0.01
    settings: dict[str, Any] = {
        "inner_steps": 3,
        "inner_batch": 4,
        "inner_optimizer": inner,
        "inner_lr": 0.01,
    }
    agent = few("reptile", family, learning_rate=rate, outer_optimizer=outer, **settings)
    rng = generator(1)
    trial = run_trial(family, agent, family.sample_tasks(3, "train", rng), (8, 4), rng)
    before = [p.clone() for p in agent.network.params]
    state = agent.rng.get_state()
    agent.meta_update(trial)
    agent.rng.set_state(state)
    x, y = agent.examples(trial)[0]
    order = agent.minibatches(y)
    twin = few("reptile", family, **settings)
    for p, b in zip(twin.network.weights, before, strict=True):
        p.data.copy_(b)
    phi = []
    for task, places in enumerate(order):  # each by itself, and by the network that is differentiated twice
        params, memory = twin.network.params, list[Tensor]()
        for k, at in enumerate(places):
            gradient, _ = torch.func.grad(twin.task_loss, has_aux=True)(params, x[task, at], y[task, at])
            params, memory = twin.step(k, params, gradient, memory)
        phi.append(params)
    for k, (b, now) in enumerate(zip(before, agent.network.params, strict=True)):
        away = b - torch.stack([p[k] for p in phi]).mean(0)
        if outer == "plain":
            torch.testing.assert_close(now, b - rate * away, rtol=1e-4, atol=1e-6)
            continue
        sure = away.abs() > 1e-5  # Adam's first step is as long for any gradient, for rounding's, too
        step = away[sure] / (away[sure].abs() + 1e-8)
        torch.testing.assert_close(now[sure], b[sure] - rate * step, rtol=1e-4, atol=1e-6)
        assert sure.any()


@hypothesis.given(
    steps=st.integers(1, 7), shots=st.integers(1, 5), share=st.integers(1, 3), seed=st.integers(0, 99)
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_reptiles_minibatches_have_equal_shares_of_the_classes(
    steps: int, shots: int, share: int, seed: int
) -> None:
    share = math.gcd(share, shots)  # else a minibatch goes on where the examples begin anew
    agent = few("reptile", make("glyphs/5-way"), inner_steps=steps, inner_batch=5 * share)
    agent.rng.manual_seed(seed)
    y = torch.arange(5 * shots).remainder(5).expand(3, -1)
    places = agent.minibatches(y)
    assert places.shape == (3, steps, 5 * share)
    for task, labels in zip(places, y, strict=True):
        for batch in task:
            assert len(batch.unique()) == len(batch)
            assert torch.equal(labels[batch].bincount(minlength=5), torch.full((5,), share))
        used = task.flatten().bincount(minlength=len(labels))
        assert used.max() - used.min() <= 1


def test_reptiles_minibatches_of_numbers_take_turns() -> None:
    agent = few("reptile", make("sinusoid/maml2017"), inner_steps=5, inner_batch=4)
    places = agent.minibatches(torch.zeros(2, 10, 1))
    assert places.shape == (2, 5, 4)
    for task in places:
        assert torch.equal(task.flatten().bincount(minlength=10), torch.full((10,), 2))


def test_a_step_of_reptiles_descent_is_along_the_gradient() -> None:
    agent = few("reptile", make(TWO), inner_lr=0.25, inner_optimizer="sgd")
    (moved,), memory = agent.step(3, [torch.tensor([1.0, 2.0])], [torch.tensor([4.0, -4.0])], [])
    assert moved.tolist() == [0.0, 3.0]
    assert not memory


def test_reptile_may_take_other_steps_in_evaluation_and_trains_the_same() -> None:
    family, rng = make(TWO), generator(0)
    support = run_trial(
        family, few("reptile", family), family.sample_tasks(2, "train", rng), (4,), rng
    ).rounds[0]
    apart, trained = {}, {}
    for lr in (None, 0.3, 0.1):
        agent = few(
            "reptile", family, inner_lr=0.3, adapt_lr=lr, inner_optimizer="sgd", outer_optimizer="adam"
        )
        apart[lr] = agent.adapt_by(agent.begin(2, 4), support, 1).params[0] - agent.network.params[0]
        agent.train()
        trial = run_trial(family, agent, family.sample_tasks(2, "train", generator(1)), (4, 4), generator(1))
        agent.meta_update(trial)
        trained[lr] = agent.network.params[0]
    assert torch.equal(apart[None], apart[0.3])
    assert torch.allclose(apart[0.1], apart[0.3] / 3, atol=1e-6)
    assert torch.equal(trained[0.1], trained[0.3])


def test_a_step_of_reptiles_adam_is_torchs() -> None:
    agent = few("reptile", make(TWO), inner_lr=0.01)
    p = torch.randn(4, generator=generator(3)).requires_grad_()
    adam = torch.optim.Adam([p], lr=0.01, betas=(0.0, 0.999))
    params, memory = [p.detach().clone()], list[Tensor]()
    for k in range(4):
        gradient = torch.randn(4, generator=generator(k))
        params, memory = agent.step(k, params, [gradient], memory)
        p.grad = gradient
        adam.step()
        torch.testing.assert_close(params[0], p.detach())


# --- networks


@pytest.mark.parametrize("kind", ["mlp", "stride", "stride-all", "max"])
def test_many_tasks_at_once_are_each_by_its_own_parameters(kind: Any) -> None:
    """What they say, and its gradients, as of the network that is differentiated twice.

    In float64: rounding decides which of two nearly equal numbers is the largest.
    """
    rng, mlp = generator(0), kind == "mlp"
    net = networks.Mlp(3, (4,), 2, rng) if mlp else networks.Convolutions((1, 28, 28), 4, 2, rng, kind)
    params = [p.double() + 0.1 * torch.randn(3, *p.shape, generator=rng) for p in net.params]
    x = torch.randn(3, 5, *((3,) if mlp else (1, 28, 28)), generator=rng).double()
    params = [p.detach().requires_grad_() for p in params]
    at_once = net.run_each(params, x)
    alone = torch.stack([net.run([p[i] for p in params], x[i]).value for i in range(3)])
    torch.testing.assert_close(at_once, alone, rtol=1e-9, atol=1e-9)
    found, wanted = (torch.autograd.grad(said.square().sum(), params) for said in (at_once, alone))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_our_batch_norm_says_what_torchs_does() -> None:
    x = torch.randn(5, 3, 4, 4, generator=generator(0))
    scale, shift = torch.rand(3, generator=generator(1)), torch.rand(3, generator=generator(2))
    ours = networks.normalised_by(networks.moments_of(x), x, scale, shift)
    torch.testing.assert_close(ours, F.batch_norm(x, None, None, scale, shift, training=True))


@pytest.mark.parametrize(
    ("pooling", "features"), [("max", 4 * 1 * 1), ("stride", 4), ("stride-all", 4 * 2 * 2)]
)
def test_an_embedding_in_evaluation_looks_at_each_picture_alone(pooling: Any, features: int) -> None:
    net, x = networks.Embedding((1, 28, 28), 4, generator(0), pooling), torch.rand(6, 1, 28, 28)
    net(x, True)
    whole = net(x, False)
    assert whole.shape == (6, features)
    torch.testing.assert_close(net(x[:1], False), whole[:1])
    assert net.mean.abs().sum() > 0


def test_pictures_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^the pictures are 8 x 8; allowed: 16 x 16 or more$"):
        networks.Convolutions((1, 8, 8), 4, 5, generator(0), "max")


# --- comparisons


def embedded(kind: str, way: int = 3, shots: int = 1, **settings: Any) -> tuple[Any, Any, Tensor]:
    """A learner, with embedded examples of 2 tasks and 4 queries."""
    agent = AGENTS[kind](
        gym.spaces.Box(0.0, 1.0, (1, 16, 16)),
        gym.spaces.Discrete(way),
        generator(0),
        AGENTS[kind].Config(filters=4, **settings),
    )
    Examples = import_module("metarl.agents.few_shot.learner").Examples
    rng = generator(5)
    x = torch.randn(2, way * shots, *agent.features, generator=rng)
    y = (torch.arange(way * shots) % way).expand(2, -1)
    return agent, Examples(x, y), torch.randn(2, 4, *agent.features, generator=rng)


def test_prototypes_are_class_means_and_the_nearest_one_wins() -> None:
    agent, support, query = embedded("prototypical", shots=2)
    logits = agent.compare(support, query)
    means = support.x.view(2, 2, 3, -1).mean(1)
    distance = torch.cdist(query, means).square()
    torch.testing.assert_close(logits.softmax(-1), (-distance).softmax(-1), rtol=1e-4, atol=1e-6)


def test_of_one_picture_a_class_prototypes_are_nearest_neighbours() -> None:
    agent, support, query = embedded("prototypical")
    assert torch.equal(agent.compare(support, query).argmax(-1), torch.cdist(query, support.x).argmin(-1))


def test_matching_is_a_vote_that_sums_to_one_and_knows_no_order() -> None:
    agent, support, query = embedded("matching", shots=3)
    logits = agent.compare(support, query)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 4), rtol=1e-5, atol=1e-5)
    order = torch.randperm(9, generator=generator(1))
    shuffled = type(support)(support.x[:, order], support.y[:, order])
    torch.testing.assert_close(agent.compare(shuffled, query), logits)


def test_full_context_reads_the_whole_support_set() -> None:
    agent, support, query = embedded("matching", full_context=True)
    read = agent.read(query, agent.in_context(support.x))
    other = support.x.clone()
    other[:, -1] += 1
    assert not torch.allclose(agent.in_context(other)[:, 0], agent.in_context(support.x)[:, 0])
    assert not torch.allclose(agent.read(query, agent.in_context(other)), read)
    plain, support, query = embedded("matching", full_context=True, processing_steps=0)
    torch.testing.assert_close(plain.read(query, support.x), query)


def test_siamese_pairs_may_change_places() -> None:
    agent, support, query = embedded("siamese")
    torch.testing.assert_close(agent.alike(support.x, query), agent.alike(query, support.x).mT)
    assert agent.compare(support, support.x).argmax(-1).tolist() == [[0, 1, 2]] * 2


def test_pairs_of_one_class_weigh_as_much_as_all_others() -> None:
    agent, _, _ = embedded("siamese")
    y = torch.tensor([[0, 1]])
    assert agent.criterion(torch.zeros(1, 2, 3), y).item() == pytest.approx(
        torch.log(torch.tensor(2.0)).item()
    )


def test_relation_scores_are_chances_trained_by_squared_error() -> None:
    agent, support, query = embedded("relation")
    logits = agent.compare(support, query)
    assert logits.shape == (2, 4, 3)
    y = torch.zeros(2, 4, dtype=torch.int64)
    score = logits.sigmoid()
    assert ((score > 0) & (score < 1)).all()
    wanted = (score - F.one_hot(y, 3)).square().sum(-1).mean(-1)
    torch.testing.assert_close(agent.criterion(logits, y), wanted)


# --- baselines


def test_ridge_is_the_closed_form() -> None:
    family, rng = make("linear/noisy"), generator(0)
    agent = few("ridge", family)
    trial = run_trial(family, agent, family.sample_tasks(None, "test", rng), (10, 50), rng)
    support, query = agent.examples(trial)
    belief = agent.adapt(agent.begin(len(support.x), 10), trial.rounds[0])
    x, y = (v[3].double().numpy() for v in support)
    design = torch.tensor(x).new_tensor([[float(v), 1.0] for v in x[:, 0]])
    weight = torch.linalg.solve(design.T @ design + 0.1875 * torch.eye(2), design.T @ torch.tensor(y))
    asked = F.pad(query.x[3].double(), (0, 1), value=1.0)
    torch.testing.assert_close(
        agent.predict(belief, query.x)[3].double(), asked @ weight, rtol=1e-4, atol=1e-4
    )


def test_nothing_expects_less_error_than_the_posterior_mean() -> None:
    family, scores = make("linear/noisy"), {}
    known = {"curve": "line", "low": (-2.0, -2.0), "high": (2.0, 2.0), "noise": 0.5}
    for kind, settings in ("ridge", {}), ("bayes", known):
        found = evaluate(family, few(kind, family, **settings), generator(1), rounds=(5, 100), controls=False)
        scores[kind] = found.scores[-1].mean()
        assert found.scores[-1].mean() < found.bounds.oracle.mean()
    assert scores["ridge"] < scores["bayes"] < scores["ridge"] + 0.05


def test_the_posterior_finds_a_sine_wave_from_a_few_points() -> None:
    family = make("sinusoid/maml2017")
    found = evaluate(family, few("bayes", family), generator(1), rounds=(5, 100), controls=False)
    assert found.scores[-1].mean() > -0.05


def test_the_nearest_example_decides() -> None:
    family = make(TWO)
    agent, rng = few("nearest_neighbour", family), generator(0)
    trial = run_trial(family, agent, family.sample_tasks(20, "test", rng), (6, 8), rng)
    belief = agent.adapt(agent.begin(20, 6), trial.rounds[0])
    support, query = agent.examples(trial)
    nearest = torch.cdist(query.x.flatten(2), support.x.flatten(2)).argmin(-1)
    assert torch.equal(agent.predict(belief, query.x).argmax(-1), support.y.gather(1, nearest))


# --- on the loop


@pytest.mark.parametrize("kind", ["maml", "prototypical"])
def test_training_leaves_the_answers_to_the_update_and_tells_the_same_return(kind: str) -> None:
    family, rng = make(TWO), generator(0)
    agent = few(kind, family)
    tasks = family.sample_tasks(4, "train", rng)
    agent.train()
    blank = run_trial(family, agent, tasks, (4, 8), rng)
    assert not any(r.action.any() for r in blank.rounds)
    agent.eval()
    answered = run_trial(family, agent, tasks, (4, 8), rng)
    assert torch.equal(blank.rounds[1].obs, answered.rounds[1].obs)
    told = agent.meta_update(blank)
    if kind == "maml":  # whose batch norm is the same in training
        assert told["return_1"] == pytest.approx(answered.rounds[1].returns.mean().item())
    assert not agent.untrained


def test_an_untrained_learner_says_so() -> None:
    family = make("sinusoid/maml2017")
    with pytest.warns(UserWarning, match="^Maml was never trained: its scores are at chance$"):
        evaluate(family, few("maml", family), generator(0), rounds=(5, 5))


def test_evaluation_tells_both_ways_to_normalise() -> None:
    family, rng = make(TWO), generator(0)
    agent = few("maml", family)
    train(family, agent, rng, iterations=1, rounds=(2, 2), meta_batch_size=2)
    found = evaluate(family, agent, rng, rounds=(2, 4))
    assert found.controls.keys() == {"shuffled", "wiped", "inductive batch norm"}
    assert found.controls["wiped"].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["bandit/bernoulli-k5", "navigation/pearl2019"])
def test_a_learner_of_examples_refuses_a_family_without_answers(name: str) -> None:
    family = make(name)
    agent = few("maml", family)
    with pytest.raises(ConfigError, match=r"^family is one without right answers; allowed"):
        train(family, agent, generator(0), iterations=1, rounds=(2, 2), meta_batch_size=2)


def test_comparisons_want_pictures_and_classes() -> None:
    family = make("sinusoid/maml2017")
    with pytest.raises(
        ConfigError, match=r"^observations are \[1\] and actions Box; allowed for Prototypical: pictures"
    ):
        few("prototypical", family)


def test_a_support_set_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"^rounds is \[5\]; allowed: 2 or more"):
        few("prototypical", make(TWO)).check_rounds([5])


@pytest.mark.parametrize("kind", ["maml", "reptile", "matching", "joint"])
def test_learning_goes_on_bit_for_bit_after_a_load(kind: str) -> None:
    def trained(iterations: int, start: int = 0, state: Any = None) -> Any:
        family, rng = make(TWO), generator(0)
        agent = AGENTS[kind](family.observation_space, family.action_space, rng)
        if state:
            agent.load_state_dict(state[0])
            rng.set_state(state[1])
        train(family, agent, rng, iterations=iterations, rounds=(2, 2), meta_batch_size=2, start=start)
        return {k: v.clone() for k, v in agent.state_dict().items()}, rng.get_state()

    half, whole = trained(2), trained(4)
    resumed = trained(4, 2, half)
    assert all(torch.equal(x, whole[0][k]) for k, x in resumed[0].items())


def test_features_of_a_joint_network_serve_heads_and_neighbours() -> None:
    family, rng = make("glyphs/5-way"), generator(0)
    for adaptation in ("head", "nearest"):
        agent = few("joint", family, adaptation=adaptation, adapt_steps=30, inner_lr=0.5, filters=16)
        train(family, agent, rng, iterations=1, rounds=(5, 5), meta_batch_size=2)
        tasks = family.sample_tasks(20, "test", rng)
        found = evaluate(family, agent, rng, rounds=(5, 5), tasks=tasks)
        assert found.scores[-1].mean() > 0.25
        assert found.controls["shuffled"].mean() < 0.3
        trial = run_trial(family, agent, tasks, (5, 5), rng)
        belief = agent.adapt(agent.begin(20, 5), trial.rounds[0])
        assert torch.equal(
            agent.predict(belief, trial.rounds[0].obs[0]).argmax(-1), trial.rounds[0].target[0, ..., 0]
        )
    with pytest.raises(ConfigError, match=r"^agent.adaptation is 'head'; allowed of numbers: fine_tune$"):
        few("joint", make("sinusoid/maml2017"), adaptation="head")


def test_more_support_in_later_rounds_adds_up() -> None:
    family, rng = make({"pictures": "glyphs", "way": 3}), generator(0)
    agent = few("prototypical", family)
    train(family, agent, rng, iterations=1, rounds=(3, 3), meta_batch_size=2)
    trial = run_trial(family, agent, family.sample_tasks(5, "test", rng), (3, 6, 3), rng)
    belief = agent.begin(5, 3)
    for rollout in trial.rounds[:2]:
        belief = agent.adapt(belief, rollout)
    assert belief.x.shape[1] == 9
    logits = agent.predict(belief, trial.rounds[2].obs[0])
    assert torch.equal(logits.argmax(-1), trial.rounds[2].action[0])


def test_a_few_minutes_of_letters_in_a_few_seconds() -> None:
    """Far from a result, but far from chance: 40 episodes."""
    family, rng = make("glyphs/5-way"), generator(0)
    agent = AGENTS["prototypical"](
        family.observation_space,
        family.action_space,
        rng,
        AGENTS["prototypical"].Config(filters=16, learning_rate=0.003),
    )
    train(family, agent, rng, iterations=40, rounds=(5, 25), meta_batch_size=1)
    tasks = family.sample_tasks(100, "test", rng)
    found = evaluate(family, agent, rng, rounds=(5, 25), tasks=tasks)
    assert found.scores[-1].mean() > 0.55
    assert found.controls["shuffled"].mean() < 0.3


def test_maml_learns_sine_waves_in_a_few_seconds() -> None:
    family, rng = make("sinusoid/maml2017"), generator(0)
    agent = few("maml", family, inner_lr=0.01, hidden=(40, 40), learning_rate=0.003)
    train(family, agent, rng, iterations=400, rounds=(10, 10), meta_batch_size=25)
    before, after = evaluate(family, agent, rng, rounds=(10, 100), controls=False).scores.mean(1)
    assert after > before + 0.5
    assert after > -3.0


def test_a_linear_model_on_lines_soon_does_as_well_as_ridge() -> None:
    family, rng = make("linear/noisy"), generator(0)
    maml = few("maml", family, hidden=(), inner_lr=0.04, inner_steps=40, learning_rate=0.01)
    assert len([*maml.network.params]) == 2, "a slope and an intercept"
    train(family, maml, rng, iterations=60, rounds=(10, 10), meta_batch_size=25)
    tasks = family.sample_tasks(200, "test", rng)
    ours, ridge = (
        evaluate(family, agent, generator(1), rounds=(10, 100), tasks=tasks, controls=False).scores[-1].mean()
        for agent in (maml, few("ridge", family))
    )
    assert ours > 1.15 * ridge, "both are negative"


def test_everything_is_exported() -> None:
    assert metarl.Convolutions is networks.Convolutions
    assert {*FEW_SHOT} <= {*AGENTS}
    assert Rollout._fields[0] == "obs"
