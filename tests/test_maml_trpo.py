"""MAML-TRPO's derivatives against finite differences, and its invariants."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import metarl
from metarl import Batch, Gaussian, MetaObjective, Rollout, Trial
from metarl.agents import MamlTrpo
from metarl.envs import make

SETTINGS: dict[str, dict[str, Any]] = {
    "one step": {},
    "relu": {"activation": "relu"},
    "two steps": {"later_lr": 0.15},
    "learned steps": {"learn_inner_lr": True},
    "two learned steps": {"learn_inner_lr": True, "later_lr": 0.15},
    "two steps, each counts": {"later_lr": 0.15, "credit": (3.0, 1.0), "exploration": 2.0},
    "rewards predicted": {"reward_prediction": 0.7},
    "two steps, rewards predicted": {"reward_prediction": 0.7, "later_lr": 0.15, "credit": (1.0, 1.0)},
}
SMOOTH = [name for name in SETTINGS if name != "relu"]  # finite differences would step over relu's kinks


@pytest.fixture(autouse=True)
def _float64_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(metarl.device, "CACHED_STEPS", 40)  # one short task each, in two threads
    monkeypatch.setattr(metarl.device, "workers", lambda: 2)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agent_of(**settings: Any) -> MamlTrpo:
    family = make("navigation/maml2017")
    config = MamlTrpo.Config(hidden=(7, 6), inner_lr=0.3, output_gain=1.0, **settings)
    return MamlTrpo(family.observation_space, family.action_space, metarl.generator(3), config)


def trial_of(agent: MamlTrpo, rounds: tuple[int, ...] = (3, 3), tasks: int = 3) -> Trial:
    """A short trial in which some episodes end early, so that the masks matter."""
    family = make("navigation/maml2017")
    family.horizon = 12
    rng = metarl.generator(5)
    trial = metarl.run_trial(family, agent, family.sample_tasks(tasks, "train", rng), rounds, rng)
    ended = [r.terminated.clone() for r in trial.rounds]
    for terminated in ended:
        terminated[7:, 1, 0] = True
    cut = [
        r._replace(terminated=e, reward=r.reward.clone()) for r, e in zip(trial.rounds, ended, strict=True)
    ]
    for r in cut:
        r.reward.masked_fill_(~r.valid, 0.0)
    return Trial(trial.tasks, tuple(cut))


def prepared(name: str) -> tuple[MamlTrpo, Trial, list[Batch]]:
    agent = agent_of(**SETTINGS[name])
    trial = trial_of(agent, (3, 3, 3) if "two" in name else (3, 3))
    return agent, trial, batches_of(agent, trial)


def batches_of(agent: MamlTrpo, trial: Trial) -> list[Batch]:
    return [agent.batch(*round) for round in agent.judged(trial)]


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def central(function: Callable[[Tensor], Tensor], at: Tensor, h: float = 1e-5) -> Tensor:
    """The gradient (or Jacobian's rows) of a function of a vector by central differences."""
    rows = []
    for i in range(len(at)):
        e = torch.zeros_like(at)
        e[i] = h
        rows.append((function(at + e) - function(at - e)) / (2 * h))
    return torch.stack(rows)


def loss_after_adaptation(
    agent: MamlTrpo, batches: list[Batch], meta: Tensor, old: list[list[Gaussian]]
) -> Tensor:
    """mean_i -Σ_b w_b A_b π/π_old, whose gradient at the old parameters is the meta-gradient."""
    now, total = agent.objective(meta, batches), torch.zeros(())
    for after, before, chunk in zip(now.policies(), old, now.chunks, strict=True):
        for credit, p, q, batch in zip(now.credit, after, before, chunk.batches, strict=True):
            ratio = (p.log_prob(batch.action) - q.log_prob(batch.action)).exp()
            total = total - credit * (batch.weight * batch.advantage * ratio).sum() / 3
    return total


@pytest.mark.parametrize("name", SMOOTH)
@torch.no_grad()
def test_the_meta_gradient_is_that_of_central_differences(name: str) -> None:
    agent, _, batches = prepared(name)
    meta = agent.meta_parameters
    now = agent.objective(meta, batches)
    old = now.policies()
    wanted = central(lambda m: loss_after_adaptation(agent, batches, m, old), meta)
    assert relative_error(now.gradient(), wanted) <= 1e-6


@pytest.mark.parametrize("name", SMOOTH)
@torch.no_grad()
def test_the_fisher_product_is_the_hessian_of_the_kl_between_adapted_policies(name: str) -> None:
    agent, _, batches = prepared(name)
    meta = agent.meta_parameters
    now = agent.objective(meta, batches)
    old = now.policies()
    v = torch.randn(len(meta), generator=metarl.generator(1))
    v /= v.norm()

    def kl_gradient(m: Tensor) -> Tensor:
        """∇ KL(old ‖ adapted(m)) through the whole adaptation, by autograd and the torch.func path."""
        with torch.enable_grad():
            m = m.clone().requires_grad_()
            there = functional_objective(agent, m, batches)
            total = torch.zeros(())
            for after, before, chunk in zip(there.policies(), old, there.chunks, strict=True):
                for credit, p, q, batch in zip(there.credit, after, before, chunk.batches, strict=True):
                    total = total + credit * (batch.weight * q.kl(p)).sum() / 3
            return torch.autograd.grad(total, m)[0]

    h = 1e-5
    wanted = (kl_gradient(meta + h * v) - kl_gradient(meta - h * v)) / (2 * h)
    assert relative_error(now.fisher(v), wanted) <= 1e-6


def functional_objective(agent: MamlTrpo, meta: Tensor, batches: list[Batch]) -> MetaObjective:
    """The same objective on the general path: any policy, torch.func, autograd through everything."""
    now = agent.objective(meta, batches)
    how = agent.inner_steps(len(batches) - 1), batches, now.credit, agent.widening
    return MetaObjective(General(agent), meta, agent.alpha, *how)


class General(metarl.Policy):
    """The agent's own perceptron, without its hand-written derivatives."""

    def __init__(self, agent: MamlTrpo) -> None:
        super().__init__()
        self.network = agent.policy
        self.names = ["network." + name for name in agent.policy.names]
        self.shapes = agent.policy.shapes

    def forward(self, obs: Tensor) -> Gaussian:
        out: Gaussian = self.network(obs)
        return out


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_the_hand_written_path_equals_torch_func(name: str) -> None:
    agent, _, batches = prepared(name)
    meta = agent.meta_parameters
    fast, general = agent.objective(meta, batches), functional_objective(agent, meta, batches)
    assert len(fast.chunks) == 3
    v = torch.randn(len(meta), generator=metarl.generator(1))
    assert relative_error(fast.gradient(), general.gradient()) <= 1e-10
    assert relative_error(fast.fisher(v), general.fisher(v)) <= 1e-10


def test_the_meta_gradient_is_that_of_double_backward_one_task_at_a_time() -> None:
    agent, _, batches = prepared("two steps")
    theta = agent.policy.flat.requires_grad_()
    policy, alpha = agent.policy, agent.config.inner_lr

    def loss(phi: Tensor, batch: Batch) -> Tensor:
        named = dict(zip(policy.names, (p[0] for p in policy.split(phi[None])), strict=True))
        log_prob = functional_call(policy, named, (batch.obs,)).log_prob(batch.action)
        return -(batch.weight * batch.advantage * log_prob).sum()

    total = torch.zeros(())
    for i in range(3):
        phi = theta
        for batch, scale in zip(batches[:-1], (1.0, 0.5), strict=True):
            task = Batch(*(x[i] for x in batch))
            phi = phi - scale * alpha * torch.autograd.grad(loss(phi, task), phi, create_graph=True)[0]
        total = total + loss(phi, Batch(*(x[i] for x in batches[-1]))) / 3
    (wanted,) = torch.autograd.grad(total, theta)
    with torch.no_grad():
        found = agent.objective(agent.meta_parameters, batches).gradient()
    assert relative_error(found, wanted) <= 1e-10


@torch.no_grad()
def test_first_order_leaves_the_hessian_out() -> None:
    agent = agent_of(first_order=True)
    batches = batches_of(agent, trial_of(agent))
    now = agent.objective(agent.meta_parameters, batches)
    phi = (
        agent.policy.flat
        - 0.3 * agent.policy.derivatives(agent.policy.flat.expand(3, -1), batches[0]).gradient()
    )
    wanted = agent.policy.derivatives(phi, batches[1]).gradient().mean(0)
    assert torch.allclose(now.gradient(), wanted, rtol=1e-12)
    exact = agent_of()
    assert relative_error(exact.objective(agent.meta_parameters, batches).gradient(), wanted) > 1e-3


def test_a_fisher_product_at_the_policy_is_the_gaussians_closed_form() -> None:
    """With one linear layer and obs = 1 the Fisher is 1/σ² for the mean's bias, 2 for log σ."""
    policy = metarl.GaussianMlp(1, 1, metarl.generator(0), hidden=(1,), initial_std=0.5)
    with torch.no_grad():
        policy.weights[0].zero_()
        policy.weights[1].zero_()
    one = torch.ones(1, 4, 1)
    batch = Batch(one, one, one[..., 0], torch.full((1, 4), 0.25), one[..., 0], 0 * one[..., 0])
    params = policy.flat[None]  # log_std, W1, W2, b1, b2
    for v, wanted in (([1, 0, 0, 0, 0], [2, 0, 0, 0, 0]), ([0, 0, 0, 0, 1], [0, 0, 0, 0, 4])):
        found = policy.derivatives(params, batch).fisher(torch.tensor([v], dtype=params.dtype))
        assert torch.allclose(found, torch.tensor([wanted], dtype=params.dtype))


@torch.no_grad()
def test_adaptation_is_a_gradient_step_and_does_not_depend_on_the_other_tasks() -> None:
    agent = agent_of(later_lr=0.1)
    rollout = trial_of(agent).rounds[0]
    together = agent.adapt(agent.begin(3, 3), rollout)
    alone = agent.adapt(agent.begin(1, 3), Rollout(*(x[:, 1:2] for x in rollout)))
    assert torch.allclose(together.params[1], alone.params[0], rtol=1e-12)
    batch = agent.batch(rollout, agent.advantages(rollout, agent.config.gae_lambda), 0)

    def loss(params: Tensor, b: Batch) -> Tensor:
        return -(b.weight * b.advantage * agent.policy.single(params, b.obs).log_prob(b.action)).sum()

    step = vmap(grad(loss))(agent.begin(3, 3).params, batch)
    assert torch.allclose(together.params, agent.policy.flat - 0.3 * step, rtol=1e-12)
    again = agent.adapt(together, rollout)
    step = vmap(grad(loss))(together.params, batch)
    assert torch.allclose(again.params, together.params - 0.1 * step, rtol=1e-12)


def test_an_update_improves_the_objective_within_the_trust_region() -> None:
    agent = agent_of()
    trial = trial_of(agent)
    batches = batches_of(agent, trial)
    before = agent.meta_parameters
    old = agent.objective(before, batches).policies()
    metrics = agent.meta_update(trial)
    gain, kl = agent.objective(agent.meta_parameters, batches).compare(old)
    assert 0 < gain == pytest.approx(metrics["improvement"])
    assert 0 < kl <= agent.config.max_kl
    assert not torch.equal(before, agent.meta_parameters)


def test_the_step_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for workers in (1, 2):
        monkeypatch.setattr(metarl.device, "workers", lambda w=workers: w)
        agent = agent_of()
        agent.meta_update(trial_of(agent))
        results.append(agent.meta_parameters)
    assert torch.equal(*results)


def test_annealed_steps_become_shorter_and_cease() -> None:
    agent = agent_of(anneal=2)
    trial, lengths = trial_of(agent), []
    for _ in range(3):
        before = agent.meta_parameters
        metrics = agent.meta_update(trial)
        lengths.append((agent.meta_parameters - before).norm().item())
        assert metrics["kl"] <= agent.config.max_kl
    assert lengths[0] > 1.2 * lengths[1] > 0 == lengths[2]


def test_a_thinned_curvature_changes_the_direction_and_not_the_gradient() -> None:
    exact, thinned = agent_of(), agent_of(curvature_fraction=0.5)
    trial = trial_of(exact)
    a, b = exact.meta_update(trial), thinned.meta_update(trial)
    assert a["gradient_norm"] == b["gradient_norm"]
    assert a["improvement"] != b["improvement"]
    assert b["kl"] <= thinned.config.max_kl


def test_learned_step_sizes_move_with_the_policy() -> None:
    agent = agent_of(learn_inner_lr=True)
    before = agent.alpha.clone()
    agent.meta_update(trial_of(agent))
    assert agent.alpha.shape == (agent.policy.size,)
    assert not torch.equal(agent.alpha, before)


def test_log_density_and_divergence_of_several_dimensions() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = metarl.generator(0)
    mean, log_std, action = (torch.randn(5, 3, generator=rng) for _ in range(3))
    ours = Gaussian(mean, log_std).log_prob(action)
    theirs = scipy_stats.norm(mean.numpy(), log_std.exp().numpy()).logpdf(action.numpy()).sum(-1)
    assert torch.allclose(ours, torch.from_numpy(theirs))
    p = torch.distributions.Normal(mean, log_std.exp())
    q = torch.distributions.Normal(action, (log_std / 2).exp())
    wanted = torch.distributions.kl_divergence(p, q).sum(-1)
    assert torch.allclose(Gaussian(mean, log_std).kl(Gaussian(action, log_std / 2)), wanted)


@torch.no_grad()
def test_noise_is_wider_only_before_the_first_adaptation() -> None:
    agent = agent_of(exploration=3.0)
    before = agent.begin(3, 3)
    rollout = trial_of(agent).rounds[0]
    explores = agent.policy.batched(before.params, rollout.obs[0]).log_std.exp()
    assert torch.allclose(explores, 3 * agent.policy.log_std.exp())
    after = agent.adapt(before, rollout)
    batch = agent.batch(rollout, agent.advantages(rollout, agent.config.gae_lambda), 0)
    step = agent.policy.derivatives(before.params, batch).gradient()
    assert torch.allclose(after.params, agent.policy.flat - 0.3 * step)


@torch.no_grad()
def test_only_the_first_adaptation_learns_from_wrong_predictions_of_the_reward() -> None:
    agent = agent_of(reward_prediction=0.7, later_lr=0.3)
    rollout = trial_of(agent).rounds[0]
    before = agent.begin(3, 3)
    batch = agent.batch(rollout, agent.advantages(rollout, agent.config.gae_lambda), 0)

    def wrong(params: Tensor, b: Batch) -> Tensor:
        return 0.35 * (b.weight * (agent.policy.single(params, b.obs).reward[:, 0] - b.reward).square()).sum()

    first = agent.adapt(before, rollout)
    silent = batch._replace(surprise=0 * batch.surprise)
    steps = [agent.policy.derivatives(before.params, b).gradient() for b in (batch, silent)]
    assert torch.allclose(steps[0] - steps[1], vmap(grad(wrong))(before.params, batch), rtol=1e-9)
    assert torch.allclose(first.params, before.params - 0.3 * steps[0], rtol=1e-12)
    second = agent.adapt(first, rollout)
    plain = agent.policy.derivatives(first.params, silent).gradient()
    assert torch.allclose(second.params, first.params - 0.3 * plain, rtol=1e-12)


@torch.no_grad()
def test_tasks_whose_rewards_differ_by_a_constant_are_told_apart_by_predicted_rewards_only() -> None:
    """A policy gradient over a baseline does not see a constant; how wrong a prediction was, does."""
    for weight, differ in (0.0, False), (0.7, True):
        agent = agent_of(reward_prediction=weight, gamma=1.0)
        rollout = trial_of(agent).rounds[0]
        shifted = rollout._replace(reward=rollout.reward - 1)
        one, two = (agent.adapt(agent.begin(3, 3), r).params[0] for r in (rollout, shifted))
        assert torch.allclose(one, two, atol=1e-2) is not differ


@torch.no_grad()
def test_the_last_round_alone_is_judged_by_the_outer_decay() -> None:
    agents = [agent_of(gae_lambda=a, outer_gae_lambda=b) for a, b in ((0.9, 0.4), (0.9, None), (0.4, None))]
    agent, trial = agents[0], trial_of(agents[0], (3, 3, 3))
    for (_, found, _), r, decay in zip(agent.judged(trial), trial.rounds, (0.9, 0.9, 0.4), strict=True):
        assert torch.equal(found, agent.advantages(r, decay))
        assert not torch.allclose(found, agent.advantages(r, 1.3 - decay))
    first, second, third = (a.adapt(a.begin(3, 3), trial.rounds[0]).params for a in agents)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert len({a.meta_update(trial)["gradient_norm"] for a in agents}) == 3


@torch.no_grad()
def test_credit_weighs_the_objectives_that_end_with_each_round() -> None:
    agent, _, batches = prepared("two steps, each counts")
    last = agent_of(later_lr=0.15, exploration=2.0)
    meta = agent.meta_parameters
    first, second = (last.objective(meta, batches[:k]).gradient() for k in (2, 3))
    assert relative_error(agent.objective(meta, batches).gradient(), 0.75 * first + 0.25 * second) <= 1e-10


@pytest.mark.parametrize(
    ("credit", "rounds", "part"),
    [
        (None, [3], r"rounds is \[3\]; allowed: 2 or more"),
        ((1.0, 1.0), [3, 3], r"agent.credit is \[1.0, 1.0\]; allowed for 2 rounds: none, or a list of 1"),
        ((0.0, 0.0), [3, 3, 3], "not all 0"),
    ],
)
def test_rounds_and_credit_have_to_fit(
    credit: tuple[float, ...] | None, rounds: list[int], part: str
) -> None:
    family = make("navigation/maml2017")
    agent = agent_of(credit=credit)
    with pytest.raises(metarl.ConfigError, match=part):
        metarl.train(family, agent, agent.rng, iterations=1, rounds=rounds)


def test_negative_step_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="inner_lr"):
        MamlTrpo.Config(inner_lr=-1.0)


def test_without_the_hand_written_derivatives_training_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README promises to whoever deletes them; in two threads, which torch.func cannot share."""

    def updated() -> Tensor:
        agent = agent_of()
        trial = trial_of(agent)
        agent.meta_update(trial)
        agent.adapt(agent.begin(3, 3), trial.rounds[0])
        return agent.meta_parameters

    wanted = updated()
    monkeypatch.delattr(metarl.GaussianMlp, "derivatives")
    assert relative_error(updated(), wanted) <= 1e-5  # conjugate gradient magnifies rounding


def test_a_trial_that_is_not_finite_teaches_nothing_and_destroys_nothing() -> None:
    agent = agent_of()
    trial = trial_of(agent)
    before = agent.meta_parameters
    trial.rounds[0].reward[3, 0, 0] = torch.nan
    assert agent.meta_update(trial)["step_scale"] == 0
    assert torch.equal(agent.meta_parameters, before)


def test_tasks_in_which_the_agent_diverges_are_counted_and_score_their_floor() -> None:
    agent = agent_of()
    family = make("navigation/maml2017")
    found = metarl.evaluate(family, agent, metarl.generator(0), rounds=(2, 2))
    returns = [r.clone() for r in found.returns]
    returns[1][5, 1] = torch.nan
    broken = found._replace(returns=tuple(returns))
    assert (found.diverged, broken.diverged) == (0, 1)
    assert broken.summary()["diverged"] == 1
    assert broken.scores[1, 5] == found.bounds.floor[5]
    same = torch.arange(40) != 5
    assert (broken.scores[:, same] == found.scores[:, same]).all()
