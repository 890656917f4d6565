"""`clean`: take bundles away."""

from doit.cmd_clean import Clean

from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, Clean):  # type: ignore[misc]
    """`doit clean`."""

    name = "clean"
    doc_purpose = "remove bundles from the output folder; the cache keeps everything"
