"""`list`: the tasks."""

from doit.cmd_list import List

from sdbuild.commands.session_command import SessionCommand


class ListCommand(SessionCommand, List):  # type: ignore[misc]
    """`doit list`."""

    name = "list"
