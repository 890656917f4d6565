"""doit's own commands, with our exit statuses, messages without tracebacks, and the action cache as their truth."""

import functools
import sys
from typing import Any

from doit.cmd_base import check_tasks_exist, subtasks_iter, tasks_and_deps_iter
from doit.cmd_clean import Clean
from doit.cmd_forget import Forget
from doit.cmd_ignore import Ignore
from doit.cmd_info import Info
from doit.cmd_list import List
from doit.cmd_run import Run

from sdbuild.plan.polite import Polite
from sdbuild.plan.session import Session
from sdbuild.plan.tables import shown_bytes, shown_seconds


class SessionCommand(Polite):
    """One of doit's commands, which has loaded the dodo file."""

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


class BuildCommand(SessionCommand, Run):  # type: ignore[misc]
    """`doit run`, the command when none is named."""

    name = "run"
    doc_purpose = "build a recipe (the command when none is named)"
    doc_usage = "[recipe=NAME] [target=NAME] [source=PATH] [out=DIR] [verify=off] [TASK ...]"

    @functools.wraps(Run._execute)  # doit reads the option names off this method's signature
    def _execute(self, *args: Any, **options: Any) -> int:
        self.session.check_recipe()
        if not isinstance(options["outfile"], str):
            options["outfile"] = sys.stdout  # doit's default is the stream that there was when it was imported
        self.session.always = bool(options.get("always"))
        status = super()._execute(*args, **options)
        # doit's 2 means that a task could not be started, for instance because one that it needs has failed.
        return (self.session.exit_status or 1) if status else 0


class ListCommand(SessionCommand, List):  # type: ignore[misc]
    """`doit list`."""

    name = "list"


class CleanCommand(SessionCommand, Clean):  # type: ignore[misc]
    """`doit clean`."""

    name = "clean"
    doc_purpose = "remove bundles from the output folder; the cache keeps everything"


class IgnoreCommand(SessionCommand, Ignore):  # type: ignore[misc]
    """`doit ignore`."""

    name = "ignore"


class InfoCommand(SessionCommand, Info):  # type: ignore[misc]
    """`doit info TASK`, with what the action cache knows."""

    name = "info"

    def _execute(self, pos_args: list[str], hide_status: bool = False) -> int:
        check_tasks_exist({task.name: task for task in self.task_list}, pos_args)
        status = int(super()._execute(pos_args, hide_status=True))
        for action in self.session.plan.graph:
            if action.name == pos_args[0]:
                self._write_action(action, hide_status)
        return status

    def _write_action(self, action: Any, hide_status: bool) -> None:
        status = self.session.statuses[action]
        lines = [f"stage      : {action.stage.name}, version {action.stage.version}"]
        lines += [f"parameter  : {name} = {value}" for name, value in action.parameters.items()]
        lines += [f"input      : {role} ← {producer.name}" for role, producer in action.inputs.items()]
        lines += [f"file       : {file}" for file in action.files.values()]
        document = status.document or {}
        lines += [f"tool       : {name} {version}" for name, version in document.get("tools", {}).items()]
        if status.key is not None:
            lines.append(f"key        : {status.key}")
        if status.digest is not None:
            lines.append(f"artifact   : {status.digest}")
        if (result := status.result) is not None:
            lines.append(
                f"last run   : {shown_seconds(result.seconds)}, {shown_bytes(result.memory)}, {result.finished}"
            )
            lines.append(f"log        : {self.session.log_file(result)}")
        if not hide_status:
            lines.append(f"status     : {'up-to-date' if status.cached else 'run'}")
            lines += [f"why        : {reason}" for reason in status.reasons]
        self.outstream.write("\n" + "\n".join(lines) + "\n")


class ForgetCommand(SessionCommand, Forget):  # type: ignore[misc]
    """`doit forget`, for which a result is one in the action cache."""

    name = "forget"
    doc_purpose = "drop results from the cache, so that the tasks run again"

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> None:
        tasks = {task.name: task for task in self.task_list}
        selected = list(tasks) if forget_all else list(self.sel_tasks or ())
        check_tasks_exist(tasks, selected)
        if forget_disable_default and self.sel_default_tasks and not forget_all:
            self.outstream.write("no tasks specified, pass task name, --enable-default or --all\n")
            return
        if forget_sub:
            names = [task.name for task in tasks_and_deps_iter(tasks, selected)]
        else:
            names = [sub.name for name in selected for sub in (tasks[name], *subtasks_iter(tasks, tasks[name]))]
        wanted = [action for action in self.session.plan.graph if action.name in names]
        for action in self.session.forget(wanted):
            self.outstream.write(f"forgetting {action.name}\n")
        for name in names:
            self.dep_manager.remove(name)
        self.dep_manager.close()


DOIT_COMMANDS = (BuildCommand, ListCommand, CleanCommand, IgnoreCommand, InfoCommand, ForgetCommand)
