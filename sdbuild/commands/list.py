"""`list`: the tasks."""

from doit.cmd_list import List

from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, List):  # type: ignore[misc]
    """`doit list`."""

    name = "list"
    doc_purpose = "list the tasks; `--all` with those of single components, `--status` with `U` for up to date"
