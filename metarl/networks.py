"""Networks whose parameters are given at every call, so that each task may have its own under `torch.func`.

Batch normalisation is our own: torch's, in training, has wrong second derivatives under `vmap` of a gradient.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from .errors import ConfigError

EPS = 1e-5
Pooling = Literal["stride", "stride-all", "max"]
Norm = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, [B, F, H, W], scale [F], shift [F]


class Moments(NamedTuple):
    """A layer's batch statistics, [F] each."""

    mean: Tensor
    variance: Tensor


class Output(NamedTuple):
    """What a network says of a batch, and the statistics by which it normalised."""

    value: Tensor  # [B, K]
    moments: tuple[Moments, ...]  # one a normalised layer


class Network(nn.Module, ABC):
    """Its parameters lie in one list, in order; the last two are the output layer's, where it has one."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in order."""
        return list(self.weights)

    @abstractmethod
    def run(self, params: Sequence[Tensor], x: Tensor, given: Sequence[Moments] = ()) -> Output:
        """Inputs [B, ...] to outputs [B, K], by given parameters, and the batch's own or given moments."""

    def run_each(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """Inputs [N, B, ...] of N tasks to outputs [N, B, K], each by its own parameters [N, ...].

        Twice as fast as `run` under `vmap`, and not to be differentiated twice.
        """
        said: Tensor = vmap(lambda params, x: self.run(params, x).value)(list(params), x)
        return said


class Mlp(Network):
    """A perceptron with rectified linear units."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, rng: Generator) -> None:
        gains = [math.sqrt(2)] * len(hidden) + [1.0]
        sizes = zip(pairwise([inputs, *hidden, outputs]), gains, strict=True)
        super().__init__([x for size, gain in sizes for x in _dense(*size, gain, rng)])

    def run(self, params: Sequence[Tensor], x: Tensor, given: Sequence[Moments] = ()) -> Output:
        """Nothing is normalised."""
        pairs = list(zip(params[::2], params[1::2], strict=True))
        for weight, bias in pairs[:-1]:
            x = F.relu(F.linear(x, weight, bias))
        return Output(F.linear(x, *pairs[-1]), ())


class Convolutions(Network):
    """Blocks, four by default, of 3x3 convolution, batch normalisation and ReLU (Vinyals et al. 2016).

    A block halves the picture, by "max"-pooling, as there, or by a "stride" of two, as Finn et al. 2017 do on
    Omniglot, with the mean over what is left of it as features; "stride-all" takes all that is left, as
    Nichol et al. 2018 do. Without outputs it says those features. Of a "max" network only the first `pooled`
    blocks halve it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        filters: int,
        outputs: int | None,
        rng: Generator,
        pooling: Pooling = "stride",
        gain: float = 1.0,
        pooled: int = 4,
        depth: int = 4,
    ) -> None:
        channels, height, width = shape
        weights, sizes = list[Tensor](), [channels] + [filters] * depth
        for inside, outside in pairwise(sizes):
            weight = torch.empty(outside, inside, 3, 3, device=rng.device)
            nn.init.kaiming_normal_(weight, generator=rng)
            one = torch.ones(outside, device=rng.device)
            weights += [weight, one, torch.zeros_like(one)]
        self.strided, self.averaged = pooling != "max", pooling == "stride"
        size = tuple(-(-side // 2**depth) if self.strided else side // 2**pooled for side in (height, width))
        whole = filters * (1 if self.averaged else math.prod(size))
        if not whole:
            raise ConfigError(
                f"the pictures are {height} x {width}; allowed: {2**pooled} x {2**pooled} or more"
            )
        if outputs is not None:
            weights += _dense(whole, outputs, gain, rng)
        super().__init__(weights)
        self.pooled, self.depth = pooled, depth
        self.features, self.size = whole, size

    def run(self, params: Sequence[Tensor], x: Tensor, given: Sequence[Moments] = ()) -> Output:
        """Each layer's moments are those of this batch, unless others are given."""
        moments = list[Moments]()

        def norm(i: int, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            moments.append(given[i] if given else moments_of(x))
            return normalised_by(moments[-1], x, scale, shift)

        x = self.blocks(params, x, norm)
        x = self.flat(x)
        return Output(F.linear(x, *params[-2:]) if len(params) > 3 * self.depth else x, tuple(moments))

    def blocks(self, params: Sequence[Tensor], x: Tensor, norm: Norm, groups: int = 1) -> Tensor:
        """The blocks, with some normalisation, [B, F, h, w]; groups of channels are apart."""
        for i in range(self.depth):
            weight, scale, shift = params[3 * i : 3 * i + 3]
            x = F.conv2d(x, weight, padding=1, stride=2 if self.strided else 1, groups=groups)
            x = F.relu(norm(i, x, scale, shift))
            if not self.strided and i < self.pooled:
                x = F.max_pool2d(x, 2)
        return x

    def run_each(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """A task is a group of each convolution; torch's own batch normalisation keeps its channels apart."""
        tasks, batch = x.shape[:2]

        def norm(_: int, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return F.batch_norm(x, None, None, scale, shift, training=True, eps=EPS)

        joined = [p.flatten(0, 1) for p in params[: 3 * self.depth]]
        maps = self.blocks(joined, x.transpose(0, 1).flatten(1, 2), norm, groups=tasks)
        maps = maps.unflatten(1, (tasks, -1)).transpose(0, 1)  # [N, B, F, h, w]
        x = self.flat(maps.flatten(0, 1)).unflatten(0, (tasks, batch))
        return torch.baddbmm(params[-1].unsqueeze(1), x, params[-2].mT)

    def flat(self, maps: Tensor) -> Tensor:
        """Features [B, D] of the last block's maps."""
        return maps.mean((-2, -1)) if self.averaged else maps.flatten(1)


class Embedding(Convolutions):
    """Convolutions that normalise by running moments in evaluation, so that no picture changes another's.

    Without a gradient of a gradient torch's own batch normalisation is right, and faster.
    """

    def __init__(
        self,
        shape: Sequence[int],
        filters: int,
        rng: Generator,
        pooling: Pooling = "max",
        pooled: int = 4,
        depth: int = 4,
    ) -> None:
        super().__init__(shape, filters, None, rng, pooling, pooled=pooled, depth=depth)
        self.register_buffer("mean", torch.zeros(depth, filters, device=rng.device))
        self.register_buffer("variance", torch.ones(depth, filters, device=rng.device))
        self.mean: Tensor
        self.variance: Tensor

    def maps(self, x: Tensor, learns: bool) -> Tensor:
        """Pictures [B, *shape] to feature maps [B, F, h, w]; `learns` uses and keeps the batch's moments."""

        def norm(i: int, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            running = self.mean[i], self.variance[i]
            return F.batch_norm(x, *running, scale, shift, training=learns, eps=EPS)

        return self.blocks(self.params, x, norm)

    def forward(self, x: Tensor, learns: bool) -> Tensor:
        """Pictures [B, *shape] to features [B, D]."""
        return self.flat(self.maps(x, learns))


def moments_of(x: Tensor) -> Moments:
    """The mean and the variance of each channel, over a batch [B, F, H, W]."""
    mean = x.mean((0, 2, 3))
    return Moments(mean, (x - mean[:, None, None]).square().mean((0, 2, 3)))


def normalised_by(moments: Moments, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """γ (x - μ) / √(σ² + ε) + β, channel by channel (Ioffe and Szegedy 2015)."""
    factor = scale * torch.rsqrt(moments.variance + EPS)
    return x * factor[:, None, None] + (shift - moments.mean * factor)[:, None, None]


def _dense(inputs: int, outputs: int, gain: float, rng: Generator) -> list[Tensor]:
    """A linear layer's weight, of standard deviation gain / √inputs, and its bias, 0."""
    weight = torch.randn(outputs, inputs, generator=rng, device=rng.device) * (gain / math.sqrt(inputs))
    return [weight, torch.zeros(outputs, device=rng.device)]
