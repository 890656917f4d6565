"""doit's own commands, with our exit statuses, messages without tracebacks, and the action cache as their truth."""

from typing import Any

from sdbuild.console.plain_errors import PlainErrors
from sdbuild.console.variables import BUILD
from sdbuild.plan.session import Session


class TaskCommand(PlainErrors):
    """One of doit's commands, which has loaded the dodo file."""

    variables = BUILD

    task_list: list[Any]
    loader: Any
    outstream: Any
    sel_tasks: Any
    sel_default_tasks: bool
    dep_manager: Any

    @property
    def session(self) -> Session:
        """The session that the dodo file has made."""
        found = self.loader.namespace["SESSION"]
        assert isinstance(found, Session)
        return found
