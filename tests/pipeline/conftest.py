"""One studio for all tests of pictures: converting even tiny models takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.pipeline import families as recipes
from tests.pipeline.studio import Studio


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Every family's recipe; they share what their checkpoints share."""
    return Studio(tmp_path_factory.mktemp("families"), recipes.RECIPES, latent="{height: 8, width: 8}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models as small as these are computed faster by one thread than by several that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
