"""`forget`: drop results."""

from doit.cmd_base import check_tasks_exist, subtasks_iter, tasks_and_deps_iter
from doit.cmd_forget import Forget

from sdbuild.console.task_command import TaskCommand


class Command(TaskCommand, Forget):  # type: ignore[misc]
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
        wanted = [
            action for action in self.session.plan.graph if {action.name, action.name.partition("@")[0]} & {*names}
        ]
        for action in self.session.forget(wanted):
            self.outstream.write(f"forgetting {action.name}\n")
        for name in names:
            self.dep_manager.remove(name)
        self.dep_manager.close()
