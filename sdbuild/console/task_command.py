"""doit's own commands, with our exit statuses, messages without tracebacks, and the action cache as their truth."""

from typing import Any

from sdbuild.console.plain_errors import PlainErrors
from sdbuild.console.variables import BUILD
from sdbuild.plan.errors import PlanError
from sdbuild.plan.session import Session

_BACKEND = "sdbuild"


class TaskCommand(PlainErrors):
    """One of doit's commands, which has loaded the dodo file."""

    variables = BUILD

    task_list: list[Any]
    loader: Any
    outstream: Any
    sel_tasks: Any
    sel_default_tasks: bool
    dep_manager: Any

    def execute(self, params: Any, args: list[str]) -> int:
        """Refuse the options of doit that mean nothing here, then load the dodo file and do the work."""
        if params["backend"] != _BACKEND and "backend" in params._non_default_keys:
            raise PlanError(f"--backend: what is built is known by the action cache alone ({_BACKEND}); leave it out")
        if int(params.get("num_process") or 0) < 0:
            raise PlanError(f"-n {params['num_process']}: a number of actions from 0, for one at a time, is needed")
        return int(super().execute(params, args) or 0)  # type: ignore[misc]

    @property
    def session(self) -> Session:
        """The session that the dodo file has made."""
        found = self.loader.namespace["SESSION"]
        assert isinstance(found, Session)
        return found
