"""How the suite is spread over processes: what shares built artifacts stays together."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side already; threads on top of that would only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TOGETHER = ("e2e", "pipeline")
"""Folders whose tests share bundles that take long to build."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each shared folder to one process, and each other file to one; long folders first."""
    here = Path(__file__).parent

    def group(item: pytest.Item) -> str:
        folder, *rest = item.path.relative_to(here).parts
        return folder if folder in TOGETHER else "/".join((folder, *rest))

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) not in TOGETHER)
