"""`list`: the tasks."""

import functools
from typing import Any

from doit.cmd_list import List

from sdbuild.console.task_command import TaskCommand
from sdbuild.plan.errors import PlanError


class Command(TaskCommand, List):  # type: ignore[misc]
    """`doit list`."""

    name = "list"
    doc_purpose = "list the tasks; `--all` with those of single components, `--status` with `U` for up to date"

    @functools.wraps(List._execute)  # doit reads the option names off this method's signature
    def _execute(self, *args: Any, **options: Any) -> int:
        try:
            return int(super()._execute(*args, **options) or 0)
        except (KeyError, IndexError, ValueError) as error:
            if options.get("template") is None:
                raise
            raise PlanError(
                f"--template: {error} is nothing that a line has; there are {{name}} and {{doc}}"
            ) from error
