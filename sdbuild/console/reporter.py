"""doit's console lines for a build, failures without tracebacks, and the summary at the end."""

import sys
from typing import Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from sdbuild.console.summary import summary
from sdbuild.plan.session import Session


class BuildReporter(ConsoleReporter):  # type: ignore[misc]
    """`.  task` for what runs and `-- task` for what is up to date, on standard output; all else on standard error."""

    desc = "console output with a summary of the build"
    session: Session

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(outstream, options)
        self._started = False

    def write(self, text: str) -> None:
        """Write a line at once, so that it stands in order with what goes to standard error."""
        self.outstream.write(text)
        self.outstream.flush()

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Called when everything is loaded; from now on there is something to sum up."""
        self._started = True

    def skip_uptodate(self, task: Any) -> None:
        """A group of tasks has no state of its own and is not shown."""
        if task.actions:
            super().skip_uptodate(task)

    def add_failure(self, task: Any, fail: Any) -> None:
        """Say what failed, with its log and what to do, as soon as it is known."""
        if isinstance(fail, UnmetDependency):
            message = f"{task.name} was not run, because this failed: {fail.message}"
        else:
            # A failure that nobody foresaw has a traceback; what a stage says of itself has none.
            message = "\n".join([fail.message, *fail.traceback]).strip()
        print(f"\n{message}\n", file=sys.stderr, flush=True)

    def complete_run(self) -> None:
        """Sum up, unless an interrupt is on its way through here."""
        if self._started and sys.exc_info()[0] is None:
            print(summary(self.session, self.session.store), file=sys.stderr)
        for message in self.runtime_errors:
            print(message, file=sys.stderr)


def reporter_for(session: Session) -> type[BuildReporter]:
    """A reporter class that knows the session: doit makes the reporter itself."""
    return type("SessionReporter", (BuildReporter,), {"session": session})
