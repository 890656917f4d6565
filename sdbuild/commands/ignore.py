"""`ignore`: leave a task out."""

from doit.cmd_ignore import Ignore

from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, Ignore):  # type: ignore[misc]
    """`doit ignore`."""

    name = "ignore"
    doc_purpose = "skip tasks of a recipe until `forget`"
