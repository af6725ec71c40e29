"""What every test shares: one torch thread, since small tensors lose to thread traffic."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarl import ConfigError
from metarl.envs import make, painter

OMNIGLOT = Path(__file__).parents[2] / "shared" / "data" / "omniglot_28x28.npz"

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


@pytest.fixture(autouse=True, scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets that holds Omniglot where a copy is at hand; never the user's, or the network."""
    folder = tmp_path_factory.mktemp("data")
    if OMNIGLOT.exists():
        (folder / "omniglot").mkdir()
        (folder / "omniglot" / OMNIGLOT.name).symlink_to(OMNIGLOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARL_DATA", str(folder))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU, or Omniglot, where there is none."""
    for item in items:
        if "omniglot/" in item.name and not OMNIGLOT.exists():
            item.add_marker(pytest.mark.skip(reason=f"needs Omniglot in {OMNIGLOT}"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))
