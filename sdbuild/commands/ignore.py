"""`ignore`: leave a task out."""

from doit.cmd_ignore import Ignore

from sdbuild.commands.session_command import SessionCommand


class IgnoreCommand(SessionCommand, Ignore):  # type: ignore[misc]
    """`doit ignore`."""

    name = "ignore"
