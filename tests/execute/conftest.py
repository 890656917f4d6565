"""A store, a reporter that remembers, and actions whose stages live in `workload`."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdbuild.execute import ActionSpec
from sdbuild.execute import process as process_module
from sdbuild.store import ActionResult, Store, key_of

MakeSpec = Callable[..., ActionSpec]


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.memory = 0

    def started(self, action: str) -> None:
        self.events.append(("started", action))

    def progress(self, action: str, fraction: float | None, message: str, memory: int) -> None:
        self.events.append(("progress", action, message))
        self.memory = max(self.memory, memory)

    def waiting(self, action: str, reason: str) -> None:
        self.events.append(("waiting", action, reason))

    def finished(self, action: str, result: ActionResult) -> None:
        self.events.append(("finished", action))

    def failed(self, action: str, error: BaseException) -> None:
        self.events.append(("failed", action, str(error)))

    def kinds(self) -> list[str]:
        """The kinds of event without the progress."""
        return [event[0] for event in self.events if event[0] != "progress"]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _workload(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    process_module._stop.clear()
    sys.modules.pop("workload", None)


@pytest.fixture
def spec() -> MakeSpec:
    def make(
        function: str, *, name: str = "convert:unet", inputs: dict[str, str] | None = None, **params: Any
    ) -> ActionSpec:
        document = {"stage": function, "parameters": params, "inputs": inputs or {}}
        return ActionSpec(
            name, "convert", f"workload:{function}", params, inputs or {}, document, key_of(document), memory=1_000_000
        )

    return make
