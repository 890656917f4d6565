"""One build for all tests; each gets a copy of its folder and cache."""

from pathlib import Path

import pytest

from tests.e2e.program import DESK, PHONE, Workspace


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The recipe `phone`, built from an empty cache without disturbance; not to be changed."""
    root = tmp_path_factory.mktemp("built")
    made = Workspace(root / "work", root / "cache")
    made.recipe(PHONE)
    ran = made("recipe=phone", "verify=off")
    assert ran.status == 0, ran.err
    return made


@pytest.fixture
def phone(built: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished build, with a second recipe beside it."""
    copy = built.clone(tmp_path)
    copy.recipe(DESK)
    return copy
