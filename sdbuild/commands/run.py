"""`run`: build a recipe; the command when none is named."""

import functools
import sys
from typing import Any

from doit.cmd_run import Run

from sdbuild.console.task_command import TaskCommand
from sdbuild.console.waiting import for_a_collection


class Command(TaskCommand, Run):  # type: ignore[misc]
    """`doit run`, the command when none is named."""

    name = "run"
    doc_purpose = "build a recipe (the command when none is named)"
    doc_usage = "[recipe=NAME] [target=NAME] [source=PATH] [out=DIR] [verify=off] [TASK ...]"

    @functools.wraps(Run._execute)  # doit reads the option names off this method's signature
    def _execute(self, *args: Any, **options: Any) -> int:
        self.session.check_recipe()
        self.session.check_space(self.sel_tasks or self.session.plan.outputs)
        if not isinstance(options["outfile"], str):
            options["outfile"] = sys.stdout  # doit's default is the stream that there was when it was imported
        self.session.always = bool(options.get("always"))
        self.session.on_collection = for_a_collection
        try:
            status = super()._execute(*args, **options)
        finally:
            self.session.end()
        # doit's 2 means that a task could not be started, for instance because one that it needs has failed.
        return (self.session.exit_status or 1) if status else 0
