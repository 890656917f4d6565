"""What the environment may tell a test, and how the suite is spread over processes: shared artifacts stay together."""

import os
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side already; threads on top of that would only get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A developer's own Hub settings are not what a test is about, and the client reads them once, when it is imported.
# Where no test has put a Hub of its own, there is none, so that a request by mistake fails at once.
for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_", "TRANSFORMERS_"))]:
    del os.environ[_name]
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

TOGETHER = ("e2e", "pipeline")
"""Folders whose tests share bundles that take long to build."""


def group(nodeid: str) -> str:
    """Each shared folder is one group, and each other file."""
    file = nodeid.partition("::")[0]
    folder = file.split("/")[1]
    return folder if folder in TOGETHER else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long folders first."""
    items.sort(key=lambda item: group(item.nodeid) not in TOGETHER)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group to one process.

    By the names of tests, which every version of pytest has; xdist's own groups change an attribute of items that
    pytest 9 no longer reads, and every test went where there was room.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Grouped(config, log)
