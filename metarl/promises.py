"""What the public checks of families and agents share."""

import pickle
from collections.abc import Iterable
from random import getstate

import numpy as np
import torch
from torch import Tensor


def require(promise: object, message: str) -> None:
    """Raise an AssertionError with the message unless the promise holds, under `python -O`, too."""
    if not promise:
        raise AssertionError(message)


def same(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    """Whether all tensors are equal to the last bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def global_generators() -> bytes:
    """The states of the generators that belong to nobody; reading them is all that metarl does with them."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [state.numpy() for state in (torch.get_rng_state(), *cuda)]
    return pickle.dumps((getstate(), numpy_state, states))
