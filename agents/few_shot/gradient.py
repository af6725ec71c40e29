"""What learners that adapt by gradient steps share: the inner loop, and the meta-gradient through it.

Everything about one task is a plain function of tensors; `vmap` makes it one of a chunk of tasks, and the
cores share the chunks.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.func import grad, vmap
from torch.utils import _pytree as pytree

from metarl import STRICT, Convolutions, Mlp, Moments, Network, Rollout, Trial, device
from metarl.networks import Pooling

from .learner import Examples, FewShotLearner, LearnerConfig

Params = list[Tensor]
Rule = Callable[[int, Params, Params, Params], tuple[Params, Params]]  # see GradientLearner.step
HEAD = 2  # parameters of the last layer, its weight and its bias
CHUNK = {True: 8, False: 64}  # tasks whose activations fit a core's cache, of pictures and of curves


@dataclass(frozen=True, config=STRICT, kw_only=True)
class GradientConfig(LearnerConfig):
    """Settings of the network and of its adaptation."""

    inner_lr: PositiveFloat = 0.4
    """Size of an adaptation step; its initial value where it is learned."""
    inner_steps: PositiveInt = 1
    """Adaptation steps in training."""
    adapt_steps: PositiveInt | None = None
    """Adaptation steps in evaluation; none: as many as in training."""
    batch_norm: Literal["transductive", "inductive"] = "transductive"
    """Whose moments normalise the queries: their own, or those of the support set. Evaluation tells both."""
    filters: PositiveInt = 32
    """Channels of each of the four convolutions, where inputs are pictures."""
    pooling: Pooling = "stride"
    """How they halve a picture."""
    hidden: tuple[PositiveInt, ...] = (40, 40)
    """Widths of the hidden layers, where inputs are numbers; none: a linear model."""


class Belief(NamedTuple):
    """What is known of each task: its adapted parameters, and the moments of its support set."""

    params: Params  # [N, *shape] each
    moments: tuple[Moments, ...]  # [N, F] each; none before any data
    inductive: bool


class Adapted(NamedTuple):
    """What adaptation made of one task, or of a chunk."""

    params: Params
    before: Tensor  # what the unadapted network said of the first support set


class GradientLearner(FewShotLearner):
    """A network, and a rule by which its parameters follow the gradient of the support set's loss."""

    Config: type[GradientConfig]  # the settings, which a subclass declares
    config: GradientConfig

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: GradientConfig | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng)
        self.config = config or self.Config()
        self.network = self.make_network(rng)
        self.make_rule()
        self.optimise()

    def make_network(self, rng: Generator) -> Network:
        """Convolutions for pictures, a perceptron for numbers."""
        c = self.config
        if len(self.shape) == 3:
            return Convolutions(self.shape, c.filters, self.outputs, rng, c.pooling)
        return Mlp(self.shape[0], c.hidden, self.outputs, rng)

    def make_rule(self) -> None:
        """Make what the rule learns, as parameters of this module; nothing by default."""

    @abstractmethod
    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ_{k+1} from φ_k and ∇L(φ_k), and what the rule remembers of its steps; nothing at first."""

    def adapt_step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """The same in evaluation."""
        return self.step(k, params, gradient, memory)

    @property
    def by_gradient(self) -> bool:
        """Whether its return may be drawn against the number of steps."""
        return True

    # --- one task

    def task_loss(self, params: Params, x: Tensor, y: Tensor, given: Sequence[Moments] = ()) -> Any:
        """The loss on one task's examples; besides, what the network said, and the moments."""
        output = self.network.run(params, x, given)
        return self.loss(output.value, y), output

    def adapted(self, theta: Params, supports: Sequence[Examples], steps: int) -> Adapted:
        """So many steps on each of one task's support sets, one after the other."""
        params, said = theta, list[Tensor]()
        for support in supports:
            memory = Params()
            for k in range(steps):
                gradient, output = grad(self.task_loss, has_aux=True)(params, *support)
                params, memory = self.step(k, params, gradient, memory)
                said.append(output.value)
        return Adapted(params, said[0])

    # --- the agent's side of a trial

    def begin(self, tasks: int, episodes: int) -> Belief:
        """All tasks start from the meta-learned parameters θ."""
        params = [p.detach().expand(tasks, *p.shape) for p in self.network.params]
        return Belief(params, (), self.config.batch_norm == "inductive")

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Follow the gradient of a round's examples."""
        if self.training:
            return belief
        c = self.config
        return self.adapt_by(belief, rollout, c.adapt_steps or c.inner_steps)

    @torch.no_grad()
    def adapt_by(self, belief: Belief, rollout: Rollout, steps: int) -> Belief:
        """The same with another number of steps, for curves against it; 0 measures the moments alone."""
        support = Examples.of(rollout, self.classes)

        def some(params: Params, x: Tensor, y: Tensor) -> tuple[Params, tuple[Moments, ...]]:
            phi = self.descended(params, [Examples(x, y)] * steps, self.adapt_step)
            return phi, vmap(lambda phi, x: self.network.run(phi, x).moments)(phi, x)

        params, moments = self.over_tasks(some, belief.params, *support)
        return Belief(params, moments, belief.inductive)

    def descended(self, params: Params, batches: Iterable[Examples], step: Rule) -> Params:
        """φ of N tasks, [N, ...] each, after a step on each of some batches, from given parameters."""
        memory = Params()
        for k, batch in enumerate(batches):
            params, memory = step(k, params, self.gradients(params, *batch), memory)
        return params

    @torch.enable_grad()
    def gradients(self, params: Params, x: Tensor, y: Tensor) -> Params:
        """∇L_i(φ_i) of N tasks, [N, ...] each, not to be differentiated again, and so faster."""
        params = [p.detach().requires_grad_() for p in params]
        losses = self.loss(self.network.run_each(params, x), y)
        return [*torch.autograd.grad(losses.sum(), params)]

    @torch.no_grad()
    def predict(self, belief: Belief, x: Tensor) -> Tensor:
        """What each task's network says."""
        given = belief.moments if belief.inductive else ()

        def one(params: Params, given: Any, x: Tensor) -> Tensor:
            return self.network.run(params, x, given).value

        said: Tensor = self.over_tasks(
            vmap(one, in_dims=(0, 0 if given else None, 0)), belief.params, given, x
        )
        return said

    def variants(self, belief: Belief) -> dict[str, Belief]:
        """The other way to normalise queries."""
        if not belief.moments:
            return {}
        name = "transductive" if belief.inductive else "inductive"
        return {f"{name} batch norm": belief._replace(inductive=not belief.inductive)}

    def over_tasks(self, function: Callable[..., Any], *parts: Any) -> Any:
        """A function of a chunk of tasks, of all of them; its results joined."""
        tasks = len(pytree.tree_leaves(parts)[0])

        def cut(chunk: slice) -> Any:
            return function(*pytree.tree_map(lambda x: x[chunk], parts))

        found = device.map_tasks(cut, device.parts(tasks, self.chunk))
        return pytree.tree_map(lambda *x: torch.cat(x), *found)

    @property
    def chunk(self) -> int:
        """Tasks to compute at a time."""
        default = CHUNK[len(self.shape) == 3] if self.rng.device.type == "cpu" else 2**31
        return self.config.chunk_size or default

    # --- learning across tasks

    def meta_update(self, trial: Trial) -> dict[str, float]:
        """A step of Adam on the mean loss of the queries, after adaptation."""
        *supports, query = self.examples(trial)
        tasks = len(query.x)
        found = device.map_tasks(
            partial(self.meta_gradient, supports, query), device.parts(tasks, self.chunk)
        )
        gradients = [torch.stack(parts).sum(0) / tasks for parts in zip(*(g for g, _ in found), strict=True)]
        said = torch.stack([s for _, s in found]).sum(0) / tasks
        norm = self.descend(gradients)
        names = ("loss", "return_0", f"return_{len(supports)}")
        return dict(zip(names, said.tolist(), strict=True)) | {"gradient_norm": norm.item()} | self.told()

    def meta_gradient(
        self, supports: Sequence[Examples], query: Examples, chunk: slice
    ) -> tuple[list[Tensor], Tensor]:
        """The gradient of a chunk's summed loss, and [loss, return before, return after], summed."""
        cut = [Examples(*(x[chunk] for x in e)) for e in (*supports, query)]
        with torch.enable_grad():
            losses, said = vmap(self.meta_loss)(cut[:-1], cut[-1])
            gradients = torch.autograd.grad(losses.sum(), list(self.parameters()), allow_unused=True)
        zeros = zip(gradients, self.parameters(), strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zeros], said.detach().sum(0)

    def meta_loss(self, supports: Sequence[Examples], query: Examples) -> tuple[Tensor, Tensor]:
        """L_query(φ(θ)) of one task, and [loss, return before, return after]."""
        c = self.config
        phi, before = self.adapted(self.network.params, supports, c.inner_steps)
        given = self.network.run(phi, supports[-1].x).moments if c.batch_norm == "inductive" else ()
        loss, output = self.task_loss(phi, *query, given)
        returns = self.earned(before, supports[0].y), self.earned(output.value, query.y)
        return loss, torch.stack([loss.detach(), *(r.detach() for r in returns)])

    def told(self) -> dict[str, float]:
        """What a rule says of itself in the metrics."""
        return {}
