"""`clean`: take bundles away."""

import functools
from typing import Any

from doit.cmd_clean import Clean

from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, Clean):  # type: ignore[misc]
    """`doit clean`."""

    name = "clean"
    doc_purpose = "remove bundles from the output folder; the cache keeps everything"

    @functools.wraps(Clean._execute)  # doit reads the option names off this method's signature
    def _execute(self, *args: Any, **options: Any) -> int:
        super()._execute(*args, **options)
        return self.session.exit_status
