"""What every test shares: one torch thread, since small tensors lose to thread traffic."""

import pytest
import torch

from metarl import ConfigError
from metarl.envs import make, painter

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def no_opengl() -> str:
    """Why robots cannot be drawn on this machine; nothing where they can."""
    try:
        painter(make("half-cheetah-vel/pearl2019"), 16, 16).close()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.fixture
def opengl(no_opengl: str) -> None:
    """Skips a test that draws robots where they cannot be drawn."""
    if no_opengl:
        pytest.skip(no_opengl)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))
