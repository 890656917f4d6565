"""`info`: all that is known of a task."""

from typing import Any

from doit.cmd_base import check_tasks_exist
from doit.cmd_info import Info

from sdbuild.console.tables import shown_bytes, shown_seconds
from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, Info):  # type: ignore[misc]
    """`doit info TASK`, with what the action cache knows."""

    name = "info"
    doc_purpose = "show a task's parameters, inputs, tools and key, its last run with its log, and why it would run"

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
