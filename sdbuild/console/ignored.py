"""The little that doit itself has to remember: which tasks `doit ignore` named."""

import json
import os
from pathlib import Path

Names = set[str]


class Ignored:
    """doit's database, reduced to what `doit ignore` says; what is built and what is not stands in the action cache.

    Nothing is read from or written to it by a build, so that a killed one loses nothing and two do not meet.
    The methods are those that doit asks of a backend.
    """

    desc = "the tasks that `doit ignore` named"

    def __init__(self, name: str, codec: object, *, module_name: str | None = None) -> None:
        self.name = name
        self._path = Path(name)
        self._before = self._read()
        self._names = set(self._before)

    def get(self, task_id: str, dependency: str) -> str | None:
        """Whether a task is ignored; nothing else is known."""
        return "1" if dependency == "ignore:" and task_id in self._names else None

    def set(self, task_id: str, dependency: str, value: object) -> None:
        """Note that a task is ignored; all else that doit would note is passed over."""
        if dependency == "ignore:":
            self._names.add(task_id)

    def in_(self, task_id: str) -> bool:
        """Whether anything is known of a task."""
        return task_id in self._names

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        self._names.discard(task_id)

    def remove_all(self) -> None:
        """Forget all tasks."""
        self._names.clear()

    def dump(self) -> None:
        """Write what has changed; a build changes nothing and writes nothing."""
        if self._names == self._before:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(sorted(self._names)) + "\n", encoding="utf-8")
        temporary.replace(self._path)
        self._before = set(self._names)

    def _read(self) -> Names:
        try:
            return set(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return set()
